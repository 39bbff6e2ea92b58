// Mixtures of three on an equilateral triangle; colours come from Python (views/ternary.py), one byte a mixture.
import { s } from "./svg.js";

export const STEPS = 21;

/** Index of the mixture of i, j and STEPS - i - j steps. @param {number} i @param {number} j */
export const indexOf = (i, j) => i * (STEPS + 1) - (i * (i - 1)) / 2 + j;

/**
 * Where a mixture lies in a triangle of a side of 1: the first corner at the top, the second left, the third right.
 *
 * @param {number} a
 * @param {number} b
 * @param {number} c
 * @returns {[number, number]} x to the right, y downwards
 */
export const place = (a, b, c) => [a * 0.5 + c, (b + c) * (Math.sqrt(3) / 2)];

/** @param {Uint32Array} table little-endian RGBA @param {number} index */
const css = (table, index) => `rgb(${table[index] & 255},${(table[index] >> 8) & 255},${(table[index] >> 16) & 255})`;

/**
 * The legend: a triangle of all colours with its corners named, and marks to put on it.
 *
 * @param {Uint32Array} table colours by index
 * @param {string[]} names of the corners
 * @param {number} side in pixels
 */
export function triangle(table, names, side = 210) {
  const [left, top] = [62, 30];
  const tall = (side * Math.sqrt(3)) / 2;
  const at = (/** @type {number} */ a, /** @type {number} */ b, /** @type {number} */ c) => {
    const [x, y] = place(a, b, c);
    return [left + x * side, top + y * side];
  };
  const corners = [at(1, 0, 0), at(0, 1, 0), at(0, 0, 1)];
  const outline = corners.map((p) => p.join(",")).join(" ");
  const clip = `wb-t${Math.random().toString(36).slice(2, 8)}`;
  const r = (side / STEPS / Math.sqrt(3)) * 1.04; // hexagons of a triangular lattice leave no gap
  const cells = [];
  for (let i = 0; i <= STEPS; i++) {
    for (let j = 0; j <= STEPS - i; j++) {
      const [x, y] = at(i / STEPS, j / STEPS, (STEPS - i - j) / STEPS);
      const points = [0, 1, 2, 3, 4, 5].map((k) => {
        const angle = Math.PI / 6 + (k * Math.PI) / 3;
        return `${(x + r * Math.cos(angle)).toFixed(1)},${(y + r * Math.sin(angle)).toFixed(1)}`;
      });
      cells.push(s("polygon", { points: points.join(" "), fill: css(table, indexOf(i, j)) }));
    }
  }
  const marks = s("g");
  const text = (/** @type {number} */ x, /** @type {number} */ y, /** @type {string} */ anchor, /** @type {string} */ said) =>
    s("text", { x, y, "text-anchor": anchor, fill: "currentColor", "font-size": 13 }, said);
  const svg = s("svg", { width: side + 2 * left, height: tall + top + 26, viewBox: `0 0 ${side + 2 * left} ${tall + top + 26}`, role: "img", class: "wb-drawing" },
    s("clipPath", { id: clip }, s("polygon", { points: outline })),
    s("g", { "clip-path": `url(#${clip})` }, ...cells),
    s("polygon", { points: outline, fill: "none", stroke: "currentColor" }),
    text(corners[0][0], top - 10, "middle", `${names[0]} 100%`),
    text(corners[1][0], top + tall + 18, "middle", `${names[1]} 100%`),
    text(corners[2][0], top + tall + 18, "middle", `${names[2]} 100%`),
    marks);
  svg.setAttribute("aria-label", `Colour triangle: ${names.join(", ")}`);

  /**
   * @param {{ mixture: ArrayLike<number>, shape: "circle" | "square", hollow?: boolean, strong?: boolean, title?: string }[]} list
   * @param {string} label text alternative
   */
  function mark(list, label) {
    marks.replaceChildren(
      ...list.map(({ mixture, shape, hollow, strong, title }) => {
        const [x, y] = at(mixture[0], mixture[1], mixture[2]);
        const size = strong ? 6 : 3.4;
        const look = { fill: hollow ? "#fff" : "#111", "fill-opacity": hollow ? 0.55 : 0.85, stroke: hollow ? "#111" : "#fff", "stroke-width": strong ? 2.4 : 1 };
        const node = shape === "circle" ? s("circle", { cx: x, cy: y, r: size, ...look }) : s("rect", { x: x - size, y: y - size, width: 2 * size, height: 2 * size, ...look });
        if (title) node.append(s("title", {}, title));
        return node;
      }));
    svg.setAttribute("aria-label", label);
  }
  return { svg, mark };
}
