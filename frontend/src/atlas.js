// Temporal atlas: attention mass of every query on every segment (frames, question, answer, system), before and after.
import { unpack, valueOf } from "./lib/arrays.js";
import { asking } from "./lib/ask.js";
import { lookUpTable, number } from "./lib/colour.js";
import { columns } from "./lib/columns.js";
import { announcer, h, select, table } from "./lib/dom.js";
import { bar } from "./lib/layout.js";
import { legend } from "./lib/legend.js";
import { Picks } from "./lib/picks.js";

/** @typedef {import("./lib/arrays.js").Unpacked} Unpacked */
/** @typedef {{ after: Unpacked, before?: Unpacked, change?: Unpacked, kinds: Unpacked }} Shown */
/** @typedef {"after" | "before" | "change"} Which */

const BARS = 74; // pixels
const percent = (/** @type {number} */ value) => (Number.isFinite(value) ? `${number(100 * value, 2)} %` : "not visible");

/**
 * data: see workbench/views/atlas.py (`_data`).
 *
 * @param {import("./lib/types.js").Context} context
 */
async function render({ model, el }) {
  const data = model.get("data");
  const { names, groups, kinds, notes } = data;
  const compared = Boolean(names.before);
  const picks = new Picks(model, { layer: "mean", head: "mean", rows: groups[groups.length - 1].key, show: compared ? "change" : "after", row: groups.length > 1 ? data.answer : 0, segment: data.first });
  const { ask, close } = asking(model);
  const says = announcer();
  const scales = { sequential: lookUpTable(data.colours.sequential), diverging: lookUpTable(data.colours.diverging) };
  const uniform = (await unpack(data.uniform)).data;
  const uniformKinds = (await unpack(data.uniform_kinds)).data;
  const cols = data.columns.length;
  const titles = { after: compared ? `after: ${names.after}` : names.after, before: `before: ${names.before}`, change: "after − before" };

  const root = h("div", { class: "wb" });
  const trouble = h("p", { class: "wb-note", role: "alert", hidden: true });
  const key = legend();
  const scaleWords = h("span", { class: "wb-legend" });
  /** @param {string} name @param {(number | string)[]} listed @param {string} pick */
  const chooser = (name, listed, pick) =>
    select(name, [["mean", listed.length > 1 ? `mean of ${listed.length}` : `${listed[0]}`], ...(listed.length > 1 ? listed.map((n, i) => /** @type {[string, string]} */ ([String(i), String(n)])) : [])], String(picks.get(pick)), (value) => picks.set({ [pick]: value }));
  const layer = chooser("Layer", data.layers, "layer");
  const head = chooser("Head", data.heads, "head");
  const rows = select("Rows", groups.map((/** @type {any} */ g) => [g.key, g.title]), picks.get("rows"), (value) => picks.set({ rows: value, row: value === "tokens" ? data.answer : 0 }));
  const show = select("Show", compared ? [["change", titles.change], ["after", titles.after], ["before", titles.before]] : [["after", titles.after]], picks.get("show"), (value) => picks.set({ show: value }));
  const place = h("div");
  const photo = h("canvas", { class: "wb-map", width: 1, height: 1, "aria-hidden": "true" });
  const caption = h("p", { class: "wb-said" });
  const figure = h("div", {}, photo, caption);
  const details = h("div");
  root.append(...notes.map((/** @type {string} */ note) => h("p", { class: "wb-note" }, note)),
    h("div", { class: "wb-bar" }, show.whole, rows.whole, layer.whole, head.whole, key.whole, scaleWords), trouble, place, h("div", { class: "wb-beside" }, figure, details), says.line);
  el.append(root);

  /** @type {Shown | null} */
  let shown = null;
  /** @type {ReturnType<typeof columns> | null} */
  let frame = null;
  /** @type {ReturnType<ReturnType<typeof columns>["map"]> | null} */
  let map = null;
  /** @type {HTMLCanvasElement | null} */
  let bars = null;
  let barWords = h("div", { class: "wb-row-title" });
  let asked = 0;

  const group = () => groups.find((/** @type {any} */ g) => g.key === picks.get("rows")) ?? groups[0];
  const row = () => Math.min(group().count - 1, picks.get("row"));
  const which = () => /** @type {Which} */ (compared ? picks.get("show") : "after");
  const averaged = () => `${picks.get("layer") === "mean" ? "layers" : ""}${picks.get("head") === "mean" ? "heads" : ""}` || "single";
  const scope = () => {
    const part = (/** @type {string} */ pick, /** @type {any[]} */ listed, /** @type {string} */ name) =>
      picks.get(pick) === "mean" ? (listed.length > 1 ? `mean of ${listed.length} ${name}s` : `${name} ${listed[0]}`) : `${name} ${listed[Number(picks.get(pick))]}`;
    return `${part("layer", data.layers, "layer")}, ${part("head", data.heads, "head")}`;
  };
  /** @param {Which} name @param {number} r @param {number} c of the chosen rows */
  const value = (name, r, c) => {
    const one = shown?.[name];
    return one ? valueOf(one.data[(group().start + r) * cols + c], one) : NaN;
  };
  /** @param {number} r @param {number} c */
  function words(r, c) {
    const share = uniform[(group().start + r) * cols + c];
    const [after, before] = [value("after", r, c), value("before", r, c)];
    const both = compared ? `: ${percent(before)} before, ${percent(after)} after` : `: ${percent(after)}`;
    return `${data.rows[group().start + r].name} looks at ${data.columns[c].name}${both}; uniform attention would give ${percent(share)}`;
  }
  /** Rows of the chosen kind, anew. */
  function build() {
    frame?.close();
    const made = columns({ columns: data.columns, sheet: data.sheet, ready: showPhoto, title: "looked at: segments of the conversation, in order" });
    const { start, count, title } = group();
    map = made.map({
      label: `Attention mass, ${title} by segment`, title: "", words,
      rows: data.rows.slice(start, start + count).map((/** @type {any} */ r) => r.name),
      choose: (r, c) => picks.set({ row: r, segment: c, ...(data.columns[c].clip >= 0 ? { frame: data.columns[c].clip } : {}) }),
    });
    bars = h("canvas", { class: "wb-heads", "aria-hidden": "true" });
    made.body.append(h("div", { class: "wb-aligned wb-aligned-bottom" }, barWords, bars));
    place.replaceChildren(made.whole, map.said);
    frame = made;
  }
  function paintBars() {
    if (!bars || !frame || !shown) return;
    const ratio = globalThis.devicePixelRatio || 1;
    const [wide, top] = [frame.wide, data.scales[averaged()].mass];
    bars.width = Math.round(cols * wide * ratio);
    bars.height = Math.round(BARS * ratio);
    bars.style.width = `${cols * wide}px`;
    bars.style.height = `${BARS}px`;
    const context = /** @type {CanvasRenderingContext2D} */ (bars.getContext("2d"));
    context.scale(ratio, ratio);
    const style = getComputedStyle(bars);
    const ink = style.color;
    const room = BARS - 14;
    for (let c = 0; c < cols; c++) {
      const mass = value(which() === "before" ? "before" : "after", row(), c);
      const { share, cut } = bar(mass, top);
      context.fillStyle = style.getPropertyValue("--wb-mark") || ink;
      context.fillRect(c * wide + 1, BARS - share * room, Math.max(1, wide - 2), share * room);
      if (cut && wide >= 20) {
        context.fillStyle = ink;
        context.font = "10px system-ui, 'DejaVu Sans', sans-serif";
        context.textAlign = "center";
        context.fillText(`${number(100 * mass, 2)} %`, (c + 0.5) * wide, 10);
      }
      const even = bar(uniform[(group().start + row()) * cols + c], top);
      context.fillStyle = ink;
      if (even.share > 0) context.fillRect(c * wide, BARS - even.share * room - 1, wide, 2);
    }
    barWords.textContent = `chosen row${compared ? (which() === "before" ? ", before" : ", after") : ""}: 0 to ${percent(top)}; line: uniform attention`;
  }
  function tell() {
    if (!shown) return;
    const whole = group().start + row();
    const count = kinds.length;
    const sum = (/** @type {number} */ w, /** @type {number} */ k) => /** @type {Shown} */ (shown).kinds.data[(w * data.rows.length + whole) * count + k];
    const lines = kinds.map((/** @type {any} */ kind, /** @type {number} */ k) => {
      const share = uniformKinds[whole * count + k];
      const ratio = sum(0, k) / share;
      return { kind: kind.title, after: percent(sum(0, k)), before: percent(sum(1, k)), uniform: percent(share), ratio: Number.isFinite(ratio) ? `${number(ratio, 2)} ×` : "–" };
    });
    const listed = [{ key: "kind", title: "segment" }, ...(compared ? [{ key: "before", title: "before", numeric: true }] : []),
      { key: "after", title: compared ? "after" : "mass", numeric: true }, { key: "uniform", title: "uniform", numeric: true }, { key: "ratio", title: compared ? "after / uniform" : "mass / uniform", numeric: true }];
    const frames = data.columns.map((/** @type {any} */ column, /** @type {number} */ c) => ({ c, clip: column.clip, name: column.name, mass: value(which(), row(), c) }))
      .filter((/** @type {any} */ f) => f.clip >= 0 && Number.isFinite(f.mass)).sort((/** @type {any} */ a, /** @type {any} */ b) => Math.abs(b.mass) - Math.abs(a.mass));
    const signed = (/** @type {number} */ v) => (which() === "change" ? `${v >= 0 ? "+" : "−"}${percent(Math.abs(v))}` : percent(v));
    const most = frames.slice(0, 3).map((/** @type {any} */ f) => `${f.name} ${signed(f.mass)}`).join("; ");
    const sentence = frames.length
      ? `${data.rows[whole].name}, ${scope()}: ${which() === "change" ? "the largest changes on frames are" : "of all frames it looks most at"} ${most}.`
      : `${data.rows[whole].name} sees no frame.`;
    details.replaceChildren(h("p", {}, sentence), table({ caption: "Share of the row's attention on each kind of segment, beside the share that uniform attention over what it can see would give", columns: listed, rows: lines }));
    says.say(sentence);
    showPhoto();
  }
  function showPhoto() {
    const column = data.columns[picks.get("segment")];
    const sheet = data.sheet;
    figure.hidden = !sheet || !column || column.frame < 0;
    if (figure.hidden || !frame) return;
    const scale = 190 / Math.max(sheet.width, sheet.height);
    photo.width = Math.round(sheet.width * scale);
    photo.height = Math.round(sheet.height * scale);
    const context = /** @type {CanvasRenderingContext2D} */ (photo.getContext("2d"));
    context.imageSmoothingEnabled = scale < 1;
    frame.photo(context, column.frame, 0, 0, photo.width, photo.height);
    caption.textContent = column.name;
  }
  function draw() {
    if (!shown || !map || !frame) return;
    const name = which();
    const one = /** @type {Unpacked} */ (shown[name]);
    const colours = name === "change" ? scales.diverging : scales.sequential;
    map.draw(one.data, colours, group().start * cols);
    map.move(row(), picks.get("segment"));
    const { mass, change } = data.scales[averaged()];
    if (name === "change") key.set(colours, `−${percent(change)}`, `+${percent(change)}`);
    else key.set(colours, "0 %", percent(mass));
    scaleWords.textContent = `${data.scales.words[averaged()]}; no colour: not visible`;
    map.heading.textContent = `Who looks (${group().title}); ${titles[name]}; ${scope()}`;
    frame.choose(picks.get("segment"));
    paintBars();
    tell();
  }
  async function fetchMap() {
    const mine = ++asked;
    const question = { layer: picks.get("layer"), head: picks.get("head") };
    trouble.hidden = true;
    try {
      const packed = data.maps[`${question.layer}/${question.head}`] ?? (await ask(question));
      const parts = await Promise.all(Object.entries(packed).map(async ([name, one]) => [name, await unpack(/** @type {any} */ (one))]));
      if (mine !== asked) return;
      shown = Object.fromEntries(parts);
      draw();
    } catch (error) {
      if (mine !== asked) return;
      trouble.textContent = `Layer and head as chosen cannot be shown: ${/** @type {Error} */ (error).message}. The last map stays.`;
      trouble.hidden = false;
    }
  }
  picks.watch((changed) => {
    for (const [pick, box] of [["layer", layer.box], ["head", head.box], ["rows", rows.box], ["show", show.box]]) /** @type {HTMLSelectElement} */ (box).value = String(picks.get(/** @type {string} */ (pick)));
    if (changed.has("frame") && !changed.has("segment")) {
      const column = data.columns.findIndex((/** @type {any} */ c) => c.clip >= 0 && picks.get("frame") >= c.clip && picks.get("frame") < c.clipEnd);
      if (column >= 0) return picks.set({ segment: column });
    }
    if (changed.has("rows")) build();
    if (changed.has("layer") || changed.has("head")) fetchMap();
    else draw();
  });
  const dark = matchMedia("(prefers-color-scheme: dark)");
  dark.addEventListener("change", paintBars);
  build();
  await fetchMap();
  return () => (picks.close(), close(), frame?.close(), dark.removeEventListener("change", paintBars));
}

export default { render };
