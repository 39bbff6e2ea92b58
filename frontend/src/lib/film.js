// A film strip with heat over it: every frame small, the current one large; by mouse, by keys, as words.
import { h, slider } from "./dom.js";
import { patchWords, stripLayout, timeWords, valueAt } from "./heat.js";

/**
 * Pictures of all frames as one image (Python's views.film.sheet): `columns` a line, each `width` x `height`.
 * @typedef {{ src: string, columns: number, width: number, height: number }} Sheet
 * @typedef {import("./heat.js").Range} Range
 * @typedef {{ frame: number, row: number, col: number }} Place
 */

const FRAMES_A_SECOND = 4;
const BIG = 340;

/**
 * @param {object} what
 * @param {string} what.label of the whole, for screen readers
 * @param {number} what.frames how many; 1 to 256 are tried
 * @param {number} what.rows patches of a frame
 * @param {number} what.cols
 * @param {(number | null)[]} [what.times] seconds, one a frame
 * @param {string[]} [what.names] of frames, "frames 3 and 4" say; by default "frame 3 of 8"
 * @param {Sheet | null} [what.sheet] pictures; without them a plain grid of patches
 * @param {number} [what.aspect] width / height of a frame
 * @param {ArrayLike<number> | null} [what.cells] [frame, row, col] -> index into what `draw` is given (-1: nothing there); by
 *   default bytes are in that order already
 * @param {string} what.unit of the values
 * @param {(place: Place, value: number) => string} [what.words] of a patch, in place of its plain description
 * @param {(place: Place) => void} what.choose called when frame or patch is chosen, by whatever means
 * @param {(frame: number) => number[][]} [what.outlines] boxes (x0, y0, x1, y1, shares of the frame) drawn over a frame
 * @param {(box: number[]) => void} [what.dragged] called with the box that was drawn on the large frame
 */
