// One conversation's attention, drawn: controls, grid, film strip, bars and numbers, kept in step with what is picked.
import { Maps, ends, percent, points, toBytes, valuesOf } from "./attentionmaps.js";
import { boxControls } from "./boxcontrols.js";
import { colourbar } from "./colourbar.js";
import { lookUpTable } from "./colour.js";
import { announcer, h, select, slider, toggle } from "./dom.js";
import { film } from "./film.js";
import { frameBars } from "./framebars.js";
import { grid } from "./grid.js";
import { difference, rescaled } from "./heat.js";
import { numberTable } from "./numbers.js";
import { tokenStrip } from "./tokens.js";

const UNIT = "attention probability";
const [SINKS, BOX] = ["sink_mass", "box_mass"];

/**
 * @param {{ data: any, place: HTMLElement, picks: import("./picks.js").Picks, ask: (question: Record<string, any>) => Promise<any>, sample: string | null }} what
 */
export function attentionPanel({ data, place, picks, ask, sample }) {
  const notes = data.notes.map((/** @type {string} */ note) => h("p", { class: "wb-note" }, note));
  if (!data.strip) {
    place.append(...notes);
    return { close() {} };
  }
  const maps = new Maps(data, ask, sample);
  const { layers, heads, sides, strip, statistics } = data;
  const both = sides.length === 2;
  const sequential = lookUpTable(data.colours.sequential);
  const diverging = lookUpTable(data.colours.diverging);
  const clamp = (/** @type {any} */ value, /** @type {number} */ n, /** @type {number} */ start) => (Number.isInteger(value) && value >= 0 && value < n ? value : start);
  const queries = new Set(data.tokens.flatMap((/** @type {any} */ t) => (t.query === null ? [] : [t.query])));
  const now = () => ({
    query: queries.has(picks.get("query")) ? picks.get("query") : data.start.query,
    layer: clamp(picks.get("layer"), layers.length, data.start.layer),
    head: clamp(picks.get("head"), heads.length, 0),
    side: both && ["before", "difference"].includes(picks.get("side")) ? picks.get("side") : "after",
    frame: Math.max(0, strip.spans.findIndex((/** @type {number[]} */ [start, stop]) => picks.get("frame") >= start && picks.get("frame") < stop)),
  });
  const toFrame = (/** @type {number} */ frame) => picks.set({ frame: strip.spans[frame][0] }); // views share frames of the clip
  const nameOf = (/** @type {number} */ head) => (head === 0 ? "mean over heads" : `head ${heads[head]}`);

  /** @type {import("./attentionmaps.js").Bundle | null} */
  let bundle = null;
  let shownQuery = -1;
  let [own, bare, closed] = [false, false, false];
  let statistic = 0;
  /** @type {Record<string, import("./attentionmaps.js").Sheet> | null} */
  let sheets = null;

  // controls
  const tokens = tokenStrip(data.tokens, now().query, (query) => picks.set({ query }));
  const sideButtons = both ? ["before", "after", "difference"].map((side) => h("button", { type: "button", onclick: () => picks.set({ side }) }, side)) : [];
  const layerSlider = slider("Layer", { min: 0, max: layers.length - 1, value: now().layer, words: (i) => String(layers[i]) }, (layer) => picks.set({ layer }));
  const headSelect = select("Head", heads.map((/** @type {any} */ _, /** @type {number} */ i) => [String(i), nameOf(i)]), String(now().head), (head) => picks.set({ head: Number(head) }));
  const ownToggle = toggle("own scale for each map", false, (on) => ((own = on), paint()));
  const sinkToggle = toggle("hide sinks", false, (on) => ((bare = on), paint()));
  const why = Object.values(data.sinks).map((/** @type {any} */ one) => one.why).find(Boolean);
  const heading = h("p", { class: "wb-heading", role: "status" });
  const status = h("p", { class: "wb-note", role: "status", hidden: true });
  const { line, say } = announcer();

  // film, bars, numbers
  const box = boxControls({ data, picks, changed: () => (drawnBox(), paint()) });
  const strips = film({
    label: "Attention over the frames", ...strip, cells: null, unit: UNIT, choose: ({ frame }) => toFrame(frame),
    outlines: box.outlines, dragged: box.dragged,
  });
  const bar = colourbar(UNIT);
  const bars = frameBars({ frames: strip.frames, times: strip.times, names: strip.names, unit: "Attention", choose: toFrame });
  const columns = both ? ["before", "after", "change (points)"] : [sides[0].name];
  const rows = [...statistics.slice(0, 1), { key: "text", title: "mass on text", meaning: "all that does not lie on the frames" }, ...statistics.slice(1), { key: "chance", title: "the box's share of the area", meaning: "what even attention would give it" }];
  const numbers = numberTable(`This map in numbers: values of one conversation, not estimates; rows ${data.precision}`, columns, rows);

  // layers x heads
  const statSelect = select("Colour the grid by", statistics.map((/** @type {any} */ s, /** @type {number} */ i) => [String(i), s.title]), "0", (i) => ((statistic = Number(i)), colourGrid()));
  /** @type {ArrayLike<number>} */
  let gridValues = [];
  const gridWords = (/** @type {number} */ row, /** @type {number} */ col) =>
    `layer ${layers[row]}, ${nameOf(col)}: ${statistics[statistic].title} ${now().side === "difference" ? `${points(gridValues[row * heads.length + col])} points` : percent(gridValues[row * heads.length + col])}`;
  const wide = Math.max(8, Math.min(30, Math.floor(600 / heads.length)));
  const tall = Math.max(5, Math.min(22, Math.floor(250 / layers.length)));
  const table = grid({
    label: "Layers by heads", rows: layers.length, cols: heads.length, cell: [wide, tall], words: gridWords, choose: (layer, head) => picks.set({ layer, head }),
    rowTitle: "layer", colTitle: heads.length > 1 ? "mean, then head" : "", rowName: (i) => String(layers[i]), colName: (i) => String(heads[Math.max(heads.length > 1 ? 1 : 0, i)]),
  });
  const gridBar = colourbar("share");
  const meaning = h("p", { class: "wb-said" });
  strips.side.append(h("div", { class: "wb-bar" }, statSelect.whole), table.whole, gridBar.whole, meaning);
  place.append(...notes, tokens.whole,
    h("div", { class: "wb-bar" }, both && h("span", { class: "wb-control", role: "group", "aria-label": "Capture" }, ...sideButtons), layerSlider.whole, headSelect.whole, ownToggle.whole, sinkToggle.whole),
    why ? h("p", { class: "wb-said" }, why) : "", heading, status, line, bar.whole, strips.whole, bars.whole,
    h("div", { class: "wb-columns" }, h("div", {}, numbers.whole), box.whole));

  function colourGrid() {
    if (!bundle) return;
    const { side, layer, head } = now();
    const drawn = statistics[statistic].key === BOX ? box.grid(side) : null;
    const known = bundle;
    const of = (/** @type {string} */ key) => (drawn ? box.grid(key) : null) ?? maps.statistic(known, statistic, key);
    gridValues = of(side);
    const many = side === "difference" ? [gridValues] : sides.map((/** @type {any} */ s) => of(s.key));
    const range = ends(many, side === "difference");
    const colours = side === "difference" ? diverging : sequential;
    table.draw(toBytes(gridValues, range), colours);
    table.move(layer, head);
    const own = statistics[statistic].key === BOX && picks.get("box") && !drawn ? " (the object's own box)" : drawn ? " (the drawn box)" : "";
    gridBar.show(colours, range, statistics[statistic].title + own + (side === "difference" ? ", after − before" : both ? ", same scale before and after" : ""));
    meaning.textContent = `${statistics[statistic].title}: ${statistics[statistic].meaning}. The mean over heads counts as a map of its own.`;
  }

  /** Show what is picked; only painting, once numbers are here. */
  function paint() {
    const { query, layer, head, side } = now();
    if (!bundle || closed) return;
    sheets = head ? maps.known(query, layer, head) ?? null : maps.mean(bundle, layer);
    const fallback = !sheets;
    sheets ??= maps.mean(bundle, layer);
    const shownHead = fallback ? 0 : head;
    const top = maps.top(bundle, { side, layer, head: shownHead, own, bare: bare && maps.hasSinks });
    const hiding = bare && maps.hasSinks;
    if (side === "difference") {
      const [after, before] = [sheets.after, sheets.before];
      const left = hiding ? maps.without(after, "difference", layer) : after;
      const apart = difference(left, before, maps.tokens, top);
      strips.draw(apart.bytes, diverging, apart.range);
      bar.show(diverging, apart.range, `after − before; ${scaleWords(shownHead)}`);
      bars.draw(Float32Array.from(after.frames, (v, i) => v - before.frames[i]), restWords(side, layer, shownHead));
    } else {
      const sheet = hiding ? maps.without(sheets[side], side, layer) : sheets[side];
      const shown = { low: 0, high: top };
      strips.draw(sheet.bytes, rescaled(sequential, sheet.range, shown), sheet.range, sheet.start);
      bar.show(sequential, shown, scaleWords(shownHead));
      bars.draw(sheet.frames, restWords(side, layer, shownHead));
    }
    strips.move({ frame: now().frame });
    bars.move(now().frame);
    fill(layer, shownHead);
    const name = side === "difference" ? "difference, after − before" : sides.find((/** @type {any} */ s) => s.key === side).name;
    heading.textContent = `Layer ${layers[layer]}, ${nameOf(shownHead)}, ${name}${hiding ? `. Hidden: ${hiddenWords(layer, shownHead, side)}` : ""}`;
  }
  const scaleWords = (/** @type {number} */ head) =>
    `${own ? "scale of this map alone" : head ? "one scale for all layers and heads of this token" : "one scale for the means of all layers"}${bare ? "; sinks hidden" : ""}; no colour: not visible`;

  /** What the sink toggle hides. @param {number} layer @param {number} head @param {string} side */
  const hiddenWords = (layer, head, side) =>
    (side === "difference" ? ["before", "after"] : [side]).map((one) => {
      const count = maps.hidden(one, layer)[0].reduce((all, hidden) => all + hidden, 0);
      return `${percent(at(SINKS, one, layer, head))} of this token's attention, on ${count} sink${count === 1 ? "" : "s"}${side === "difference" ? ` ${one}` : ""}`;
    }).join("; ");
  /** One number of the map of a side. @param {string} key @param {string} side @param {number} layer @param {number} head */
  function at(key, side, layer, head) {
    const index = statistics.findIndex((/** @type {any} */ s) => s.key === key);
    return bundle ? maps.statistic(bundle, index, side)[layer * heads.length + head] : NaN;
  }
  /** @param {string} side @param {number} layer @param {number} head */
  function restWords(side, layer, head) {
    if (side === "difference") return `To text: ${points(-at("visual_mass", side, layer, head))} points.`;
    return `${percent(1 - at("visual_mass", side, layer, head))} of this token's attention goes to text.`;
  }
  /** @param {number} layer @param {number} head */
  function fill(layer, head) {
    const order = both ? ["before", "after"] : ["after"];
    const put = (/** @type {string} */ key, /** @type {number[]} */ values, signed = true) =>
      numbers.set(key, [...values.map((v) => percent(v)), ...(both ? [signed ? points(values[1] - values[0]) : ""] : [])]);
    for (const { key } of statistics) {
      if (key !== BOX) put(key, order.map((side) => at(key, side, layer, head)));
    }
    put("text", order.map((side) => 1 - at("visual_mass", side, layer, head)));
    const drawn = sheets ? order.map((side) => box.mass(maps, valuesOf(/** @type {any} */ (sheets)[side]))) : [];
    const given = !picks.get("box") && data.box;
    put(BOX, given ? order.map((side) => at(BOX, side, layer, head)) : drawn.map((one) => one?.mass ?? NaN));
    put("chance", order.map((_, i) => (given ? data.box.chance : (drawn[i]?.chance ?? NaN))), false);
  }

  /** Ask for the grid of the box that was drawn. */
  async function drawnBox() {
    const { query } = now();
    const drawn = picks.get("box");
    box.setGrid(null);
    if (drawn) {
      try {
        const answer = await ask({ sample, query, box: drawn });
        if (!closed && JSON.stringify(picks.get("box")) === JSON.stringify(drawn)) await box.setGrid(answer);
      } catch (error) {
        box.say(`The grid does not know this box: ${/** @type {Error} */ (error).message}. The number beside is of the map that is shown.`);
      }
    }
    if (!closed) colourGrid();
  }

  /** Numbers of another token or head, when they are needed. */
  async function load() {
    const { query, layer, head } = now();
    try {
      const found = await maps.query(query);
      if (closed || now().query !== query) return;
      const other = shownQuery !== query;
      bundle = found;
      shownQuery = query;
      status.hidden = true;
      if (head && !maps.known(query, layer, head)) {
        paint();
        await maps.head(query, layer, head);
      }
      if (closed) return;
      paint();
      if (other) {
        colourGrid();
        if (picks.get("box")) drawnBox();
      }
    } catch (error) {
      if (closed) return;
      const what = bundle && shownQuery === query ? `${nameOf(head)} of layer ${layers[layer]}; the mean over heads is shown instead` : "that token; what was shown before stays";
      status.textContent = `Not shown: ${what} (${/** @type {Error} */ (error).message}). ${data.page}`;
      status.hidden = false;
      paint();
    }
  }

  /** @param {Set<string>} changed */
  function follow(changed) {
    const { query, layer, head, side, frame } = now();
    if (changed.has("query")) tokens.show(query);
    if (changed.has("layer")) layerSlider.set(layer);
    if (changed.has("head")) headSelect.box.value = String(head);
    sideButtons.forEach((button) => button.setAttribute("aria-pressed", String(button.textContent === side)));
    if (changed.has("frame")) {
      strips.move({ frame });
      bars.move(frame);
    }
    if (changed.has("layer") || changed.has("head")) {
      table.move(layer, head);
      say(`layer ${layers[layer]}, ${nameOf(head)}`);
    }
    if (changed.has("box")) box.show();
    if (changed.has("query") || ((changed.has("layer") || changed.has("head")) && head && !maps.known(query, layer, head))) load();
    else if (changed.has("layer") || changed.has("head") || changed.has("side")) {
      status.hidden = true;
      paint();
    }
    if (changed.has("side")) colourGrid();
  }
  picks.watch(follow);
  follow(new Set());
  box.show();
  maps.query(now().query).catch(() => {}); // unpacked at the same time; `load` tells what went wrong
  maps.ready().then(() => {
    if (closed) return;
    sinkToggle.box.disabled = !maps.hasSinks;
    strips.setCells(maps.cells ?? null);
    return load();
  });

  return {
    close() {
      closed = true;
      picks.listeners.delete(follow);
      strips.close();
      bars.close();
    },
  };
}
