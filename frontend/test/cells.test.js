import assert from "node:assert/strict";
import { test } from "node:test";
import { interval } from "../src/gradients.js";
import { aligned, entry, inkOn, markOf, rangeOf } from "../src/lib/cells.js";

test("a diverging scale is as long on both sides and its centre is its middle colour", () => {
  const range = rangeOf([0.1, -0.4, NaN], 0);
  assert.deepEqual(range, { low: -0.4, high: 0.4 });
  assert.equal(entry(0, range), 127);
  assert.equal(entry(-0.4, range), 0);
  assert.equal(entry(9, range), 254);
  assert.equal(entry(0.5, rangeOf([0.9], 0.5)), 127);
});

test("what is missing has no colour, no mark and no number", () => {
  assert.equal(entry(NaN, { low: 0, high: 1 }), 255);
  assert.equal(markOf(NaN, NaN, 0), "");
  assert.equal(interval([NaN, NaN, NaN]), "missing");
  assert.equal(interval([0.5, NaN, NaN]), "0.5 [no interval]");
  assert.deepEqual(rangeOf([NaN], 0), { low: -1, high: 1 });
});

test("ink stands out on every colour", () => {
  const light = (rgb) => rgb.map((c) => (c <= 10 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4)).reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  for (let i = 0; i < 4096; i++) {
    const rgb = [i & 15, (i >> 4) & 15, i >> 8].map((c) => c * 17);
    const contrast = inkOn(rgb) === "#000" ? (light(rgb) + 0.05) / 0.05 : 1.05 / (light(rgb) + 0.05);
    assert.ok(contrast >= 4.5, `${rgb}: ${contrast}`);
  }
});

test("a mark says on which side of the centre the whole interval lies", () => {
  assert.equal(markOf(0.1, 0.2, 0), "▲ ");
  assert.equal(markOf(-0.2, -0.1, 0), "▼ ");
  assert.equal(markOf(-0.2, 0.1, 0), "");
  assert.equal(markOf(0.1, 0.4, 0.5), "▼ ");
  assert.equal(markOf(0.1, 0.2, null), "");
});

test("numbers of one table have as many decimals", () => {
  const range = { low: -0.161, high: 0.161 };
  assert.deepEqual([0.0623, -0.00004, -0.1, 0.161].map((v) => aligned(v, range)), ["0.062", "0.000", "−0.100", "0.161"]);
  assert.equal(aligned(12.34, { low: 0, high: 40 }), "12.3");
  assert.equal(aligned(-2e-7, { low: -1e-6, high: 1e-6 }), "−2.0e−7");
});
