// A film strip: the frames of a clip side by side, and below each its patches as a small heat map on one scale.
import { paint } from "./colour.js";
import { h } from "./dom.js";

const GAP = 4;

/**
 * @param {{ label: string, frames: number, rows: number, cols: number, names: string[], picture?: string | null,
 *           words: (frame: number, patch: number) => string, choose?: (frame: number, patch: number) => void, wide?: number }} what
 *   `names` of the frames (times); `picture` is a data URL of all frames side by side; `words` says what a cell holds
 */
export function reel({ label, frames, rows, cols, names, picture, words, choose, wide = 1040 }) {
  const each = Math.max(cols, Math.max(18, Math.min(132, Math.floor((wide - GAP * frames) / frames))));
  const cell = each / cols;
  const tall = Math.max(rows, Math.round(cell * rows));
  const pitch = each + GAP;
  const width = frames * pitch - GAP;
  const small = document.createElement("canvas");
  small.width = cols;
  small.height = rows;
  const canvas = h("canvas", { width, height: tall, class: "wb-map wb-reel-map", tabindex: "0", role: "application", "aria-label": `${label}. Arrow keys move; Shift moves a whole frame.` });
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const said = h("p", { class: "wb-said", "aria-live": "polite" });
  const every = Math.max(1, Math.ceil(46 / pitch));
  const heads = h("div", { class: "wb-reel-names", style: `width:${width}px` },
    ...names.map((name, f) => f % every === 0 && h("span", { style: `left:${f * pitch}px` }, name)));
  const pictures = picture ? h("canvas", { width, height: 0, class: "wb-reel-pictures", "aria-hidden": "true" }) : null;
  if (picture && pictures) {
    const image = new Image();
    image.onload = () => {
      const part = image.width / frames;
      pictures.height = Math.round((image.height * each) / part);
      const brush = pictures.getContext("2d");
      for (let f = 0; f < frames; f++) brush?.drawImage(image, f * part, 0, part, image.height, f * pitch, 0, each, pictures.height);
    };
    image.src = picture;
  }
  /** @type {{ bytes: ArrayLike<number>, table: Uint32Array } | null} */
  let shown = null;
  let at = { frame: 0, row: 0, col: 0 };

  /** @param {ArrayLike<number>} bytes frame after frame, patches in raster order @param {Uint32Array} table */
  function draw(bytes, table) {
    shown = { bytes, table };
    frame();
  }
  function frame() {
    context.clearRect(0, 0, width, tall);
    context.imageSmoothingEnabled = false;
    if (shown) {
      for (let f = 0; f < frames; f++) {
        small.getContext("2d")?.putImageData(paint(shown.bytes, rows, cols, shown.table, f * rows * cols), 0, 0);
        context.drawImage(small, 0, 0, cols, rows, f * pitch, 0, each, tall);
      }
    }
    const [x, y] = [at.frame * pitch + at.col * cell, (at.row * tall) / rows];
    for (const [line, colour] of /** @type {[number, string][]} */ ([[3, "#fff"], [1.5, "#000"]])) {
      context.lineWidth = line;
      context.strokeStyle = colour;
      context.strokeRect(x + 0.75, y + 0.75, Math.max(2, cell - 1.5), Math.max(2, tall / rows - 1.5));
    }
  }
  const patch = () => at.row * cols + at.col;
  /** @param {number} to @param {number} row @param {number} col */
  function move(to, row, col) {
    at = { frame: Math.max(0, Math.min(frames - 1, to)), row: Math.max(0, Math.min(rows - 1, row)), col: Math.max(0, Math.min(cols - 1, col)) };
    said.textContent = words(at.frame, patch());
    frame();
  }
  /** @param {MouseEvent} event @returns {[number, number, number]} */
  const under = (event) => {
    const box = canvas.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * width;
    const f = Math.floor(x / pitch);
    return [f, Math.floor(((event.clientY - box.top) / box.height) * rows), Math.floor((x - f * pitch) / cell)];
  };
  canvas.addEventListener("click", (event) => {
    move(...under(event));
    choose?.(at.frame, patch());
  });
  canvas.addEventListener("mousemove", (event) => {
    const [f, row, col] = under(event);
    if (f >= 0 && f < frames && row >= 0 && row < rows && col >= 0 && col < cols) canvas.title = words(f, row * cols + col);
  });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], Home: [0, -Infinity], End: [0, Infinity] }[event.key];
    if (!step) return;
    event.preventDefault();
    if (Math.abs(step[1]) === Infinity) move(step[1] < 0 ? 0 : frames - 1, at.row, at.col);
    else if (event.shiftKey && step[1]) move(at.frame + step[1], at.row, at.col);
    else {
      const along = Math.max(0, Math.min(frames * cols - 1, at.frame * cols + at.col + step[1]));
      move(Math.floor(along / cols), at.row + step[0], along % cols);
    }
    choose?.(at.frame, patch());
  });
  const whole = h("figure", { class: "wb-figure" }, h("div", { class: "wb-reel", tabindex: "0", role: "region", "aria-label": `${label}: scroll` }, heads, pictures, canvas), said);
  return { whole, canvas, draw, move };
}
