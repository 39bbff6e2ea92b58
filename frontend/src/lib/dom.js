// Small helpers for building accessible pieces of page; no framework.

let last = 0;

/** An id that is used once. */
export const freshId = () => `wb-${++last}-${Math.random().toString(36).slice(2, 7)}`;

/**
 * An element. Properties that begin with "on" are listeners; others are attributes (false and null: left out).
 * Text is always text: nothing of a dataset is read as HTML.
 *
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Record<string, any>} [properties]
 * @param {...(Node | string | null | undefined | false)} children
 * @returns {HTMLElementTagNameMap[T]}
 */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(.../** @type {(Node | string)[]} */ (children.filter((child) => child !== null && child !== undefined && child !== false)));
  return element;
}

/**
 * A labelled select. `choices` are [value, text] pairs; values are text.
 *
 * @param {string} label
 * @param {[string, string][]} choices
 * @param {string} value
 * @param {(value: string) => void} change
 */
export function select(label, choices, value, change) {
  const box = h("select", { onchange: () => change(box.value) }, ...choices.map(([v, text]) => h("option", { value: v }, text)));
  box.value = value;
  const whole = h("label", { class: "wb-control" }, h("span", {}, label), box);
  return { whole, box };
}

/**
 * A labelled slider that shows its value in words.
 *
 * @param {string} label
 * @param {{ min: number, max: number, value: number, step?: number, words?: (value: number) => string }} range
 * @param {(value: number) => void} change while it moves
 */
export function slider(label, { min, max, value, step = 1, words = String }, change) {
  const shown = h("output", {}, words(value));
  const box = h("input", { type: "range", min, max, step, value, "aria-valuetext": words(value) });
  const show = () => {
    shown.textContent = words(box.valueAsNumber);
    box.setAttribute("aria-valuetext", words(box.valueAsNumber));
  };
  box.addEventListener("input", () => (show(), change(box.valueAsNumber)));
  const set = (/** @type {number} */ to) => ((box.valueAsNumber = to), show());
  return { whole: h("label", { class: "wb-control" }, h("span", {}, label), box, shown), box, set };
}

/**
 * A labelled check box.
 *
 * @param {string} label
 * @param {boolean} value
 * @param {(value: boolean) => void} change
 */
export function toggle(label, value, change) {
  const box = h("input", { type: "checkbox", onchange: () => change(box.checked) });
  box.checked = value;
  return { whole: h("label", { class: "wb-control wb-toggle" }, box, h("span", {}, label)), box };
}

/** A line that screen readers read out when it changes; politely, and at most twice a second. */
export function announcer() {
  const line = h("p", { class: "wb-sr", role: "status", "aria-live": "polite" });
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let waiting;
  const say = (/** @type {string} */ text) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => (line.textContent = text), 500);
  };
  return { line, say };
}

/**
 * A table whose rows can be chosen by mouse, or by arrow keys and Enter.
 *
 * @param {{ caption: string, columns: { key: string, title: string, numeric?: boolean }[], rows: Record<string, any>[],
 *           chosen?: number, choose?: (row: number) => void }} what
 */
export function table({ caption, columns, rows, chosen = -1, choose }) {
  const head = h("tr", {}, ...columns.map((c) => h("th", { scope: "col", class: c.numeric ? "wb-num" : null }, c.title)));
  const lines = rows.map((row, i) => {
    const cells = columns.map((c) => h("td", { class: c.numeric ? "wb-num" : null, dir: c.numeric ? null : "auto" }, String(row[c.key] ?? "")));
    if (!choose) return h("tr", {}, ...cells);
    const first = cells[0].firstChild;
    const button = h("button", { type: "button", class: "wb-link", "aria-pressed": String(i === chosen) });
    button.append(/** @type {Node} */ (first));
    cells[0].append(button);
    return h("tr", { onclick: () => pick(i), class: i === chosen ? "wb-chosen" : null }, ...cells);
  });
  const body = h("tbody", {}, ...lines);
  function pick(/** @type {number} */ i) {
    lines.forEach((line, j) => {
      line.classList.toggle("wb-chosen", j === i);
      line.querySelector("button")?.setAttribute("aria-pressed", String(j === i));
    });
    choose?.(i);
  }
  body.addEventListener("keydown", (event) => {
    const move = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!move || !choose) return;
    const at = lines.findIndex((line) => line.contains(document.activeElement));
    const next = lines[Math.min(lines.length - 1, Math.max(0, at + move))];
    next?.querySelector("button")?.focus();
    event.preventDefault();
  });
  return h("div", { class: "wb-scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", { class: "wb-table" }, h("caption", {}, caption), h("thead", {}, head), body));
}
