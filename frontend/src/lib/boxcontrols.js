// The box of the attention view: the object's own or one drawn with the mouse or typed; its mass beside its area.
import { unpack } from "./arrays.js";
import { boxInputs, inBox, massIn, wholePixels } from "./box.js";
import { h } from "./dom.js";

/**
 * @param {{ data: any, picks: import("./picks.js").Picks, changed: () => void }} what
 */
export function boxControls({ data, picks, changed }) {
  const [width, height] = data.size;
  const set = (/** @type {number[] | null} */ box) => picks.set({ box });
  const inputs = boxInputs(data.size, set);
  const note = h("p", { class: "wb-said", role: "status" });
  const back = h("button", { type: "button", onclick: () => set(null) }, data.box ? "the object's own box" : "no box");
  const whole = h("fieldset", { class: "wb-box" },
    h("legend", {}, `Box, in pixels of the frame (${width} × ${height})`),
    h("p", { class: "wb-said" }, "Drag on the large frame, or type; the same in every frame."),
    h("div", { class: "wb-bar" }, ...inputs.whole), h("div", { class: "wb-bar" }, back), note);
  /** @type {Record<string, Float32Array> | null} */
  let grids = null;
  /** @type {ReturnType<typeof inBox> | null} */
  let within = null;
  let last = "";

  const shares = () => {
    const box = picks.get("box");
    return box ? [box[0] / width, box[1] / height, box[2] / width, box[3] / height] : null;
  };
  const outlines = (/** @type {number} */ frame) => {
    const drawn = shares();
    return drawn ? [drawn] : (data.box?.outlines[frame] ?? []);
  };
  const dragged = (/** @type {number[]} */ box) => set(wholePixels(box, data.size));
  /** The pick has changed (or the view is new). */
  function show() {
    const key = JSON.stringify(picks.get("box") ?? null);
    if (key === last) return;
    last = key;
    within = null;
    grids = null;
    note.textContent = "";
    inputs.set(picks.get("box") ?? null);
    back.disabled = !picks.get("box");
    changed();
  }
  /** @param {import("./attentionmaps.js").Maps} maps @param {(token: number) => number} value */
  function mass(maps, value) {
    const drawn = shares();
    if (!drawn || !maps.cells) return null;
    within ??= inBox(maps.cells, maps.tokens, data.strip.rows, data.strip.cols, drawn);
    return massIn(value, within);
  }
  /** @param {any} answer by side, or null */
  async function setGrid(answer) {
    grids = null;
    if (!answer) return;
    /** @type {Record<string, Float32Array>} */
    const found = {};
    for (const [side, packed] of Object.entries(answer)) found[side] = /** @type {Float32Array} */ ((await unpack(/** @type {any} */ (packed))).data);
    grids = found;
  }
  /** Mass in the drawn box for every layer and head; null without one. @param {string} side */
  function grid(side) {
    if (!grids) return null;
    const known = grids;
    return side === "difference" ? known.after.map((v, i) => v - known.before[i]) : known[side];
  }
  return { whole, outlines, dragged, show, mass, grid, setGrid, say: (/** @type {string} */ text) => (note.textContent = text) };
}
