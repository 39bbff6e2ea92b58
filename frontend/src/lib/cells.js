// A table of numbers with colours behind them: readable as text, one cell chosen, moved by arrow keys.
import { h } from "./dom.js";

/**
 * Where a value lies on a colour table of 255 entries.
 *
 * @param {number} value
 * @param {{ low: number, high: number }} range
 */
export function entry(value, { low, high }) {
  if (!Number.isFinite(value)) return 255;
  return high > low ? Math.max(0, Math.min(254, Math.round(((value - low) / (high - low)) * 254))) : 127;
}

/**
 * The range of a scale: symmetric around `centre`, or from 0 when there is none.
 *
 * @param {Iterable<number>} values
 * @param {number | null} centre
 */
export function rangeOf(values, centre) {
  let most = 0;
  for (const value of values) {
    if (Number.isFinite(value)) most = Math.max(most, centre === null ? value : Math.abs(value - centre));
  }
  if (!most) most = 1;
  return centre === null ? { low: 0, high: most } : { low: centre - most, high: centre + most };
}

/** "▲ " or "▼ " when the interval excludes the centre, else nothing. @param {number} low @param {number} high @param {number | null} centre */
export function markOf(low, high, centre) {
  if (centre === null || !Number.isFinite(low) || !Number.isFinite(high)) return "";
  return low > centre ? "▲ " : high < centre ? "▼ " : "";
}

/**
 * Black or white, whichever stands out more (WCAG's relative luminance): at least 4.5 : 1 on any colour.
 *
 * @param {number[]} rgb 0 .. 255
 */
export function inkOn(rgb) {
  const [r, g, b] = rgb.map((c) => (c <= 10 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000" : "#fff";
}

/**
 * All numbers of a table with as many decimals: three digits of the scale's end.
 *
 * @param {number} value
 * @param {{ low: number, high: number }} range
 */
export function aligned(value, { low, high }) {
  const most = Math.max(Math.abs(low), Math.abs(high));
  if (most < 1e-4 || most >= 1e5) return value.toExponential(1).replaceAll("-", "−");
  const text = value.toFixed(Math.max(0, 2 - Math.floor(Math.log10(most))));
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
}

/**
 * @param {{ label: string, caption: string, rowTitle: string, rows: string[], cols: string[], split?: number, table: Uint32Array,
 *           range: { low: number, high: number }, value: (row: number, col: number) => number,
 *           text: (row: number, col: number) => string, words: (row: number, col: number) => string,
 *           chosen: [number, number], choose: (row: number, col: number) => void }} what
 *   `split`: the column that stands apart (a line before it)
 */
export function cells({ label, caption, rowTitle, rows, cols, split = -1, table, range, value, text, words, chosen, choose }) {
  /** @type {HTMLTableCellElement[][]} */
  const grid = rows.map((_, r) => cols.map((_, c) => {
    const pixel = table[entry(value(r, c), range)];
    const rgb = [pixel & 255, (pixel >> 8) & 255, (pixel >> 16) & 255];
    const there = Number.isFinite(value(r, c));
    return h("td", {
      role: "gridcell", tabindex: "-1", title: words(r, c),
      class: `wb-cell${there ? "" : " wb-missing"}${c === split ? " wb-apart" : ""}`,
      style: there ? `background:rgb(${rgb.join(",")});color:${inkOn(rgb)}` : null,
      onclick: () => go(r, c, true),
    }, text(r, c));
  }));
  const said = h("p", { class: "wb-said", "aria-live": "polite" });
  let at = [Math.max(0, chosen[0]), Math.max(0, chosen[1])];

  /** @param {number} r @param {number} c @param {boolean} tell */
  function go(r, c, tell) {
    grid[at[0]]?.[at[1]]?.classList.remove("wb-at");
    grid[at[0]]?.[at[1]]?.setAttribute("tabindex", "-1");
    at = [Math.max(0, Math.min(rows.length - 1, r)), Math.max(0, Math.min(cols.length - 1, c))];
    const cell = grid[at[0]]?.[at[1]];
    if (!cell) return;
    cell.classList.add("wb-at");
    cell.setAttribute("tabindex", "0");
    said.textContent = words(at[0], at[1]);
    if (tell) {
      cell.focus();
      choose(at[0], at[1]);
    }
  }
  const body = h("tbody", {}, ...rows.map((name, r) => h("tr", { role: "row" }, h("th", { scope: "row", role: "rowheader" }, name), ...grid[r])));
  body.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], Home: [0, -cols.length], End: [0, cols.length] }[event.key];
    if (!step) return;
    event.preventDefault();
    go(at[0] + step[0], at[1] + step[1], true);
  });
  const head = h("tr", { role: "row" }, h("th", { scope: "col", role: "columnheader" }, rowTitle), ...cols.map((name, c) => h("th", { scope: "col", role: "columnheader", class: c === split ? "wb-apart" : null }, name)));
  const whole = h("div", {}, h("div", { class: "wb-cells" },
    h("table", { role: "grid", "aria-label": label }, h("caption", {}, caption), h("thead", {}, head), body)), said);
  go(at[0], at[1], false);
  return { whole, go };
}
