// A table of rows that belong to what was picked elsewhere; choosing a row picks what the row carries.
import { h, table } from "./lib/dom.js";
import { Picks } from "./lib/picks.js";

/**
 * data: { caption, columns: [{ key, title, numeric? }], rows: [{ ..., pick?: {...} }], by?: string, empty: string, most?: number }
 * With `by` only rows whose value of that name equals the pick of that name are shown.
 *
 * @param {import("./lib/types.js").Context} context
 */
function render({ model, el }) {
  const picks = new Picks(model);
  const root = h("div", { class: "wb" });
  el.append(root);

  function draw() {
    const { caption, columns, rows, by, empty, most = 200 } = model.get("data");
    const wanted = by ? rows.filter((/** @type {any} */ row) => JSON.stringify(row[by]) === JSON.stringify(picks.get(by))) : rows;
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
    const { by } = model.get("data");
    if (by && changed.has(by)) draw();
  });
  model.on("change:data", draw);
  draw();
  return () => (picks.close(), model.off("change:data", draw));
}

export default { render };
