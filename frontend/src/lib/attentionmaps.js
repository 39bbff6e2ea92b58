// The attention view's numbers: unpacked once, asked for when they are not there, found again at no cost.
import { unpack } from "./arrays.js";
import { valueAt } from "./heat.js";

/** @typedef {import("./heat.js").Range} Range */
/** @typedef {{ bytes: Uint8Array, start: number, range: Range, frames: ArrayLike<number> }} Sheet one map of T tokens and its sums over frames */
/** @typedef {{ maps: Uint8Array, high: Float32Array, frames: Float32Array, statistics: Float32Array, top: Float32Array }} Side */
/** @typedef {{ sides: Record<string, Side>, gap: Float32Array | null }} Bundle */

const MOST_HEADS = 96; // single heads kept

export class Maps {
  /**
   * @param {any} data of one view (Python's attention_payload.state)
   * @param {(question: Record<string, any>) => Promise<any>} ask
   * @param {string | null} sample
   */
  constructor(data, ask, sample) {
    this.data = data;
    this.ask = ask;
    this.sample = sample;
    this.layers = data.layers.length;
    this.heads = data.heads.length;
    this.frames = data.strip.frames;
    this.tokens = 0;
    /** @type {Map<number, Promise<Bundle>>} */
    this.bundles = new Map();
    /** @type {Map<string, Record<string, Sheet>>} */
    this.single = new Map();
    /** @type {Record<string, Uint8Array>} sinks by side, [layer, token] */
    this.sinks = {};
  }

  async ready() {
    const { sinks, strip } = this.data;
    const sides = Object.entries(sinks).filter(([, { tokens }]) => tokens);
    const [cells, ...hidden] = await Promise.all([unpack(strip.cells), ...sides.map(([, { tokens }]) => unpack(tokens))]);
    this.cells = /** @type {Int32Array} */ (cells.data);
    this.tokens = this.cells.reduce((most, token) => Math.max(most, token), -1) + 1;
    sides.forEach(([side], i) => (this.sinks[side] = /** @type {Uint8Array} */ (hidden[i].data)));
  }

