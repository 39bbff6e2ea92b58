// What the user has chosen (layer, head, frame, sample ...): local at once, the kernel at most 4 times a second.

/** @typedef {import("./types.js").Model} Model */

const PAUSE_MS = 250;

export class Picks {
  /**
   * @param {Model} model whose trait `picks` is shared with Python
   * @param {Record<string, any>} defaults for keys that Python has not set
   */
  constructor(model, defaults = {}) {
    this.model = model;
    /** @type {Record<string, any>} */
    this.values = { ...defaults, ...model.get("picks") };
    /** @type {Set<(changed: Set<string>) => void>} */
    this.listeners = new Set();
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.waiting = undefined;
    this.sent = 0;
    this.fromPython = () => this.#take(model.get("picks"));
    model.on("change:picks", this.fromPython);
  }

  /** @param {string} key */
  get(key) {
    return this.values[key];
  }

  /**
   * Set several at once; listeners run now, Python hears of it soon.
   *
   * @param {Record<string, any>} values
   */
  set(values) {
    if (this.#take(values)) this.#tell();
  }

  /** @param {(changed: Set<string>) => void} listener called with the names that changed */
  watch(listener) {
    this.listeners.add(listener);
  }

  /** Stop listening, once the view is gone; what was not sent yet is sent. */
  close() {
    this.model.off("change:picks", this.fromPython);
    this.listeners.clear();
    if (this.waiting !== undefined) this.#send();
  }

  /** @param {Record<string, any>} values */
  #take(values) {
    const changed = new Set(Object.keys(values ?? {}).filter((k) => JSON.stringify(values[k]) !== JSON.stringify(this.values[k])));
    if (!changed.size) return false;
    this.values = { ...this.values, ...values };
    for (const listener of this.listeners) listener(changed);
    return true;
  }

  #tell() {
    if (this.waiting !== undefined) return;
    this.waiting = setTimeout(() => this.#send(), Math.max(0, this.sent + PAUSE_MS - Date.now()));
  }

  #send() {
    clearTimeout(this.waiting);
    this.waiting = undefined;
    this.sent = Date.now();
    this.model.set("picks", { ...this.values });
    this.model.save_changes();
  }
}
