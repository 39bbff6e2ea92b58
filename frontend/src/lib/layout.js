// The arithmetic of maps with common columns: how wide cells are, which pictures have room above them. No DOM.

/** Pixels of a cell so that all columns fit into `room`, 3 to 54. @param {number} columns @param {number} room */
export const fitCells = (columns, room) => Math.max(3, Math.min(54, Math.floor(room / columns)));

/**
 * The pictures that stand above columns: all of them where there is room, else every n-th, never overlapping.
 *
 * @param {{ frame: number }[]} columns
 * @param {number} wide pixels of a column
 * @param {number} aspect width / height of a picture
 * @param {number} [least] pixels a picture must have to be worth showing
 * @returns {{ wide: number, tall: number, heads: { column: number, x: number }[] }}
 */
export function headsShown(columns, wide, aspect, least = 40) {
  const spans = new Map(); // picture -> columns it stands for (a frame cut into parts has several)
  columns.forEach(({ frame }, i) => {
    if (frame >= 0) spans.set(frame, [...(spans.get(frame) ?? []), i]);
  });
  const widest = Math.max(...[...spans.values()].map((all) => all.length * wide), 0);
  const width = Math.max(8, Math.min(80, Math.max(least, widest - 2)));
  const heads = [];
  let free = -Infinity;
  for (const all of spans.values()) {
    const middle = ((all[0] + all[all.length - 1] + 1) / 2) * wide;
    const x = Math.max(0, Math.min(columns.length * wide - width, middle - width / 2));
    if (x < free) continue;
    heads.push({ column: all[0], x });
    free = x + width + 2;
  }
  return { wide: width, tall: Math.max(8, Math.round(width / aspect)), heads };
}

/**
 * Whether names fit above their columns, and how high they are: upright where they do not.
 *
 * @param {string[]} names
 * @param {number} wide pixels of a column
 */
export function textAngle(names, wide) {
  const longest = Math.max(...names.map((name) => name.length), 0) * 6.4;
  return longest + 4 <= wide ? { angle: 0, height: 18 } : { angle: -90, height: Math.min(90, Math.ceil(longest) + 12) };
}

/**
 * Heights of bars on a scale that ends at `top`: 0 .. 1, and whether the bar is cut.
 *
 * @param {number} value
 * @param {number} top
 */
export const bar = (value, top) => ({ share: Number.isFinite(value) && top > 0 ? Math.min(1, Math.max(0, value / top)) : 0, cut: value > top });

/**
 * The rank of an item, greatest first, equal ones sharing the best place; "–" for what is no number.
 *
 * @param {number[]} values
 * @param {number} at
 */
export function rankOf(values, at) {
  if (!Number.isFinite(values[at])) return "–";
  return String(1 + values.filter((value) => value > values[at]).length);
}
