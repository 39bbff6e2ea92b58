"""Views against their budgets, and the attention view beside plotly, CircuitsVis and BERTViz on the same arrays, in one run.

Run: python benchmarks/views.py [--study runs/trap] [--captures FILE ...] [--others DIR] [--repeats 5] [--json FILE]

Budgets (issue "What people see"): a bundle of ours at most 60 KiB; a view's state at most 2 MB (plotly's own program, which
every plotly figure brings along, is not counted); first paint of the attention view under 300 ms and scrubbing at 50 frames
a second or more, for 64 frames x 36 layers x 32 heads on the head-mean map, in Chromium. The script ends with 1 when one is
not met.

The capture is made up: 64 frames of 8 x 8 tokens, rows of one answer token in 36 layers and 32 heads, attention drawn from a
Dirichlet distribution (heavy-tailed, as real attention is), pictures of 128 x 128 pixels. Pages are opened from disk without
network. Times are taken inside the page by performance.now(), whose 0 is the begin of the navigation: from there (the page,
with its 1.5 MB of single heads, has to be read first), and from the begin of the view's render() (the view alone, as in a
notebook), to the second animation frame after the map was put on a canvas (ours), after all 64 heat maps stood in the page
(plotly) or after all heads did (CircuitsVis). The median over repeats and the range are printed, and the machine's load, on
which they depend.

CircuitsVis and BERTViz want whole N x N matrices: they get as many tokens as they bear, and the bytes for all tokens follow
from the square law, which two sizes check. BERTViz's page loads its libraries from the network, so only its bytes are
compared. Neither is a dependency: `pip install --no-deps --target DIR circuitsvis bertviz`, then `--others DIR`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.lib.pages import OURS, RESTYLED, STANDING, opened, paint_ms, scrub
from tests.browser import CHROMIUM, INSTALL, chromium
from tests.views import attention_worlds, effect_worlds
from workbench.captures import Capture
from workbench.views.atlas import AtlasView
from workbench.views.attention import AttentionView
from workbench.views.base import View
from workbench.views.effects import EffectView
from workbench.views.payload import STATE_LIMIT, jsonable, size_of
from workbench.views.pieces import Module, plain_figure

BUNDLE, PAINT_MS, SCRUB = 60 * 1024, 300.0, 50.0
FRAMES, LAYERS, HEADS, SIDE = 64, 36, 32, 8  # SIDE x SIDE tokens a frame
INSTALL_OTHERS = "pip install --no-deps --target DIR circuitsvis bertviz, then --others DIR"


def attention_capture(name: str = "after", seed: int = 0, **sizes: int) -> Capture:
    """The made-up capture: 64 frames of 8 x 8 tokens (16 x 16 patches of 8 pixels), one query, 36 layers, 32 heads."""
    shape = {"frames": FRAMES, "layers": LAYERS, "heads": HEADS, "rows": 2 * SIDE, "cols": 2 * SIDE} | sizes
    return attention_worlds.capture(**shape, queries="answer", seed=seed, name=name)


def bundle_sizes() -> dict[str, int]:
    """Bytes of each packaged front-end module."""
    static = resources.files("workbench.views") / "static"
    return {f.name: len(f.read_bytes()) for f in static.iterdir() if f.name.endswith(".js")}


def state_bytes(view: View) -> int:
    """What a notebook keeps of a view: data of its modules and its figures, as JSON, without program text."""
    total = 0
    for piece in view.pieces():
        if isinstance(piece, Module):
            total += size_of(jsonable(piece.data))
        else:
            total += len((plain_figure(piece.figure).to_json() or "").encode())
    return total


def made_up_views() -> Iterator[tuple[str, View]]:
    """Views of captures on their largest realistic inputs."""
    now, then = attention_capture(), attention_capture("before", 1)
    yield f"AttentionView, {FRAMES} frames x {LAYERS} layers x {HEADS} heads", AttentionView(now)
    yield "AttentionView, the same before and after", AttentionView(now, then)
    many = {"frames": 256, "layers": 12, "heads": 8}
    yield (
        "AttentionView, 256 frames x 12 layers x 8 heads, before and after",
        AttentionView(attention_capture(**many), attention_capture("before", 1, **many)),
    )
    shape = {"frames": FRAMES, "layers": LAYERS, "heads": HEADS, "rows": 16, "cols": 16}
    pair = [effect_worlds.atlas(**shape, seed=i, name=name) for i, name in enumerate(("after", "before"))]
    yield f"AtlasView, {FRAMES} frames x {LAYERS} layers x {HEADS} heads, before and after", AtlasView(*pair)
    shape = {"frames": 256, "layers": 12, "heads": 8, "rows": 2, "cols": 2}
    pair = [effect_worlds.atlas(**shape, seed=i, name=name) for i, name in enumerate(("after", "before"))]
    yield "AtlasView, 256 frames x 12 layers x 8 heads, before and after", AtlasView(*pair)
    knockout = effect_worlds.knockout(frames=256, layers=LAYERS, heads=HEADS)
    scores = np.random.default_rng(0).normal(size=(4, 256))
    attribution = effect_worlds.attribution(knockout, scores)
    looked = effect_worlds.atlas(frames=256, layers=LAYERS, heads=HEADS, mean=True)
    yield f"EffectView, 256 frames x {LAYERS + 1} windows", EffectView(knockout, looked, attribution)


def study_views(study: Path) -> Iterator[tuple[str, View]]:
    """Views of a real study."""
    from workbench.views.frameplan import FramePlanView
    from workbench.views.monitor import RunMonitor
    from workbench.views.scores import ScoreView

    yield f"ScoreView, {study.name}", ScoreView(study)
    yield f"FramePlanView, {study.name}", FramePlanView(study)
    yield f"RunMonitor, {study.name}", RunMonitor(study)


def capture_views(paths: list[Path]) -> Iterator[tuple[str, View]]:
    """Views of given captures, by kind."""
    from workbench.views.fusion import FusionView
    from workbench.views.gradients import GradientView

    kinds: dict[str, Callable[[Capture], View]] = {"fusion": FusionView, "gradients": GradientView}
    for path in paths:
        capture = Capture.load(path)
        if capture.kind in kinds:
            yield f"{kinds[capture.kind].__name__}, {path.stem}", kinds[capture.kind](capture)


# -- pages -----------------------------------------------------------------------------------------


def plotly_page(maps: np.ndarray, path: Path) -> int:
    """One heat map a frame, ``maps [frame, row, col]`` of one layer; returns bytes of the figure without plotly.js."""
    from plotly.subplots import make_subplots

    side = int(np.ceil(np.sqrt(len(maps))))
    figure = make_subplots(side, side, horizontal_spacing=0.01, vertical_spacing=0.01)
    top = float(np.nanmax(maps))
    for i, z in enumerate(maps):
        figure.add_heatmap(
            z=z, zmin=0, zmax=top, showscale=i == 0, colorscale="Viridis", row=i // side + 1, col=i % side + 1
        )
    figure.update_layout(width=1060, height=1060)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False, autorange="reversed")
    figure.write_html(path, include_plotlyjs=True)
    return len((figure.to_json() or "").encode())


def square(tokens: int, heads: int, seed: int = 0) -> np.ndarray:
    """Causal attention ``[head, token, token]``, drawn as in the capture."""
    drawn = np.random.default_rng(seed).standard_gamma(0.3, (heads, tokens, tokens)).astype(np.float32) + 1e-6
    drawn = np.tril(drawn)
    return drawn / drawn.sum(-1, keepdims=True)


def others(folder: Path) -> dict[str, Callable[[int, Path], int]]:
    """Makers of pages by CircuitsVis and BERTViz: tokens, path -> bytes of the data; those that can be imported."""
    sys.path.append(str(folder))
    found: dict[str, Callable[[int, Path], int]] = {}
    warnings.simplefilter("ignore", SyntaxWarning)  # theirs

    def circuitsvis(tokens: int, path: Path) -> int:
        made = importlib.import_module("circuitsvis.attention").attention_heads(
            attention=square(tokens, HEADS), tokens=[f"t{i}" for i in range(tokens)]
        )
        path.write_text(f"<!doctype html><meta charset=utf-8><body>{made.local_src}</body>", encoding="utf-8")
        return len(made.cdn_src.encode())

    def bertviz(tokens: int, path: Path) -> int:
        import torch

        page = importlib.import_module("bertviz").head_view(
            [torch.from_numpy(square(tokens, HEADS))[None]],
            [f"t{i}" for i in range(tokens)],
            html_action="return",
        )
        path.write_text(page.data, encoding="utf-8")
        return path.stat().st_size

    for name, make in (("circuitsvis", circuitsvis), ("bertviz", bertviz)):
        try:
            importlib.import_module(name)
            found[name] = make
        except ImportError as error:
            print(f"{name} is not compared ({error}): {INSTALL_OTHERS}")
    return found


# -- report ----------------------------------------------------------------------------------------


def spread(times: list[float]) -> str:
    return (
        f"{statistics.median(times):,.0f} ms (median of {len(times)}; {min(times):,.0f} to {max(times):,.0f})"
    )


def load() -> str:
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


class Budgets:
    """What was measured against what it may be."""

    def __init__(self) -> None:
        self.missed: list[str] = []

    def hold(self, what: str, value: float, limit: float, text: str, at_least: bool = False) -> None:
        met = value >= limit if at_least else value <= limit
        print(f"  {'ok    ' if met else 'MISSED'} {what:<76} {text}")
        if not met:
            self.missed.append(what)


def measure(args: argparse.Namespace) -> tuple[Budgets, dict[str, Any]]:
    budgets, found = Budgets(), {}
    print(f"Bundles, at most {BUNDLE:,} bytes each")
    for name, size in sorted(bundle_sizes().items()):
        budgets.hold(name, size, BUNDLE, f"{size:>10,} bytes")
    print(f"States, at most {STATE_LIMIT:,} bytes each")
    found["states"] = {}
    views = [made_up_views()]
    if args.study is not None and (args.study / "study.json").is_file():
        views.append(study_views(args.study))
    else:
        print("  no study to look at: ScoreView, FramePlanView and RunMonitor are not measured (--study)")
    views.append(capture_views(args.captures))
    for name, view in (pair for some in views for pair in some):
        size = found["states"][name] = state_bytes(view)
        budgets.hold(name, size, STATE_LIMIT, f"{size:>10,} bytes")
    if CHROMIUM is None:
        print(f"Pages are not timed: {INSTALL}")
        return budgets, found
    with tempfile.TemporaryDirectory() as folder:
        found["pages"] = pages(args, Path(folder), budgets)
    return budgets, found


def pages(args: argparse.Namespace, folder: Path, budgets: Budgets) -> dict[str, Any]:
    capture = attention_capture()
    view = AttentionView(capture)
    tokens = FRAMES * SIDE * SIDE
    ours = view.to_html(folder / "ours.html")
    strip = view.reading.strip
    assert strip is not None
    query = view.reading.query(view.reading.start())
    cells = strip.cells.reshape(FRAMES, SIDE, SIDE)
    plotly = folder / "plotly.html"
    data = plotly_page(query.mean[LAYERS // 2][cells], plotly)
    shown = "img, canvas, svg"
    result: dict[str, Any] = {"load": os.getloadavg()[0]}
    with chromium() as browser:
        paint_ms(browser, ours, OURS % tokens, 1)  # the browser's own start
        print(f"Attention view in Chromium, {load()}")
        alternating: dict[str, list[float]] = {"ours": [], "plotly": []}
        own_part: list[float] = []
        wait = STANDING % (json.dumps(".hm image"), FRAMES)
        for _ in range(args.repeats):
            alternating["ours"] += paint_ms(browser, ours, OURS % tokens, 1, own_part)
            alternating["plotly"] += paint_ms(browser, plotly, wait, 1)
        first = statistics.median(alternating["ours"])
        size = f"{ours.stat().st_size / 1e6:.1f} MB"
        budgets.hold(
            f"first paint of the page ({size}), navigation to map",
            first,
            PAINT_MS,
            spread(alternating["ours"]),
        )
        budgets.hold(
            "first paint of the view, its render() to map",
            statistics.median(own_part),
            PAINT_MS,
            spread(own_part),
        )
        result |= {
            "paint": alternating,
            "paint_own": own_part,
            "scrub": scrub(browser, ours, tokens, FRAMES, LAYERS),
        }
        for name, rate in result["scrub"].items():
            text = f"{rate['rate']:.1f} a second; {rate['cost']:.1f} ms of script a step (95%: {rate['slow']:.1f})"
            budgets.hold(f"scrubbing through {name}", rate["rate"], SCRUB, text, at_least=True)
        page = opened(browser, plotly, wait)
        layers = [query.mean[layer][cells].tolist() for layer in (0, 1, 2)]
        result["plotly_rate"] = page.evaluate(RESTYLED, {"z": layers, "steps": 20})["rate"]
        page.context.close()
        ratio = statistics.median(alternating["plotly"]) / first
        page_bytes = {"ours": ours.stat().st_size, "plotly": plotly.stat().st_size}
        own = state_bytes(view)
        print(f"Beside {FRAMES} plotly heat maps (one a frame) of ONE layer of the same head-mean map")
        print(
            f"  first paint     ours {spread(alternating['ours'])}, plotly {spread(alternating['plotly'])}: {ratio:.1f}x"
        )
        print(f"  page            ours {page_bytes['ours']:,} bytes, plotly {page_bytes['plotly']:,}: "
              f"{page_bytes['plotly'] / page_bytes['ours']:.1f}x")  # fmt: skip
        print(f"  state           ours {own:,} bytes (all {LAYERS} layers, statistics of all heads, pictures), plotly "
              f"{data:,} (one layer), {LAYERS * data:,} for {LAYERS}: {LAYERS * data / own:.1f}x")  # fmt: skip
        print(f"  another layer   ours {result['scrub']['layers']['rate']:.1f} a second, plotly "
              f"{result['plotly_rate']:.1f}: {result['scrub']['layers']['rate'] / result['plotly_rate']:.1f}x")  # fmt: skip
        result |= {"page_bytes": page_bytes, "state": own, "plotly_data": data}
        result["others"] = compare_others(args, folder, browser, tokens, shown)
    return result


def compare_others(
    args: argparse.Namespace, folder: Path, browser: Any, tokens: int, shown: str
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    whole = tokens + 11  # text
    for name, make in others(args.others or folder).items():
        sizes = {n: make(n, folder / f"{name}-{n}.html") for n in args.tokens}
        small, large = min(sizes), max(sizes)
        power = np.log(sizes[large] / sizes[small]) / np.log(large / small)
        every = sizes[large] * (whole / large) ** 2
        print(
            f"{name}, {HEADS} heads of ONE layer, N x N: "
            + ", ".join(f"N = {n}: {b:,} bytes" for n, b in sizes.items())
        )
        print(f"  grows with N^{power:.2f}; all {whole:,} tokens would take {every / 1e9:,.1f} GB (one layer), "
              f"{LAYERS * every / 1e9:,.0f} GB ({LAYERS} layers)")  # fmt: skip
        found[name] = {"bytes": sizes, "whole": every}
        if name == "bertviz":
            print("  its page loads jQuery, d3 and RequireJS from the network: not timed")
            continue
        found[name]["paint"] = {}
        for n in sizes:
            wait = STANDING % (json.dumps(shown), HEADS)
            times = paint_ms(browser, folder / f"{name}-{n}.html", wait, min(3, args.repeats))
            found[name]["paint"][n] = times
            print(f"  first paint at N = {n}: {spread(times)}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--study", type=Path, default=Path("runs/trap"), help="for the views of studies")
    parser.add_argument("--captures", type=Path, nargs="*", default=[], help="fusion and gradients captures")
    parser.add_argument("--others", type=Path, help="folder with circuitsvis and bertviz")
    parser.add_argument("--tokens", type=int, nargs="+", default=[64, 128], help="N of their matrices")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the numbers there")
    args = parser.parse_args()
    budgets, found = measure(args)
    if args.json is not None:
        args.json.write_text(json.dumps(jsonable(found), indent=1))
    print(f"budgets missed: {', '.join(budgets.missed) or 'none'}")
    return 1 if budgets.missed else 0


if __name__ == "__main__":
    sys.exit(main())
