// All heads at a glance: a row for each layer, a small map for each head, to be chosen among.
function headGrid(sample, take) {
  const rows = sample.layers.map((layer, l) => {
    const cells = Array.from({ length: layer.shape[0] + 1 }, (_, i) => cellOf(sample, layer, i - 1, () => take(l, i - 1)));
    const row = el("div", { class: `mmx-row${cells.length > 9 ? " mmx-many" : cells.length > 5 ? "" : " mmx-few"}` }, ...cells.map((cell) => cell.root));
    return { cells, row, root: el("div", { class: "mmx-layer" }, el("h4", { title: layer.name }, layer.title), row) };
  });
  const root = el("div", { class: `mmx-heads mmx-of-${sample.domain}`, role: "radiogroup", "aria-label": "Layer and head" },
    ...rows.map((row) => row.root));

  let order = "number", at = [-1, -1];
  // Scrolls the list alone, and never the page.
  const toRow = (row) => {
    const [box, inner] = [root, row].map((each) => each.getBoundingClientRect());
    if (inner.top < box.top) root.scrollTop += inner.top - box.top;
    else if (inner.bottom > box.bottom) root.scrollTop += inner.bottom - box.bottom;
  };
  const shown = (l) => {
    const [mean, ...heads] = rows[l].cells;
    const importance = sample.layers[l].importance;
    if (order === "importance" && importance) heads.sort((a, b) => importance[b.head] - importance[a.head]);
    return [mean, ...heads];
  };
  const arrange = (next) => {
    order = next;
    rows.forEach((row, l) => row.row.replaceChildren(...shown(l).map((cell) => cell.root)));
  };
  root.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!step) return;
    event.preventDefault();
    const l = Math.min(rows.length - 1, Math.max(0, at[0] + step[0]));
    const place = shown(at[0]).findIndex((cell) => cell.head === at[1]) + step[1];
    const cells = shown(l), cell = cells[Math.min(cells.length - 1, Math.max(0, place))];
    take(l, cell.head);
    cell.root.focus();
  });
  const mark = (l, head) => {
    if (l !== at[0]) toRow(rows[l].root);
    at = [l, head];
    rows.forEach((row, i) => row.cells.forEach((cell) => {
      const here = i === l && cell.head === head;
      cell.root.setAttribute("aria-checked", here);
      cell.root.tabIndex = here ? 0 : -1;
    }));
  };
  const paint = (l, values, full) => rows[l].cells.forEach((cell, i) => cell.paint(values[i], full));
  return { root, mark, paint, arrange };
}

function cellOf(sample, layer, head, take) {
  const mean = head < 0, name = mean ? "mean of the heads" : `head ${head + 1}`;
  const most = Math.max(...sample.layers.flatMap((each) => each.importance ?? [0]));
  const weight = !mean && layer.importance && most > 0 ? Math.max(0, layer.importance[head]) / most : null;
  const mass = layer.mass && (mean ? total(layer.mass) / layer.mass.length : layer.mass[head]);
  const words = [`${layer.title}, ${name}`, mass == null ? null : `${percent(mass)} on the relevant tokens`,
    weight == null ? null : `importance ${percent(weight)} of the largest`].filter(Boolean).join(", ");
  const canvas = el("canvas", { "aria-hidden": "true" }), bar = el("i", {});
  bar.style.width = `${100 * (weight ?? 0)}%`;
  const root = el("button", { type: "button", role: "radio", class: "mmx-cell", "aria-label": words, title: words, onclick: take },
    canvas, el("span", {}, el("b", {}, mean ? "all" : String(head + 1)), mass == null ? null : el("em", {}, percent(mass))),
    el("u", { class: weight == null ? "mmx-none" : "" }, bar));
  return { root, head, paint: (values, full) => smallMap(canvas, sample, values, full) };
}

function smallMap(canvas, sample, values, full) {
  const [high, wide] = sample.domain === "vision" ? sample.size : [1, sample.size[0] || values.length];
  const width = sample.domain === "vision" ? 64 : Math.max(96, values.length), height = sample.domain === "vision" ? 64 * high / wide : 1;
  canvas.width = width;
  canvas.height = height;
  const pen = canvas.getContext("2d");
  pen.fillStyle = css(colourOf(0));
  pen.fillRect(0, 0, width, height);
  values.forEach((value, i) => {
    const region = sample.regions[i];
    if (sample.domain !== "text" && !region.length) return;
    pen.fillStyle = css(colourOf(strengthOf(value, full)));
    if (sample.domain === "vision") {
      const [top, left, bottom, right] = region.map((x) => x * width / wide);
      pen.fillRect(Math.floor(left), Math.floor(top), Math.ceil(right) - Math.floor(left), Math.ceil(bottom) - Math.floor(top));
    } else {
      const [start, stop] = (sample.domain === "text" ? [i, i + 1] : region).map((x) => x * width / wide);
      pen.fillRect(Math.floor(start), 0, Math.ceil(stop) - Math.floor(start), 1);
    }
  });
}
