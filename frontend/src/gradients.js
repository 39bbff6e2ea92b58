// Image and video gradients: statistics by module and frame count, the definitions side by side, conflict frame by frame.
import { unpack } from "./lib/arrays.js";
import { aligned, cells, entry, markOf, rangeOf } from "./lib/cells.js";
import { lookUpTable, number } from "./lib/colour.js";
import { announcer, h, select, table } from "./lib/dom.js";
import { grid } from "./lib/grid.js";
import { Picks } from "./lib/picks.js";
import { reel } from "./lib/reel.js";

const CEILING = "two image batches";

/** "0.31 [0.2, 0.4]", or what is missing of it. @param {ArrayLike<number>} bounds */
export function interval(bounds) {
  if (!Number.isFinite(bounds[0])) return "missing";
  if (!Number.isFinite(bounds[1])) return `${number(bounds[0])} [no interval]`;
  return `${number(bounds[0])} [${number(bounds[1])}, ${number(bounds[2])}]`;
}

/** @param {import("./lib/types.js").Context} context */
async function render({ model, el }) {
  const data = model.get("data");
  const { checkpoints, groups, statistics, definitions, notes } = data;
  const picks = new Picks(model);
  const { line, say } = announcer();
  const tables = { sequential: lookUpTable(data.colours.sequential), diverging: lookUpTable(data.colours.diverging) };
  const numbers = await Promise.all(checkpoints.map(async (/** @type {any} */ one) => ({ values: (await unpack(one.values)).data, used: (await unpack(one.used)).data })));
  const keys = statistics.map((/** @type {any} */ s) => s.key);

  /** Estimate, low, high and pairs. @param {number} c @param {string} key @param {string} group @param {number} n index of the count */
  function find(c, key, group, n, metric = picks.get("metric")) {
    const one = checkpoints[c];
    const [s, m, g] = [keys.indexOf(key), one.metrics.indexOf(metric), groups.indexOf(group)];
    if (s < 0 || m < 0 || g < 0 || n < 0) return { bounds: [NaN, NaN, NaN], pairs: 0 };
    const at = ((s * one.metrics.length + m) * groups.length + g) * one.counts.length + n;
    return { bounds: numbers[c].values.slice(3 * at, 3 * at + 3), pairs: numbers[c].used[at] };
  }

  const families = [...new Set(statistics.map((/** @type {any} */ s) => s.family))];
  const statisticAt = select("Statistic", [], "", (statistic) => picks.set({ statistic }));
  statisticAt.box.append(...families.map((family) => h("optgroup", { label: family }, ...statistics.filter((/** @type {any} */ s) => s.family === family).map((/** @type {any} */ s) => h("option", { value: s.key }, s.title)))));
  const metricAt = select("Inner product", data.metrics.map((/** @type {string} */ m) => [m, m === "adam" ? "Adam's (by the optimizer's state)" : "plain"]), picks.get("metric"), (metric) => picks.set({ metric }));
  const maps = h("div", { class: "wb-columns" });
  const key = h("p", { class: "wb-caption" });
  const split = h("div", {});
  const meanings = table({ caption: "What each definition can and cannot show",
    columns: [{ key: "title", title: "Definition" }, { key: "shared", title: "What is shared" }, { key: "shows", title: "It shows" }, { key: "cannot", title: "It cannot show" }], rows: definitions });
  const strips = h("div", {});
  el.append(h("div", { class: "wb" },
    ...notes.map((/** @type {string} */ note) => h("p", { class: "wb-note" }, note)),
    h("div", { class: "wb-bar" }, statisticAt.whole, data.metrics.length > 1 && metricAt.whole), key, maps,
    h("h3", {}, "The video gradient split, g_V = s + t: definitions side by side"), h("div", { class: "wb-tall" }, split, meanings), strips, line));

  /** Heat maps of the chosen statistic, a table a checkpoint, on one scale. */
  function heat() {
    const about = statistics.find((/** @type {any} */ s) => s.key === picks.get("statistic")) ?? statistics[0];
    const all = checkpoints.map((/** @type {any} */ one, /** @type {number} */ c) =>
      groups.map((/** @type {string} */ group) => one.counts.map((/** @type {number} */ _, /** @type {number} */ n) => find(c, about.key, group, n))));
    const range = rangeOf(all.flat(2).map((/** @type {any} */ found) => found.bounds[0]), about.centre);
    const colours = tables[about.centre === null ? "sequential" : "diverging"];
    const sign = about.centre === null ? "" : ` ▲ or ▼: the 95% interval excludes ${about.centre}.`;
    key.textContent = `${about.title}. Estimate: ${about.how}; colours from ${number(range.low)} to ${number(range.high)} in all checkpoints.${sign} “–”: missing, not 0.`;
    maps.replaceChildren(...checkpoints.map((/** @type {any} */ one, /** @type {number} */ c) => {
      const cols = [...one.counts.map(String), ...(about.ceiling ? [CEILING] : [])];
      const at = (/** @type {number} */ r, /** @type {number} */ n) => (n < one.counts.length ? all[c][r][n] : find(c, about.ceiling, groups[r], 0));
      const words = (/** @type {number} */ r, /** @type {number} */ n) => {
        const { bounds, pairs } = at(r, n);
        const where = n < one.counts.length ? `at ${cols[n]} frames` : `noise ceiling, ${CEILING}`;
        return `${groups[r]}, ${where}: ${interval(bounds)}, n = ${pairs} pairs`;
      };
      const drawn = cells({
        label: `${about.title}, ${one.title}`, caption: `${one.title} (${one.pairs} pairs of batches of ${one.batch})`, rowTitle: "module group \\ frames",
        rows: groups, cols, split: about.ceiling ? cols.length - 1 : -1, table: colours, range,
        value: (r, n) => at(r, n).bounds[0],
        text: (r, n) => {
          const { bounds } = at(r, n);
          return Number.isFinite(bounds[0]) ? `${markOf(bounds[1], bounds[2], n < one.counts.length ? about.centre : 0)}${aligned(bounds[0], range)}` : "–";
        },
        words,
        chosen: [groups.indexOf(picks.get("group")), Math.max(0, one.counts.indexOf(picks.get("frames")))],
        choose: (r, n) => picks.set({ checkpoint: c, group: groups[r], ...(n < one.counts.length ? { frames: one.counts[n] } : {}) }),
      });
      const rows = groups.flatMap((/** @type {string} */ group, /** @type {number} */ r) => cols.map((name, n) => ({ group, frames: name, value: interval(at(r, n).bounds), pairs: at(r, n).pairs })));
      const list = table({ caption: `${about.title}, ${one.title}`, columns: [{ key: "group", title: "Module group" }, { key: "frames", title: "Frames" }, { key: "value", title: "Estimate [95% interval]", numeric: true }, { key: "pairs", title: "Pairs n", numeric: true }], rows });
      return h("section", {}, drawn.whole, h("details", {}, h("summary", {}, "As a table with intervals"), list));
    }));
  }

  /** All definitions for the chosen checkpoint, group and count. */
  function sideBySide() {
    const one = checkpoints[picks.get("checkpoint")] ?? checkpoints[0];
    const c = checkpoints.indexOf(one);
    const n = one.counts.indexOf(picks.get("frames"));
    const rows = definitions.map((/** @type {any} */ d) => {
      const row = /** @type {Record<string, any>} */ ({ title: d.title });
      for (const part of Object.keys(data.parts)) {
        const { bounds } = find(c, `${d.key}.${part}`, picks.get("group"), n);
        row[part] = keys.includes(`${d.key}.${part}`) ? markOf(bounds[1], bounds[2], part.startsWith("share") ? null : 0) + interval(bounds) : "not probed";
      }
      return row;
    });
    const whole = ["cos", "interference"].map((s) => `${s === "cos" ? "cos(g_I, g_V)" : "⟨g_I, g_V⟩ / |g_I|²"} = ${interval(find(c, s, picks.get("group"), n).bounds)}`).join("; ");
    const caption = `${one.title}, ${picks.get("group")}, ${picks.get("frames")} frames, ${picks.get("metric")} inner product (n = ${find(c, "cos", picks.get("group"), n).pairs} pairs): ${whole}`;
    const columns = Object.entries(data.parts).map(([key, title]) => ({ key, title, numeric: true }));
    split.replaceChildren(table({ caption, columns: [{ key: "title", title: "Definition" }, ...columns], rows }));
    say(caption);
  }
  /** What belongs to the chosen group: redrawn alone, so that the strip keeps the focus. @type {(() => void)[]} */
  let ofGroup = [];
  let asked = 0;

  /** Where in the clip interference comes from. */
  async function conflict() {
    const own = ++asked;
    const shown = checkpoints.filter((/** @type {any} */ one) => Object.keys(one.maps).length);
    if (!shown.length) return;
    const parts = await Promise.all(shown.map(async (/** @type {any} */ one) => {
      const n = String(one.maps[String(picks.get("frames"))] ? picks.get("frames") : Object.keys(one.maps).at(-1));
      const { frames, rest, patches } = one.maps[n];
      return { one, n: Number(n), means: await unpack(frames), rest: rest && { places: rest.places, values: await unpack(rest.values) }, patches: patches && { ...patches, values: await unpack(patches.values) } };
    }));
    if (own !== asked) return; // a later choice is on its way
    const range = rangeOf(parts.flatMap(({ means }) => Array.from({ length: means.data.length / 3 }, (_, i) => means.data[3 * i])), 0);
    ofGroup = [];
    const drawn = parts.map(({ one, n, means, rest, patches }) => {
      const bounds = (/** @type {number} */ r, /** @type {number} */ f) => means.data.slice(3 * (r * n + f), 3 * (r * n + f) + 3);
      const bytes = Uint8Array.from({ length: groups.length * n }, (_, i) => entry(means.data[3 * i], range));
      const words = (/** @type {number} */ r, /** @type {number} */ f) => `${groups[r]}, frame ${f + 1} of ${n}: ${markOf(bounds(r, f)[1], bounds(r, f)[2], 0)}${interval(bounds(r, f))}, n = ${one.pairs} pairs`;
      const cell = /** @type {[number, number]} */ ([Math.max(3, Math.min(34, Math.floor(440 / n))), 20]);
      const map = grid({ label: `Conflict by frame, ${one.title}`, rows: groups.length, cols: n, cell, words, choose: (r) => picks.set({ group: groups[r], checkpoint: checkpoints.indexOf(one) }), rowTitle: "module group", colTitle: "frame", rowName: (r) => groups[r], colName: (f) => String(f + 1) });
      map.draw(bytes, tables.diverging);
      const names = h("div", { class: "wb-rows", "aria-hidden": "true" }, ...groups.map((/** @type {string} */ g) => h("span", { style: `height:${cell[1]}px` }, g)));
      const budget = h("p", { class: "wb-caption" });
      const film = h("div", {});
      ofGroup.push(() => {
        const g = Math.max(0, groups.indexOf(picks.get("group")));
        const sum = Array.from({ length: n }, (_, f) => bounds(g, f)[0]).reduce((a, b) => a + b, 0);
        const elsewhere = rest ? rest.places.map((/** @type {string} */ place, /** @type {number} */ p) => `${place} ${number(rest.values.data[g * rest.places.length + p])}`).join(", ") : "not captured";
        budget.textContent = `${groups[g]}: all frames ${number(sum)}; what has no frame: ${elsewhere}. Together: the interference, as a mean over pairs of each pair's ratio.`;
        film.replaceChildren(...(patches ? patchFilm(one, groups[g], n, patches, g) : [h("p", { class: "wb-caption" }, `${one.title}: no patches; the clips of a batch differ in size, or no layer's tokens have a place.`)]));
      });
      return { section: h("section", {}, h("h4", {}, `${one.title}, ${n} frames (mean over ${one.pairs} pairs)`), h("div", { class: "wb-named" }, names, map.whole), budget), film };
    });
    for (const fill of ofGroup) fill();
    strips.replaceChildren(h("h3", {}, "Conflict frame by frame"),
      h("p", { class: "wb-caption" }, `Parts of ⟨g_V, g_I⟩ / |g_I|² (plain), exact. Blue, to ${number(range.low)}: a step on this frame raises the image loss; red, to ${number(range.high)}: it lowers it. One scale.`),
      h("div", { class: "wb-columns" }, ...drawn.map(({ section }) => section)), ...drawn.map(({ film }) => film));
  }

  /** @param {any} one @param {string} group @param {number} n @param {any} patches @param {number} g */
  function patchFilm(one, group, n, patches, g) {
    const p = patches.rows * patches.cols;
    const own = patches.values.data.slice(g * n * p, (g + 1) * n * p);
    const scale = rangeOf(own, 0);
    const film = reel({ label: `Conflict by patch in ${group}, ${one.title}`, frames: n, rows: patches.rows, cols: patches.cols, names: Array.from({ length: n }, (_, f) => String(f + 1)),
      words: (f, at) => `frame ${f + 1}, patch row ${Math.floor(at / patches.cols) + 1}, column ${(at % patches.cols) + 1}: ${number(own[f * p + at])}` });
    film.draw(Uint8Array.from(own, (v) => entry(v, scale)), tables.diverging);
    const grid = patches.rows > 1 ? "; places drawn as a square grid" : "";
    return [h("h4", {}, `${one.title}: patches of ${group} at ${n} frames, mean over pairs (${number(scale.low)} blue to ${number(scale.high)} red${grid})`), film.whole];
  }

  function show() {
    statisticAt.box.value = picks.get("statistic");
    metricAt.box.value = picks.get("metric");
  }
  picks.watch((changed) => {
    show();
    if (changed.has("statistic") || changed.has("metric")) heat();
    if (["checkpoint", "group", "frames", "metric"].some((name) => changed.has(name))) sideBySide();
    if (changed.has("frames")) conflict();
    else if (changed.has("group")) for (const fill of ofGroup) fill();
  });
  show();
  heat();
  sideBySide();
  await conflict();
  return () => picks.close();
}

export default { render };
