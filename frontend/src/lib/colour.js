// Colour scales come from Python (256 RGB triples in base64), so that a page and a paper figure agree.

/**
 * @param {string} base64 768 bytes
 * @returns {Uint32Array} 256 colours as little-endian RGBA; entry 255 ("not visible") is transparent
 */
export function lookUpTable(base64) {
  const rgb = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  const table = new Uint32Array(256);
  for (let i = 0; i < 255; i++) table[i] = (255 << 24) | (rgb[3 * i + 2] << 16) | (rgb[3 * i + 1] << 8) | rgb[3 * i];
  return table;
}

/**
 * Colours of `bytes` (rows x cols) as an image of one pixel a cell.
 *
 * @param {ArrayLike<number>} bytes
 * @param {number} rows
 * @param {number} cols
 * @param {Uint32Array} table
 * @param {number} [start] of the first cell in `bytes`
 * @returns {ImageData}
 */
export function paint(bytes, rows, cols, table, start = 0) {
  const image = new ImageData(cols, rows);
  const pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < rows * cols; i++) pixels[i] = table[bytes[start + i]];
  return image;
}

/**
 * @param {number} value
 * @param {number} [digits] significant ones
 */
export function number(value, digits = 3) {
  if (!Number.isFinite(value)) return "not visible";
  if (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e5)) return value.toExponential(digits - 1).replace("-", "−");
  return Number(value.toPrecision(digits)).toString().replace("-", "−");
}
