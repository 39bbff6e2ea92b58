"""Knockout, attention and attribution of one sample on the same cells, as the view shows them.

Axes: W windows of layers, K blocks (frames, or parts of frames), R rankings. A knockout's delta is the change of
log p(answer) when text may not look at a block in a window: below 0 the block helped. Its *effect* is -delta.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.captures import Capture
from workbench.captures.rows import rows_of
from workbench.errors import WorkbenchError
from workbench.views.effects_match import mismatch
from workbench.views.effects_rank import FEWEST, Agreement, rank_agreement
from workbench.views.film import frame_name, middle_time

ATTENTION_KINDS = ("attention_rows", "temporal_atlas")
COMPLETE = (
    0.05  # completeness error, relative, above which integrated gradients need more steps (docs/knockout.md)
)
RANKINGS = {
    "attention": "attention mass",
    "knockout": "knockout, all layers",
    "ablation": "ablation",
    "ig": "integrated gradients",
}


@dataclass(frozen=True, eq=False)
class Looked:
    """Attention on the knockout's cells: ``mass [W, K]`` (NaN: not visible, or a layer was not captured), from whom."""

    mass: np.ndarray
    whose: str
    heads: str
    agreement: Agreement
    by_window: list[Agreement]


def read_knockout(capture: Capture) -> np.ndarray:
    """``deltas [W, K]``. Raises WorkbenchError: another kind."""
    if capture.kind != "knockout" or capture.token_map is None:
        raise WorkbenchError(
            "show the effect of frames",
            f"this is a capture of the kind {capture.kind!r}",
            "Make one: workbench probe knockout RUN --sample ID",
        )
    return np.asarray(capture.arrays["deltas"], dtype=np.float64)


def refusal(knockout: Capture, other: Capture, kinds: tuple[str, ...]) -> str | None:
    """Why a capture is not put beside the knockout; None when it is."""
    if other.kind not in kinds:
        return f"it is a capture of the kind {other.kind!r}, not {' or '.join(kinds)}"
    if other.kind == "temporal_atlas" and knockout.meta.get("grid"):
        return "an atlas knows whole frames and the knockout has parts of frames; give attention rows"
    if other.kind == "attribution" and other.meta["blocks"] != knockout.meta["blocks"]:
        return f"its {len(other.meta['blocks'])} blocks are others than the knockout's {len(knockout.meta['blocks'])}"
    return mismatch(knockout, other, True)


def looked_at(knockout: Capture, attention: Capture) -> Looked:
    """Mean attention mass of the answer's predicting positions on every cell, and whether it ranks as the effect does.

    Mean over heads, over the positions that predict the answer's tokens (over all captured queries where those were not
    captured, which ``whose`` says), and over the layers of the window.
    """
    arrays, windows = attention.arrays, np.asarray(knockout.arrays["windows"])
    queries = np.asarray(arrays["queries"])
    answer = np.asarray(knockout.arrays["answer"])  # its tokens, end mark included
    needed = answer[np.isin(answer, knockout.token_map.where("answer"))] - 1  # type: ignore[union-attr]
    places = np.flatnonzero(np.isin(queries, answer - 1))
    whose = "the positions that predict the answer"
    if not len(needed) or not np.isin(needed, queries).all():
        places = np.arange(len(queries))
        named = attention.meta.get("queries")
        many = "its one captured query" if len(queries) == 1 else f"its {len(queries)} captured queries"
        whose = f"{many} ({named}; those that predict the answer were not captured)"
    layers = list(attention.meta["layers"])
    found = {layer: _mass(knockout, attention, i, places) for i, layer in enumerate(layers)}
    hidden = np.full(len(knockout.meta["blocks"]), np.nan)
    mass = np.stack(
        [np.mean([found.get(i, hidden) for i in range(a, b)], axis=0) for a, b in windows.tolist()]
    )
    effect = -read_knockout(knockout)
    listed, of_model = attention.meta["heads"], attention.meta["heads_of_model"]
    heads = (
        f"mean of {of_model} heads"
        if listed == "mean" or len(listed) == of_model
        else f"mean of heads {listed}"
    )
    return Looked(
        mass,
        whose,
        heads,
        rank_agreement(effect, mass),
        [rank_agreement(effect[w : w + 1], mass[w : w + 1]) for w in range(len(windows))],
    )


