// The scale of a map: its colours, its two ends and what they measure.
import { number } from "./colour.js";
import { h } from "./dom.js";

/** @param {string} unit */
export function colourbar(unit) {
  const canvas = h("canvas", { width: 255, height: 1, class: "wb-colours", role: "img" });
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const ends = [h("span", {}), h("span", {})];
  const note = h("span", { class: "wb-axis-x" });
  const whole = h("div", { class: "wb-colourbar" }, ends[0], canvas, ends[1], note);
  let last = "";
  /** @param {Uint32Array} table @param {{ low: number, high: number }} range @param {string} what */
  function show(table, range, what) {
    const key = `${table[1]} ${range.low} ${range.high} ${what}`;
    if (key === last) return;
    last = key;
    const image = new ImageData(255, 1);
    new Uint32Array(image.data.buffer).set(table.subarray(0, 255));
    context.putImageData(image, 0, 0);
    ends[0].textContent = number(range.low);
    ends[1].textContent = number(range.high);
    note.textContent = `${unit}; ${what}`;
    canvas.setAttribute("aria-label", `Colours from ${number(range.low)} to ${number(range.high)} ${unit}; ${what}`);
  }
  return { whole, show };
}
