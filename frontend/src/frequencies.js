// The periodic branch's frequencies at any number of frames: which alias, which are constant, and the gain of each frame.
import { number } from "./lib/colour.js";
import { announcer, h, slider, table } from "./lib/dom.js";
import { fates, gains, oscillating } from "./lib/frequencies.js";
import { Picks } from "./lib/picks.js";
import { drawing, s, ticks } from "./lib/svg.js";

const WIDE = 560;
const LEFT = 46;
/** @type {Record<string, (fate: { w: number, seen: number, twins: number[] }) => string>} */
const BADGES = {
  constant: () => "aliases: a constant",
  aliased: ({ seen }) => `aliases: seen as ${seen}`,
  alternating: ({ twins }) => `only alternates in sign${twins.length ? `; same as ${twins.join(", ")}` : ""}`,
  own: ({ twins }) => (twins.length ? `its own; ${twins.join(", ")} looks the same` : "its own"),
};

/** @param {import("./lib/types.js").Context} context */
function render({ model, el }) {
  const { frequencies, most, sides } = model.get("data");
  const picks = new Picks(model, { frames: 8, layer: 0 });
  const { line, say } = announcer();
  const out = h("div", {});
  const at = slider("Frames F", { min: 1, max: most, value: picks.get("frames"), words: (n) => `F = ${n}` }, (frames) => picks.set({ frames }));
  el.append(h("div", { class: "wb" }, h("h3", {}, "Frequencies of the periodic branch"), h("div", { class: "wb-bar" }, at.whole), out, line));

  /** @param {number} w @param {number} frames @param {string} kind */
  function wave(w, frames, kind) {
    const [tall, right] = [46, 8];
    const x = (/** @type {number} */ f) => LEFT + ((WIDE - LEFT - right) * (f + 0.5)) / frames;
    const y = (/** @type {number} */ value) => tall / 2 - value * 17;
    const steps = Math.min(600, Math.max(80, w * 24));
    const curve = Array.from({ length: steps + 1 }, (_, i) => {
      const f = -0.5 + (frames * i) / steps;
      return `${i ? "L" : "M"}${x(f).toFixed(1)},${y(Math.cos((2 * Math.PI * w * f) / frames)).toFixed(1)}`;
    }).join("");
    const points = Array.from({ length: frames }, (_, f) => Math.cos((2 * Math.PI * ((w * f) % frames)) / frames));
    const colour = kind === "own" ? "var(--wb-mark)" : "var(--wb-warn)";
    return drawing(WIDE, tall, `cosine of frequency ${w} on ${frames} frames: ${points.slice(0, 32).map((p) => number(p, 2)).join(", ")}${frames > 32 ? " and so on" : ""}`,
      s("line", { x1: LEFT, x2: WIDE - right, y1: y(0), y2: y(0), stroke: "currentColor", "stroke-opacity": 0.3 }),
      s("path", { d: curve, fill: "none", stroke: "currentColor", "stroke-opacity": 0.35 }),
      s("path", { d: points.map((p, f) => `${f ? "L" : "M"}${x(f).toFixed(1)},${y(p).toFixed(1)}`).join(""), fill: "none", stroke: colour, "stroke-width": 1.5 }),
      ...points.map((p, f) => s("circle", { cx: x(f), cy: y(p), r: frames > 40 ? 2 : 3.2, fill: colour })),
      s("text", { x: 2, y: y(0) + 4, "font-size": 12, fill: "currentColor" }, `w = ${w}`));
  }

  /** @param {number[]} values @param {string} label */
  function bars(values, label) {
    const [tall, base] = [120, 96];
    const [low, high] = [Math.min(0, ...values), Math.max(0.001, ...values)];
    const y = (/** @type {number} */ value) => 8 + ((base - 8) * (high - value)) / (high - low);
    const wide = (WIDE - LEFT - 8) / values.length;
    return drawing(WIDE, tall, `${label}: ${values.slice(0, 32).map((v) => number(v, 3)).join(", ")}`,
      ...ticks(low, high, 4).flatMap((t) => [
        s("line", { x1: LEFT, x2: WIDE - 8, y1: y(t), y2: y(t), stroke: "currentColor", "stroke-opacity": t === 0 ? 0.6 : 0.15 }),
        s("text", { x: LEFT - 6, y: y(t) + 4, "text-anchor": "end", "font-size": 11, fill: "currentColor" }, number(t))]),
      ...values.map((v, f) => s("rect", { x: LEFT + f * wide + wide * 0.1, width: wide * 0.8, y: Math.min(y(0), y(v)), height: Math.max(1, Math.abs(y(v) - y(0))), fill: "var(--wb-mark)" },
        s("title", {}, `frame ${f + 1}: ${number(v)}`))),
      s("text", { x: LEFT, y: tall - 6, "font-size": 11, fill: "currentColor" }, `frame 1 to ${values.length}`));
  }

  function draw() {
    const frames = Math.max(1, Math.min(most, picks.get("frames")));
    const found = fates(frequencies, frames);
    const rows = found.map((fate) => h("div", { class: "wb-wave" }, wave(fate.w, frames, fate.kind),
      h("span", { class: fate.kind === "own" ? "wb-badge" : "wb-badge wb-alert" }, BADGES[fate.kind](fate))));
    const left = oscillating(frequencies, frames);
    const summary = `At ${frames} frame${frames > 1 ? "s" : ""} ${left} different cosine${left === 1 ? " is" : "s are"} left of ${frequencies.length} frequencies.`;
    const list = table({
      caption: "What each frequency becomes (exact; frames are counted after sampling)",
      columns: [{ key: "w", title: "Frequency w", numeric: true }, { key: "seen", title: "Seen as", numeric: true }, { key: "period", title: "Period, frames", numeric: true }, { key: "same", title: "Same cosine as" }, { key: "kind", title: "What is left" }],
      rows: found.map((fate) => ({ w: fate.w, seen: fate.seen, period: fate.seen ? number(frames / fate.seen) : "none", same: fate.twins.join(", ") || "none other", kind: BADGES[fate.kind](fate) })),
    });
    const gain = sides.flatMap((/** @type {any} */ side) => {
      const release = side.variant === "release";
      const captured = side.gains[String(frames)]?.[picks.get("layer")];
      const title = release ? `${side.title}: gain of each frame, sum of the cosines (release)` : `${side.title}: gain of each frame, |Σ cos · W_w|_F / √D in layer ${picks.get("layer")} (paper)`;
      const values = release ? gains(frequencies, frames) : captured;
      const one = release ? gains(frequencies, 1)[0] : side.gains["1"]?.[picks.get("layer")]?.[0];
      const still = one === undefined ? "At F = 1: not captured." : `At F = 1 (a still image): ${number(one)}.`;
      const drawn = values ? bars(values, title) : h("p", { class: "wb-note" }, `Not captured at ${frames} frames: the paper's gain depends on the weights. Counts in the capture: ${Object.keys(side.gains).join(", ") || "none"}.`);
      return [h("div", { class: "wb-part" }, h("h4", {}, title), drawn, h("p", { class: "wb-caption" }, still))];
    });
    out.replaceChildren(h("p", {}, summary), ...rows, h("details", {}, h("summary", {}, "As a table"), list), h("div", { class: "wb-columns" }, ...gain));
    say(`${summary} ${found.filter((fate) => fate.kind !== "own").map((fate) => `${fate.w}: ${BADGES[fate.kind](fate)}`).join("; ")}`);
  }
  picks.watch((changed) => {
    if (!changed.has("frames") && !changed.has("layer")) return;
    at.set(picks.get("frames"));
    draw();
  });
  draw();
  return () => picks.close();
}

export default { render };
