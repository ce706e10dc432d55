// Small parts of the page.
let parts = 0;

function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child != null));
  return made;
}

// A row of choices of which one is taken; `options` are [value, words].
function choice(words, options, value, take) {
  const name = `mmx-${++parts}`;
  const inputs = options.map(([each]) =>
    el("input", { type: "radio", name, value: each, checked: each === value, onchange: () => take(each) }));
  const labels = options.map(([, text], i) => el("label", {}, inputs[i], el("span", {}, text)));
  const root = el("fieldset", { class: "mmx-choice", hidden: options.length < 2 }, el("legend", {}, words),
    el("div", {}, ...labels));
  return { root, set: (next) => inputs.forEach((input) => { input.checked = input.value === next; }) };
}

function menu(words, options, value, take) {
  const select = el("select", { onchange: () => take(Number(select.value)) });
  const fill = (list, chosen) => {
    select.replaceChildren(...list.map(([each, text]) => el("option", { value: each, selected: each === chosen }, text)));
    root.hidden = list.length < 2;
  };
  const root = el("label", { class: "mmx-menu" }, el("span", {}, words), select);
  fill(options, value);
  return { root, fill };
}

const DOMAINS = { vision: "Vision", speech: "Speech", text: "Text" };

function legend() {
  const bar = el("div", { class: "mmx-ramp" }), ends = el("div", { class: "mmx-ends" });
  const root = el("figure", { class: "mmx-legend" }, el("figcaption", {}, ""), bar, ends);
  const paint = (full, words) => {
    const stops = Array.from({ length: 11 }, (_, i) => css(colourOf(i / 10)));
    bar.style.background = `linear-gradient(to right, ${stops.join(", ")})`;
    root.firstChild.textContent = words;
    const marks = [0, 0.5, 1].map((s) => el("span", {}, percent(weightAt(s, full))));
    ends.replaceChildren(...marks);
  };
  return { root, paint };
}
