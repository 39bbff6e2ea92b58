// The arithmetic behind film strips: where frames stand, how bytes become colours, what a patch is called. No DOM.
import { number } from "./colour.js";

/** A scale of bytes: 0..254 is low..high, evenly, or with `root` by square roots. @typedef {{ low: number, high: number, root?: boolean }} Range */

/**
 * The value behind a byte; 255 is "not visible" (NaN).
 *
 * @param {number} byte
 * @param {Range} range
 */
export function valueAt(byte, { low, high, root }) {
  if (byte === 255) return NaN;
  const share = byte / 254;
  return low + (root ? share * share : share) * (high - low);
}

const GAP = 4;
const LABEL = 15; // pixels under a frame for its time
const [LARGEST, SMALLEST] = [132, 26];

/**
 * Where the frames of a strip stand: as large as they can be while the whole strip stays under 300 pixels high (428 for 256 frames).
 *
 * @param {number} frames
 * @param {number} aspect width / height of a frame
 * @param {number} width pixels there are
 */
export function stripLayout(frames, aspect, width) {
  const fit = (/** @type {number} */ wide) => {
    const tall = Math.max(8, Math.round(wide / aspect));
    const perLine = Math.max(1, Math.floor((width + GAP) / (wide + GAP)));
    const lines = Math.ceil(frames / perLine);
    return { wide, tall, perLine, lines, width: Math.min(frames, perLine) * (wide + GAP) - GAP, height: lines * (tall + LABEL + GAP) };
  };
  const tallest = 300 + Math.max(0, frames - 64) * (2 / 3);
  let found = fit(Math.min(SMALLEST, width));
  for (let wide = LARGEST; wide > SMALLEST; wide -= 2) {
    if (wide > width) continue;
    const tried = fit(wide);
    if (tried.height <= tallest && tried.tall <= 150) {
      found = tried;
      break;
    }
  }
  const at = (/** @type {number} */ frame) => ({
    x: (frame % found.perLine) * (found.wide + GAP),
    y: Math.floor(frame / found.perLine) * (found.tall + LABEL + GAP),
  });
  /** The frame under a point of the strip, or -1. @param {number} x @param {number} y */
  const under = (x, y) => {
    const col = Math.floor(x / (found.wide + GAP));
    const frame = Math.floor(y / (found.tall + LABEL + GAP)) * found.perLine + col;
    return x >= 0 && y >= 0 && col < found.perLine && frame < frames ? frame : -1;
  };
  return { ...found, label: LABEL, at, under };
}

/**
 * The same colours for bytes of another scale: byte b of `own` looks like its value does on `shown`.
 *
 * @param {Uint32Array} table
 * @param {Range} own
 * @param {Range} shown
 */
export function rescaled(table, own, shown) {
  const out = new Uint32Array(256);
  const span = shown.high - shown.low;
  for (let byte = 0; byte < 255; byte++) {
    const share = span > 0 ? (valueAt(byte, own) - shown.low) / span : 0;
    out[byte] = table[Math.max(0, Math.min(254, Math.round(share * 254)))];
  }
  return out;
}

/**
 * after - before as bytes centred at 0, and the scale they are on; hidden in either is hidden.
 *
 * @param {{ bytes: ArrayLike<number>, start: number, range: Range }} after
 * @param {{ bytes: ArrayLike<number>, start: number, range: Range }} before
 * @param {number} count
 * @param {number} [most] the scale's end; by default the largest difference there is
 * @returns {{ bytes: Uint8Array, range: Range }}
 */
export function difference(after, before, count, most) {
  const numbers = new Float32Array(count);
  let largest = 0;
  for (let i = 0; i < count; i++) {
    const d = valueAt(after.bytes[after.start + i], after.range) - valueAt(before.bytes[before.start + i], before.range);
    numbers[i] = d;
    if (Math.abs(d) > largest) largest = Math.abs(d);
  }
  const end = most ?? largest;
  const bytes = new Uint8Array(count);
  for (let i = 0; i < count; i++) {
    const share = end > 0 ? Math.max(-1, Math.min(1, numbers[i] / end)) : 0;
    bytes[i] = Number.isNaN(numbers[i]) ? 255 : Math.round(127 + share * 127);
  }
  return { bytes, range: { low: -end, high: end } };
}

/**
 * A time as people say it.
 *
 * @param {number | null | undefined} seconds
 */
export const timeWords = (seconds) => (seconds === null || seconds === undefined || !Number.isFinite(seconds) ? "" : `${Number(seconds.toFixed(2))} s`);

/**
 * What a patch is and holds, for tooltip and screen reader; rows and columns count from 1.
 *
 * @param {{ frame: number, frames: number, name?: string, time?: number | null, row: number, col: number, value: number, unit: string, digits?: number }} what
 */
export function patchWords({ frame, frames, name, time, row, col, value, unit, digits = 3 }) {
  const where = [name ?? `frame ${frame + 1} of ${frames}`, timeWords(time), `row ${row + 1}`, `column ${col + 1}`].filter(Boolean).join(", ");
  return `${where}: ${number(value, digits)}${Number.isFinite(value) && unit ? ` ${unit}` : ""}`;
}
