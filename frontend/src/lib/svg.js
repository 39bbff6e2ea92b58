// Drawings whose text and lines take the page's colours, light or dark.

/**
 * An SVG element; attributes that are null, undefined or false are left out. Text is always text.
 *
 * @param {string} tag
 * @param {Record<string, any>} [attributes]
 * @param {...(Node | string | null | undefined | false)} children
 * @returns {SVGElement}
 */
export function s(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, String(value));
  }
  element.append(.../** @type {(Node | string)[]} */ (children.filter((child) => child !== null && child !== undefined && child !== false)));
  return element;
}

/**
 * A whole drawing with its text alternative.
 *
 * @param {number} width
 * @param {number} height
 * @param {string} label
 * @param {...(Node | null | undefined | false)} children
 */
export function drawing(width, height, label, ...children) {
  return s("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label, class: "wb-drawing" }, ...children);
}

/**
 * Round numbers from about low to about high for an axis.
 *
 * @param {number} low
 * @param {number} high
 * @param {number} [about] how many
 */
export function ticks(low, high, about = 5) {
  if (!(high > low)) return [low];
  const rough = (high - low) / about;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find((m) => m * power >= rough) ?? 10);
  const found = [];
  for (let t = Math.ceil(low / step - 1e-9); t * step <= high + step * 1e-9; t++) found.push(Number((t * step).toPrecision(12)));
  return found;
}
