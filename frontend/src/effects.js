// What hiding a frame does to the answer, beside how much attention the same cells get, and beside attributions.
import { unpack } from "./lib/arrays.js";
import { lookUpTable, number } from "./lib/colour.js";
import { columns } from "./lib/columns.js";
import { announcer, h, table } from "./lib/dom.js";
import { rankOf } from "./lib/layout.js";
import { legend } from "./lib/legend.js";
import { Picks } from "./lib/picks.js";

const signed = (/** @type {number} */ value) => (Number.isFinite(value) && value > 0 ? `+${number(value)}` : number(value));
const percent = (/** @type {number} */ value) => (Number.isFinite(value) ? `${number(100 * value)} %` : "not visible");

/**
 * data: see workbench/views/effects.py (`_data`).
 *
 * @param {import("./lib/types.js").Context} context
 */
async function render({ model, el }) {
  const data = model.get("data");
  const { windows, attention, attribution, notes } = data;
  const K = data.columns.length;
  const picks = new Picks(model, { cell: data.first });
  const says = announcer();
  const scales = { sequential: lookUpTable(data.colours.sequential), diverging: lookUpTable(data.colours.diverging) };
  const [delta, deltas] = [await unpack(data.delta), (await unpack(data.deltas)).data];
  const mass = attention && (await unpack(attention.map));
  const masses = attention && (await unpack(attention.values)).data;
  const shares = attribution && (await unpack(attribution.map));
  const scores = attribution && (await unpack(attribution.values)).data;
  const at = () => ({ w: Math.min(windows.length - 1, picks.get("cell")[0]), k: Math.min(K - 1, picks.get("cell")[1]) });

  const frame = columns({ columns: data.columns, sheet: data.sheet, title: data.title, ready: () => tell() });
  frame.whole.style.maxHeight = "none"; // all three maps are seen together
  const choose = (/** @type {number} */ w, /** @type {number} */ k) =>
    picks.set({ cell: [w, k], ...(data.columns[k].clip >= 0 ? { frame: data.columns[k].clip } : {}) });
  const effectWords = (/** @type {number} */ w, /** @type {number} */ k) =>
    `${data.columns[k].name} hidden in ${windows[w]}: log p(answer) changes by ${signed(deltas[w * K + k])} nats`;
  const massWords = (/** @type {number} */ w, /** @type {number} */ k) => `${data.columns[k].name}, ${windows[w]}: attention mass ${percent(masses[w * K + k])}`;
  const scoreWords = (/** @type {number} */ r, /** @type {number} */ k) =>
    `${data.columns[k].name}, ${attribution.names[r]}: ${attribution.units[r] === "%" ? percent(scores[r * K + k]) : `${signed(scores[r * K + k])} nats`}`;

  /** A map with its legend in the heading. @param {any} what @param {any} bytes @param {Uint32Array} colours @param {string} low @param {string} high */
  function add(what, bytes, colours, low, high) {
    const map = frame.map(what);
    const key = legend();
    key.set(colours, low, high);
    map.heading.append(" ", key.whole, what.note ? ` ${what.note}` : "");
    map.draw(bytes, colours);
    return map;
  }
  const end = number(data.end);
  const effectMap = add({ label: "Knockout: change of the answer's log-probability, window of layers by block", title: `Knockout: change of log p(answer), nats (n = ${windows.length * K} cells). Blue: the block helped.`, rows: windows, words: effectWords, choose },
    delta.data, scales.diverging, `−${end}`, `+${end}`);
  const massMap = attention && add({ label: "Attention mass of the same cells", title: `Attention mass from ${attention.whose}, ${attention.heads}, mean over the window's layers.`, rows: windows, words: massWords, choose },
    mass.data, scales.sequential, "0 %", percent(attention.end));
  const scoreMap = attribution && add({ label: "Attribution of the same blocks, one ranking a row", title: "Attribution of the same blocks: red supported the answer. Every row has its own scale, centred at 0 (units differ).",
    rows: attribution.names, words: scoreWords, choose: (/** @type {number} */ _r, /** @type {number} */ k) => choose(at().w, k) },
    shares.data, scales.diverging, "− largest", "+ largest");

  const photo = h("canvas", { class: "wb-map", width: 1, height: 1, "aria-hidden": "true" });
  const name = h("p", { class: "wb-said" });
  const figure = h("div", {}, photo, name);
  const cell = h("div");
  const verdicts = h("div", {}, ...data.verdicts.map((/** @type {{ text: string, loud: boolean }} */ v) => h("p", { class: v.loud ? "wb-note" : null }, v.text)));
  el.append(h("div", { class: "wb" },
    ...notes.map((/** @type {string} */ note) => h("p", { class: "wb-note" }, note)), verdicts, frame.whole,
    ...[effectMap, massMap, scoreMap].filter(Boolean).map((map) => (map.said.classList.add("wb-sr"), map.said)), h("div", { class: "wb-beside" }, figure, cell),
    data.agreements.length > 0 && table({
      caption: "Spearman's rank correlation with the knockout over blocks [95% interval, blocks resampled], permutation p; one sample, and p not corrected for their number",
      columns: [{ key: "what", title: "ranking" }, { key: "window", title: "knockout in" }, { key: "rho", title: "correlation" }, { key: "n", title: "blocks", numeric: true }], rows: data.agreements,
    }), says.line));

  function tell() {
    const { w, k } = at();
    const effects = Array.from(deltas.slice(w * K, (w + 1) * K), (value) => -value);
    const rows = [{ what: "knockout: −change of log p", value: `${signed(effects[k])} nats`, rank: rankOf(effects, k) }];
    if (attention) rows.push({ what: "attention mass", value: percent(masses[w * K + k]), rank: rankOf(Array.from(masses.slice(w * K, (w + 1) * K)), k) });
    if (attribution) {
      attribution.names.forEach((/** @type {string} */ title, /** @type {number} */ r) => {
        const row = Array.from(scores.slice(r * K, (r + 1) * K));
        rows.push({ what: `${title} (attribution)`, value: attribution.units[r] === "%" ? percent(row[k]) : `${signed(row[k])} nats`, rank: rankOf(row, k) });
      });
    }
    const [byEffect, byMass] = [rows[0].rank, attention ? rows[1].rank : ""];
    const sentence = `${effectWords(w, k)} (rank ${byEffect} by effect${attention ? `; attention ${percent(masses[w * K + k])}, rank ${byMass}` : ""}).`;
    cell.replaceChildren(h("p", {}, sentence), table({
      caption: `${data.columns[k].name}, ${windows[w]}: rank 1 of ${K} is the block that did or got most`,
      columns: [{ key: "what", title: "measured by" }, { key: "value", title: "value", numeric: true }, { key: "rank", title: "rank", numeric: true }], rows,
    }));
    says.say(sentence);
    const sheet = data.sheet;
    const index = data.columns[k].frame;
    figure.hidden = !sheet || index < 0;
    if (figure.hidden) return;
    const scale = 190 / Math.max(sheet.width, sheet.height);
    photo.width = Math.round(sheet.width * scale);
    photo.height = Math.round(sheet.height * scale);
    const context = /** @type {CanvasRenderingContext2D} */ (photo.getContext("2d"));
    context.imageSmoothingEnabled = scale < 1;
    frame.photo(context, index, 0, 0, photo.width, photo.height);
    const part = data.columns[k].part;
    if (part) {
      const [x, y, wide, tall] = [part[1] / part[3] * photo.width, part[0] / part[2] * photo.height, photo.width / part[3], photo.height / part[2]];
      context.lineWidth = 4;
      context.strokeStyle = "#fff";
      context.strokeRect(x + 1, y + 1, wide - 2, tall - 2);
      context.lineWidth = 2;
      context.strokeStyle = "#000";
      context.strokeRect(x + 1, y + 1, wide - 2, tall - 2);
    }
    name.textContent = data.columns[k].name;
  }
  function draw() {
    const { w, k } = at();
    effectMap.move(w, k);
    massMap?.move(w, k);
    scoreMap?.move(0, k);
    frame.choose(k);
    tell();
  }
  picks.watch((changed) => {
    if (changed.has("frame") && !changed.has("cell")) {
      const k = data.columns.findIndex((/** @type {any} */ c) => picks.get("frame") >= c.clip && picks.get("frame") < c.clipEnd);
      if (k >= 0 && data.columns[at().k].frame !== data.columns[k].frame) return picks.set({ cell: [at().w, k] });
    }
    draw();
  });
  draw();
  return () => (picks.close(), frame.close());
}

export default { render };
