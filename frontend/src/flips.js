// The samples that flipped at a chosen point: counts, a table to filter, and of a chosen row its picture and every seed.
import { asking } from "./lib/ask.js";
import { announcer, h, select, table } from "./lib/dom.js";
import { chosen, countsOf, said, seedRows, tableRows } from "./lib/flips.js";
import { Picks } from "./lib/picks.js";

/** @typedef {import("./lib/flips.js").Point} Point */
/** @typedef {import("./lib/flips.js").Row} Row */

const COLUMNS = [
  { key: "question", title: "Question" },
  { key: "skill", title: "Skill" },
  { key: "answer", title: "Right answer" },
  { key: "before", title: "Base said" },
  { key: "after", title: "This one says" },
  { key: "seeds", title: "Seeds that flipped", numeric: true },
  { key: "probability", title: "Probability of the right answer", numeric: true },
  { key: "frames", title: "Frames", numeric: true },
  { key: "inside", title: "Attention" },
];
const BY_SEED = [
  { key: "seed", title: "Seed", numeric: true },
  { key: "before", title: "Base said" },
  { key: "pBefore", title: "p(right), base", numeric: true },
  { key: "after", title: "This one says" },
  { key: "pAfter", title: "p(right), this one", numeric: true },
  { key: "frames", title: "Frames", numeric: true },
  { key: "flip", title: "" },
];

/**
 * data: { points: Point[], empty: string, attention: { here: string[], otherwise: string } | null }
 * asks: { flips: point } -> { rows: Row[], left: number }; { picture: [suite, sample, frames] } -> { source, words, width }
 *
 * @param {import("./lib/types.js").Context} context
 */
function render({ model, el }) {
  const picks = new Picks(model, { point: "", skill: "", direction: "lost", look: null });
  const { ask, close } = asking(model);
  const { line, say } = announcer();
  const bar = h("div", { class: "wb-bar" });
  const head = h("div", {});
  const list = h("div", {});
  const detail = h("div", {});
  el.append(h("div", { class: "wb" }, bar, head, list, detail, line));
  /** @type {{ rows: Row[], left: number }} */
  let found = { rows: [], left: 0 };
  let asked = 0;

  const points = () => /** @type {Point[]} */ (model.get("data").points);
  const point = () => points().find((p) => p.key === picks.get("point")) ?? points()[0];

  function controls() {
    const at = point();
    if (!at) return void bar.replaceChildren();
    const groups = [["", "all questions"], ...["image", "video"].filter((k) => at.groups.some((g) => g.kind === k)).map((k) => [k, `all ${k} questions`]),
      ...at.groups.map((g) => [`${g.kind}:${g.skill}`, `${g.kind}: ${g.skill}`])];
    const at_ = countsOf(at, picks.get("skill"));
    bar.replaceChildren(
      select("Point", points().map((p) => [p.key, p.title]), at.key, (key) => picks.set({ point: key, look: null })).whole,
      select("Questions", /** @type {[string, string][]} */ (groups), picks.get("skill"), (skill) => picks.set({ skill, look: null })).whole,
      select("Show", [["lost", `right → wrong (${at_.lost})`], ["won", `wrong → right (${at_.won})`]], picks.get("direction"),
        (direction) => picks.set({ direction, look: null })).whole);
  }

  function counts() {
    const at = point();
    if (!at) return void head.replaceChildren(h("p", { class: "wb-note" }, model.get("data").empty));
    const text = said(at, picks.get("skill"));
    head.replaceChildren(h("p", {}, h("strong", {}, at.title), `: ${text}`), ...(at.note ? [h("p", { class: "wb-note" }, at.note)] : []));
    say(text);
  }

  function rows() {
    const { here = [] } = model.get("data").attention ?? {};
    const shown = chosen(found.rows, picks.get("skill"), picks.get("direction"));
    const way = picks.get("direction") === "won" ? "wrong → right" : "right → wrong";
    if (!point()) return void list.replaceChildren();
    if (!shown.length) return void list.replaceChildren(h("p", { class: "wb-note" }, `No question of these went ${way} here.`));
    const left = found.left ? `; ${found.left} more are left out of a long list, those of fewest seeds` : "";
    list.replaceChildren(table({
      caption: `${shown.length} question${shown.length === 1 ? "" : "s"} that went ${way} in at least one seed${left}. Choose one to see it.`,
      columns: COLUMNS.filter((c) => c.key !== "inside" || here.length),
      rows: tableRows(shown, here),
      chosen: shown.findIndex((row) => row.look === picks.get("look")),
      choose: (i) => picks.set({ look: shown[i].look }),
    }));
  }

  async function one() {
    const row = found.rows.find((r) => r.look === picks.get("look") && r.way === picks.get("direction"));
    if (!row) return void detail.replaceChildren();
    const picture = h("div", { class: "wb-figure" }, h("p", { class: "wb-said" }, "reading the picture…"));
    const state = h("p", { class: "wb-note", role: "status" });
    detail.replaceChildren(
      h("h3", {}, "The sample"),
      h("p", {}, h("bdi", { dir: "auto" }, row.question), " Right: ", h("bdi", {}, row.answer), `. Sample ${row.sample}, ${row.kind}, skill ${row.skill}.`),
      picture, table({ caption: "The same question in every seed", columns: BY_SEED, rows: seedRows(row) }), state);
    status(state);
    const mine = row.look;
    try {
      const { source, words, width } = await ask({ picture: [row.suite, row.sample, row.frames] });
      if (picks.get("look") !== mine) return;
      const what = `${row.kind === "video" ? "The frames that were used" : "The image"} of sample ${row.sample}. ${words}`;
      picture.replaceChildren(...(source ? [h("img", { src: source, alt: what, width, class: width ? "wb-picture wb-pixels" : "wb-picture" })] : []), h("p", { class: "wb-said" }, words));
    } catch (error) {
      picture.replaceChildren(h("p", { class: "wb-said" }, `The picture is not shown: ${/** @type {Error} */ (error).message}`));
    }
  }

  /** What the attention piece does about the chosen row. @param {HTMLElement} [place] */
  function status(place) {
    const line = place ?? /** @type {HTMLElement | null} */ (detail.querySelector("[role=status]"));
    const { attention } = model.get("data");
    const { look, words } = picks.get("status") ?? {};
    const text = look === picks.get("look") ? words
      : attention?.here.includes(picks.get("look")) ? "Below: what the model attended to, before and after." : attention?.otherwise;
    if (line) (line.textContent = text ?? "", line.hidden = !text);
  }

  async function load() {
    const at = point();
    if (!at) return;
    const turn = ++asked;
    list.replaceChildren(h("p", { class: "wb-said" }, "reading the samples…"));
    try {
      const answer = await ask({ flips: at.key });
      if (turn !== asked) return;
      found = answer;
    } catch (error) {
      if (turn === asked) list.replaceChildren(h("p", { class: "wb-note" }, `The samples are not shown: ${/** @type {Error} */ (error).message}`));
      return;
    }
    rows();
    one();
  }

  picks.watch((changed) => {
    const asks = changed.has("point");
    if (asks || changed.has("skill") || changed.has("direction")) (controls(), counts());
    if (asks) (detail.replaceChildren(), load());
    else if (changed.has("skill") || changed.has("direction")) (rows(), one());
    else if (changed.has("look")) one();
    if (changed.has("status")) status();
  });
  const redraw = () => (controls(), counts(), load());
  model.on("change:data", redraw);
  redraw();
  return () => (picks.close(), close(), model.off("change:data", redraw));
}

export default { render };