def _mass(knockout: Capture, attention: Capture, layer: int, places: np.ndarray) -> np.ndarray:
    """``[K]`` of one captured layer."""
    blocks = knockout.meta["blocks"]
    if attention.kind == "temporal_atlas":
        spans = [segment.get("span") for segment in attention.meta["segments"]]
        columns = [spans.index(block["span"]) for block in blocks]
        part = np.asarray(attention.arrays["mass"][layer])[:, places][..., columns]  # [head, query, K]
    else:
        rows = rows_of(attention.arrays, layer)[:, places]  # [head, query, key]
        of = np.asarray(knockout.arrays["block_of"])
        onehot = (of[:, None] == np.arange(len(blocks))).astype(np.float32)
        seen = (~np.isnan(rows)).astype(np.float32) @ onehot
        part = np.where(seen > 0, np.nan_to_num(rows) @ onehot, np.nan)
    there = np.isfinite(part)
    total, count = np.where(there, part, 0).sum((0, 1), dtype=np.float64), there.sum((0, 1))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


# -- words -----------------------------------------------------------------------------------------


def block_name(block: dict[str, Any], capture: Capture) -> str:
    """A block in words: frames from 1, time, and its part of the frame."""
    frames = capture.meta.get("frames") or {}
    seconds = middle_time(block["span"], frames.get("timestamps") or [])
    name = frame_name(block["span"], len(frames.get("indices") or []) or block["span"][1])
    name += "" if seconds is None else f" at {seconds:.2f} s"
    if "row" in block:
        rows, cols = capture.meta["grid"]
        name += f", part row {block['row'] + 1} of {rows}, column {block['col'] + 1} of {cols}"
    return name


def window_name(window: tuple[int, int], layers: int) -> str:
    """A half-open window of layers in words."""
    first, stop = window
    if (first, stop) == (0, layers):
        return f"all layers (0 to {layers - 1})"
    return f"layer {first}" if stop == first + 1 else f"layers {first} to {stop - 1}"


def verdict(found: Agreement) -> str:
    """Whether attention and effect agree: rank correlation, over what, with its interval."""
    windows = f"{found.windows} window{'s' if found.windows != 1 else ''}"
    blocks = f"{found.blocks} block{'s' if found.blocks != 1 else ''}"
    over = f"{found.cells} cells ({windows} x {blocks}; ranked within each window, mean over windows)"
    if found.verdict == "none":
        why = (
            "attention or effect is the same everywhere"
            if found.blocks >= FEWEST
            else f"fewer than {FEWEST} blocks"
        )
        rho = "" if math.isnan(found.rho) else f" Spearman as it stands: {signed(found.rho)}."
        return f"Whether attention and effect agree cannot be said over {over}: {why}.{rho}"
    says = {
        "agree": "Attention and effect rank the blocks alike",
        "disagree": "Attention and effect DISAGREE: what is looked at most matters least",
        "open": "Attention and effect are NOT shown to agree",
    }[found.verdict]
    return f"{says}: Spearman {correlation(found)} over {over}."


def correlation(found: Agreement) -> str:
    """A rank correlation with its 95% interval and permutation p."""
    if math.isnan(found.rho):
        return "undefined"
    if math.isnan(found.low):
        return signed(found.rho)
    return f"{signed(found.rho)} [{signed(found.low)}, {signed(found.high)}], p = {found.p:.2g}"


def signed(value: float) -> str:
    """Two decimals with their sign."""
    return f"{value:+.2f}".replace("-", "−")


def completeness_words(attribution: Capture) -> str:
    """How far integrated gradients explain what they must; empty without them."""
    found = attribution.meta.get("completeness")
    if not found:
        return ""
    relative = found["relative"]
    share = "" if relative is None else f" ({relative:.2%})"
    warning = (
        ""
        if relative is not None and relative <= COMPLETE
        else " Above 5%: give more steps before reading them."
    )
    return (
        f"Integrated gradients ({found['steps']} steps, baseline: {attribution.meta['baseline']}): completeness error "
        f"{found['error']:+.2g} of {found['difference']:+.3g}{share}.{warning}"
    )
