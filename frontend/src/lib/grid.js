// A heat map of named rows and columns on a canvas: one cell chosen, moved by arrow keys, read out in words.
import { paint } from "./colour.js";
import { h } from "./dom.js";

/**
 * @param {{ label: string, rows: number, cols: number, cell?: [number, number], height?: number,
 *           words: (row: number, col: number) => string, choose: (row: number, col: number) => void,
 *           rowTitle?: string, colTitle?: string, rowName?: (row: number) => string, colName?: (col: number) => string }} what
 *   `words` says what a cell is and holds (tooltip and screen reader)
 */
export function grid({ label, rows, cols, cell, words, choose, rowTitle = "", colTitle = "", rowName = String, colName = String }) {
  const [w, t] = cell ?? [Math.max(6, Math.min(28, Math.floor(560 / cols))), Math.max(6, Math.min(20, Math.floor(320 / rows)))];
  const small = document.createElement("canvas");
  small.width = cols;
  small.height = rows;
  const canvas = h("canvas", { width: cols * w, height: rows * t, class: "wb-map", tabindex: "0", role: "application" });
  const said = h("p", { class: "wb-said", "aria-live": "polite" });
  canvas.setAttribute("aria-label", `${label}. Arrow keys move.`);
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  let at = { row: 0, col: 0 };

  /** @param {ArrayLike<number>} bytes @param {Uint32Array} table @param {number} [start] */
  function draw(bytes, table, start = 0) {
    small.getContext("2d")?.putImageData(paint(bytes, rows, cols, table, start), 0, 0);
    frame();
  }
  function frame() {
    context.imageSmoothingEnabled = false;
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.drawImage(small, 0, 0, canvas.width, canvas.height);
    context.lineWidth = 3;
    context.strokeStyle = "#fff";
    context.strokeRect(at.col * w + 0.5, at.row * t + 0.5, w - 1, t - 1);
    context.lineWidth = 1.5;
    context.strokeStyle = "#000";
    context.strokeRect(at.col * w + 0.5, at.row * t + 0.5, w - 1, t - 1);
  }
  /** @param {number} row @param {number} col */
  function move(row, col) {
    at = { row: Math.max(0, Math.min(rows - 1, row)), col: Math.max(0, Math.min(cols - 1, col)) };
    said.textContent = words(at.row, at.col);
    frame();
  }
  const place = (/** @type {MouseEvent} */ event) => {
    const box = canvas.getBoundingClientRect();
    return [Math.floor(((event.clientY - box.top) / box.height) * rows), Math.floor(((event.clientX - box.left) / box.width) * cols)];
  };
  canvas.addEventListener("click", (event) => {
    const [row, col] = place(event);
    move(row, col);
    choose(at.row, at.col);
  });
  canvas.addEventListener("mousemove", (event) => {
    const [row, col] = place(event);
    if (row >= 0 && row < rows && col >= 0 && col < cols) canvas.title = words(row, col);
  });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], Home: [0, -cols], End: [0, cols] }[event.key];
    if (!step) return;
    event.preventDefault();
    move(at.row + step[0], at.col + step[1]);
    choose(at.row, at.col);
  });
  const whole = h("figure", { class: "wb-figure" },
    h("div", { class: "wb-axes" },
      h("span", { class: "wb-axis-y" }, `${rowTitle} ${rowName(0)} to ${rowName(rows - 1)} (downwards)`), canvas,
      h("span", { class: "wb-axis-x" }, cols > 1 ? `${colTitle} ${colName(0)} to ${colName(cols - 1)} (rightwards)` : colName(0))), said);
  return { whole, canvas, said, draw, move, frame };
}
