// A table of rows that belong to what was picked elsewhere; choosing a row picks what the row carries.
import { h, select, table } from "./lib/dom.js";
import { Picks } from "./lib/picks.js";

/**
 * data: { caption, columns: [{ key, title, numeric? }], rows: [{ ..., pick?: {...} }], by?: string, empty: string, most?: number,
 *   filters?: { key: string, title: string }[] }
 * With `by` only rows whose value of that name equals the pick of that name are shown. A filter is a select over the values that rows have; its
 * pick, of that name, is the value as text, "" for all.
 *
 * @param {import("./lib/types.js").Context} context
 */
function render({ model, el }) {
  const picks = new Picks(model);
  const bar = h("div", { class: "wb-bar" });
  const root = h("div", {});
  el.append(h("div", { class: "wb" }, bar, root));

  /** The selects, made anew when the rows are. */
  function controls() {
    const { rows, filters = [] } = model.get("data");
    bar.hidden = !filters.length;
    bar.replaceChildren(...filters.map((/** @type {{ key: string, title: string }} */ { key, title }) => {
      const values = [...new Set(rows.map((/** @type {any} */ row) => String(row[key])))];
      const choices = /** @type {[string, string][]} */ ([["", "all"], ...values.map((value) => [value, value])]);
      return select(title, choices, picks.get(key) ?? "", (value) => picks.set({ [key]: value })).whole;
    }));
  }

  function draw() {
    const { caption, columns, rows, by, empty, most = 200, filters = [] } = model.get("data");
    const asked = filters.filter((/** @type {any} */ { key }) => picks.get(key));
    const wanted = rows.filter((/** @type {any} */ row) =>
      (!by || JSON.stringify(row[by]) === JSON.stringify(picks.get(by))) && asked.every((/** @type {any} */ { key }) => String(row[key]) === picks.get(key)));
    const clickable = wanted.some((/** @type {any} */ row) => row.pick);
    const left = wanted.length - most;
    root.replaceChildren(
      wanted.length
        ? table({
            caption: caption.replace("{n}", String(wanted.length)) + (left > 0 ? ` (the first ${most} of ${wanted.length})` : ""),
            columns,
            rows: wanted.slice(0, most),
            choose: clickable ? (i) => wanted[i].pick && picks.set(wanted[i].pick) : undefined,
          })
        : h("p", { class: "wb-note" }, empty),
    );
  }
  picks.watch((changed) => {
    const { by, filters = [] } = model.get("data");
    const mine = filters.filter((/** @type {any} */ { key }) => changed.has(key));
    if (mine.length) controls();
    if (mine.length || (by && changed.has(by))) draw();
  });
  const redraw = () => (controls(), draw());
  model.on("change:data", redraw);
  redraw();
  return () => (picks.close(), model.off("change:data", redraw));
}

export default { render };