  /** Everything about a query but its single heads. @param {number} query @returns {Promise<Bundle>} */
  query(query) {
    let found = this.bundles.get(query);
    if (!found) {
      found = this.#open(query);
      found.catch(() => this.bundles.delete(query)); // asked again next time
      this.bundles.set(query, found);
    }
    return found;
  }
  /** @param {number} query */
  async #open(query) {
    const packed = this.data.queries[query] ?? (await this.ask({ sample: this.sample, query }));
    /** @type {Bundle} */
    const bundle = { sides: {}, gap: packed.gap ? /** @type {Float32Array} */ ((await unpack(packed.gap)).data) : null };
    await Promise.all(this.data.sides.map(async (/** @type {{ key: string }} */ { key }) => {
      const parts = await Promise.all(["maps", "high", "frames", "statistics", "top"].map((name) => unpack(packed[key][name])));
      const [maps, high, frames, statistics, top] = parts.map((part) => /** @type {any} */ (part.data));
      bundle.sides[key] = { maps, high, frames, statistics, top };
    }));
    return bundle;
  }

  /** The mean over heads: at once. @param {Bundle} bundle @param {number} layer @returns {Record<string, Sheet>} */
  mean(bundle, layer) {
    const { tokens, frames } = this;
    return Object.fromEntries(Object.entries(bundle.sides).map(([key, side]) => [key, {
      bytes: side.maps, start: layer * tokens, range: { low: 0, high: side.high[layer], root: true }, frames: side.frames.subarray(layer * frames, (layer + 1) * frames),
    }]));
  }
  /** A single head if it is here already. @param {number} query @param {number} layer @param {number} head */
  known(query, layer, head) {
    return this.single.get(`${query} ${layer} ${head}`);
  }
  /** A single head; asked for once. @param {number} query @param {number} layer @param {number} head @returns {Promise<Record<string, Sheet>>} */
  async head(query, layer, head) {
    const key = `${query} ${layer} ${head}`;
    const kept = this.single.get(key);
    if (kept) return kept;
    const answer = await this.ask({ sample: this.sample, query, layer, head });
    /** @type {Record<string, Sheet>} */
    const found = {};
    for (const [side, { map, high, frames }] of Object.entries(answer)) {
      found[side] = { bytes: /** @type {Uint8Array} */ ((await unpack(map)).data), start: 0, range: { low: 0, high, root: true }, frames };
    }
    if (this.single.size >= MOST_HEADS) this.single.delete(/** @type {string} */ (this.single.keys().next().value));
    this.single.set(key, found);
    return found;
  }

  /** Whether sinks can be hidden. */
  get hasSinks() {
    return Object.keys(this.sinks).length === this.data.sides.length;
  }
  /** Hidden tokens of a layer: sinks of the side, of either for "difference". @param {string} side @param {number} layer */
  hidden(side, layer) {
    const { tokens } = this;
    const all = side === "difference" ? Object.values(this.sinks) : [this.sinks[side]];
    return all.map((one) => one.subarray(layer * tokens, (layer + 1) * tokens));
  }
  /** The same map without its sinks. @param {Sheet} sheet @param {string} side @param {number} layer @returns {Sheet} */
  without(sheet, side, layer) {
    const bytes = sheet.bytes.slice(sheet.start, sheet.start + this.tokens);
    for (const hidden of this.hidden(side, layer)) for (let i = 0; i < bytes.length; i++) if (hidden[i]) bytes[i] = 255;
    return { ...sheet, bytes, start: 0 };
  }

  /**
   * The end of a map's scale.
   *
   * @param {Bundle} bundle
   * @param {{ side: string, layer: number, head: number, own: boolean, bare: boolean }} what `bare`: without sinks
   */
  top(bundle, { side, layer, head, own, bare }) {
    const tables = side === "difference" ? [bundle.gap] : Object.values(bundle.sides).map((one) => one.top);
    const mine = side === "difference" || !own ? tables : [bundle.sides[side].top];
    let top = 0;
    for (const table of mine) {
      if (!table) continue;
      const at = (/** @type {number} */ l, /** @type {number} */ h) => table[((bare ? 1 : 0) * this.layers + l) * this.heads + h];
      if (own) top = Math.max(top, at(layer, head));
      else for (let l = 0; l < this.layers; l++) for (let h = head ? 1 : 0; h < (head ? this.heads : 1); h++) top = Math.max(top, at(l, h));
    }
    return top;
  }

  /** One statistic of every layer and head. @param {Bundle} bundle @param {number} index @param {string} side */
  statistic(bundle, index, side) {
    const count = this.layers * this.heads;
    const of = (/** @type {string} */ key) => bundle.sides[key].statistics.subarray(index * count, (index + 1) * count);
    if (side !== "difference") return of(side);
    const [after, before] = [of("after"), of("before")];
    return after.map((value, i) => value - before[i]);
  }
}

/**
 * Numbers as bytes of a colour scale from `low` to `high`; NaN is 255.
 *
 * @param {ArrayLike<number>} values
 * @param {{ low: number, high: number }} range
 */
export function toBytes(values, { low, high }) {
  return Uint8Array.from(values, (v) => (Number.isFinite(v) ? Math.max(0, Math.min(254, Math.round(high > low ? ((v - low) / (high - low)) * 254 : 0))) : 255));
}

/** The ends of values: of both sides, or centred at 0. @param {ArrayLike<number>[]} many @param {boolean} centred */
export function ends(many, centred) {
  let [low, high] = [Infinity, -Infinity];
  for (const values of many)
    for (let i = 0; i < values.length; i++) {
      if (values[i] < low) low = values[i];
      if (values[i] > high) high = values[i];
    }
  if (low > high) return { low: 0, high: 1 };
  const most = Math.max(Math.abs(low), Math.abs(high));
  return centred ? { low: -most, high: most } : { low, high };
}

/** A share in per cent. @param {number} value */
export const percent = (value) => (Number.isFinite(value) ? `${hundredths(value)} %` : "–");

/** A change of a share, in points of a per cent. @param {number} value */
export const points = (value) => (Number.isFinite(value) ? `${value > 0 ? "+" : ""}${hundredths(value)}` : "–");

const hundredths = (/** @type {number} */ value) => (100 * value).toFixed(Math.abs(value) < 0.0995 ? 2 : 1).replace("-", "−");

/** @param {Sheet} sheet @returns {(token: number) => number} */
export const valuesOf = (sheet) => (token) => valueAt(sheet.bytes[sheet.start + token], sheet.range);
