import assert from "node:assert/strict";
import { test } from "node:test";
import { difference, patchWords, rescaled, stripLayout, valueAt } from "../src/lib/heat.js";

test("a strip of 1, 64 and 256 frames stands within its width, and every frame is found again under its own place", () => {
  for (const frames of [1, 2, 16, 64, 256])
    for (const aspect of [0.5, 1, 16 / 9])
      for (const width of [320, 700, 1060]) {
        const strip = stripLayout(frames, aspect, width);
        assert.ok(strip.width <= width, `${frames} frames are ${strip.width} wide, ${width} there are`);
        assert.ok(strip.perLine * strip.lines >= frames);
        for (const frame of [0, 1, frames >> 1, frames - 1].filter((f) => f < frames)) {
          const { x, y } = strip.at(frame);
          assert.ok(x + strip.wide <= strip.width && y + strip.tall <= strip.height);
          assert.equal(strip.under(x + 1, y + 1), frame);
          assert.equal(strip.under(x + strip.wide - 1, y + strip.tall - 1), frame);
        }
        assert.equal(strip.under(-1, 0), -1);
        assert.equal(strip.under(0, strip.height + 1), -1);
      }
  assert.ok(stripLayout(64, 1, 1060).height <= 300);
});

test("on a shared scale a byte looks like its value, not like its byte", () => {
  const table = Uint32Array.from({ length: 256 }, (_, i) => i);
  const out = rescaled(table, { low: 0, high: 0.1 }, { low: 0, high: 0.4 });
  for (const byte of [0, 60, 127, 254]) assert.ok(Math.abs(out[byte] - byte / 4) <= 0.5);
  const root = rescaled(table, { low: 0, high: 0.4, root: true }, { low: 0, high: 0.4 });
  for (const byte of [0, 20, 127, 254]) assert.ok(Math.abs(root[byte] - (byte / 254) ** 2 * 254) <= 0.5);
  assert.equal(out[255], 0, "not visible stays transparent");
  assert.equal(rescaled(table, { low: 0, high: 2 }, { low: 0, high: 1 })[254], 254, "beyond the scale is its end");
});

test("a difference is centred at 0, exact to half a step, and hidden where either is hidden", () => {
  const after = { bytes: [0, 254, 127, 255, 10], start: 0, range: { low: 0, high: 1 } };
  const before = { bytes: [9, 0, 254, 127, 10, 255], start: 1, range: { low: 0, high: 0.5 } };
  const { bytes, range } = difference(after, before, 5);
  const expected = [0, 0.5, 127 / 254 - 0.25, NaN, NaN];
  assert.deepEqual([range.low, range.high], [-0.5, 0.5]);
  expected.forEach((value, i) => {
    if (Number.isNaN(value)) assert.equal(bytes[i], 255);
    else assert.ok(Math.abs(valueAt(bytes[i], range) - value) <= 0.5 / 254 + 1e-9, `${i}: ${valueAt(bytes[i], range)} is not ${value}`);
  });
  const same = difference(after, after, 3);
  assert.deepEqual([...same.bytes], [127, 127, 127], "no difference is the middle of the scale");
});

test("a patch is named by frame, time, row, column and value", () => {
  const place = { frame: 2, frames: 8, time: 1.25, row: 0, col: 3, value: 0.0123, unit: "attention probability" };
  assert.equal(patchWords(place), "frame 3 of 8, 1.25 s, row 1, column 4: 0.0123 attention probability");
  assert.equal(patchWords({ ...place, time: null, value: NaN }), "frame 3 of 8, row 1, column 4: not visible");
});
