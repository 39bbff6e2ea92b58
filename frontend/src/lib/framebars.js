// One bar a frame: how much attention it gets in all. Click picks the frame.
import { number } from "./colour.js";
import { h } from "./dom.js";
import { timeWords } from "./heat.js";

const [HEIGHT, TOP, BOTTOM] = [84, 16, 16];

/**
 * @param {{ frames: number, times: (number | null)[], names: string[], unit: string, choose: (frame: number) => void }} what
 */
export function frameBars({ frames, times, names, unit, choose }) {
  const canvas = h("canvas", { class: "wb-bars", role: "img", hidden: frames === 1 });
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const note = h("p", { class: "wb-said" });
  /** @type {ArrayLike<number>} */
  let values = [];
  let at = 0;
  let width = 1000;

  function paint() {
    const ratio = globalThis.devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(HEIGHT * ratio);
    }
    const style = getComputedStyle(canvas);
    const [ink, mark, line] = ["--wb-soft", "--wb-mark", "--wb-line"].map((name) => style.getPropertyValue(name) || "#808890");
    let [low, high] = [0, 0];
    for (let i = 0; i < values.length; i++) {
      if (values[i] < low) low = values[i];
      if (values[i] > high) high = values[i];
    }
    const span = high - low || 1;
    const room = HEIGHT - TOP - BOTTOM;
    const y = (/** @type {number} */ v) => TOP + ((high - v) / span) * room;
    const step = width / frames;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, HEIGHT);
    for (let i = 0; i < values.length; i++) {
      context.fillStyle = i === at ? ink : mark;
      const [from, to] = [y(Math.max(0, values[i])), y(Math.min(0, values[i]))];
      context.fillRect(i * step + (step > 4 ? 1 : 0), from, Math.max(1, step - (step > 4 ? 2 : 0)), Math.max(1, to - from));
    }
    context.fillStyle = line;
    context.fillRect(0, y(0), width, 1);
    context.fillStyle = ink;
    context.font = "11px system-ui, 'DejaVu Sans', sans-serif";
    context.textAlign = "left";
    context.fillText(`${unit} of each frame, at most ${number(high)}${low < 0 ? `, at least ${number(low)}` : ""}`, 0, 11);
    context.fillText(timeWords(times[0]) || "frame 1", 0, HEIGHT - 3);
    context.textAlign = "right";
    if (frames > 1) context.fillText(timeWords(times[frames - 1]) || `frame ${frames}`, width, HEIGHT - 3);
  }
  /** @param {ArrayLike<number>} sums @param {string} rest what goes elsewhere, in words */
  function draw(sums, rest) {
    values = sums;
    let best = 0;
    for (let i = 1; i < values.length; i++) if (Math.abs(values[i]) > Math.abs(values[best])) best = i;
    const words = `Largest: ${names[best]}${times[best] === null || times[best] === undefined ? "" : `, ${timeWords(times[best])}`}, ${number(values[best])}. ${rest}`;
    if (note.textContent !== words) note.textContent = words;
    canvas.setAttribute("aria-label", `${unit} of each of ${frames} frames. ${words}`);
    paint();
  }
  /** @param {number} frame */
  function move(frame) {
    if (frame === at) return;
    at = frame;
    paint();
  }
  canvas.addEventListener("click", (event) => {
    const box = canvas.getBoundingClientRect();
    choose(Math.max(0, Math.min(frames - 1, Math.floor(((event.clientX - box.left) / box.width) * frames))));
  });
  const whole = h("figure", { class: "wb-figure" }, canvas, note);
  const sized = new ResizeObserver(() => {
    const now = Math.floor(whole.clientWidth);
    if (now > 40 && now !== width) {
      width = now;
      paint();
    }
  });
  sized.observe(whole);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  dark.addEventListener("change", paint);
  return { whole, draw, move, close: () => (sized.disconnect(), dark.removeEventListener("change", paint)) };
}
