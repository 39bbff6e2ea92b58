// What a run, study or job does: state, progress, a row a run, what went wrong; says now and then that it is looked at.
import { announcer, h } from "./lib/dom.js";
import { asking } from "./lib/ask.js";

const SEEN_MS = 20_000;
/** A state is never told by colour alone. @type {Record<string, [string, string]>} */
const LOOKS = {
  running: ["●", "go"], starting: ["…", "go"], stopping: ["◐", "go"], waiting: ["…", "quiet"], finished: ["✓", "good"],
  stopped: ["■", "quiet"], interrupted: ["■", "quiet"], killed: ["■", "bad"], failed: ["✕", "bad"], out_of_memory: ["✕", "bad"],
  lost: ["?", "bad"], unreadable: ["?", "bad"], away: ["?", "bad"],
};

/** @param {string} state */
const badge = (state) => {
  const [mark, look] = LOOKS[state] ?? ["·", "quiet"];
  return h("span", { class: `wb-badge wb-${look}` }, h("span", { "aria-hidden": "true" }, mark), ` ${state.replaceAll("_", " ")}`);
};

/** @param {string} label @param {number} share */
const bar = (label, share) => h("progress", { value: share, max: 1, "aria-label": label }, `${Math.round(100 * share)}%`);

/**
 * data: { state, headline, share?, error?, note?, runs: [{ name, state, step, share?, loss, left, error? }], words, live? }
 *
 * @param {import("./lib/types.js").Context} context
 */
function render({ model, el }) {
  const root = h("div", { class: "wb" });
  const { line, say } = announcer();
  const top = h("div", {});
  const rows = h("div", {});
  const words = h("p", {});
  el.append(root);
  const inWords = h("details", {}, h("summary", {}, "In words"), words);
  root.append(top, rows, inWords, line);
  let before = "";

  function draw() {
    const { state, headline, share, error, note, runs, words: text } = model.get("data");
    top.replaceChildren(
      h("p", { class: "wb-bar" }, badge(state), share === undefined || share === null ? null : bar("done", share), h("span", {}, headline)),
      ...(error ? [h("p", { class: "wb-note", role: "alert", dir: "auto" }, error)] : []),
      ...(note ? [h("p", { class: "wb-said" }, note)] : []),
    );
    words.textContent = text;
    inWords.hidden = !text;
    const at = rows.querySelector(".wb-scroll")?.scrollTop ?? 0;
    rows.replaceChildren(...(runs.length > 1 ? [list(runs)] : []));
    const box = rows.querySelector(".wb-scroll");
    if (box) box.scrollTop = at; // the reader's place in the list stays
    const told = `${state}. ${note ?? ""}`;
    if (told !== before) say(told);
    before = told;
  }

  /** @param {any[]} runs */
  function list(runs) {
    const titles = ["run", "state", "done", "step", "loss", "time left", "error"].filter((t) => t !== "error" || runs.some((r) => r.error));
    const numeric = new Set(["step", "loss", "time left"]);
    const head = h("tr", {}, ...titles.map((t) => h("th", { scope: "col", class: numeric.has(t) ? "wb-num" : null }, t)));
    const body = runs.map((r) =>
      h("tr", {},
        h("th", { scope: "row" }, r.name), h("td", {}, badge(r.state)),
        h("td", {}, r.share === null ? "" : bar(`${r.name}, done`, r.share)),
        h("td", { class: "wb-num" }, r.step), h("td", { class: "wb-num" }, r.loss), h("td", { class: "wb-num" }, r.left),
        titles.includes("error") && h("td", { dir: "auto" }, r.error ?? "")));
    const table = h("table", { class: "wb-table" }, h("caption", {}, `${runs.length} runs`), h("thead", {}, head), h("tbody", {}, ...body));
    return h("div", { class: "wb-scroll wb-runs", tabindex: "0", role: "region", "aria-label": "runs" }, table);
  }

  const { ask, close } = asking(model);
  const seen = () => model.get("data").live && ask({ seen: true }).catch(() => {});
  const timer = setInterval(seen, SEEN_MS);
  model.on("change:data", draw);
  draw();
  seen();
  return () => (clearInterval(timer), close(), model.off("change:data", draw));
}

export default { render };
