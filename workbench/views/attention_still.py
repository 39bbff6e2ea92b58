"""The attention view without a browser: a film strip of one map, drawn by matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.views import stills
from workbench.views.attention_payload import Sides
from workbench.views.colours import DIVERGING, SEQUENTIAL
from workbench.views.film import pictures_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_FRAMES = 16  # of a still; longer clips show evenly spaced ones and say so
A_LINE = 8


def draw(sides: Sides, names: dict[str, str], query: int, layer: int, token: str, notes: list[str]) -> Figure:
    """Frames with heat over them: one block a side, and the difference where there are two."""
    reading = sides["after"]
    strip = reading.strip
    if strip is None:
        figure = stills.figure(7.2, 1.2)
        figure.text(0.02, 0.5, " ".join(notes), fontsize=9, color=stills.INK)
        return figure
    count = len(strip.spans)
    chosen = np.unique(np.linspace(0, count - 1, min(count, MOST_FRAMES)).round().astype(int))
    maps = {side: one.query(query).mean[layer] for side, one in sides.items()}
    blocks = [(names[side], maps[side], False) for side in ("before", "after") if side in maps]
    if len(maps) == 2:
        blocks.append(("Difference, after − before", maps["after"] - maps["before"], True))
    lines = -(-len(chosen) // A_LINE)
    figure = stills.figure(
        7.2, 0.5 + len(blocks) * (0.45 + lines * (0.82 / min(max(strip.aspect, 0.6), 1.6) + 0.2))
    )
    shown = "" if len(chosen) == count else f"; {len(chosen)} of {count} frames, evenly spaced"
    layer_name = reading.layers[layer]
    figure.suptitle(
        f"What “{_cut(token)}” looks at: layer {layer_name}, mean over heads{shown}",
        fontsize=10,
        x=0.02,
        ha="left",
    )
    top = max(float(np.nan_to_num(values).max(initial=0.0)) for values in maps.values())
    pictures = pictures_of(reading.capture)
    for part, (name, values, signed) in zip(
        np.atleast_1d(figure.subfigures(len(blocks))), blocks, strict=True
    ):
        part.suptitle(name, fontsize=8.5, x=0.02, ha="left", color="#57606a")
        end = float(np.abs(np.nan_to_num(values)).max(initial=0.0)) or 1.0
        scale = (DIVERGING, -end, end) if signed else (SEQUENTIAL, 0.0, top or 1.0)
        _block(part, strip, values, chosen, lines, scale, pictures)
    return figure


def _block(
    part: Any,
    strip: Any,
    values: np.ndarray,
    chosen: np.ndarray,
    lines: int,
    scale: tuple[str, float, float],
    pictures: np.ndarray | None,
) -> None:
    columns = min(len(chosen), A_LINE)
    axes = np.atleast_1d(part.subplots(lines, columns, squeeze=False)).ravel()
    drawn = None
    padded = np.append(values, np.nan)  # cell -1: nothing there
    for axis, frame in zip(axes, chosen, strict=False):
        extent = (0.0, strip.aspect, 1.0, 0.0)
        start, stop = strip.spans[frame]
        if pictures is not None and stop <= len(pictures):
            axis.imshow(pictures[(start + stop - 1) // 2], extent=extent)
        drawn = axis.imshow(
            padded[strip.cells[frame]],
            cmap=scale[0],
            vmin=scale[1],
            vmax=scale[2],
            alpha=0.6 if pictures is not None else 1.0,
            extent=extent,
            interpolation="nearest",
        )
        time = strip.times[frame]
        axis.set_title(f"frame {frame + 1}" if time is None else f"{time:.2f} s", fontsize=7, pad=2)
        axis.set_axis_off()
    for axis in axes[len(chosen) :]:
        axis.set_axis_off()
    bar = part.colorbar(drawn, ax=list(axes), shrink=0.9, pad=0.01)
    bar.set_label("attention\nprobability", fontsize=7)
    bar.ax.tick_params(labelsize=7)


def _cut(text: str, most: int = 40) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
