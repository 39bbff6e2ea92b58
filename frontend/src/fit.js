// Plotly draws before it is in the page, 700 pixels wide, and is not told when its place changes. This tells it.
import { h } from "./lib/dom.js";

const LOOK_MS = 300;
const TRIES = 3;

/**
 * Put beside plots: while one is not as wide as its place (just drawn, a tab opened, a side bar closed), the window says
 * "resize", which is what plots listen to; at most three times for a width, as some have a width of their own.
 *
 * @param {import("./lib/types.js").Context} context
 */
function render({ el }) {
  const mark = h("span", { hidden: true });
  el.append(mark);
  /** @type {WeakMap<Element, { width: number, tries: number }>} */
  const told = new WeakMap();

  function look() {
    const box = el.closest(".widget-vbox") ?? el.parentElement;
    let stale = false;
    for (const plot of box?.querySelectorAll(".js-plotly-plot") ?? []) {
      const width = plot.clientWidth;
      const drawn = /** @type {any} */ (plot)._fullLayout?.width;
      if (!width || !drawn || Math.abs(width - drawn) < 2) continue;
      const before = told.get(plot);
      const tries = before?.width === width ? before.tries + 1 : 1;
      if (tries > TRIES) continue;
      told.set(plot, { width, tries });
      stale = true;
    }
    if (stale) window.dispatchEvent(new Event("resize"));
  }

  const timer = setInterval(look, LOOK_MS);
  return () => clearInterval(timer);
}

export default { render };
