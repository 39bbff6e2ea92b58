// Hosts views on an exported page: the modules that run in notebooks, with files for a kernel. No network.
// Runs while the rest of the page (plotly, what is only asked for later, the table) is still being read: maps need not wait.

/** @typedef {import("./lib/types.js").Model} Model */
/** @typedef {{ name: string, module?: string, data?: any, picks?: any, plot?: any }} Piece */
/** @typedef {{ source: string, key: string, target: string, to: string }} Link */

/** A model whose state lives in the page. @implements {Model} */
export class PageModel {
  /** @param {{ data?: any, picks?: any, answers?: () => Record<string, any> | Promise<Record<string, any>> }} piece */
  constructor({ data = {}, picks = {}, answers = () => ({}) }) {
    /** @type {Record<string, any>} */
    this.state = { data, picks };
    this.answers = answers;
    /** @type {Map<string, Set<(...values: any[]) => void>>} */
    this.listeners = new Map();
  }
  /** @param {string} name */
  get(name) {
    return this.state[name];
  }
  /** @param {string} name @param {any} value */
  set(name, value) {
    if (JSON.stringify(this.state[name]) === JSON.stringify(value)) return;
    this.state[name] = value;
    this.#tell(`change:${name}`);
  }
  save_changes() {}
  /** @param {string} event @param {(...values: any[]) => void} listener */
  on(event, listener) {
    if (!this.listeners.has(event)) this.listeners.set(event, new Set());
    this.listeners.get(event)?.add(listener);
  }
  /** @param {string} event @param {(...values: any[]) => void} listener */
  off(event, listener) {
    this.listeners.get(event)?.delete(listener);
  }
  /** @param {any} content */
  async send({ asks, question }) {
    const answer = (await this.answers())[JSON.stringify(question)];
    const error = "this page does not carry that; open the view in a notebook";
    this.#tell("msg:custom", { answers: asks, ...(answer === undefined ? { error } : { answer }) });
  }
  /** @param {string} event @param {...any} values */
  #tell(event, ...values) {
    for (const listener of this.listeners.get(event) ?? []) listener(...values);
  }
}

/** @param {string} id */
const json = (id) => JSON.parse(document.getElementById(id)?.textContent || "null");

/** When the whole page has been read. */
const whole = () =>
  new Promise((resolve) => {
    if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", () => resolve(undefined), { once: true });
    else resolve(undefined);
  });

/** Answers that the page carries for one piece, parsed when the first is asked for. @param {string} name */
function carried(name) {
  /** @type {Promise<Record<string, any>> | undefined} */
  let found;
  return () => (found ??= whole().then(() => json(`carried-${name}`) ?? {}));
}

/** Colours of a plotly figure on a light or a dark page. @param {boolean} dark */
const inks = (dark) => ({
  "font.color": dark ? "#c9d1d9" : "#3d444d",
  paper_bgcolor: "rgba(0,0,0,0)",
  plot_bgcolor: "rgba(0,0,0,0)",
});

/** @param {Piece} piece @param {HTMLElement} el @param {PageModel} model */
async function draw(piece, el, model) {
  if (piece.plot) {
    await whole();
    const plotly = /** @type {any} */ (globalThis).Plotly;
    const dark = matchMedia("(prefers-color-scheme: dark)");
    await plotly.newPlot(el, piece.plot.data, piece.plot.layout, { responsive: true, displaylogo: false });
    const recolour = () => plotly.relayout(el, inks(dark.matches));
    dark.addEventListener("change", recolour);
    await recolour();
    /** @type {any} */ (el).on("plotly_click", (/** @type {any} */ event) => {
      const chosen = event.points[0]?.customdata;
      if (chosen && typeof chosen === "object" && !Array.isArray(chosen)) model.set("picks", { ...model.get("picks"), ...chosen });
    });
    return;
  }
  const code = document.getElementById(`module-${piece.module}`)?.textContent ?? "";
  const address = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
  const { default: view } = await import(address);
  URL.revokeObjectURL(address);
  await view.render({ model, el });
}

async function main() {
  /** @type {{ pieces: Piece[], links: Link[] }} */
  const { pieces, links } = json("workbench-page");
  const models = new Map(pieces.map((piece) => [piece.name, new PageModel({ ...piece, answers: carried(piece.name) })]));
  for (const { source, key, target, to } of links) {
    const [from, into] = [models.get(source), models.get(target)];
    from?.on("change:picks", () => {
      const value = from.get("picks")[key];
      if (into && value !== undefined) into.set("picks", { ...into.get("picks"), [to]: value });
    });
  }
  const drawing = pieces.map(async (piece) => {
    const el = /** @type {HTMLElement} */ (document.getElementById(`piece-${piece.name}`));
    /** @type {HTMLElement | null} */
    const picture = el.querySelector(".wb-static");
    if (picture) picture.hidden = true; // not drawn first only to be replaced
    try {
      const place = document.createElement("div");
      el.append(place);
      await draw(piece, place, /** @type {PageModel} */ (models.get(piece.name)));
      picture?.remove();
    } catch (error) {
      if (picture) picture.hidden = false;
      const note = document.createElement("p");
      note.className = "wb-note";
      note.textContent = `This part could not be drawn (${error}); the picture shows it as it was saved.`;
      el.append(note);
    }
  });
  await Promise.all([...drawing, whole()]);
  document.documentElement.dataset.ready = "true";
}

if (typeof document !== "undefined" && document.getElementById("workbench-page")) main();
