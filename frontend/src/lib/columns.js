// Maps below each other that share their columns (frames, blocks, segments): pictures and names above, rows named at the side.
import { h } from "./dom.js";
import { grid } from "./grid.js";
import { fitCells, headsShown, textAngle } from "./layout.js";

/** @typedef {import("./film.js").Sheet} Sheet */
/** `frame` is the picture of the sheet that belongs to a column, or -1; `short` stands above it, `name` is said. */
/** @typedef {{ short: string, name: string, frame: number }} Column */

const SIDE = 150; // pixels of row names
const ROOM = 930; // pixels of columns on a page of 1100

/**
 * @param {{ columns: Column[], sheet: Sheet | null, title: string, ready?: () => void }} what
 *   title: of the columns' axis; ready: called once the pictures are there
 */
export function columns({ columns: listed, sheet, title, ready }) {
  const wide = fitCells(listed.length, ROOM);
  const canvas = h("canvas", { class: "wb-heads", "aria-hidden": "true" });
  const top = h("div", { class: "wb-aligned wb-aligned-top" }, h("div", { class: "wb-row-title" }, title), canvas);
  const body = h("div", { class: "wb-aligned-body" }, top);
  const whole = h("div", { class: "wb-aligned-scroll", tabindex: "0", role: "region", "aria-label": title }, body);
  body.style.minWidth = `${SIDE + wide * listed.length + 4}px`;
  const colour = () => getComputedStyle(canvas).color;
  /** @type {HTMLImageElement | null} */
  let picture = null;
  let at = 0;

  /** @param {CanvasRenderingContext2D} context @param {number} frame @param {number} x @param {number} y @param {number} w @param {number} t */
  function photo(context, frame, x, y, w, t) {
    if (!picture || !sheet || frame < 0) return;
    const from = [(frame % sheet.columns) * sheet.width, Math.floor(frame / sheet.columns) * sheet.height];
    context.drawImage(picture, from[0], from[1], sheet.width, sheet.height, x, y, w, t);
  }
  function draw() {
    const ratio = globalThis.devicePixelRatio || 1;
    const shown = headsShown(listed, wide, sheet ? sheet.width / sheet.height : 1);
    const { angle, height: text } = textAngle(listed.map((c) => c.short), wide);
    const height = (sheet ? shown.tall + 4 : 0) + text;
    canvas.width = Math.round(listed.length * wide * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.width = `${listed.length * wide}px`;
    canvas.style.height = `${height}px`;
    const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    context.scale(ratio, ratio);
    for (const { column, x } of shown.heads) {
      photo(context, listed[column].frame, x, 0, shown.wide, shown.tall);
      if (column !== at) continue;
      context.lineWidth = 2;
      context.strokeStyle = colour();
      context.strokeRect(x + 1, 1, shown.wide - 2, shown.tall - 2);
    }
    context.font = "11px system-ui, 'DejaVu Sans', sans-serif";
    context.fillStyle = colour();
    const every = angle ? Math.ceil(12 / wide) : 1;
    listed.forEach((column, i) => {
      if (!column.short || (i % every && column.frame >= 0 && i !== at)) return;
      if (every > 1 && i !== at && Math.abs(i - at) * wide < 12) return;
      context.save();
      context.font = `${i === at ? "bold " : ""}11px system-ui, 'DejaVu Sans', sans-serif`;
      context.translate(Math.max(angle ? 6 : 0, (i + 0.5) * wide), height - (angle ? 4 : 5));
      if (angle) context.rotate(-Math.PI / 2);
      context.textAlign = angle ? "left" : "center";
      context.textBaseline = angle ? "middle" : "alphabetic";
      context.fillText(column.short, 0, 0);
      context.restore();
    });
  }
  /**
   * One more map below the others.
   *
   * @param {{ label: string, title: string, rows: string[], words: (row: number, col: number) => string, choose: (row: number, col: number) => void }} what
   */
  function map({ label, title: rowTitle, rows, words, choose }) {
    const tall = rows.length <= 12 ? 22 : rows.length <= 36 ? 16 : 13;
    const inner = grid({ label, rows: rows.length, cols: listed.length, cell: [wide, tall], words, choose });
    inner.canvas.style.maxWidth = "none";
    const names = h("div", { class: "wb-row-names", "aria-hidden": "true" }, ...rows.map((name) => {
      const line = h("div", { title: name, dir: "auto" }, name);
      line.style.height = line.style.lineHeight = `${tall}px`;
      return line;
    }));
    const place = h("div", { class: "wb-aligned" }, names, inner.canvas);
    const heading = h("div", { class: "wb-map-title" }, rowTitle);
    body.append(heading, place);
    const mark = (/** @type {number} */ row) => [...names.children].forEach((line, i) => line.classList.toggle("wb-chosen-name", i === row));
    /** Scroll the chosen row into what is seen of the maps; the page itself stays where it is. @param {number} row */
    function reveal(row) {
      const line = names.children[row]?.getBoundingClientRect();
      const [seen, head, foot] = [whole.getBoundingClientRect(), top.offsetHeight, /** @type {HTMLElement | null} */ (body.querySelector(".wb-aligned-bottom"))?.offsetHeight ?? 0];
      if (!line || !seen.height) return;
      if (line.top < seen.top + head) whole.scrollTop -= seen.top + head - line.top;
      else if (line.bottom > seen.bottom - foot) whole.scrollTop += line.bottom - seen.bottom + foot;
    }
    const move = (/** @type {number} */ row, /** @type {number} */ col) => (mark(row), inner.move(row, col), reveal(row));
    return { ...inner, move, heading, names };
  }
  /** The column whose name and picture are marked. @param {number} column */
  function choose(column) {
    at = column;
    draw();
  }
  if (sheet) {
    const loading = new Image();
    loading.src = sheet.src;
    loading.decode().then(() => ((picture = loading), draw(), ready?.()), () => undefined);
  }
  const dark = matchMedia("(prefers-color-scheme: dark)");
  dark.addEventListener("change", draw);
  const close = () => dark.removeEventListener("change", draw);
  requestAnimationFrame(draw); // once it stands in the page and has its colours
  return { whole, body, wide, side: SIDE, map, choose, draw, photo, close };
}
