import assert from "node:assert/strict";
import { test } from "node:test";
import { chosen, countsOf, said, seedRows, signed, tableRows, within } from "../src/lib/flips.js";

const group = (kind, skill, questions, lost, won, change = null) => ({ kind, skill, questions, seeds: 2, pairs: 2 * questions, lost, won, change });
const point = {
  key: "a@3", title: "A, step 3", seeds: 2, changes: { image: { value: -2, low: -3.04, high: -0.96 }, video: { value: 0.04, low: -1, high: 1 } },
  groups: [group("image", "ocr", 10, 3, 1, { value: -10, low: -20, high: 0 }), group("image", "count", 5, 0, 2), group("video", "ocr", 4, 1, 0)],
};

test("counts are those of the questions a filter keeps", () => {
  assert.deepEqual(countsOf(point, ""), { pairs: 38, questions: 19, lost: 4, won: 3 });
  assert.deepEqual(countsOf(point, "image"), { pairs: 30, questions: 15, lost: 3, won: 3 });
  assert.deepEqual(countsOf(point, "video:ocr"), { pairs: 8, questions: 4, lost: 1, won: 0 });
  assert.equal(within({ kind: "video", skill: "ocr" }, "image:ocr"), false);
});

test("a sentence has counts, questions, seeds and the intervals that belong to it", () => {
  assert.equal(said(point, ""), "4 right → wrong, 3 wrong → right of 19 questions × 2 seeds. Change against the base, mean over skills: "
    + "image −2.0 points [−3.0, −1.0]; video +0.0 points [−1.0, +1.0] (95%, paired).");
  assert.equal(said(point, "image:ocr"), "3 right → wrong, 1 wrong → right of 10 questions × 2 seeds. Change against the base: image ocr −10.0 points [−20.0, +0.0] (95%, paired).");
  assert.equal(said(point, "image:count"), "0 right → wrong, 2 wrong → right of 5 questions × 2 seeds.");
  assert.equal(said(point, "text"), "no question of these was asked here.");
});

test("where seeds were not asked the same, the pairs are counted", () => {
  const odd = { ...point, groups: [{ ...group("image", "ocr", 10, 1, 0), pairs: 15 }], changes: {} };
  assert.equal(said(odd, ""), "1 right → wrong, 0 wrong → right of 10 questions × 2 seeds (15 pairs).");
});

test("points have a sign and one decimal", () => {
  assert.equal(signed(-0.04), "+0.0");
  assert.equal(signed(12.345), "+12.3");
});

const row = {
  way: "lost", suite: "image", kind: "image", skill: "ocr", sample: "i-1", question: "what?", answer: "two", before: "two", after: "(nothing)", flipped: 1, asked: 2,
  p: [0.996, null], frames: 1, look: "l", by_seed: [[0, "two", 0.996, "", null, 1, -1], [1, "two", 0.9, "two", 0.8, 1, 0], [2, "six", 0.1, "two", 0.8, 1, 1]],
};

test("rows say in how many seeds, what is unknown, and what this page carries", () => {
  assert.deepEqual(chosen([row], "image:ocr", "lost"), [row]);
  assert.deepEqual(chosen([row], "", "won"), []);
  const [shown] = tableRows([row], ["l"]);
  assert.equal(shown.seeds, "1 of 2");
  assert.equal(shown.probability, "100% → not known");
  assert.equal(shown.inside, "on this page");
  assert.deepEqual(seedRows(row).map((one) => one.flip), ["right → wrong", "no flip", "wrong → right"]);
});
