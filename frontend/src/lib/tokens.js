// The text of a conversation as a row of buttons: one token is picked. Text is text, whatever its script and length.
import { h } from "./dom.js";

const LONGEST = 24;
const RIGHT_TO_LEFT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff]/;
const LETTER = /\p{L}/u;

/** Whether text is read from right to left: by its first letter. @param {string} text */
export function isRightToLeft(text) {
  const letter = [...text].find((c) => LETTER.test(c));
  return letter !== undefined && RIGHT_TO_LEFT.test(letter);
}

/** A token as a button shows it: spaces and line ends made visible, long ones cut. @param {string} text */
export function shortToken(text) {
  const seen = text.trim() ? text.trim() : text.replace(/ /g, "␣").replace(/\n/g, "⏎").replace(/\t/g, "⇥") || "∅";
  const letters = [...seen];
  return letters.length > LONGEST ? `${letters.slice(0, LONGEST - 1).join("")}…` : seen;
}

/**
 * @param {{ text: string, kind: string, query: number | null, at: number }[]} tokens those without `query` cannot be picked
 * @param {number} chosen query
 * @param {(query: number) => void} choose
 */
export function tokenStrip(tokens, chosen, choose) {
  const rtl = isRightToLeft(tokens.filter((t) => t.kind === "question" || t.kind === "answer").map((t) => t.text).join(" "));
  const buttons = tokens.map((token) => {
    const words = `${token.text.trim() || "white space"} (${token.kind}, position ${token.at})`;
    if (token.query === null) return h("span", { class: "wb-token", title: `${words}: this capture does not say where it looks`, dir: "auto" }, shortToken(token.text));
    return h("button", { type: "button", class: `wb-token wb-token-${token.kind}`, title: words, dir: "auto", onclick: () => pick(/** @type {number} */ (token.query)) }, shortToken(token.text));
  });
  const pickable = tokens.flatMap((token, i) => (token.query === null ? [] : [{ query: token.query, button: buttons[i] }]));
  const row = h("div", { class: "wb-tokens", role: "group", "aria-label": "Token that looks: arrow keys move", dir: rtl ? "rtl" : "ltr" }, ...buttons);
  /** @param {number} query */
  function show(query) {
    const there = pickable.some((one) => one.query === query);
    pickable.forEach(({ query: own, button }, i) => {
      button.setAttribute("aria-pressed", String(own === query));
      button.tabIndex = own === query || (!there && i === 0) ? 0 : -1;
    });
  }
  /** @param {number} query */
  function pick(query) {
    show(query);
    choose(query);
  }
  row.addEventListener("keydown", (event) => {
    const forward = rtl ? "ArrowLeft" : "ArrowRight";
    const backward = rtl ? "ArrowRight" : "ArrowLeft";
    const at = pickable.findIndex(({ button }) => button === document.activeElement);
    const to = { [forward]: at + 1, [backward]: at - 1, Home: 0, End: pickable.length - 1 }[event.key];
    if (to === undefined || at < 0) return;
    event.preventDefault();
    const next = pickable[Math.max(0, Math.min(pickable.length - 1, to))];
    next.button.focus();
    pick(next.query);
  });
  show(chosen);
  return { whole: row, show };
}
