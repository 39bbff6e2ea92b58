import assert from "node:assert/strict";
import { test } from "node:test";
import { deflateSync } from "node:zlib";
import { Maps, ends, percent, points, toBytes, valuesOf } from "../src/lib/attentionmaps.js";
import { inBox, massIn, wholePixels } from "../src/lib/box.js";
import { isRightToLeft, shortToken } from "../src/lib/tokens.js";

const pack = (array, shape, type) => ({ bytes: deflateSync(Buffer.from(array.buffer)).toString("base64"), shape, type });
const f4 = (values, shape) => pack(Float32Array.from(values), shape, "f4");
const u1 = (values, shape) => pack(Uint8Array.from(values), shape, "u1");
const i4 = (values, shape) => pack(Int32Array.from(values), shape, "i4");

/** 2 layers, mean and 2 heads, 2 frames of 1 x 2 tokens. */
function data() {
  const side = (top) => ({
    maps: u1([254, 127, 0, 255, 10, 20, 30, 40], [2, 4]), high: f4([0.5, 0.1], [2]), frames: f4([0.6, 0.1, 0.2, 0.3], [2, 2]),
    statistics: f4(Array.from({ length: 12 }, (_, i) => i + top), [2, 2, 3]), top: f4([0.5, 0.7, top, 0.1, 0.2, 0.3, 0.4, 0.6, 0.5, 0.1, 0.2, 0.25], [2, 2, 3]),
  });
  return {
    layers: [0, 1], heads: ["mean", 0, 1], sides: [{ key: "after" }, { key: "before" }], strip: { frames: 2, cells: i4([0, 1, 2, 3], [2, 1, 2]) },
    sinks: { after: { tokens: u1([1, 0, 0, 0, 0, 0, 0, 0], [2, 4]) }, before: { tokens: u1([0, 1, 0, 0, 0, 0, 0, 0], [2, 4]) } },
    queries: { 3: { after: side(0.9), before: side(0.8), gap: f4([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.05, 0.06, 0.07, 0.08, 0.09, 0.1], [2, 2, 3]) } },
  };
}

test("the mean of a layer is at hand; its values are squares of bytes", async () => {
  const maps = new Maps(data(), () => assert.fail("nothing is asked"), null);
  await maps.ready();
  const bundle = await maps.query(3);
  assert.equal(maps.tokens, 4);
  const sheet = maps.mean(bundle, 0).after;
  const value = valuesOf(sheet);
  assert.ok(Math.abs(value(0) - 0.5) < 1e-6 && Math.abs(value(1) - 0.125) < 1e-6 && value(2) === 0 && Number.isNaN(value(3)));
  assert.deepEqual([...maps.mean(bundle, 1).after.frames].map((v) => Number(v.toFixed(3))), [0.2, 0.3]);
});

test("scales: one for all heads and layers, one for the means, own ones, and those of differences", async () => {
  const maps = new Maps(data(), async () => ({}), null);
  await maps.ready();
  const bundle = await maps.query(3);
  const top = (what) => Number(maps.top(bundle, { side: "after", layer: 0, head: 0, own: false, bare: false, ...what }).toFixed(4));
  assert.equal(top({}), 0.5, "means of both layers and sides");
  assert.equal(top({ head: 2 }), 0.9, "all heads and layers, before and after");
  assert.equal(top({ head: 2, side: "before" }), 0.9, "before and after share it");
  assert.equal(top({ head: 2, side: "before", own: true }), 0.8);
  assert.equal(top({ head: 1, layer: 1, own: true }), 0.2);
  assert.equal(top({ bare: true }), 0.4, "without sinks");
  assert.equal(top({ side: "difference" }), 0.4);
  assert.equal(top({ side: "difference", head: 1 }), 0.6);
  assert.equal(top({ side: "difference", head: 1, own: true, bare: true }), 0.06);
});

test("hidden sinks are not visible: a side's own, and in a difference those of either", async () => {
  const maps = new Maps(data(), async () => ({}), null);
  await maps.ready();
  const sheet = maps.mean(await maps.query(3), 0).after;
  assert.deepEqual([...maps.without(sheet, "after", 0).bytes], [255, 127, 0, 255]);
  assert.deepEqual([...maps.without(sheet, "difference", 0).bytes], [255, 255, 0, 255]);
  assert.equal(sheet.bytes[0], 254, "the map itself stays");
});

