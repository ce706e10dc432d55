// The explorer: choose a sample, a layer, a head and a token, and see.
class Explorer {
  constructor(root) {
    this.root = root;
    this.samples = JSON.parse(root.querySelector(".mmx-data").textContent);
    this.view = "weights";
    this.way = "from";
    this.order = "number";
    this.hovered = this.picked = -1;
    this.query = 0;
    this.legend = legend();
    this.live = el("p", { class: "mmx-live", "aria-live": "polite" });
    this.body = el("div", { class: "mmx-body" });
    const domains = Object.keys(DOMAINS).filter((domain) => this.samples.some((each) => each.domain === domain));
    this.domain = choice("Domain", domains.map((each) => [each, DOMAINS[each]]), domains[0], (each) => this.enter(each));
    this.models = menu("Model", [], 0, (i) => this.enter(this.sample.domain, this.modelNames()[i]));
    this.menu = menu("Sample", [], 0, (i) => this.open(this.samples[i]));
    root.append(el("div", { class: "mmx-top" }, this.domain.root, this.models.root, this.menu.root), this.body);
    DARK.addEventListener("change", () => this.draw());
    this.enter(domains[0]);
  }

  modelNames(domain = this.sample.domain) {
    return [...new Set(this.samples.filter((each) => each.domain === domain).map((each) => each.model))];
  }

  enter(domain, model) {
    const names = this.modelNames(domain), name = model ?? names[0];
    const mine = this.samples.filter((each) => each.domain === domain && each.model === name);
    this.models.fill(names.map((each, i) => [i, each || "unnamed"]), names.indexOf(name));
    this.menu.fill(mine.map((each) => [this.samples.indexOf(each), sampleWords(each)]), this.samples.indexOf(mine[0]));
    this.open(mine[0]);
  }

  async open(sample) {
    this.sound?.stop();
    this.sample = sample;
    this.hovered = this.picked = -1;
    this.query = 0;
    if (this.view !== "weights" && !sample.maps.some((map) => map.name === this.view)) this.view = "weights";
    const weights = await opened(sample);
    if (this.sample !== sample) return; // another was chosen meanwhile
    this.weights = weights;
    // of the layers in which tokens look at tokens, the last is nearest to the answer
    this.layer = Math.max(0, sample.layers.findLastIndex((layer) => !layer.queries.length));
    this.head = -1;
    this.build();
    this.draw();
  }

  build() {
    const sample = this.sample;
    this.stage = stage(sample, {
      hover: (i) => { this.hovered = i; this.draw(); },
      pick: (i) => { this.picked = i === this.picked ? -1 : i; this.draw(); },
      step: (key) => this.step(key),
    });
    this.grid = headGrid(sample, (layer, head) => this.choose(layer, head));
    this.sound = sample.sound ? player(sample, this.stage.show) : null;
    const views = [["weights", "Weights"], ["rollout", "Rollout"], ["relevance", "Relevance"]];
    const there = views.filter(([each]) => each === "weights" || sample.maps.some((map) => map.name === each));
    this.views = choice("Show", there, this.view, (each) => { this.view = each; this.draw(); });
    this.ways = choice("For a token", [["from", "where it looks"], ["to", "who looks at it"]], this.way,
      (each) => { this.way = each; this.draw(); });
    const ordered = sample.layers.some((layer) => layer.importance);
    const orders = choice("Heads by", [["number", "number"], ...(ordered ? [["importance", "importance"]] : [])], this.order,
      (each) => { this.order = each; this.grid.arrange(each); });
    this.grid.arrange(this.order);
    this.queries = menu("Query", [], 0, (i) => { this.query = i; this.draw(); });
    this.strongest = el("ol", { class: "mmx-strongest" });
    this.strongestTitle = el("h4", {});
    const keys = el("p", { class: "mmx-small mmx-keys" },
      "Point at a token, or tab to it and use the arrow keys; a click or Enter holds it, Escape lets go.");
    const main = el("div", { class: "mmx-main" }, this.heading(), el("div", { class: "mmx-tools" }, this.views.root, this.ways.root,
      this.queries.root), el("div", { class: `mmx-show mmx-of-${sample.domain}` },
      el("div", { class: "mmx-stage" }, this.stage.root, this.sound?.root), this.live,
      el("div", { class: "mmx-strong" }, this.strongestTitle, this.strongest),
      el("div", { class: "mmx-key" }, this.legend.root, keys)), ...sample.notes.map((note) => el("p", { class: "mmx-small" }, note)));
    const side = el("div", { class: "mmx-side" }, el("div", { class: "mmx-tools" }, el("h3", {}, "All heads"), orders.root),
      this.grid.root, el("p", { class: "mmx-small" }, this.gridWords(ordered)));
    this.body.replaceChildren(main, side);
  }

