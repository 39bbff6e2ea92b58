// Arrays as text: base64 of deflated little-endian bytes. Binary messages break Jupyter behind a gateway.

/** @typedef {import("./types.js").Packed} Packed */
/** @typedef {{ data: Uint8Array | Uint16Array | Int32Array | Float32Array, shape: number[], low: number, high: number }} Unpacked */

const KINDS = { u1: Uint8Array, u2: Uint16Array, i4: Int32Array, f4: Float32Array };

/** Unpacked arrays by their packed form: the same payload is often asked for twice. @type {WeakMap<Packed, Promise<Unpacked>>} */
const known = new WeakMap();

/**
 * @param {Packed} packed
 * @returns {Promise<Unpacked>}
 */
export function unpack(packed) {
  let found = known.get(packed);
  if (!found) {
    found = inflate(packed);
    known.set(packed, found);
  }
  return found;
}

/**
 * @param {Packed} packed
 * @returns {Promise<Unpacked>}
 */
async function inflate({ bytes, shape, type, low = 0, high = 1 }) {
  const squeezed = Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0));
  const stream = new Blob([squeezed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const buffer = await new Response(stream).arrayBuffer();
  const data = new KINDS[type](buffer);
  const wanted = shape.reduce((all, n) => all * n, 1);
  if (data.length !== wanted) throw new Error(`an array of ${wanted} numbers came with ${data.length}`);
  return { data, shape, low, high };
}

/**
 * The value behind a byte: 0..254 is low..high, 255 is "not visible" (NaN).
 *
 * @param {number} byte
 * @param {{ low: number, high: number }} range
 */
export function valueOf(byte, { low, high }) {
  return byte === 255 ? NaN : low + (byte / 254) * (high - low);
}
