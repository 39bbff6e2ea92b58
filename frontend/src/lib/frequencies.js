// What the frequencies of the periodic branch mean on whole frames: cos(2 pi w f / F) for f = 0 .. F - 1. Exact.

/**
 * The frequency that w looks like at F frames: min(w mod F, F - w mod F); 0 is a constant.
 *
 * @param {number} w
 * @param {number} frames
 */
export function folded(w, frames) {
  const rest = w % frames;
  return Math.min(rest, frames - rest);
}

/**
 * What becomes of each frequency at F frames.
 *
 * @param {number[]} frequencies
 * @param {number} frames
 * @returns {{ w: number, seen: number, twins: number[], kind: "constant" | "alternating" | "aliased" | "own" }[]}
 *   twins: other frequencies with the same cosine on these frames
 */
export function fates(frequencies, frames) {
  return frequencies.map((w) => {
    const seen = folded(w, frames);
    const twins = frequencies.filter((other) => other !== w && folded(other, frames) === seen);
    const kind = seen === 0 ? "constant" : seen !== w ? "aliased" : 2 * seen === frames ? "alternating" : "own";
    return { w, seen, twins, kind };
  });
}

/** How many different cosines that are not constant are left. @param {number[]} frequencies @param {number} frames */
export const oscillating = (frequencies, frames) => new Set(frequencies.map((w) => folded(w, frames)).filter((seen) => seen > 0)).size;

/** The release's gain of every frame, sum over w of cos(2 pi w f / F). @param {number[]} frequencies @param {number} frames */
export const gains = (frequencies, frames) =>
  Array.from({ length: frames }, (_, f) => frequencies.reduce((sum, w) => sum + Math.cos((2 * Math.PI * ((w * f) % frames)) / frames), 0));
