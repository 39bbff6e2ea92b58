// A box on the frames, in whole pixels: how much of each token lies in it, and four numbers to type it with.
import { h } from "./dom.js";

/**
 * Shares of tokens inside a box, and each token's size in cells. A token of several cells has their mean.
 *
 * @param {ArrayLike<number>} cells [frame, row, col] -> token or -1
 * @param {number} tokens
 * @param {number} rows
 * @param {number} cols
 * @param {number[]} box x0, y0, x1, y1 as shares of the frame, in every frame
 */
export function inBox(cells, tokens, rows, cols, [x0, y0, x1, y1]) {
  const share = new Float32Array(tokens);
  const size = new Float32Array(tokens);
  const overlap = (/** @type {number} */ i, /** @type {number} */ n, /** @type {number} */ from, /** @type {number} */ to) =>
    Math.max(0, Math.min(to, (i + 1) / n) - Math.max(from, i / n)) * n;
  for (let i = 0; i < cells.length; i++) {
    const token = cells[i];
    if (token < 0) continue;
    const col = i % cols;
    const row = Math.floor(i / cols) % rows;
    share[token] += overlap(col, cols, x0, x1) * overlap(row, rows, y0, y1);
    size[token] += 1;
  }
  for (let token = 0; token < tokens; token++) if (size[token]) share[token] /= size[token];
  return { share, size };
}

/**
 * What a map gives to the box, of what it gives to all visible tokens; and what even attention would.
 *
 * @param {(token: number) => number} value NaN where not visible
 * @param {{ share: ArrayLike<number>, size: ArrayLike<number> }} within
 */
export function massIn(value, { share, size }) {
  let [mass, all, area, whole] = [0, 0, 0, 0];
  for (let token = 0; token < share.length; token++) {
    const v = value(token);
    if (Number.isNaN(v)) continue;
    mass += v * share[token];
    all += v;
    area += size[token] * share[token];
    whole += size[token];
  }
  return { mass: all > 0 ? mass / all : NaN, chance: whole ? area / whole : NaN };
}

/**
 * A drawn box in whole pixels, at least one wide and high.
 *
 * @param {number[]} shares
 * @param {number[]} size width, height of a frame in pixels
 */
export function wholePixels([x0, y0, x1, y1], [width, height]) {
  const low = (/** @type {number} */ v, /** @type {number} */ n) => Math.max(0, Math.min(n - 1, Math.floor(v * n + 1e-6)));
  const [left, top] = [low(x0, width), low(y0, height)];
  return [left, top, Math.max(left + 1, Math.min(width, Math.ceil(x1 * width - 1e-6))), Math.max(top + 1, Math.min(height, Math.ceil(y1 * height - 1e-6)))];
}

/**
 * Four number inputs.
 *
 * @param {number[]} size width, height of a frame in pixels
 * @param {(box: number[]) => void} change called with a whole, valid box
 */
export function boxInputs([width, height], change) {
  const ends = [width, height, width, height];
  const inputs = ["left", "top", "right", "bottom"].map((name, i) => {
    const box = h("input", { type: "number", min: 0, max: ends[i], step: 1, placeholder: "–", onchange: () => read() });
    return { box, whole: h("label", { class: "wb-control" }, h("span", {}, name), box) };
  });
  const wrong = h("p", { class: "wb-said", role: "status" });
  function read() {
    const typed = inputs.map(({ box }) => box.valueAsNumber);
    if (typed.some(Number.isNaN)) return;
    const [x0, y0, x1, y1] = typed;
    const good = typed.every(Number.isInteger) && x0 >= 0 && y0 >= 0 && x0 < x1 && y0 < y1 && x1 <= width && y1 <= height;
    wrong.textContent = good ? "" : `A box lies inside the frame of ${width} × ${height} pixels, left before right and top above bottom, in whole pixels.`;
    if (good) change(typed);
  }
  const set = (/** @type {number[] | null} */ box) => {
    inputs.forEach((input, i) => (input.box.value = box ? String(box[i]) : ""));
    wrong.textContent = "";
  };
  return { whole: [...inputs.map((input) => input.whole), wrong], set };
}
