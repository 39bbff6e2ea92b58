// What colours mean: a strip of the scale between its two ends.
import { paint } from "./colour.js";
import { h } from "./dom.js";

/** A colour scale with words at its ends, redrawn with `set`. */
export function legend() {
  const strip = h("canvas", { width: 255, height: 1, "aria-hidden": "true" });
  const [low, high] = [h("span"), h("span")];
  const whole = h("span", { class: "wb-legend" }, low, strip, high);
  /** @param {Uint32Array} table @param {string} from @param {string} to */
  function set(table, from, to) {
    strip.getContext("2d")?.putImageData(paint(Uint8Array.from({ length: 255 }, (_, i) => i), 1, 255, table), 0, 0);
    low.textContent = from;
    high.textContent = to;
  }
  return { whole, set };
}
