// A small table of numbers that change while it stays: rows by name, a column a side.
import { h } from "./dom.js";

/**
 * @param {string} caption
 * @param {string[]} columns titles after the first
 * @param {{ key: string, title: string, meaning?: string }[]} rows
 */
export function numberTable(caption, columns, rows) {
  /** @type {Map<string, HTMLElement[]>} */
  const cells = new Map();
  const lines = rows.map(({ key, title, meaning }) => {
    const mine = columns.map(() => h("td", { class: "wb-num" }, "–"));
    cells.set(key, mine);
    return h("tr", { title: meaning ?? null }, h("th", { scope: "row" }, title), ...mine);
  });
  const whole = h("table", { class: "wb-table wb-numbers" }, h("caption", {}, caption),
    h("thead", {}, h("tr", {}, h("td", {}), ...columns.map((name) => h("th", { scope: "col", class: "wb-num" }, name)))), h("tbody", {}, ...lines));
  /** @param {string} key @param {string[]} texts */
  const set = (key, texts) => texts.forEach((text, i) => {
    const cell = cells.get(key)?.[i];
    if (cell && cell.textContent !== text) cell.textContent = text;
  });
  return { whole, set };
}
