// Packed weights: the largest weight of each row in 16 bits, then a byte for each weight in 255ths of it.
class Weights {
  constructor(shape, bytes) {
    [this.heads, this.rows, this.columns] = shape;
    const count = this.heads * this.rows;
    this.largest = Float32Array.from({ length: count }, (_, i) => (bytes[2 * i] + 256 * bytes[2 * i + 1]) / 65535 / 255);
    this.levels = bytes.subarray(2 * count);
    this.averages = new Map();
  }

  // Heads to go through: one, or all for their mean (-1).
  chosen(head) {
    return head >= 0 ? [head] : Array.from({ length: this.heads }, (_, i) => i);
  }

  // What query q gives to each key; q < 0: the mean over all queries.
  row(head, q) {
    if (q < 0) return this.average(head);
    const out = new Float32Array(this.columns), heads = this.chosen(head);
    for (const h of heads) {
      const at = h * this.rows + q, scale = this.largest[at] / heads.length;
      for (let k = 0; k < this.columns; k++) out[k] += scale * this.levels[at * this.columns + k];
    }
    return out;
  }

  // What each query gives to key k.
  column(head, k) {
    const out = new Float32Array(this.rows), heads = this.chosen(head);
    for (const h of heads)
      for (let q = 0; q < this.rows; q++) {
        const at = h * this.rows + q;
        out[q] += this.largest[at] / heads.length * this.levels[at * this.columns + k];
      }
    return out;
  }

  average(head) {
    if (!this.averages.has(head)) {
      const out = new Float32Array(this.columns);
      for (let q = 0; q < this.rows; q++) {
        const row = this.row(head, q);
        for (let k = 0; k < this.columns; k++) out[k] += row[k] / this.rows;
      }
      this.averages.set(head, out);
    }
    return this.averages.get(head);
  }
}

async function unpacked(layer) {
  const packed = Uint8Array.from(atob(layer.weights), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Weights(layer.shape, new Uint8Array(await new Response(stream).arrayBuffer()));
}

// The weights of all layers of a sample, unpacked once.
function opened(sample) {
  sample.opened ??= Promise.all(sample.layers.map(unpacked));
  return sample.opened;
}

const largest = (values) => values.reduce((a, b) => Math.max(a, b), 0);
const total = (values) => values.reduce((a, b) => a + b, 0);
const amongRelevant = (sample, values) => total(values.filter((_, i) => sample.relevant[i]));

function strongest(values, most) {
  const order = Array.from(values.keys()).sort((a, b) => values[b] - values[a] || a - b);
  return order.slice(0, most).filter((i) => values[i] > 0.0005);
}
