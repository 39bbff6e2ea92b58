"""The gradient view as a picture without a browser: one heat map a checkpoint, and the one-step check."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from workbench.captures import Capture
from workbench.probes.gradients.read import step_check
from workbench.views import gradients_data, stills
from workbench.views.theme import PALETTE

_MARKS = "osD^v"


def draw(captures: Mapping[str, Capture], groups: list[str], statistic: str, metric: str) -> Figure:
    """Heat maps of one statistic on one scale; ``▲`` and ``▼``: the interval excludes the scale's centre.

    Args:
        captures: kind ``gradients``, by title.
        groups: rows.
    """
    about = gradients_data.described(statistic)
    steps = {title: s for title, c in captures.items() if (s := step_check(c)) is not None}
    columns = len(captures) + bool(steps)
    figure = stills.figure(1.6 + 2.6 * columns, max(3.2, 1.5 + 0.3 * len(groups)))
    axes = np.atleast_1d(np.asarray(figure.subplots(1, columns)))
    found = {title: _values(c, groups, statistic, metric) for title, c in captures.items()}
    seen = np.concatenate([v[..., 0].ravel() for v, _ in found.values()])
    low, high, colours = scale(seen, about["centre"])
    image: Any = None
    for i, (title, capture) in enumerate(captures.items()):
        image = _heat(axes[i], title, capture, groups, found[title], about, (low, high, colours))
        if i:
            axes[i].set_yticklabels([])
    bar = figure.colorbar(image, ax=list(axes[: len(captures)]), location="bottom", shrink=0.7, aspect=40)
    bar.set_label(f"{about['title']} ({metric}; {about['how']})", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    if steps:
        _steps(axes[-1], steps)
    return figure


def scale(values: np.ndarray, centre: float | None) -> tuple[float, float, str]:
    """(low, high, colour map) of the values shown; diverging around ``centre`` where there is one."""
    seen = values[np.isfinite(values)]
    if centre is None:
        return 0.0, float(seen.max(initial=0.0)) or 1.0, "viridis"
    most = float(np.abs(seen - centre).max(initial=0.0)) or 1.0
    return centre - most, centre + most, "RdBu_r"


def _values(
    capture: Capture, groups: list[str], statistic: str, metric: str
) -> tuple[np.ndarray, np.ndarray]:
    """``[G, N + 1, bound]`` with the ceiling as last column (NaN without one), and pairs ``[G, N + 1]``."""
    meta = capture.meta
    counts = len(meta["frame_counts"])
    values, pairs = np.full((len(groups), counts + 1, 3), np.nan), np.zeros((len(groups), counts + 1), int)
    if metric not in meta["metrics"]:
        return values, pairs
    m = meta["metrics"].index(metric)
    ceiling = gradients_data.described(statistic)["ceiling"]
    for row, group in enumerate(groups):
        if group in meta["groups"]:
            g = meta["groups"].index(group)
            values[row, :counts] = gradients_data.values_of(capture, statistic)[m, g]
            pairs[row, :counts] = gradients_data.pairs_of(capture, statistic)[m, g]
            if ceiling:
                values[row, counts] = gradients_data.values_of(capture, ceiling)[m, g, 0]
                pairs[row, counts] = gradients_data.pairs_of(capture, ceiling)[m, g, 0]
    return values, pairs


def _heat(
    axes: Any,
    title: str,
    capture: Capture,
    groups: list[str],
    found: tuple[np.ndarray, np.ndarray],
    about: dict[str, Any],
    scaled: tuple[float, float, str],
) -> Any:
    values, pairs = found
    low, high, colours = scaled
    names = [str(n) for n in capture.meta["frame_counts"]]
    if about["ceiling"]:
        names.append("images")
    else:
        values = values[:, : len(names)]
    image = axes.imshow(
        values[..., 0], cmap=colours, vmin=low, vmax=high, aspect="auto", interpolation="nearest"
    )
    axes.set_facecolor("#eceef1")
    for (row, col), value in np.ndenumerate(values[..., 0]):
        red, green, blue, _ = image.cmap(image.norm(value)) if np.isfinite(value) else (1, 1, 1, 1)
        light = float(np.dot((0.2126, 0.7152, 0.0722), np.power((red, green, blue), 2.2)))
        text = (
            "–"
            if np.isnan(value)
            else f"{_mark(values[row, col], about['centre'])}{value:.2f}".replace("-", "−")
        )
        axes.text(
            col, row, text, ha="center", va="center", fontsize=7, color="black" if light > 0.179 else "white"
        )
    axes.set(xticks=range(len(names)), yticks=range(len(groups)))
    axes.set_xticklabels(names, fontsize=8)
    axes.set_yticklabels(groups, fontsize=8)
    if about["ceiling"]:
        axes.axvline(len(names) - 1.5, color="#1f2328", lw=1)
    axes.set_title(f"{title} (n = {int(pairs.max(initial=0))} pairs)", fontsize=9)
    axes.set_xlabel("frames of a video" + ("; ceiling" if about["ceiling"] else ""), fontsize=8)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return image


def _mark(bounds: np.ndarray, centre: float | None) -> str:
    if centre is None or not np.isfinite(bounds[1:]).all():
        return ""
    return "▲ " if bounds[1] > centre else "▼ " if bounds[2] < centre else ""


def _steps(axes: Any, steps: Mapping[str, Any]) -> None:
    ends = [0.0]
    for i, (title, rows) in enumerate(steps.items()):
        axes.plot(
            rows["predicted"],
            rows["measured"],
            _MARKS[i % len(_MARKS)],
            ms=4,
            color=PALETTE[i % len(PALETTE)],
            label=f"{title} (n = {len(rows)})",
        )
        ends += [*rows["predicted"].dropna(), *rows["measured"].dropna()]
    axes.axline((0, 0), slope=1, color="#808890", lw=1, ls="--")
    axes.set_xlabel("predicted change of image loss,\nnats per answer token", fontsize=8)
    axes.set_ylabel("measured", fontsize=8)
    axes.set_title("One-step check", fontsize=9)
    axes.tick_params(labelsize=7)
    axes.legend(fontsize=7)
