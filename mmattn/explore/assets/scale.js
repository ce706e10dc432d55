// One scale for all weights, even in lightness, so that it reads the same for every kind of colour vision.
const DARK = window.matchMedia("(prefers-color-scheme: dark)");
const STOPS = {
  light: { from: 0.975, to: 0.36, hues: [[0.01, 90], [0.09, 82], [0.15, 55], [0.17, 30], [0.13, 5]] },
  dark: { from: 0.27, to: 0.92, hues: [[0.015, 265], [0.11, 330], [0.17, 375], [0.16, 410], [0.12, 455]] },
};

function rgbOf(l, a, b) {
  const [x, y, z] = [
    l + 0.3963377774 * a + 0.2158037573 * b,
    l - 0.1055613458 * a - 0.0638541728 * b,
    l - 0.0894841775 * a - 1.291485548 * b,
  ].map((v) => v ** 3);
  return [
    4.0767416621 * x - 3.3077115913 * y + 0.2309699292 * z,
    -1.2684380046 * x + 2.6097574011 * y - 0.3413193965 * z,
    -0.0041960863 * x - 0.7034186147 * y + 1.707614701 * z,
  ].map((v) => {
    const c = Math.min(1, Math.max(0, v));
    return Math.round(255 * (c <= 0.0031308 ? 12.92 * c : 1.055 * c ** (1 / 2.4) - 0.055));
  });
}

function scaleOf({ from, to, hues }) {
  const places = hues.map(([c, h]) => [c * Math.cos(h * Math.PI / 180), c * Math.sin(h * Math.PI / 180)]);
  return Array.from({ length: 256 }, (_, i) => {
    const at = i / 255 * (hues.length - 1), k = Math.min(hues.length - 2, Math.floor(at)), part = at - k;
    const [a, b] = [0, 1].map((n) => places[k][n] * (1 - part) + places[k + 1][n] * part);
    return rgbOf(from + (to - from) * i / 255, a, b);
  });
}

const SCALES = { light: scaleOf(STOPS.light), dark: scaleOf(STOPS.dark) };
const LIFT = 0.7; // small weights are lifted, so that they can be seen

const strengthOf = (weight, full) => Math.min(1, Math.max(0, weight) / full) ** LIFT;
const weightAt = (strength, full) => full * strength ** (1 / LIFT);
const colourOf = (strength) => (DARK.matches ? SCALES.dark : SCALES.light)[Math.round(255 * strength)];
const css = (rgb, alpha = 1) => `rgb(${rgb.join(" ")} / ${alpha.toFixed(3)})`;

// Ink that can be read on a colour of the scale.
function inkOn(strength) {
  const { from, to } = DARK.matches ? STOPS.dark : STOPS.light;
  return from + (to - from) * strength > 0.64 ? "#16181d" : "#fff";
}

// Over a picture weak weights let it through.
const veil = (strength) => css(colourOf(strength), strength < 0.03 ? 0 : 0.3 + 0.65 * strength);

// Weights are drawn in full at the largest, or at six equal shares where that is more, so that attention without a
// preference looks pale.
const fullOf = (rows) => Math.min(1, Math.max(6 / Math.max(6, rows[0].length), ...rows.map(largest)));