  heading() {
    const { title, true_label: right, predicted_label: said, probability } = this.sample;
    const parts_ = [];
    if (right) parts_.push(el("span", {}, "answer ", el("b", { dir: "auto" }, right)));
    if (said) {
      const sure = probability == null ? "" : ` (${percent(probability)})`;
      parts_.push(el("span", {}, right ? "the model says " : "the model gives ", el("b", { dir: "auto" }, said), sure));
    }
    if (right && said)
      parts_.push(el("span", { class: right === said ? "mmx-right" : "mmx-wrong" }, right === said ? "✓ right" : "✗ wrong"));
    return el("div", { class: "mmx-heading" }, el("h3", {}, title), ...parts_);
  }

  gridWords(ordered) {
    const words = ["Each small map shows one head, for the token that is held or for the mean over all."];
    if (this.sample.relevant.some(Boolean)) words.push("Numbers: mean attention on the relevant tokens.");
    if (ordered) words.push("Bars: how much the answer depends on the head.");
    return words.join(" ");
  }

  choose(layer, head) {
    [this.layer, this.head, this.view] = [layer, head, "weights"];
    this.query = Math.min(this.query, Math.max(0, this.sample.layers[layer].queries.length - 1));
    this.views.set("weights");
    this.draw();
  }

  // Moves the held token; whether the key was one of ours.
  step(key) {
    const count = this.sample.tokens.length;
    if (key === "Escape") this.picked = -1;
    else if (key === "Home") this.picked = 0;
    else if (key === "End") this.picked = count - 1;
    else if (key === "ArrowLeft") this.picked = Math.max(0, this.picked - 1);
    else if (key === "ArrowRight") this.picked = Math.min(count - 1, this.picked + 1);
    else if (key === "ArrowUp" || key === "ArrowDown") this.picked = this.beside(key === "ArrowDown" ? 1 : -1);
    else return key === "Enter" || key === " ";
    this.hovered = -1;
    this.draw();
    this.stage.tokens[this.picked]?.scrollIntoView({ block: "nearest" });
    return true;
  }

  // The nearest token in the line above or below.
  beside(way) {
    if (this.picked < 0) return 0;
    const boxes = this.stage.tokens.map((token) => token.getBoundingClientRect()), own = boxes[this.picked];
    const middle = (box) => [(box.left + box.right) / 2, (box.top + box.bottom) / 2];
    const [x, y] = middle(own);
    let best = this.picked, least = Infinity;
    boxes.forEach((box, i) => {
      const [left, top] = middle(box), down = way * (top - y);
      const far = 4 * down + Math.abs(left - x);
      if (down > own.height / 2 && far < least) [best, least] = [i, far];
    });
    return best;
  }

  // What one head shows of the token that is looked at.
  values(layer, head, token) {
    const weights = this.weights[layer];
    if (this.sample.layers[layer].queries.length) return weights.row(head, Math.min(this.query, weights.rows - 1));
    if (token >= 0 && this.way === "to") return weights.column(head, token);
    return weights.row(head, token);
  }

  draw() {
    if (!this.stage) return;
    const { sample, layer, head, view } = this, token = this.hovered >= 0 ? this.hovered : this.picked;
    sample.layers.forEach((each, l) => {
      const rows = Array.from({ length: each.shape[0] + 1 }, (_, i) => this.values(l, i - 1, token));
      const full = fullOf(rows);
      this.grid.paint(l, rows, full);
      if (l === layer) [this.current, this.full] = [rows[head + 1], full];
    });
    if (view !== "weights") {
      this.current = sample.maps.find((map) => map.name === view).values;
      this.full = fullOf([this.current]);
    }
    this.grid.mark(layer, head);
    this.stage.paint(this.current, this.full);
    this.stage.mark(token);
    this.sound?.choose(token);
    const queries = sample.layers[layer].queries;
    this.ways.root.hidden = view !== "weights" || queries.length > 0;
    this.queries.fill(view === "weights" ? queries.map((name, i) => [i, name]) : [], this.query);
    const received = view === "weights" && this.way === "to" && token >= 0 && !queries.length;
    this.legend.paint(this.full, view !== "weights" ? "share of all" : received ? "share of each token’s attention" : "share of attention");
    const said = sentence({ sample, layer: sample.layers[layer], head, view, way: this.way, token, values: Array.from(this.current),
      query: this.query, weights: this.weights[layer] });
    this.live.textContent = said[0].toUpperCase() + said.slice(1);
    this.strongestTitle.textContent = received ? "Looks at it most" : "Strongest";
    this.strongest.replaceChildren(...ranking(sample, this.current, this.full));
  }
}

function sampleWords(sample) {
  const { title, true_label: right, predicted_label: said } = sample;
  if (!right && !said) return title;
  return right && said ? `${title}: ${right}, ${right === said ? "right" : `taken for ${said}`}` : `${title}: ${right || said}`;
}

for (const root of document.querySelectorAll(".mmx")) new Explorer(root);
