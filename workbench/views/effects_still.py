"""The still of the effect view: knockout, attention and attributions on the same columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.views import stills
from workbench.views.colours import DIVERGING, SEQUENTIAL
from workbench.views.effects_data import correlation
from workbench.views.film import pictures_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from workbench.views.effects import EffectView

HEAD, MAP_WIDTH = 0.42, 4.4  # inches: height of a picture, width of a map


def draw(view: EffectView) -> Figure:
    """A panel each for the knockout and, where they are, attention and attributions; pictures of frames on top."""
    end = float(np.nanmax(np.abs(view.deltas), initial=0.0)) or 1.0
    panels: list[tuple[str, np.ndarray, list[str], str, tuple[float, float], str]] = [
        ("Knockout", view.deltas, view.windows, DIVERGING, (-end, end), "change of log p(answer), nats")
    ]
    if view.looked is not None:
        mass, found = view.looked.mass, view.looked.agreement
        rho = f"; Spearman with the effect {correlation(found)}, n = {found.cells} cells"
        top = float(np.nanmax(mass, initial=0.0)) or 1.0
        panels.append((f"Attention{rho}", mass, view.windows, SEQUENTIAL, (0.0, top), "attention mass"))
    if (shares := view._attribution()) is not None and view.attribution is not None:
        scores = np.asarray(view.attribution.arrays["scores"], dtype=np.float64)
        tops = np.nanmax(np.abs(scores), axis=1, initial=0.0, keepdims=True)
        scaled = scores / np.where(tops > 0, tops, 1.0)
        panels.append(
            ("Attribution", scaled, shares["names"], DIVERGING, (-1.0, 1.0), "share of the row's largest")
        )
    talls = [min(3.5, 0.2 * len(rows) + 0.75) for _, _, rows, *_ in panels]
    figure = stills.figure(7.6, sum(talls) + 0.7)
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=talls)[:, 0]
    pictures = pictures_of(view.knockout)
    for i, (axis, (title, values, rows, scale, (low, high), unit)) in enumerate(
        zip(axes, panels, strict=True)
    ):
        drawn = axis.imshow(values, aspect="auto", cmap=scale, vmin=low, vmax=high, interpolation="nearest")
        axis.set_facecolor("#eceef0")  # what is not visible
        every = max(1, len(rows) // 14)
        axis.set_yticks(range(0, len(rows), every), rows[::every], fontsize=7)
        pad = HEAD * 72 + 6 if i == 0 and pictures is not None else 6
        axis.set_title(title, fontsize=9, loc="left", pad=pad)
        figure.colorbar(drawn, ax=axis, pad=0.01).set_label(unit, fontsize=7)
        _times(axis, view, last=i == len(panels) - 1)
    if pictures is not None:
        _heads(axes[0], view, pictures, talls[0])
    return figure


def _times(axis: Any, view: EffectView, last: bool) -> None:
    columns = [(i, c["short"]) for i, c in enumerate(view.columns) if c["short"]]
    listed = columns[:: max(1, len(columns) // 20)]
    axis.set_xticks(
        [i for i, _ in listed], [text if last else "" for _, text in listed], rotation=90, fontsize=7
    )
    if last:
        axis.set_xlabel(f"hidden block (n = {len(view.blocks)}), frames by time")


def _heads(axis: Any, view: EffectView, pictures: np.ndarray, tall: float) -> None:
    """Pictures above the first column of their frame, as many as have room."""
    wide = HEAD * pictures.shape[2] / pictures.shape[1] / (MAP_WIDTH / len(view.blocks))
    free = -np.inf
    for column, block in enumerate(view.blocks):
        first = block["span"][0]
        left = column - 0.5
        if left < free or first >= len(pictures) or block.get("row") or block.get("col"):
            continue
        inner = axis.inset_axes(
            (left, 1.02, wide * 0.96, HEAD / (tall - 0.5)), transform=axis.get_xaxis_transform()
        )
        inner.imshow(pictures[first], interpolation="nearest")
        inner.axis("off")
        free = left + wide
