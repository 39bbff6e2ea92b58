"""The attention view without a browser: a film strip of one map, drawn by matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.views import stills
from workbench.views.attention_payload import Sides
from workbench.views.colours import DIVERGING, SEQUENTIAL
from workbench.views.film import Strip, pictures_of

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
    parts: Any = figure.subfigures(len(blocks), squeeze=False)
    for part, (name, values, signed) in zip(parts.ravel(), blocks, strict=True):
        part.suptitle(name, fontsize=8.5, x=0.02, ha="left", color="#57606a")
        end = float(np.abs(np.nan_to_num(values)).max(initial=0.0)) or 1.0
        scale = (DIVERGING, -end, end) if signed else (SEQUENTIAL, 0.0, top or 1.0)
        _block(part, strip, values, chosen, scale, pictures)
    return figure


def _block(
    part: Any,
    strip: Strip,
    values: np.ndarray,
    chosen: np.ndarray,
    scale: tuple[str, float, float],
    pictures: np.ndarray | None,
) -> None:
    """All frames in one pair of axes: laying out one for each takes seconds."""
    axes = part.subplots()
    wide, tall, room = strip.aspect, 1.0, 0.24  # room for the time above a frame
    drawn = None
    padded = np.append(values, np.nan)  # cell -1: nothing there
    lines = -(-len(chosen) // A_LINE)
    columns = min(len(chosen), A_LINE)
    for i, frame in enumerate(chosen):
        left, top = i % A_LINE * (wide + 0.06), i // A_LINE * (tall + room) + room
        extent = (left, left + wide, top + tall, top)
        start, stop = strip.spans[frame]
        if pictures is not None and stop <= len(pictures):
            axes.imshow(pictures[(start + stop - 1) // 2], extent=extent)
        drawn = axes.imshow(
            padded[strip.cells[frame]],
            cmap=scale[0],
            vmin=scale[1],
            vmax=scale[2],
            alpha=0.6 if pictures is not None else 1.0,
            extent=extent,
            interpolation="nearest",
        )
        time = strip.times[frame]
        text = f"frame {frame + 1}" if time is None else f"{time:.2f} s"
        axes.text(left + wide / 2, top - 0.05, text, fontsize=7, ha="center", color=stills.INK)
    axes.set_xlim(0, max(columns, 4) * (wide + 0.06))
    axes.set_ylim(lines * (tall + room), 0)
    axes.set_aspect("equal", anchor="W")
    axes.set_axis_off()
    bar = part.colorbar(drawn, ax=axes, shrink=0.9, pad=0.01)
    bar.set_label("attention\nprobability", fontsize=7)
    bar.ax.tick_params(labelsize=7)


def _cut(text: str, most: int = 40) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
