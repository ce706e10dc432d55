// The item itself, with a place for each token that can be pointed at.

// `on` takes: hover(index or -1), pick(index), step(key).
function stage(sample, on) {
  const makers = { vision: pictureStage, speech: soundStage, text: textStage };
  const made = makers[sample.domain](sample);
  const id = `mmx-${++parts}`;
  made.tokens.forEach((token, i) => {
    token.id = `${id}-${i}`;
    token.dataset.token = i;
    token.setAttribute("role", "option");
    token.setAttribute("aria-selected", "false");
    token.classList.toggle("mmx-relevant", Boolean(sample.relevant[i]));
  });
  const box = made.box;
  box.classList.add("mmx-tokens");
  const words = { vision: "Patches of the picture", speech: "Stretches of the sound", text: "Tokens of the text" };
  for (const [name, value] of Object.entries({ role: "listbox", tabindex: 0, "aria-label": words[sample.domain] }))
    box.setAttribute(name, value);
  const of = (event) => {
    const token = event.target.closest("[data-token]");
    return token ? Number(token.dataset.token) : -1;
  };
  box.addEventListener("pointerover", (event) => event.pointerType !== "touch" && on.hover(of(event)));
  box.addEventListener("pointerleave", () => on.hover(-1));
  box.addEventListener("click", (event) => on.pick(of(event)));
  box.addEventListener("keydown", (event) => {
    if (on.step(event.key)) event.preventDefault();
  });

  const mark = (index) => {
    box.querySelector(".mmx-here")?.classList.remove("mmx-here");
    box.querySelector("[aria-selected=true]")?.setAttribute("aria-selected", "false");
    box.removeAttribute("aria-activedescendant");
    if (index < 0) return;
    const token = made.tokens[index];
    token.classList.add("mmx-here");
    token.setAttribute("aria-selected", "true");
    box.setAttribute("aria-activedescendant", token.id);
  };
  return { root: made.root, tokens: made.tokens, paint: made.paint, mark, show: made.show ?? (() => {}), box };
}

const option = (name, ...children) => el("div", { class: "mmx-token", "aria-label": name }, ...children);
const percentOf = (part, whole) => `${(100 * part / whole).toFixed(4)}%`;

// Tokens that lie nowhere in the item, such as a class token, stand beside it.
function aside(sample) {
  return sample.tokens.map((name, i) => (sample.regions[i].length ? null :
    el("div", { class: "mmx-token mmx-chip" }, name)));
}

function pictureStage(sample) {
  const [height, width] = sample.size, chips = aside(sample);
  const tokens = sample.regions.map(([top, left, bottom, right], i) => {
    if (chips[i]) return chips[i];
    const token = option(sample.tokens[i]);
    token.style.inset = `${percentOf(top, height)} auto auto ${percentOf(left, width)}`;
    token.style.width = percentOf(Math.min(right, width) - left, width);
    token.style.height = percentOf(Math.min(bottom, height) - top, height);
    return token;
  });
  const answer = sample.answer.map(([top, left, bottom, right]) => {
    const frame = el("div", { class: "mmx-answer" });
    frame.style.inset = `${percentOf(top, height)} auto auto ${percentOf(left, width)}`;
    frame.style.width = percentOf(right - left, width);
    frame.style.height = percentOf(bottom - top, height);
    return frame;
  });
  const crisp = Math.max(height, width) < 160;
  const image = el("img", { src: sample.image, alt: "", class: crisp ? "mmx-crisp" : "" });
  const frame = el("div", { class: "mmx-frame" }, image, ...tokens.filter((_, i) => !chips[i]), ...answer);
  frame.style.aspectRatio = `${width} / ${height}`;
  frame.style.maxWidth = `min(100%, ${(27 * width / height).toFixed(1)}rem)`;
  const box = el("div", { class: "mmx-picture" }, ...chips.filter(Boolean), frame);
  const paint = (values, full) => tokens.forEach((token, i) => (chips[i] ? paintChip : paintVeil)(token, values[i], full));
  return { root: box, box, tokens, paint };
}

function paintVeil(token, value, full) {
  token.style.background = veil(strengthOf(value, full));
}

function paintChip(token, value, full) {
  const strength = strengthOf(value, full);
  token.style.background = css(colourOf(strength));
  token.style.color = inkOn(strength);
}

function soundStage(sample) {
  const [seconds, top] = sample.size, chips = aside(sample);
  const tokens = sample.regions.map(([start, stop], i) => {
    if (chips[i]) return chips[i];
    const token = option(sample.tokens[i], el("i", { class: "mmx-tint" }), el("b", { class: "mmx-rise" }));
    token.style.left = percentOf(start, seconds);
    token.style.width = percentOf(stop - start, seconds);
    return token;
  });
  const answer = sample.answer.map(([start, stop]) => {
    const frame = el("div", { class: "mmx-answer" });
    frame.style.left = percentOf(start, seconds);
    frame.style.width = percentOf(stop - start, seconds);
    return frame;
  });
  const head = el("div", { class: "mmx-playhead", hidden: true });
  const frame = el("div", { class: "mmx-sound" }, el("img", { src: sample.image, alt: "" }),
    ...tokens.filter((_, i) => !chips[i]), ...answer, head);
  const box = el("div", {}, ...chips.filter(Boolean), frame);
  const root = el("div", {}, box, axis(seconds), el("p", { class: "mmx-small" },
    `Frequencies up to ${(top / 1000).toFixed(top % 1000 ? 1 : 0)} kHz; the bars below show the same weights.`));
  const paint = (values, full) => tokens.forEach((token, i) => {
    if (chips[i]) return paintChip(token, values[i], full);
    const strength = strengthOf(values[i], full);
    token.firstChild.style.background = veil(strength);
    token.lastChild.style.height = `${(100 * Math.min(1, values[i] / full)).toFixed(1)}%`;
    token.lastChild.style.background = css(colourOf(0.35 + 0.65 * strength));
  });
  const show = (time) => {
    head.hidden = time == null;
    head.style.left = percentOf(time ?? 0, seconds);
  };
  return { root, box, tokens, paint, show };
}

function axis(seconds) {
  const step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 30].find((each) => seconds / each <= 8) ?? 60;
  const ticks = Array.from({ length: Math.floor(seconds / step + 1e-9) + 1 }, (_, i) => {
    const tick = el("span", {}, `${Number((i * step).toFixed(1))}${i ? "" : " s"}`);
    tick.style.left = percentOf(i * step, seconds);
    return tick;
  });
  return el("div", { class: "mmx-axis", "aria-hidden": "true" }, ...ticks);
}

function textStage(sample) {
  const tokens = sample.tokens.map((piece) => el("span", { class: "mmx-token" }, piece.trim() || "␣"));
  const spaced = tokens.flatMap((token, i) => (/^\s/.test(sample.tokens[i]) && i ? [" ", token] : [token]));
  const box = el("p", { class: "mmx-text", dir: "auto" }, ...spaced);
  const paint = (values, full) => tokens.forEach((token, i) => paintChip(token, values[i], full));
  return { root: box, box, tokens, paint };
}