test("single heads and other queries are asked for once; a refusal is not remembered", async () => {
  const asked = [];
  let refuse = true;
  const maps = new Maps(data(), async (question) => {
    asked.push(JSON.stringify(question));
    if ("head" in question) return { after: { map: u1([1, 2, 3, 4], [4]), high: 0.3, frames: [0.1, 0.2] } };
    if (refuse) throw new Error("not carried");
    return data().queries[3];
  }, "clip-1");
  const one = await maps.head(3, 1, 2);
  assert.equal(await maps.head(3, 1, 2), one);
  assert.deepEqual(asked, ['{"sample":"clip-1","query":3,"layer":1,"head":2}'], "the very text that a page looks up");
  await assert.rejects(maps.query(7), /not carried/);
  refuse = false;
  assert.equal((await maps.query(7)).sides.after.high.length, 2);
});

test("a difference of statistics is after minus before; scales of numbers hide what is not there", async () => {
  const maps = new Maps(data(), async () => ({}), null);
  const bundle = await maps.query(3);
  const apart = maps.statistic(bundle, 1, "difference");
  assert.equal(apart.length, 6);
  assert.ok(apart.every((v) => Math.abs(v - 0.1) < 1e-6));
  assert.deepEqual(ends([[0.2, NaN, 0.6]], false), { low: 0.2, high: 0.6 });
  assert.deepEqual(ends([[-0.3, 0.1]], true), { low: -0.3, high: 0.3 });
  assert.deepEqual([...toBytes([0, 0.5, 1, NaN], { low: 0, high: 1 })], [0, 127, 254, 255]);
  assert.deepEqual([percent(0.4567), percent(0.0123), percent(NaN), points(-0.02), points(0.5)], ["45.7 %", "1.23 %", "–", "−2.00", "+50.0"]);
});

test("a token's share in a box is its area's, whatever cells it has", () => {
  const [rows, cols] = [3, 4];
  const cells = [0, 0, 1, 1, 0, 0, 1, -1, 2, 2, 3, 3, ...Array.from({ length: 12 }, (_, i) => 4 + i)];
  const box = [0.2, 0.1, 0.7, 0.55];
  const { share, size } = inBox(cells, 16, rows, cols, box);
  // slow and obvious: a fine raster
  const n = 240;
  const hits = new Float64Array(16);
  const all = new Float64Array(16);
  for (let f = 0; f < 2; f++)
    for (let y = 0; y < n; y++)
      for (let x = 0; x < n; x++) {
        const token = cells[f * 12 + Math.floor((y / n) * rows) * cols + Math.floor((x / n) * cols)];
        if (token < 0) continue;
        const [px, py] = [(x + 0.5) / n, (y + 0.5) / n];
        all[token] += 1;
        if (px > box[0] && px < box[2] && py > box[1] && py < box[3]) hits[token] += 1;
      }
  for (let token = 0; token < 16; token++) assert.ok(Math.abs(share[token] - hits[token] / all[token]) < 1e-4, `token ${token}`);
  assert.deepEqual([size[0], size[1], size[4]], [4, 3, 1]);
  const even = massIn(() => 0.01, { share, size });
  const value = (token) => (token === 5 ? NaN : 1);
  const some = massIn(value, { share, size });
  const seen = [...share.keys()].filter((t) => t !== 5);
  assert.ok(Math.abs(some.mass - seen.reduce((sum, t) => sum + share[t], 0) / 15) < 1e-6);
  assert.ok(Math.abs(some.chance - seen.reduce((sum, t) => sum + share[t] * size[t], 0) / seen.reduce((sum, t) => sum + size[t], 0)) < 1e-6);
  assert.ok(even.mass > 0 && Number.isNaN(massIn(() => NaN, { share, size }).mass));
});

test("a drawn box is whole pixels, inside the frame and never empty", () => {
  assert.deepEqual(wholePixels([0.25, 0.5, 0.75, 1], [32, 32]), [8, 16, 24, 32]);
  assert.deepEqual(wholePixels([0.26, 0.51, 0.27, 0.515], [32, 32]), [8, 16, 9, 17]);
  assert.deepEqual(wholePixels([1, 1, 1, 1], [32, 20]), [31, 19, 32, 20]);
});

test("tokens are read in the direction of their script; long ones are cut, blank ones shown", () => {
  assert.equal(isRightToLeft("? שלום"), true);
  assert.equal(isRightToLeft("which שלום"), false);
  assert.equal(isRightToLeft("مرحبا hello"), true);
  assert.equal(isRightToLeft("12 ?"), false);
  assert.equal([...shortToken("a".repeat(300))].length, 24);
  assert.deepEqual([shortToken(" the"), shortToken("  "), shortToken("\n"), shortToken("")], ["the", "␣␣", "⏎", "∅"]);
});
