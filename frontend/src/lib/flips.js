// Words and rows of the flips view, without a page.

/** @typedef {{ value: number, low: number, high: number }} Change in points, with its 95% interval */
/** @typedef {{ kind: string, skill: string, pairs: number, questions: number, seeds: number, lost: number, won: number, change?: Change | null }} Group */
/** @typedef {{ key: string, title: string, groups: Group[], changes: Record<string, Change>, seeds: number, note?: string }} Point */
/**
 * A question that flipped. `by_seed`: [seed, base's prediction, its probability, this one's, its probability, frames, -1 | 0 | 1]
 *
 * @typedef {{ way: string, suite: string, kind: string, skill: string, sample: string, question: string, answer: string, before: string, after: string,
 *   flipped: number, asked: number, p: [number | null, number | null], frames: number, look: string,
 *   by_seed: [number, string, number | null, string, number | null, number, number][] }} Row
 */

/** @param {number | null | undefined} value of a probability */
export const percent = (value) => (value === null || value === undefined ? "not known" : `${Math.round(100 * value)}%`);

/** @param {number} value points */
export const signed = (value) => `${value <= -0.05 ? "−" : "+"}${Math.abs(value).toFixed(1)}`;

/** What a filter keeps: "" everything, "image" a kind, "image:ocr" a skill. @param {{ kind: string, skill: string }} one @param {string} filter */
export const within = (one, filter) => !filter || filter === one.kind || filter === `${one.kind}:${one.skill}`;

/** @param {Point} point @param {string} filter */
export function countsOf(point, filter) {
  const total = { pairs: 0, questions: 0, lost: 0, won: 0 };
  for (const group of point.groups.filter((g) => within(g, filter))) {
    total.pairs += group.pairs;
    total.questions += group.questions;
    total.lost += group.lost;
    total.won += group.won;
  }
  return total;
}

/** McNemar's counts in a sentence, with the paired interval where there is one. @param {Point} point @param {string} filter */
export function said(point, filter) {
  const { pairs, questions, lost, won } = countsOf(point, filter);
  if (!pairs) return "no question of these was asked here.";
  const of = `${lost} right → wrong, ${won} wrong → right of ${questions} questions × ${point.seeds} seed${point.seeds === 1 ? "" : "s"}`;
  const several = pairs === questions * point.seeds ? "" : ` (${pairs} pairs)`;
  const group = point.groups.find((g) => `${g.kind}:${g.skill}` === filter);
  const changes = /** @type {[string, Change][]} */ (group ? (group.change ? [[filter.replace(":", " "), group.change]] : [])
    : Object.entries(point.changes).filter(([kind]) => !filter || kind === filter));
  const text = changes.map(([name, c]) => `${name} ${signed(c.value)} points [${signed(c.low)}, ${signed(c.high)}]`);
  const net = text.length ? ` Change against the base${group ? "" : ", mean over skills"}: ${text.join("; ")} (95%, paired).` : "";
  return `${of}${several}.${net}`;
}

/** @param {Row[]} rows @param {string} filter @param {string} direction */
export const chosen = (rows, filter, direction) => rows.filter((row) => row.way === direction && within(row, filter));

/** @param {Row[]} rows @param {string[]} here looks whose attention is carried */
export const tableRows = (rows, here) => rows.map((row) => ({
  ...row,
  seeds: `${row.flipped} of ${row.asked}`,
  probability: `${percent(row.p[0])} → ${percent(row.p[1])}`,
  inside: here.includes(row.look) ? "on this page" : "",
}));

/** @param {Row} row */
export const seedRows = (row) => row.by_seed.map(([seed, before, pBefore, after, pAfter, frames, change]) => ({
  seed, before, after, frames, pBefore: percent(pBefore), pAfter: percent(pAfter),
  flip: change < 0 ? "right → wrong" : change > 0 ? "wrong → right" : "no flip",
}));
