"""The fusion view as a picture without a browser: the triangle, each checkpoint's mixture and memory, what changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from workbench.captures import Capture
from workbench.probes.fusion import table
from workbench.probes.fusion.read import WHOLE
from workbench.views import fusion_data, stills, ternary
from workbench.views.theme import MARKERS, PALETTE

_SHAPES = {"circle": "o", "square": "s", "diamond": "D", "triangle-up": "^"}
_CORNERS = np.array([[0.5, np.sqrt(3) / 2], [0.0, 0.0], [1.0, 0.0]])  # first at the top, then left, right


def draw(captures: Mapping[str, Capture], frames: int, layer: int) -> Figure:
    """Mixtures, memory and means of one layer at one frame count, a column a checkpoint.

    Args:
        captures: kind ``fusion``, by title, at most two.
        frames, layer: what the maps show; a capture that lacks them says so in its panel.
    """
    figure = stills.figure(8.4, 5.6)
    panels: Any = figure.subfigures(2, 1, height_ratios=[1.05, 1])
    top, bottom = panels
    axes = np.atleast_1d(top.subplots(1, 1 + 2 * len(captures), width_ratios=[1.25, *(1, 1) * len(captures)]))
    branches = list(list(captures.values())[-1].meta["branches"])
    _triangle(axes[0], branches)
    for i, (title, capture) in enumerate(captures.items()):
        style = {
            "marker": "s" if i < len(captures) - 1 else "o",
            "facecolor": "none" if i < len(captures) - 1 else "#1f2328",
        }
        _mixture(axes[1 + 2 * i], axes[0], title, capture, frames, layer, style)
        _memory(axes[2 + 2 * i], capture, frames, layer)
    axes[0].legend(loc="lower center", bbox_to_anchor=(0.5, 1.02), fontsize=7, borderaxespad=0)
    left, right = bottom.subplots(1, 2)
    _curves(left, captures, "update", WHOLE, "change |TFF(x) − x| / |x|\nof the whole stack")
    _curves(right, captures, "effective_frames", layer, f"effective frames\nin memory, layer {layer}")
    return figure


def _triangle(axes: Any, branches: list[str]) -> None:
    grid = ternary.grid()
    points = grid @ _CORNERS
    colours = ternary.colours(grid) / 255
    axes.scatter(points[:, 0], points[:, 1], c=colours, marker="H", s=38, linewidths=0)
    axes.set(aspect="equal", xlim=(-0.12, 1.12), ylim=(-0.14, 1.02))
    axes.axis("off")
    if len(branches) == 3:
        for name, (x, y), (dx, dy), align in zip(
            branches,
            _CORNERS,
            ((0, 0.04), (-0.04, -0.11), (0.04, -0.11)),
            ("center", "left", "right"),
            strict=True,
        ):
            axes.text(x + dx, y + dy, name, ha=align, fontsize=8)


def _mixture(
    axes: Any, legend: Any, title: str, capture: Capture, frames: int, layer: int, style: dict[str, str]
) -> None:
    axes.set_title(f"{title}\n({capture.meta.get('variant', 'unnamed')} variant)", fontsize=8)
    name = f"weights_{frames}"
    if name not in capture.arrays or layer >= capture.meta["layers"]:
        axes.text(0.5, 0.5, "not captured", ha="center", transform=axes.transAxes)
        axes.axis("off")
        return
    weights = np.asarray(capture.arrays[name][layer], np.float64)
    rows, cols = fusion_data.places(capture)
    if weights.shape[-1] == 3:
        axes.imshow(ternary.colours(weights).reshape(rows, cols, 3), interpolation="nearest")
        points = weights @ _CORNERS
        legend.scatter(
            points[:, 0],
            points[:, 1],
            s=12,
            marker=style["marker"],
            facecolors=style["facecolor"],
            edgecolors="#1f2328",
            linewidths=0.7,
            label=f"{title}, {len(weights)} patches",
        )
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel(f"β of each patch,\n{frames} frames, layer {layer}", fontsize=8)


def _memory(axes: Any, capture: Capture, frames: int, layer: int) -> None:
    name = f"memory_weights_{frames}"
    if name not in capture.arrays or layer >= capture.meta["layers"]:
        axes.axis("off")
        return
    weights = np.array(capture.arrays[name][layer], np.float64)
    weights[np.triu_indices(frames, 1)] = np.nan
    image = axes.imshow(weights, cmap="viridis", vmin=0, interpolation="nearest")
    ticks = sorted({0, frames - 1})
    axes.set(xticks=ticks, yticks=ticks)
    axes.set_xticklabels([str(t + 1) for t in ticks], fontsize=7)
    axes.set_yticklabels([str(t + 1) for t in ticks], fontsize=7)
    axes.set_xlabel("remembered frame", fontsize=8)
    axes.set_ylabel("remembering frame", fontsize=8)
    bar = axes.figure.colorbar(image, ax=axes, location="top", shrink=0.9, aspect=14)
    bar.ax.tick_params(labelsize=6)
    bar.set_label("memory's weight", fontsize=7)


def _curves(axes: Any, captures: Mapping[str, Capture], number: str, layer: Any, label: str) -> None:
    """Means with intervals over still images and frame counts; checkpoints stand beside each other."""
    parts = {}
    for title, capture in captures.items():
        rows = table(capture)
        if len(rows):
            rows = rows[(rows["number"] == number) & (rows["layer"] == layer)].dropna(subset=["estimate"])
            parts[title] = rows.sort_values("frames")
    slots = ["image"] if any((part["shown"] == "images").any() for part in parts.values()) else []
    counts = {int(n) for part in parts.values() for n in part.loc[part["shown"] == "videos", "frames"]}
    slots += [str(n) for n in sorted(counts)]
    for i, (title, part) in enumerate(parts.items()):
        names = [
            "image" if s == "images" else str(n) for s, n in zip(part["shown"], part["frames"], strict=True)
        ]
        x = np.array([slots.index(name) for name in names]) + (i - (len(parts) - 1) / 2) * 0.12
        error = np.nan_to_num(
            np.array([part["estimate"] - part["low"], part["high"] - part["estimate"]], dtype=float)
        )
        n = (
            f"{int(part['n'].min())} to {int(part['n'].max())}"
            if len(part) and part["n"].min() < part["n"].max()
            else str(int(part["n"].max()) if len(part) else 0)
        )
        axes.errorbar(
            x,
            part["estimate"].astype(float),
            error,
            marker=_SHAPES[MARKERS[i % 4]],
            ms=4,
            capsize=2,
            lw=1.2,
            color=PALETTE[i],
            label=f"{title} (n = {n})",
        )
    axes.set(xticks=range(len(slots)))
    axes.set_xticklabels(slots, fontsize=8)
    axes.set_xlabel("frames (95% intervals)", fontsize=8)
    axes.set_ylabel(label, fontsize=8)
    axes.set_ylim(
        0, 1.25 * max((float(p["high"].fillna(p["estimate"]).max()) for p in parts.values()), default=1)
    )
    if parts:
        axes.legend(fontsize=7, loc="best")
