import assert from "node:assert/strict";
import { test } from "node:test";
import { fates, folded, gains, oscillating } from "../src/lib/frequencies.js";
import { ticks } from "../src/lib/svg.js";
import { STEPS, indexOf, place } from "../src/lib/ternary.js";

const W = [1, 2, 4, 8, 16];
const cosines = (w, frames) => Array.from({ length: frames }, (_, f) => Math.cos((2 * Math.PI * w * f) / frames));
const alike = (a, b) => a.every((x, i) => Math.abs(x - b[i]) < 1e-9);

test("two frequencies fold together exactly when their cosines agree on every frame", () => {
  for (let frames = 1; frames <= 64; frames++) {
    for (const a of W) {
      for (const b of W) assert.equal(folded(a, frames) === folded(b, frames), alike(cosines(a, frames), cosines(b, frames)), `${a} ${b} at ${frames}`);
      assert.ok(alike(cosines(a, frames), cosines(folded(a, frames), frames)));
    }
  }
});

test("what becomes of a frequency follows from its cosine alone", () => {
  for (let frames = 1; frames <= 64; frames++) {
    for (const { w, seen, twins, kind } of fates(W, frames)) {
      const own = cosines(w, frames);
      assert.equal(kind === "constant", own.every((x) => Math.abs(x - 1) < 1e-9));
      if (kind === "alternating") assert.ok(alike(own, own.map((_, f) => (f % 2 ? -1 : 1))));
      if (kind === "own") assert.equal(seen, w);
      assert.deepEqual(twins, W.filter((other) => other !== w && alike(cosines(other, frames), own)));
    }
  }
  assert.deepEqual(fates(W, 16).map(({ kind }) => kind), ["own", "own", "own", "alternating", "constant"]);
  assert.equal(fates(W, 9)[3].seen, 1);
});

test("a still image has no oscillation and the release's gain of five; from 32 frames on no frequency is seen as another", () => {
  assert.equal(oscillating(W, 1), 0);
  assert.deepEqual(gains(W, 1), [5]);
  const whole = (n) => fates(W, n).every(({ kind }) => kind === "own" || kind === "alternating");
  for (let n = 1; n <= 64; n++) assert.equal(whole(n), n >= 32, `${n}`);
  assert.equal(oscillating(W, 11), 5, "five cosines may differ though two are seen as others");
  assert.ok(alike(gains(W, 12), cosines(1, 12).map((_, f) => W.reduce((sum, w) => sum + cosines(w, 12)[f], 0))));
});

test("every mixture has its own index and the triangle is equilateral", () => {
  const seen = new Set();
  for (let i = 0; i <= STEPS; i++) for (let j = 0; j <= STEPS - i; j++) seen.add(indexOf(i, j));
  assert.deepEqual([...seen].sort((a, b) => a - b), [...Array(253).keys()]);
  const [a, b, c] = [place(1, 0, 0), place(0, 1, 0), place(0, 0, 1)];
  const far = (p, q) => Math.hypot(p[0] - q[0], p[1] - q[1]);
  for (const side of [far(a, b), far(b, c), far(c, a)]) assert.ok(Math.abs(side - 1) < 1e-9);
  const middle = place(1 / 3, 1 / 3, 1 / 3);
  assert.ok(Math.abs(far(middle, a) - far(middle, b)) < 1e-9);
});

test("an axis gets a few round numbers", () => {
  assert.deepEqual(ticks(0, 1), [0, 0.2, 0.4, 0.6, 0.8, 1]);
  assert.deepEqual(ticks(-1, 5, 3), [0, 2, 4]);
  assert.deepEqual(ticks(2, 2), [2]);
});
