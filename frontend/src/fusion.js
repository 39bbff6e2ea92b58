// The TFF lens: which branch each patch uses, what the branches do to frames and patches, and how far memory reaches.
import { unpack, valueOf } from "./lib/arrays.js";
import { asking } from "./lib/ask.js";
import { lookUpTable, number } from "./lib/colour.js";
import { announcer, h, select, slider } from "./lib/dom.js";
import { grid } from "./lib/grid.js";
import { Picks } from "./lib/picks.js";
import { reel } from "./lib/reel.js";
import { spread } from "./lib/spread.js";
import { triangle } from "./lib/ternary.js";

const TAPS = ["f − 1", "f", "f + 1"];
const percent = (/** @type {number} */ share) => `${number(100 * share)}%`;

/** @param {import("./lib/types.js").Context} context */
function render({ model, el }) {
  const data = model.get("data");
  const { sides, maps, notes, mix } = data;
  const picks = new Picks(model);
  const { ask, close } = asking(model);
  const { line, say } = announcer();
  const tables = { sequential: lookUpTable(data.colours.sequential), diverging: lookUpTable(data.colours.diverging), mix: lookUpTable(mix.table) };
  const last = sides[sides.length - 1];
  const counts = [...new Set(sides.flatMap((/** @type {any} */ side) => side.counts))].sort((a, b) => a - b);
  const layers = Math.max(...sides.map((/** @type {any} */ side) => side.layers));
  /** @type {Map<string, Promise<any>>} */
  const known = new Map();

  /** @param {number} side @param {string} map */
  function detail(side, map) {
    const question = { side, frames: picks.get("frames"), layer: picks.get("layer"), map };
    const key = JSON.stringify(question);
    let answer = known.get(key);
    if (!answer) {
      answer = data.details[key] ? Promise.resolve(data.details[key]) : ask(question);
      known.set(key, answer);
      answer.catch(() => known.delete(key)); // asked again when the kernel is back
    }
    return answer;
  }

  const framesAt = slider("Frames shown", { min: 0, max: counts.length - 1, value: counts.indexOf(picks.get("frames")), words: (i) => `${counts[i]}` }, (i) => choose({ frames: counts[i] }));
  const layerAt = slider("Layer", { min: 0, max: layers - 1, value: picks.get("layer"), words: (i) => `${i} of 0 to ${layers - 1}` }, (layer) => choose({ layer }));
  const mapAt = select("Film strip shows", maps.map((/** @type {any} */ map) => [map.key, map.title]), picks.get("map"), (map) => choose({ map }));
  /** @type {[string, string][]} */
  const dots = [["patches", "patches of the mapped clip"]];
  if (sides.some((/** @type {any} */ side) => side.sweep)) dots.push(["sweep", "clips, mean over patches"]);
  if (sides.some((/** @type {any} */ side) => side.still)) dots.push(["still", "still images, mean over patches"]);
  const dotsAt = select("Marks in the triangle", dots, picks.get("dots"), (value) => choose({ dots: value, one: "" }));
  const oneAt = select("Which one", [["", "all alike"]], "", (one) => choose({ one }));
  const legend = last.branches.length === 3 ? triangle(tables.mix, last.branches) : null;
  const legendSaid = h("p", { class: "wb-said" });
  const panels = h("div", { class: "wb-columns" });
  const films = h("div", {});
  const root = h("div", { class: "wb" },
    ...notes.map((/** @type {string} */ note) => h("p", { class: "wb-note" }, note)),
    h("div", { class: "wb-bar" }, counts.length > 1 && framesAt.whole, layers > 1 && layerAt.whole, mapAt.whole),
    h("div", { class: "wb-bar" }, dotsAt.whole, oneAt.whole),
    h("div", { class: "wb-lens" }, legend && h("figure", { class: "wb-figure" }, legend.svg, legendSaid), panels),
    films, line);
  el.append(root);

  /** @param {Record<string, any>} values */
  function choose(values) {
    const next = { frames: picks.get("frames"), layer: picks.get("layer"), ...values };
    picks.set({ ...values, at: `${next.layer}/${next.frames}` });
  }

  /** The numbers of clips or images of a side, in the chosen layer and count. @param {any} side @param {string} which */
  async function means(side, which) {
    const found = side[which];
    const count = side.counts.indexOf(picks.get("frames"));
    if (!found || (which === "sweep" && count < 0) || picks.get("layer") >= side.layers) return [];
    const { data: values, shape } = await unpack(found.values);
    const [n, width] = [shape[0], shape[shape.length - 1]];
    return Array.from({ length: n }, (_, i) => {
      const row = which === "sweep" ? (i * shape[1] + count) * side.layers + picks.get("layer") : i * side.layers + picks.get("layer");
      const all = Array.from(values.slice(row * width, (row + 1) * width));
      const mixture = side.branches.map((/** @type {string} */ name) => all[side.numbers.indexOf(`beta_${name}`)]);
      return { id: found.ids[i] ?? String(i), mixture, update: all[side.numbers.indexOf("update")], memory: all[side.numbers.indexOf("effective_frames")] };
    }).filter(({ mixture }) => mixture.every(Number.isFinite));
  }

  /** Marks on the triangle: the last side's are filled. */
  async function mark() {
    if (!legend) return;
    const which = picks.get("dots");
    const marks = [];
    const words = [];
    const ids = new Set();
    for (const [s, side] of sides.entries()) {
      const hollow = s < sides.length - 1;
      const look = { shape: /** @type {"circle" | "square"} */ (hollow ? "square" : "circle"), hollow };
      if (which === "patches") {
        const base = await detail(s, "").catch(() => null);
        if (!base?.weights) continue;
        const { data: betas } = await unpack(base.weights);
        const patches = betas.length / 3;
        for (let p = 0; p < patches; p++) {
          marks.push({ mixture: betas.slice(3 * p, 3 * p + 3), ...look, strong: p === picks.get("place") });
        }
        words.push(`${hollow ? "□" : "●"} ${side.title}: ${patches} patches, patch ${picks.get("place") + 1} larger`);
      } else {
        const rows = await means(side, which);
        for (const row of rows) {
          ids.add(row.id);
          marks.push({ mixture: row.mixture, ...look, strong: row.id === picks.get("one"), title: `${row.id}: ${mixtureWords(side, row.mixture)}` });
        }
        const one = rows.find(({ id }) => id === picks.get("one"));
        const said = one ? `; ${one.id}: ${mixtureWords(side, one.mixture)}, changed by ${percent(one.update)} of its norm, memory holds ${number(one.memory)} frames` : "";
        words.push(`${hollow ? "□" : "●"} ${side.title}: ${rows.length} ${which === "sweep" ? `clips at ${picks.get("frames")} frames` : "still images"}${said}`);
      }
    }
    marks.sort((a, b) => Number(a.strong ?? 0) - Number(b.strong ?? 0));
    legend.mark(marks, `Mixtures on a triangle of ${last.branches.join(", ")}. ${words.join(". ")}`);
    legendSaid.textContent = words.join(". ");
    oneAt.whole.hidden = which === "patches";
    oneAt.box.replaceChildren(h("option", { value: "" }, "all alike"), ...[...ids].map((id) => h("option", { value: id }, id)));
    oneAt.box.value = ids.has(picks.get("one")) ? picks.get("one") : "";
  }

  /** @param {any} side @param {ArrayLike<number>} mixture */
  const mixtureWords = (side, mixture) => side.branches.map((/** @type {string} */ name, /** @type {number} */ b) => `${name} ${percent(mixture[b])}`).join(", ");
  /** @param {any} side @param {number} patch */
  const patchName = (side, patch) => `patch row ${Math.floor(patch / side.cols) + 1}, column ${(patch % side.cols) + 1}`;

  /** @param {any} side */
  function titleOf(side) {
    return h("h3", {}, `${side.title}, clip ${side.clip} `, h("span", { class: "wb-badge" }, `${side.variant} variant`),
      side.bypass && h("span", { class: "wb-badge" }, "still images go around it"));
  }

  /** The maps of one side that are no film. @param {any} side @param {number} s */
  async function panel(side, s) {
    const base = await detail(s, "");
    if (base.missing) return h("section", {}, titleOf(side), h("p", { class: "wb-note" }, base.missing));
    const n = picks.get("frames");
    const parts = [];
    if (base.weights) {
      const { data: betas } = await unpack(base.weights);
      const k = side.branches.length;
      const cell = /** @type {[number, number]} */ ([Math.max(3, Math.floor(216 / Math.max(side.cols, side.rows))), Math.max(3, Math.floor(216 / Math.max(side.cols, side.rows)))]);
      const words = (/** @type {number} */ row, /** @type {number} */ col) => {
        const at = (row * side.cols + col) * k;
        return `row ${row + 1}, column ${col + 1}: ${mixtureWords(side, betas.slice(at, at + k))}`;
      };
      const map = grid({ label: `Mixture of branches of each patch, ${side.title}`, rows: side.rows, cols: side.cols, cell, words, rowTitle: "patch row", colTitle: "patch column", rowName: (r) => String(r + 1), colName: (c) => String(c + 1), choose: (row, col) => choose({ place: row * side.cols + col }) });
      if (base.mix) map.draw((await unpack(base.mix)).data, tables.mix);
      parts.push(box("Branch weights β of each patch", base.mix ? map.whole : h("p", { class: "wb-note" }, `${k} branches: see the table for their weights.`)));
    }
    if (base.memory) {
      const { data: bytes, low, high } = await unpack(base.memory);
      const words = (/** @type {number} */ row, /** @type {number} */ col) =>
        col > row ? `frame ${row + 1} has not seen frame ${col + 1}` : `frame ${row + 1} gives frame ${col + 1} a weight of ${number(valueOf(bytes[row * n + col], { low, high }))}`;
      const size = Math.max(3, Math.min(24, Math.floor(216 / n)));
      const matrix = grid({ label: `Weights of memory, ${side.title}`, rows: n, cols: n, cell: [size, size], words, rowTitle: "remembering frame", colTitle: "remembered frame", rowName: (r) => String(r + 1), colName: (c) => String(c + 1), choose: () => {} });
      matrix.draw(bytes, tables.sequential);
      parts.push(box("Memory: weight of each frame", matrix.whole, scale(tables.sequential, low, high, "weight, mean over patches and channels")));
    }
    for (const [key, title, kind] of [["kernel_mean", "Local kernel: mean over channels", "diverging"], ["kernel_norm", "Local kernel: L2 norm over channels", "sequential"]]) {
      if (!base[key]) continue;
      const { data: bytes, low, high } = await unpack(base[key]);
      const table = tables[/** @type {"sequential"} */ (kind)];
      const patches = side.rows * side.cols;
      const film = reel({ label: `${title}, ${side.title}`, frames: 3, rows: side.rows, cols: side.cols, names: TAPS, wide: 200,
        words: (f, p) => `tap on frame ${TAPS[f]}, ${patchName(side, p)}: ${number(valueOf(bytes[f * patches + p], { low, high }))}`, choose: (_, place) => choose({ place }) });
      film.draw(bytes, table);
      parts.push(box(title, film.whole, scale(table, low, high, "")));
    }
    const values = side.horizon[String(n)];
    const most = Math.max(...sides.flatMap((/** @type {any} */ one) => (one.horizon[String(n)] ?? []).flatMap((/** @type {number[]} */ row) => row?.[4] ?? 0)), 1);
    if (values) {
      const rows = values.map((/** @type {number[]} */ row, /** @type {number} */ i) => ({ name: `layer ${i}`, values: row, strong: i === picks.get("layer") }));
      const drawn = spread({ label: `How many frames memory holds, ${side.title}`, unit: `effective frames at frame ${n} of ${n}; over ${side.over} (n = ${values[0][6]})`, most, rows });
      parts.push(wide("Memory's horizon by layer", drawn, h("p", { class: "wb-caption" }, "Thick: quartiles; thin: 5 to 95%; line: median; ring: mean.")));
    }
    return h("section", {}, titleOf(side), h("div", { class: "wb-panel" }, ...parts));
  }

  /** @param {any} side @param {number} s */
  async function film(side, s) {
    const map = maps.find((/** @type {any} */ one) => one.key === picks.get("map"));
    if (!map) return h("p", { class: "wb-note" }, `${side.title}: there is no map over frames in this capture.`);
    const found = await detail(s, map.key);
    if (found.missing) return h("p", { class: "wb-note" }, `${side.title}: ${found.missing}`);
    const n = picks.get("frames");
    const { data: bytes, low, high } = await unpack(found.map);
    const { times, picture } = side.frames[String(n)];
    const names = Array.from({ length: n }, (_, f) => (times?.[f] === undefined ? `${f + 1}` : `${number(times[f])} s`));
    const patches = side.rows * side.cols;
    const words = (/** @type {number} */ f, /** @type {number} */ p) =>
      `frame ${f + 1} of ${n}${times ? ` at ${names[f]}` : ""}, ${patchName(side, p)}: ${number(valueOf(bytes[f * patches + p], { low, high }))} (${map.title})`;
    const drawn = reel({ label: `${map.title}, ${side.title}`, frames: n, rows: side.rows, cols: side.cols, names, picture, words, choose: (_, place) => choose({ place }) });
    const table = tables[/** @type {"sequential"} */ (map.kind)];
    drawn.draw(bytes, table);
    return box(`${side.title}: ${map.title}, frame by frame`, drawn.whole, scale(table, low, high, `${map.unit}; one scale for all layers, counts and checkpoints`));
  }

  /** @param {string} title @param {...Node} parts */
  const box = (title, ...parts) => h("div", { class: "wb-part" }, h("h4", {}, title), ...parts);

  /** The same, as wide as its column. @param {string} title @param {...Node} parts */
  const wide = (title, ...parts) => h("div", { class: "wb-part wb-wide" }, h("h4", {}, title), ...parts);

  /** A colour scale in words and colours. @param {Uint32Array} table @param {number} low @param {number} high @param {string} unit */
  function scale(table, low, high, unit) {
    const stops = Array.from({ length: 9 }, (_, i) => table[Math.round((254 * i) / 8)]).map((c) => `rgb(${c & 255},${(c >> 8) & 255},${(c >> 16) & 255})`);
    return h("p", { class: "wb-scale" }, h("span", {}, number(low)), h("span", { class: "wb-ramp", style: `background:linear-gradient(to right,${stops.join(",")})` }), h("span", {}, `${number(high)}${unit ? ` ${unit}` : ""}`));
  }

  let drawing = 0;
  /** @param {Set<string>} changed */
  async function draw(changed) {
    const own = ++drawing;
    const all = changed.has("frames") || changed.has("layer") || !changed.size;
    const failed = (/** @type {Error} */ error) => h("p", { class: "wb-note" }, error.message);
    const nodes = all ? await Promise.all(sides.map((/** @type {any} */ side, /** @type {number} */ s) => panel(side, s).catch(failed))) : null;
    const strips = all || changed.has("map") ? await Promise.all(sides.map((/** @type {any} */ side, /** @type {number} */ s) => film(side, s).catch(failed))) : null;
    if (own !== drawing && all) return; // a later choice is on its way
    if (nodes) panels.replaceChildren(...nodes);
    if (strips) films.replaceChildren(...strips);
    await mark();
    if (all) say(`${picks.get("frames")} frames, layer ${picks.get("layer")}`);
  }
  picks.watch((changed) => {
    framesAt.set(Math.max(0, counts.indexOf(picks.get("frames"))));
    layerAt.set(picks.get("layer"));
    mapAt.box.value = picks.get("map");
    dotsAt.box.value = picks.get("dots");
    draw(changed);
  });
  draw(new Set());
  return () => (picks.close(), close());
}

export default { render };
