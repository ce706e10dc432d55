// What is seen, in words.
function percent(value) {
  const shown = 100 * value;
  if (shown > 0 && shown < 0.1) return "< 0.1\u00a0%";
  return `${shown < 9.95 && shown > 0 ? shown.toFixed(1).replace(/\.0$/, "") : Math.round(shown)}\u00a0%`;
}

// Set apart, so that a piece of a script that runs from right to left turns nothing around it.
const called = (sample, i) => (sample.domain === "text" ? `“\u2068${sample.tokens[i].trim() || "␣"}\u2069”` : sample.tokens[i].replaceAll(" ", "\u00a0"));

function listed(sample, values, most) {
  return strongest(values, most).map((i) => `${called(sample, i)} (${percent(values[i])})`).join(", ");
}

function onRelevant(sample, values) {
  if (!sample.relevant.some(Boolean)) return "";
  const share = total(sample.relevant.map(Number)) / sample.relevant.length;
  return `${percent(amongRelevant(sample, values))} on the relevant tokens, which are ${percent(share)} of all`;
}

const who = (layer, head) => (head < 0 ? `mean of the heads of ${layer.title}` : `head ${head + 1} of ${layer.title}`);

// `now`: sample, layer, head, view, way, token (-1: none), values.
function sentence(now) {
  const { sample, layer, head, token, values } = now;
  const relevant = onRelevant(sample, values);
  if (now.view !== "weights") {
    const map = sample.maps.find((each) => each.name === now.view);
    const name = now.view === "rollout" ? "rollout through all layers" : `relevance for ${map.of || "the answer"}`;
    if (token >= 0) return `${name}: ${called(sample, token)} has ${percent(values[token])} of all.`;
    return `${name}: ${relevant || `most on ${listed(sample, values, 3)}`}.`;
  }
  const head_ = who(layer, head);
  if (token < 0) {
    const by = layer.queries.length ? "" : ", mean over all tokens";
    return `${head_}${by}: ${relevant || `most on ${listed(sample, values, 3)}`}.`;
  }
  const name = called(sample, token);
  if (layer.queries.length)
    return `${head_}: the ${layer.queries[now.query]} gives ${name} ${percent(now.weights.row(head, now.query)[token])}.`;
  if (now.way === "to")
    return `${head_}: ${name} is looked at most by ${listed(sample, values, 3) || "nobody"}; ` +
      `on average it gets ${percent(total(values) / values.length)}.`;
  return `${head_}: ${name} looks most at ${listed(sample, values, 3) || "nothing"}${relevant && `; ${relevant}`}.`;
}

// The same for the list of the strongest.
function ranking(sample, values, full) {
  return strongest(values, 5).map((i) => {
    const bar = el("i", {});
    bar.style.width = `${(100 * Math.min(1, values[i] / full)).toFixed(1)}%`;
    bar.style.background = css(colourOf(0.3 + 0.7 * strengthOf(values[i], full)));
    return el("li", {}, el("span", { class: sample.relevant[i] ? "mmx-relevant" : "" }, called(sample, i)),
      el("b", {}, bar), el("em", {}, percent(values[i])));
  });
}
