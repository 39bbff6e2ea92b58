"""Plotly figures drawn from captures alone: attention, knockouts, gradients, fusion. Needs no torch.

Every maker takes {title: captures} and draws the titles in the same order of colours, markers and dashes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.captures import Capture
from workbench.probes.fusion.read import WHOLE
from workbench.probes.fusion.read import table as fusion_table
from workbench.probes.gradients.read import of_kind
from workbench.probes.gradients.read import table as gradient_table
from workbench.views import theme
from workbench.views.charts.inside_words import TITLES, expect, frame_mass, mass_table
from workbench.views.theme import MARKERS, PALETTE, ZERO, Style

TITLE_ROOM = {"l": 64, "r": 24, "t": 96, "b": 56}


def layout(figure: go.Figure, height: int, **more: object) -> go.Figure:
    """The house layout with a grey for words that light and dark pages can both bear: no script swaps it here."""
    font = {"family": theme.FONT, "size": 13, "color": "#737d89"}
    return theme.layout(figure, height, **{"margin": TITLE_ROOM, "font": font} | more)


def styles(titles: Sequence[str]) -> dict[str, Style]:
    """Colour, marker and dash of each title."""
    dashes = ("solid", "dash", "dot", "dashdot")
    return {
        title: Style(PALETTE[i % len(PALETTE)], MARKERS[i % len(MARKERS)], dashes[i % len(dashes)])
        for i, title in enumerate(titles)
    }


def estimates(
    title: str, style: Style, rows: pd.DataFrame, x: Sequence, first: bool = True, **more: object
) -> go.Scatter:
    """Estimates with their intervals over ``x``."""
    return go.Scatter(
        x=list(x),
        y=rows["estimate"].tolist(),
        error_y={
            "type": "data",
            "symmetric": False,
            "array": (rows["high"] - rows["estimate"]).tolist(),
            "arrayminus": (rows["estimate"] - rows["low"]).tolist(),
            "thickness": 1.6,
            "width": 4,
        },
        mode="lines+markers",
        name=title,
        legendgroup=title,
        showlegend=first,
        line={"color": style.colour, "dash": style.dash, "width": 2},
        marker={"symbol": style.marker, "size": 9},
        **more,
    )


def gradients(
    captures: Mapping[str, Capture], group: str = "all", counterfactual: str = "frozen"
) -> go.Figure:
    """Agreement of image and video gradients, and the temporal share, over frames; crosses: two image batches.

    Args:
        captures: kind ``gradients``, by title.
        group: of modules.
        counterfactual: that defines the temporal part.

    Raises:
        CaptureError: another kind. ValueError: a group that was not probed.
    """
    first = of_kind(next(iter(captures.values())))
    pairs = first.meta["pairs"]
    figure = make_subplots(
        rows=1, cols=2, horizontal_spacing=0.1,
        subplot_titles=[f"Do image and video gradients agree? ({pairs} pairs)",
                        f"Temporal share of the video gradient ({pairs} pairs)"],
    )  # fmt: skip
    look = styles(list(captures))
    counts = sorted({int(n) for capture in captures.values() for n in capture.meta["frame_counts"]})
    for i, (title, capture) in enumerate(captures.items()):
        offset = beside(i, len(captures))
        rows = gradient_table(capture)
        if group not in capture.meta["groups"]:
            raise ValueError(f"{group!r} was not probed; groups are {', '.join(capture.meta['groups'])}")
        rows = rows[(rows["group"] == group) & (rows["metric"] == "plain")]
        for column, name in ((1, "cos"), (2, f"{counterfactual}.share_t")):
            part = rows[rows["statistic"] == name].dropna(subset=["estimate"])
            if len(part):
                x = [counts.index(n) + offset for n in part["frames"]]
                figure.add_trace(estimates(title, look[title], part, x, column == 1), row=1, col=column)
        ceiling = rows[(rows["statistic"] == "image_ceiling")].dropna(subset=["estimate"]).iloc[:1]
        if len(ceiling):
            trace = estimates(title, look[title], ceiling, [len(counts) + offset], False)
            figure.add_trace(trace.update(mode="markers"), row=1, col=1)
    figure.add_hline(0, line={"color": ZERO, "width": 1}, row=1, col=1)
    ticks = [*map(str, counts), "two image batches"]
    for column, names in ((1, ticks), (2, ticks[:-1])):
        figure.update_xaxes(
            tickvals=list(range(len(names))), ticktext=names, range=[-0.5, len(names) - 0.5], col=column
        )
    figure.update_xaxes(title_text="frames a video is shown at")
    figure.update_yaxes(title_text="cosine (below 0: conflict)", col=1)
    figure.update_yaxes(title_text="|t| / |g_V| (1: all of it)", rangemode="tozero", col=2)
    return layout(figure, 420)


def gradient_modules(captures: Mapping[str, Capture], frames: int | None = None) -> go.Figure:
    """Interference <g_I, g_V> / |g_I|^2 of each module group at one frame count (the largest by default).

    Raises:
        CaptureError: another kind.
    """
    figure, look = go.Figure(), styles(list(captures))
    meta = of_kind(next(iter(captures.values()))).meta
    pairs, frames = meta["pairs"], max(meta["frame_counts"]) if frames is None else frames
    groups: list[str] = []
    for i, (title, capture) in enumerate(captures.items()):
        rows = gradient_table(capture)
        rows = rows[
            (rows["metric"] == "plain") & (rows["frames"] == frames) & (rows["statistic"] == "cos")
        ].dropna(subset=["estimate"])
        groups = groups or rows["group"].tolist()
        offset = (i - (len(captures) - 1) / 2) * 0.22
        figure.add_trace(
            go.Scatter(
                x=rows["estimate"].tolist(),
                y=[groups.index(g) + offset for g in rows["group"] if g in groups],
                error_x={
                    "type": "data", "symmetric": False, "thickness": 1.6, "width": 3,
                    "array": (rows["high"] - rows["estimate"]).tolist(),
                    "arrayminus": (rows["estimate"] - rows["low"]).tolist(),
                },
                mode="markers", name=title,
                marker={"symbol": look[title].marker, "size": 9, "color": look[title].colour},
            )
        )  # fmt: skip
    figure.add_vline(0, line={"color": ZERO, "width": 1})
    figure.update_xaxes(
        title_text=f"cosine of gradients at {frames} frames, {pairs} pairs (below 0: conflict)"
    )
    figure.update_yaxes(tickvals=list(range(len(groups))), ticktext=groups, autorange="reversed")
    return layout(figure, 140 + 34 * max(3, len(groups)))


def scatter(changes: Mapping[str, pd.DataFrame]) -> go.Figure:
    """Change of every scatter number from start to end of training, by arm; filled: shown after Holm.

    Args:
        changes: of ``inside_words.scatter_changes``, by title.
    """
    figure, look = go.Figure(), styles(list(changes))
    first = next(iter(changes.values()))
    numbers = first["number"].tolist()
    for i, (title, table) in enumerate(changes.items()):
        style, offset = look[title], (i - (len(changes) - 1) / 2) * 0.2
        table = table[table["number"].isin(numbers)]
        shown = table["p_holm"] < 0.05
        figure.add_trace(
            go.Scatter(
                x=table["difference"].tolist(),
                y=[numbers.index(n) + offset for n in table["number"]],
                error_x={
                    "type": "data", "symmetric": False, "thickness": 1.6, "width": 3,
                    "array": (table["high"] - table["difference"]).tolist(),
                    "arrayminus": (table["difference"] - table["low"]).tolist(),
                },
                mode="markers", name=title,
                marker={
                    "symbol": [style.marker if s else f"{style.marker}-open" for s in shown],
                    "size": 10, "color": style.colour,
                },
            )
        )  # fmt: skip
    figure.add_vline(0, line={"color": ZERO, "width": 1})
    row = first.iloc[0]
    seeds = f"{int(row['seeds'])} seed{'s' if row['seeds'] > 1 else ''}"
    figure.update_xaxes(title_text=f"after minus before ({int(row['samples'])} image questions, {seeds})")
    figure.update_yaxes(
        tickvals=list(range(len(numbers))), ticktext=[TITLES[n] for n in numbers], autorange="reversed"
    )
    return layout(figure, 140 + 44 * len(numbers))


def frame_masses(captures: Mapping[str, Sequence[Capture]]) -> go.Figure:
    """Attention of the answer on each frame over the clip's time, a panel a frame count, mean over clips.

    Args:
        captures: kind ``temporal_atlas``, several clips and frame counts a title.

    Raises:
        CaptureError: another kind.
    """
    tables = {title: mass_table(frame_mass(found)) for title, found in captures.items()}
    counts = sorted({int(n) for table in tables.values() for n in table["frames"]})
    clips = max(int(table["clips"].max()) for table in tables.values())
    figure = make_subplots(
        rows=1, cols=len(counts), horizontal_spacing=0.07,
        subplot_titles=[f"{n} frame{'s' * (n > 1)} ({clips} clips)" for n in counts],
    )  # fmt: skip
    look = styles(list(tables))
    for title, table in tables.items():
        for column, n in enumerate(counts, start=1):
            part = table[table["frames"] == n]
            if len(part):
                trace = estimates(title, look[title], part, part["time_s"].tolist(), column == 1)
                figure.add_trace(trace, row=1, col=column)
    figure.update_xaxes(title_text="time in the clip, s")
    figure.update_yaxes(title_text="attention mass on the frame", col=1)
    figure.update_yaxes(rangemode="tozero")
    return layout(figure, 400)


def looked_and_mattered(atlas: Capture, knockout: Capture) -> go.Figure:
    """One clip: attention mass of each frame beside the change of the answer's log-probability without it.

    Raises:
        CaptureError: captures of other kinds.
    """
    masses = frame_mass([atlas])
    deltas, blocks = expect(knockout, "knockout").arrays["deltas"], knockout.meta["blocks"]
    windows = knockout.arrays["windows"]
    widest = int(np.argmax(windows[:, 1] - windows[:, 0]))
    figure = make_subplots(
        rows=1, cols=2, horizontal_spacing=0.12,
        subplot_titles=["Where it looks: attention", "What matters: answer without the frame"],
    )  # fmt: skip
    figure.add_trace(
        go.Bar(x=masses["time_s"].tolist(), y=masses["mass"].tolist(), marker={"color": PALETTE[0]}),
        row=1,
        col=1,
    )
    figure.add_trace(
        go.Bar(
            x=masses["time_s"].tolist()[: len(blocks)],
            y=np.asarray(deltas[widest], dtype=float).tolist(),
            marker={"color": PALETTE[1], "pattern": {"shape": "/"}},
        ),
        row=1, col=2,
    )  # fmt: skip
    figure.add_hline(0, line={"color": ZERO, "width": 1}, row=1, col=2)
    figure.update_xaxes(title_text="time in the clip, s")
    figure.update_yaxes(title_text="attention mass", col=1)
    figure.update_yaxes(title_text="change of log p(answer), nats", col=2)
    return layout(figure, 360, showlegend=False)


def fusion(captures: Mapping[str, Capture], layer: int = 0) -> go.Figure:
    """Branch weights, effect and memory of the fusion over frames, with intervals over clips.

    Args:
        captures: kind ``fusion``, by title.

    Raises:
        CaptureError: another kind.
    """
    panels = (("update", "Change |TFF(x) - x| / |x|"), ("effective_frames", "Frames that memory holds"))
    figure = make_subplots(rows=1, cols=2, horizontal_spacing=0.1, subplot_titles=[t for _, t in panels])
    look = styles(list(captures))
    for title, capture in captures.items():
        rows = fusion_table(capture)
        for column, (number, _) in enumerate(panels, start=1):
            place = WHOLE if number == "update" else layer
            part = rows[(rows["number"] == number) & (rows["layer"] == place)]
            part = part.sort_values("frames").dropna(subset=["estimate"])
            x = [
                "image" if s == "images" else f"{n}"
                for s, n in zip(part["shown"], part["frames"], strict=True)
            ]
            if len(part):
                figure.add_trace(estimates(title, look[title], part, x, column == 1), row=1, col=column)
    n = int(rows["n"].max())
    figure.update_xaxes(title_text=f"frames (up to {n} images or clips)", type="category")
    figure.update_yaxes(title_text="share of the input's norm", rangemode="tozero", col=1)
    figure.update_yaxes(title_text="effective frames", rangemode="tozero", col=2)
    return layout(figure, 420)


def fusion_branches(captures: Mapping[str, Capture], layer: int = 0) -> go.Figure:
    """Weights beta of the three branches over frames, a panel a checkpoint, means over clips."""
    figure = make_subplots(
        rows=1, cols=len(captures), horizontal_spacing=0.08, subplot_titles=list(captures), shared_yaxes=True
    )
    branches = next(iter(captures.values())).meta["branches"]
    look = styles(branches)
    for column, capture in enumerate(captures.values(), start=1):
        rows = fusion_table(capture)
        rows = rows[(rows["layer"] == layer)].sort_values("frames")
        for branch in branches:
            part = rows[rows["number"] == f"beta_{branch}"].dropna(subset=["estimate"])
            x = [
                "image" if s == "images" else f"{n}"
                for s, n in zip(part["shown"], part["frames"], strict=True)
            ]
            figure.add_trace(estimates(branch, look[branch], part, x, column == 1), row=1, col=column)
    figure.add_hline(1 / len(branches), line={"color": ZERO, "width": 1, "dash": "dot"})
    figure.update_xaxes(title_text="frames", type="category")
    figure.update_yaxes(title_text=f"weight beta in layer {layer} (dotted: equal)", col=1)
    return layout(figure, 400)


def beside(i: int, n: int) -> float:
    """Where the i-th of n checkpoints stands beside its tick, so that error bars do not cover one another."""
    return (i - (n - 1) / 2) * min(0.12, 0.5 / max(n, 1))
