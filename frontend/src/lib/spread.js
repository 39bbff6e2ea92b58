// Distributions side by side, one line each: 5 to 95% as a thin bar, quartiles as a thick one, median and mean marked.
import { number } from "./colour.js";
import { drawing, s, ticks } from "./svg.js";

/**
 * @param {{ label: string, unit: string, most: number, rows: { name: string, values: (number | null)[] | null, strong?: boolean }[], wide?: number }} what
 *   `values`: quantiles 5, 25, 50, 75, 95%, mean, how many values; null where there are none. `most`: end of the axis, from 0
 * @returns {SVGElement}
 */
export function spread({ label, unit, most, rows, wide = 470 }) {
  const [left, right, line] = [74, 16, 24];
  const tall = rows.length * line + 38;
  const end = most > 0 ? most : 1;
  const x = (/** @type {number} */ value) => left + ((wide - left - right) * Math.min(value, end)) / end;
  const bar = (/** @type {number} */ a, /** @type {number} */ b, /** @type {number} */ y, /** @type {number} */ thick, /** @type {string} */ colour) =>
    s("rect", { x: x(a), y: y - thick / 2, width: Math.max(1, x(b) - x(a)), height: thick, fill: colour });
  const base = rows.length * line + 4;
  const axis = ticks(0, end).flatMap((t) => [
    s("line", { x1: x(t), x2: x(t), y1: 2, y2: base + 4, stroke: "currentColor", "stroke-opacity": 0.18 }),
    s("text", { x: x(t), y: base + 16, "text-anchor": "middle", "font-size": 11, fill: "currentColor" }, number(t)),
  ]);
  /** @type {string[]} */
  const said = [];
  const lines = rows.flatMap(({ name, values, strong }, i) => {
    const y = i * line + line / 2 + 2;
    const title = s("text", { x: left - 8, y: y + 4, "text-anchor": "end", "font-size": 12, fill: "currentColor", "font-weight": strong ? 700 : 400 }, name);
    const [q5, q25, q50, q75, q95, mean, n] = values ?? [];
    if (q5 === null || q5 === undefined || q25 == null || q50 == null || q75 == null || q95 == null || mean == null) {
      said.push(`${name}: missing`);
      return [title, s("text", { x: left, y: y + 4, "font-size": 12, fill: "currentColor" }, "missing")];
    }
    const words = `${name}: mean ${number(mean)}, median ${number(q50)}, quartiles ${number(q25)} to ${number(q75)}, 5 to 95% ${number(q5)} to ${number(q95)}, n = ${n}`;
    said.push(words);
    const colour = strong ? "var(--wb-mark)" : "var(--wb-soft)";
    return [title, s("g", {}, s("title", {}, words), bar(q5, q95, y, 2, colour), bar(q25, q75, y, 10, colour),
      s("line", { x1: x(q50), x2: x(q50), y1: y - 8, y2: y + 8, stroke: "currentColor", "stroke-width": 2 }),
      s("circle", { cx: x(mean), cy: y, r: 4, fill: "var(--wb-ground)", stroke: "currentColor", "stroke-width": 1.5 }))];
  });
  const unitLine = s("text", { x: left, y: tall - 4, "font-size": 11, fill: "currentColor" }, unit);
  return drawing(wide, tall, `${label}, ${unit}. ${said.join(". ")}`, ...axis, ...lines, unitLine);
}
