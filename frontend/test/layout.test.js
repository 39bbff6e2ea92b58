import assert from "node:assert/strict";
import { test } from "node:test";
import { bar, fitCells, headsShown, rankOf, textAngle } from "../src/lib/layout.js";

const frames = (count, parts = 1) => Array.from({ length: count * parts }, (_, i) => ({ frame: Math.floor(i / parts) }));

test("cells fill the room, and never vanish", () => {
  assert.equal(fitCells(16, 930), 54);
  assert.equal(fitCells(64, 930), 14);
  for (const n of [1, 7, 64, 256]) assert.ok(fitCells(n, 930) * n <= 930);
  assert.equal(fitCells(1024, 930), 3);
});

test("pictures above columns never overlap nor leave the map, and each stands over its own frame", () => {
  for (const [count, parts, aspect] of [[1, 1, 1], [16, 1, 1.78], [64, 1, 1], [256, 1, 0.5], [12, 6, 1.3]]) {
    const columns = frames(count, parts);
    const wide = fitCells(columns.length, 930);
    const { wide: width, tall, heads } = headsShown(columns, wide, aspect);
    assert.ok(tall >= 8 && heads.length >= 1);
    for (const [i, { column, x }] of heads.entries()) {
      assert.ok(x >= 0 && (x + width <= columns.length * wide + 1e-9 || columns.length * wide < width));
      if (i) assert.ok(x >= heads[i - 1].x + width);
      const middle = (column + parts / 2) * wide;
      assert.ok(x - 1e-9 <= middle && middle <= x + width + 1e-9, "the picture covers the middle of its frame");
    }
  }
  assert.equal(headsShown(frames(16), 54, 1).heads.length, 16);
  assert.deepEqual(headsShown([{ frame: -1 }, { frame: -1 }], 50, 1).heads, []);
});

test("names stand upright where they do not fit", () => {
  assert.equal(textAngle(["0.1 s", "0.4 s"], 54).angle, 0);
  const upright = textAngle(["0.1 s", "question"], 14);
  assert.equal(upright.angle, -90);
  assert.ok(upright.height <= 90 && textAngle(["x".repeat(99)], 14).height === 90);
});

test("bars end at the top of the scale and say so", () => {
  assert.deepEqual(bar(0.5, 1), { share: 0.5, cut: false });
  assert.deepEqual(bar(3, 1), { share: 1, cut: true });
  assert.deepEqual(bar(NaN, 1), { share: 0, cut: false });
  assert.deepEqual(bar(-1, 1), { share: 0, cut: false });
});

test("ranks count from the greatest, equal ones share the best, what is not visible has none", () => {
  const values = [3, NaN, 5, 3, -1];
  assert.deepEqual(values.map((_, i) => rankOf(values, i)), ["2", "–", "1", "2", "4"]);
});
