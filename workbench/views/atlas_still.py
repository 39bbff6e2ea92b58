"""The still of a temporal atlas: segment by segment, averaged over layers and heads; before, after and difference."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.views import stills
from workbench.views.colours import DIVERGING, SEQUENTIAL
from workbench.views.effects_match import checkpoint_name
from workbench.views.film import pictures_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from workbench.views.atlas import AtlasView

HEAD, MAP_WIDTH = 0.42, 4.6  # inches: height of a picture, width of a map


def draw(view: AtlasView) -> Figure:
    """One panel, or three below each other when there is a before; pictures of frames on top."""
    atlas = view.after
    count = len(atlas.segments)
    panels: list[tuple[str, np.ndarray, str]] = [
        (checkpoint_name(view.capture), atlas.mean()[:count], SEQUENTIAL)
    ]
    if view.before is not None and view.earlier is not None:
        before = view.before.mean()[:count]
        panels = [
            (f"before: {checkpoint_name(view.earlier)}", before, SEQUENTIAL),
            (f"after: {panels[0][0]}", panels[0][1], SEQUENTIAL),
            ("after − before", panels[0][1] - before, DIVERGING),
        ]
    tall = min(4.2, max(1.9, 0.19 * count + 0.7))
    figure = stills.figure(7.2, tall * len(panels) + 0.6)
    axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    pictures = pictures_of(view.capture) if atlas.frames else None
    if pictures is not None:
        _heads(axes[0], view, pictures, tall)
    ends = view.scales["layersheads"]
    for axis, (title, values, scale) in zip(axes, panels, strict=True):
        low, high = (-ends["change"], ends["change"]) if scale == DIVERGING else (0.0, ends["mass"])
        drawn = axis.imshow(values, aspect="auto", cmap=scale, vmin=low, vmax=high, interpolation="nearest")
        axis.set_facecolor("#eceef0")  # what is not visible
        _ticks(axis, view)
        axis.set_title(
            title,
            fontsize=9,
            loc="left",
            pad=HEAD * 72 + 6 if axis is axes[0] and pictures is not None else 6,
        )
        bar = figure.colorbar(
            drawn, ax=axis, format="{x:.1%}", pad=0.01, extend="max" if low == 0 else "both"
        )
        bar.set_label("attention mass" if low == 0 else "change of mass")
    axes[-1].set_xlabel(f"looked at: segments (n = {count}; frames by time)")
    return figure


def _ticks(axis: Any, view: AtlasView) -> None:
    columns = [view._column(s, view.after.frames) for s in range(len(view.after.segments))]
    every = max(1, len(columns) // 20)
    listed = [i for i, c in enumerate(columns) if c["frame"] < 0 or c["frame"] % every == 0]
    axis.set_xticks(listed, [columns[i]["short"] for i in listed], rotation=90, fontsize=7)
    axis.set_yticks(listed, [view.after.rows[i].name for i in listed], fontsize=7)
    axis.set_ylabel("who looks")


def _heads(axis: Any, view: AtlasView, pictures: np.ndarray, tall: float) -> None:
    """Pictures above their columns, as many as have room."""
    atlas = view.after
    wide = (
        HEAD * pictures.shape[2] / pictures.shape[1] / (MAP_WIDTH / len(atlas.segments))
    )  # columns a picture covers
    share = HEAD / (tall - 0.9)
    for frame in range(0, len(atlas.frames), math.ceil(wide)):
        s = atlas.frames[frame]
        first = atlas.segments[s]["span"][0]
        if first < len(pictures):
            place = (s - wide / 2, 1.01, wide * 0.96, share)
            inner = axis.inset_axes(place, transform=axis.get_xaxis_transform())
            inner.imshow(pictures[first], interpolation="nearest")
            inner.axis("off")