export function film(what) {
  const { frames, rows, cols, times = [], names, sheet = null, unit, choose } = what;
  let cells = what.cells ?? null;
  const aspect = what.aspect ?? (sheet ? sheet.width / sheet.height : cols / rows);
  const patches = rows * cols;
  const scale = Math.min(BIG / aspect, BIG * 0.85);
  const size = { w: Math.max(cols, Math.round(scale * aspect)), h: Math.max(rows, Math.round(scale)) };

  const heat = document.createElement("canvas"); // all frames below each other, one pixel a patch
  heat.width = cols;
  heat.height = rows * frames;
  const heatContext = /** @type {CanvasRenderingContext2D} */ (heat.getContext("2d"));
  const image = new ImageData(cols, rows * frames);
  const pixels = new Uint32Array(image.data.buffer);

  const strip = h("canvas", { class: "wb-map wb-strip", tabindex: "0", role: "slider", "aria-label": `${what.label}: frame`, "aria-valuemin": 1, "aria-valuemax": frames });
  const big = h("canvas", { class: "wb-map", tabindex: "0", role: "application", width: size.w, height: size.h });
  big.setAttribute("aria-label", `${what.label}: the current frame. Arrow keys move the patch, Page Up and Page Down the frame, space plays.`);
  const stripContext = /** @type {CanvasRenderingContext2D} */ (strip.getContext("2d"));
  const bigContext = /** @type {CanvasRenderingContext2D} */ (big.getContext("2d"));
  const said = h("p", { class: "wb-said", "aria-live": "polite" });
  const hovered = h("p", { class: "wb-said", "aria-hidden": "true" });
  const button = h("button", { type: "button", onclick: () => play(!playing), "aria-label": "play the frames" }, "▶ Play");
  const nameOf = (/** @type {number} */ frame) => names?.[frame] ?? `frame ${frame + 1} of ${frames}`;
  const titleOf = (/** @type {number} */ frame) => [nameOf(frame), timeWords(times[frame])].filter(Boolean).join(", ");
  const scrub = slider("Frame", { min: 1, max: frames, value: 1, words: (n) => titleOf(n - 1) }, (n) => go({ frame: n - 1 }));
  let opacity = sheet ? 0.6 : 1;
  const fade = slider("Heat over pictures", { min: 0, max: 100, step: 5, value: 100 * opacity, words: (n) => `${n} %` }, (n) => ((opacity = n / 100), repaint()));

  /** @type {HTMLImageElement | null} */
  let picture = null;
  /** @type {Place} */
  let at = { frame: 0, row: Math.floor(rows / 2), col: Math.floor(cols / 2) };
  /** @type {{ bytes: ArrayLike<number>, range: Range, start: number } | null} */
  let shown = null;
  let places = stripLayout(frames, aspect, 1040);
  /** @type {HTMLCanvasElement} */
  let ground = document.createElement("canvas");
  /** @type {ReturnType<typeof setInterval> | undefined} */
  let playing;
  /** @type {{ x: number, y: number } | null} */
  let drag = null;
  /** @type {number[] | null} */
  let rubber = null;

  /** Where tokens lie, once it is known. @param {ArrayLike<number> | null} known as `cells` */
  function setCells(known) {
    cells = known;
  }
  /** Paint other numbers. @param {ArrayLike<number>} bytes @param {Uint32Array} table @param {Range} range @param {number} [start] */
  function draw(bytes, table, range, start = 0) {
    shown = { bytes, range, start };
    if (cells) for (let i = 0; i < pixels.length; i++) pixels[i] = cells[i] < 0 ? 0 : table[bytes[start + cells[i]]];
    else for (let i = 0; i < pixels.length; i++) pixels[i] = table[bytes[start + i]];
    heatContext.putImageData(image, 0, 0);
    repaint();
    say();
  }
  /** @param {Place} place */
  function value({ frame, row, col }) {
    if (!shown) return NaN;
    const cell = frame * patches + row * cols + col;
    const index = cells ? cells[cell] : cell;
    return index < 0 ? NaN : valueAt(shown.bytes[shown.start + index], shown.range);
  }
  /** @param {Place} place */
  function wordsOf(place) {
    const number = value(place);
    return what.words?.(place, number) ?? patchWords({ ...place, frames, name: names?.[place.frame], time: times[place.frame], value: number, unit });
  }
  function say() {
    const text = wordsOf(at);
    if (said.textContent !== text) said.textContent = text;
    strip.setAttribute("aria-valuenow", String(at.frame + 1));
    strip.setAttribute("aria-valuetext", titleOf(at.frame));
  }
  /** @param {CanvasRenderingContext2D} context @param {number} frame @param {number} x @param {number} y @param {number} w @param {number} t */
  function photo(context, frame, x, y, w, t) {
    if (!sheet || !picture) return;
    const from = [(frame % sheet.columns) * sheet.width, Math.floor(frame / sheet.columns) * sheet.height];
    context.imageSmoothingEnabled = w < sheet.width;
    context.drawImage(picture, from[0], from[1], sheet.width, sheet.height, x, y, w, t);
  }
  /** Pictures and times, which do not change while maps do. */
  function lay() {
    const ratio = globalThis.devicePixelRatio || 1;
    ground = document.createElement("canvas");
    for (const canvas of [strip, ground]) {
      canvas.width = Math.round(places.width * ratio);
      canvas.height = Math.round(places.height * ratio);
    }
    strip.style.width = `${places.width}px`;
    const context = /** @type {CanvasRenderingContext2D} */ (ground.getContext("2d"));
    context.scale(ratio, ratio);
    context.font = "11px system-ui, 'DejaVu Sans', sans-serif";
    context.textAlign = "center";
    const style = getComputedStyle(strip);
    context.fillStyle = style.getPropertyValue("--wb-ink") || style.color;
    let free = -Infinity;
    for (let frame = 0; frame < frames; frame++) {
      const { x, y } = places.at(frame);
      photo(context, frame, x, y, places.wide, places.tall);
      const text = times.length ? timeWords(times[frame]) || "–" : String(frame + 1);
      const half = context.measureText(text).width / 2 + 2;
      if (frame % places.perLine === 0) free = -Infinity;
      const middle = Math.max(half - 2, Math.min(places.width - half + 2, x + places.wide / 2));
      if (middle - half < free) continue; // no room: the neighbour's time says enough
      context.fillText(text, middle, y + places.tall + 12);
      free = middle + half;
    }
    repaint();
  }
  /** @param {CanvasRenderingContext2D} context @param {number} x @param {number} y @param {number} w @param {number} t @param {string} [ink] @param {number} [thick] */
  function frameAround(context, x, y, w, t, ink = "#000", thick = 2) {
    context.lineWidth = 2 * thick;
    context.strokeStyle = "#fff";
    context.strokeRect(x, y, w, t);
    context.lineWidth = thick;
    context.strokeStyle = ink;
    context.strokeRect(x, y, w, t);
  }
  /** @param {CanvasRenderingContext2D} context @param {number} frame @param {number} x @param {number} y @param {number} w @param {number} t */
  function boxes(context, frame, x, y, w, t) {
    for (const [x0, y0, x1, y1] of what.outlines?.(frame) ?? []) {
      frameAround(context, x + x0 * w, y + y0 * t, (x1 - x0) * w, (y1 - y0) * t, "#d55e00", w > 150 ? 2 : 1);
    }
  }
  /** Paint what is known again. */
  function repaint() {
    const ratio = globalThis.devicePixelRatio || 1;
    stripContext.setTransform(1, 0, 0, 1, 0, 0);
    stripContext.clearRect(0, 0, strip.width, strip.height);
    stripContext.drawImage(ground, 0, 0);
    stripContext.scale(ratio, ratio);
    stripContext.imageSmoothingEnabled = false;
    stripContext.globalAlpha = opacity;
    for (let frame = 0; frame < frames; frame++) {
      const { x, y } = places.at(frame);
      stripContext.drawImage(heat, 0, frame * rows, cols, rows, x, y, places.wide, places.tall);
    }
    stripContext.globalAlpha = 1;
    if (what.outlines && places.wide >= 40) {
      for (let frame = 0; frame < frames; frame++) boxes(stripContext, frame, places.at(frame).x, places.at(frame).y, places.wide, places.tall);
    }
    const { x, y } = places.at(at.frame);
    frameAround(stripContext, x + 1, y + 1, places.wide - 2, places.tall - 2);
    enlarge();
  }
  function enlarge() {
    bigContext.clearRect(0, 0, size.w, size.h);
    photo(bigContext, at.frame, 0, 0, size.w, size.h);
    bigContext.imageSmoothingEnabled = false;
    bigContext.globalAlpha = opacity;
    bigContext.drawImage(heat, 0, at.frame * rows, cols, rows, 0, 0, size.w, size.h);
    bigContext.globalAlpha = 1;
    const [w, t] = [size.w / cols, size.h / rows];
    frameAround(bigContext, at.col * w + 1, at.row * t + 1, w - 2, t - 2);
    boxes(bigContext, at.frame, 0, 0, size.w, size.h);
    if (rubber) frameAround(bigContext, rubber[0] * size.w, rubber[1] * size.h, (rubber[2] - rubber[0]) * size.w, (rubber[3] - rubber[1]) * size.h, "#d55e00");
  }
  /** Show another place; `choose` is not called. @param {Partial<Place>} place */
  function move(place) {
    const next = { ...at, ...place };
    const kept = {
      frame: Math.max(0, Math.min(frames - 1, next.frame)), row: Math.max(0, Math.min(rows - 1, next.row)), col: Math.max(0, Math.min(cols - 1, next.col)),
    };
    if (kept.frame === at.frame && kept.row === at.row && kept.col === at.col) return false;
    at = kept;
    scrub.set(at.frame + 1);
    repaint();
    say();
    return true;
  }
  /** @param {Partial<Place>} place */
  function go(place) {
    if (move(place)) choose({ ...at });
  }
  /** @param {boolean} on */
  function play(on) {
    clearInterval(playing);
    playing = undefined;
    if (on && frames > 1) playing = setInterval(() => go({ frame: (at.frame + 1) % frames }), 1000 / FRAMES_A_SECOND);
    button.textContent = playing ? "⏸ Pause" : "▶ Play";
    button.setAttribute("aria-label", playing ? "pause" : "play the frames");
    said.setAttribute("aria-live", playing ? "off" : "polite"); // four sentences a second help nobody
  }

  /** @param {KeyboardEvent} event @param {Record<string, Partial<Place>>} moves */
  function key(event, moves) {
    const common = { Home: { frame: 0 }, End: { frame: frames - 1 }, PageUp: { frame: at.frame - 1 }, PageDown: { frame: at.frame + 1 } };
    const to = { ...common, ...moves }[event.key];
    if (event.key === " ") play(!playing);
    else if (to) go(to);
    else return;
    event.preventDefault();
  }
  strip.addEventListener("keydown", (event) =>
    key(event, {
      ArrowLeft: { frame: at.frame - 1 }, ArrowRight: { frame: at.frame + 1 }, ArrowUp: { frame: at.frame - places.perLine }, ArrowDown: { frame: at.frame + places.perLine },
    }));
  big.addEventListener("keydown", (event) =>
    key(event, { ArrowLeft: { col: at.col - 1 }, ArrowRight: { col: at.col + 1 }, ArrowUp: { row: at.row - 1 }, ArrowDown: { row: at.row + 1 } }));

  /** Where in a canvas the mouse is, as shares. @param {MouseEvent} event @param {HTMLCanvasElement} canvas */
  function share(event, canvas) {
    const box = canvas.getBoundingClientRect();
    return { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
  }
  const patch = (/** @type {{ x: number, y: number }} */ { x, y }) => ({
    row: Math.max(0, Math.min(rows - 1, Math.floor(y * rows))), col: Math.max(0, Math.min(cols - 1, Math.floor(x * cols))),
  });
  /** The place under the mouse in the strip. @param {MouseEvent} event @returns {Place | null} */
  function inStrip(event) {
    const point = share(event, strip);
    const frame = places.under(point.x * places.width, point.y * places.height);
    if (frame < 0) return null;
    const { x, y } = places.at(frame);
    return { frame, ...patch({ x: (point.x * places.width - x) / places.wide, y: (point.y * places.height - y) / places.tall }) };
  }
  strip.addEventListener("click", (event) => {
    const place = inStrip(event);
    if (place) go(place);
  });
  strip.addEventListener("mousemove", (event) => {
    const place = inStrip(event);
    hovered.textContent = place ? `Under the mouse: ${wordsOf(place)}` : "";
  });
  big.addEventListener("pointerdown", (event) => {
    drag = share(event, big);
    big.setPointerCapture(event.pointerId);
  });
  big.addEventListener("pointermove", (event) => {
    const to = share(event, big);
    hovered.textContent = `Under the mouse: ${wordsOf({ frame: at.frame, ...patch(to) })}`;
    if (!drag || !what.dragged || Math.hypot((to.x - drag.x) * size.w, (to.y - drag.y) * size.h) < 5) return;
    const clip = (/** @type {number} */ n) => Math.max(0, Math.min(1, n));
    rubber = [Math.min(clip(drag.x), clip(to.x)), Math.min(clip(drag.y), clip(to.y)), Math.max(clip(drag.x), clip(to.x)), Math.max(clip(drag.y), clip(to.y))];
    enlarge();
  });
  big.addEventListener("pointerup", (event) => {
    if (rubber) what.dragged?.(rubber);
    else if (drag) go(patch(share(event, big)));
    drag = rubber = null;
    enlarge();
  });
  for (const canvas of [strip, big]) canvas.addEventListener("mouseleave", () => (hovered.textContent = ""));

  if (sheet) {
    const loading = new Image();
    loading.src = sheet.src;
    loading.decode().then(() => ((picture = loading), lay()), () => (said.textContent = "The pictures cannot be read; the patches are shown without them."));
  }
  const side = h("div", { class: "wb-film-side" });
  const scroll = h("div", { class: "wb-film-scroll", hidden: frames === 1 }, strip); // a strip of one frame says nothing more
  const whole = h("div", { class: "wb-film", role: "group", "aria-label": what.label },
    h("div", { class: "wb-bar" }, frames > 1 && button, frames > 1 && scrub.whole, sheet && fade.whole),
    !sheet && h("p", { class: "wb-note" }, "This capture holds no pictures of its frames: patches are shown alone. Make it again to have them."),
    h("div", { class: "wb-film-top" }, h("div", { class: "wb-film-big" }, big, said, hovered), side),
    scroll,
  );
  const sized = new ResizeObserver(() => {
    const width = Math.floor(scroll.clientWidth) - 8; // room for the focus ring
    if (width < 40) return;
    const next = stripLayout(frames, aspect, width);
    if (next.width === places.width && next.height === places.height) return;
    places = next;
    lay();
  });
  sized.observe(scroll);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  dark.addEventListener("change", lay);
  requestAnimationFrame(lay); // once in the page: colours and fonts are the page's
  say();

  /** Stop everything; the view is gone. */
  function close() {
    play(false);
    sized.disconnect();
    dark.removeEventListener("change", lay);
  }
  return { whole, side, strip, big, setCells, draw, move, repaint, play, close, value, place: () => ({ ...at }) };
}
