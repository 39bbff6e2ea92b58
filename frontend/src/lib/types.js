/**
 * What a view's module is given, in a notebook (anywidget's model) and on an exported page (page.js) alike.
 *
 * @typedef {object} Model
 * @property {(name: string) => any} get
 * @property {(name: string, value: any) => void} set
 * @property {() => void} save_changes
 * @property {(event: string, listener: (...values: any[]) => void) => void} on
 * @property {(event: string, listener: (...values: any[]) => void) => void} off
 * @property {(content: any) => void} send
 *
 * @typedef {{ model: Model, el: HTMLElement }} Context
 *
 * An array as Python's `payload.pack` writes it: base64 of deflated bytes.
 * @typedef {{ bytes: string, shape: number[], type: "u1" | "u2" | "i4" | "f4", low?: number, high?: number }} Packed
 */
export {};
