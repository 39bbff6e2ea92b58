"""Times inside a page, in Chromium: first paint of a map, scrubbing by keys and sliders. For ``benchmarks/views.py``.

Times are taken by performance.now(), whose 0 is the begin of the navigation.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

STEPS, WARM = 240, 20  # of scrubbing: measured, and before that
PATIENCE_S = 90.0  # for one page

# Chromium runs these before the page's own scripts; `done` is called when the map is there
PAINTED = """(() => {
  const done = () => { if (!window.__asked) { window.__asked = true;
    requestAnimationFrame(() => requestAnimationFrame(() => { window.__painted = performance.now(); })); } };
  %s
})();"""
OURS = """const append = Element.prototype.append;
  Element.prototype.append = function (...nodes) {
    if (nodes.some((node) => node.classList?.contains("wb"))) window.__begun ??= performance.now();
    return append.apply(this, nodes);
  };
  const put = CanvasRenderingContext2D.prototype.putImageData;
  CanvasRenderingContext2D.prototype.putImageData = function (image, ...rest) {
    put.call(this, image, ...rest);
    if (image.width * image.height >= %d) done();
  };"""
STANDING = """new MutationObserver(() => { if (document.querySelectorAll(%s).length >= %d) done(); })
    .observe(document, { childList: true, subtree: true });"""
SCRUBBED = """async ({ selector, keys, steps, warm }) => {
  const target = document.querySelector(selector);
  const frame = () => new Promise(requestAnimationFrame);
  target.focus();
  const costs = [];
  let begin = 0;
  for (let i = 0; i < steps + warm; i++) {
    if (i === warm) { await frame(); begin = performance.now(); }
    const before = performance.now();
    const key = keys[Math.floor(i / keys[2]) % 2];
    if (target.type === "range") {
      target.valueAsNumber += key === "ArrowRight" ? 1 : -1;
      target.dispatchEvent(new Event("input", { bubbles: true }));
    } else target.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
    if (i >= warm) costs.push(performance.now() - before);
    await frame();
  }
  const seconds = (performance.now() - begin) / 1000;
  costs.sort((a, b) => a - b);
  return { rate: steps / seconds, cost: costs[costs.length >> 1], slow: costs[Math.floor(costs.length * 0.95)] };
}"""
RESTYLED = """async ({ z, steps }) => {
  const graph = document.querySelector(".plotly-graph-div");
  const frame = () => new Promise(requestAnimationFrame);
  const traces = z[0].map((_, i) => i);
  const begin = performance.now();
  for (let i = 0; i < steps; i++) { await Plotly.restyle(graph, { z: z[i % z.length] }, traces); await frame(); }
  return { rate: steps / ((performance.now() - begin) / 1000) };
}"""


def opened(browser: Any, path: Path, painted: str) -> Any:
    """A page from disk, without network, once its map was painted; ``window.__painted`` holds the time in ms."""
    context = browser.new_context(viewport={"width": 1100, "height": 900}, offline=True)
    page = context.new_page()
    page.add_init_script(PAINTED % painted)
    page.goto(path.as_uri())
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        if page.evaluate("window.__painted ?? 0"):
            return page
        page.wait_for_timeout(50)
    raise TimeoutError(f"{path.name} painted no map within {PATIENCE_S} s")


def paint_ms(
    browser: Any, path: Path, painted: str, repeats: int, own: list[float] | None = None
) -> list[float]:
    """Milliseconds from navigation to paint, one a fresh page.

    Args:
        own: takes the part of each from the view's ``render`` on; the rest is the page's loading.
    """
    times = []
    for _ in range(repeats):
        page = opened(browser, path, painted)
        times.append(float(page.evaluate("window.__painted")))
        if own is not None:
            own.append(times[-1] - float(page.evaluate("window.__begun")))
        page.context.close()
    return times


def scrub(browser: Any, path: Path, tokens: int, frames: int, layers: int) -> dict[str, dict[str, float]]:
    """Rate and cost of scrubbing through frames (arrow keys on the strip) and layers (the slider)."""
    page = opened(browser, path, OURS % tokens)
    page.wait_for_timeout(500)
    found = {}
    for name, selector, there in (
        ("frames", "canvas.wb-strip", frames - 1),
        ("layers", f'input[type="range"][max="{layers - 1}"]', layers // 2 - 1),
    ):
        keys = ["ArrowRight", "ArrowLeft", there]
        asked = {"selector": selector, "keys": keys, "steps": STEPS, "warm": WARM}
        found[name] = page.evaluate(SCRUBBED, asked)
    page.context.close()
    return found
