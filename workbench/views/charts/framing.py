"""Figures and sentences about who chooses the frames: what a pilot measured, a classifier's confusions, contrasts. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.evaluation.statistics import mean_interval
from workbench.frames.labels import excess_losses
from workbench.study.contrasts import MEASURE_TITLES, Contrast
from workbench.study.wording import compared, size
from workbench.views.charts.inside import layout, styles
from workbench.views.theme import ZERO, error_bars

ROOM = {"l": 64, "r": 24, "t": 64, "b": 56}


def least_share(mean: float, choices: Sequence[int]) -> float:
    """The share of samples that must get the smallest of ``choices`` for this mean, whatever the policy; 0 where none must.

    All others get at least the second smallest: mean >= p c1 + (1 - p) c2, so p >= (c2 - mean) / (c2 - c1).

    Raises:
        ValueError: fewer than two choices, or a mean that they cannot have.
    """
    ordered = sorted(set(choices))
    if len(ordered) < 2 or not ordered[0] <= mean <= ordered[-1]:
        raise ValueError(f"a mean of {mean:g} cannot come from the counts {ordered}")
    return max(0.0, (ordered[1] - mean) / (ordered[1] - ordered[0]))


def excess_by_skill(measured: pd.DataFrame) -> pd.DataFrame:
    """How much larger the loss is than at the most frames, in nats, by skill and frame count.

    Args:
        measured: of ``study.planned.pilot_losses``.

    Returns:
        Columns ``skill, frames, mean, low, high, n``: 95% t intervals over the n questions.
    """
    skill_of = measured.drop_duplicates(["sample_id", "question"]).set_index(["sample_id", "question"])[
        "skill"
    ]
    excess = excess_losses(measured)
    rows = []
    for skill, part in excess.groupby(skill_of.reindex(excess.index).to_numpy()):
        for frames in part.columns:
            found = mean_interval(part[frames].tolist())
            rows.append((skill, int(frames), found.estimate, found.low, found.high, len(part)))
    return pd.DataFrame(rows, columns=["skill", "frames", "mean", "low", "high", "n"])


def pilot(measured: pd.DataFrame, epsilon: float) -> go.Figure:
    """Excess loss against frames, one line a skill; the dotted line is what a label tolerates."""
    table = excess_by_skill(measured)
    figure = go.Figure()
    skills = list(dict.fromkeys(table["skill"]))
    look = styles(skills)
    for skill in skills:
        rows, style = table[table["skill"] == skill], look[skill]
        bars = {
            "type": "data", "symmetric": False, "thickness": 1.6, "width": 4,
            "array": (rows["high"] - rows["mean"]).tolist(), "arrayminus": (rows["mean"] - rows["low"]).tolist(),
        }  # fmt: skip
        figure.add_trace(
            go.Scatter(
                x=[str(n) for n in rows["frames"]],
                y=rows["mean"].tolist(),
                error_y=bars,
                mode="lines+markers",
                name=f"{skill} (n = {rows['n'].iloc[0]})",
                line={"color": style.colour, "dash": style.dash, "width": 2},
                marker={"symbol": style.marker, "size": 9},
            )
        )
    figure.add_hline(epsilon, line={"color": ZERO, "dash": "dot"})
    most = max(table["frames"])
    figure.update_xaxes(title_text="frames the pilot is shown", type="category")
    figure.update_yaxes(title_text=f"loss above that at {most} frames, nats")
    return layout(figure, 400, margin=ROOM)


def confusion_table(labels: Sequence[int], predicted: Sequence[int]) -> pd.DataFrame:
    """Questions by measured label (rows) and predicted count (columns); every count that occurs is in both."""
    counts = sorted({*map(int, labels), *map(int, predicted)})
    table = pd.crosstab(np.asarray(labels), np.asarray(predicted))
    table = table.reindex(index=counts, columns=counts, fill_value=0)
    return table.rename_axis(index="label", columns="predicted")


def confusions(labels: Sequence[int], predicted: Sequence[int]) -> go.Figure:
    """Measured label against held-out prediction: colour is the share of the row, the text counts questions."""
    table = confusion_table(labels, predicted)
    share = 100 * table.to_numpy() / np.maximum(1, table.to_numpy().sum(axis=1, keepdims=True))
    names = [str(count) for count in table.index]
    figure = go.Figure(
        go.Heatmap(
            z=share.tolist(), x=names, y=names, colorscale="Viridis", zmin=0, zmax=100, xgap=2, ygap=2,
            text=table.to_numpy().tolist(), texttemplate="%{text}", colorbar={"title": {"text": "% of the row"}},
            hovertemplate="label %{y}, predicted %{x}: %{text} questions (%{z:.0f}% of the row)<extra></extra>",
        )
    )  # fmt: skip
    n = int(table.to_numpy().sum())
    figure.update_xaxes(
        title_text=f"frames predicted for a phrasing never seen (n = {n} questions)", type="category"
    )
    figure.update_yaxes(title_text="frames measured (label)", type="category", autorange="reversed")
    return layout(figure, 340, width=620, margin=ROOM | {"t": 24})


def contrasts(found: Mapping[str, Sequence[Contrast]]) -> go.Figure:
    """Paired differences of one arm from others, one panel a measure, 95% intervals; filled where 0 is excluded.

    Args:
        found: by the title of what it is compared with.
    """
    measures = list(dict.fromkeys(c.measure for part in found.values() for c in part))
    figure = make_subplots(
        rows=1, cols=len(measures), shared_yaxes=True, horizontal_spacing=0.05,
        subplot_titles=[MEASURE_TITLES.get(m, m).capitalize() for m in measures],
    )  # fmt: skip
    for column, measure in enumerate(measures, start=1):
        for shown in (True, False):
            rows = [
                (title, c) for title, part in found.items() for c in part
                if c.measure == measure and c.estimate.shown is shown
            ]  # fmt: skip
            name = "interval excludes 0" if shown else "no difference shown"
            figure.add_trace(
                go.Scatter(
                    x=[c.estimate.value for _, c in rows],
                    y=[title for title, _ in rows],
                    error_x=error_bars([c.estimate for _, c in rows]),
                    mode="markers",
                    name=name,
                    legendgroup=name,
                    showlegend=column == 1,
                    marker={"symbol": "circle" if shown else "circle-open", "size": 10}
                    | {"color": "#0072B2" if shown else "#808890"},
                ),
                row=1,
                col=column,
            )
        figure.add_vline(0, line={"color": ZERO, "width": 1}, row=1, col=column)
    figure.update_xaxes(title_text="difference, points")
    figure.update_yaxes(categoryorder="array", categoryarray=list(found)[::-1])
    return layout(figure, 190 + 44 * len(found), margin={"l": 210, "r": 24, "t": 96, "b": 56})


def contrast_words(found: Mapping[str, Sequence[Contrast]], arm: str) -> list[str]:
    """One sentence a comparison: a direction only where an interval excludes 0."""
    sentences = []
    for title, part in found.items():
        said = "; ".join(compared(c, MEASURE_TITLES.get(c.measure, c.measure)) for c in part)
        if part:
            sentences.append(f"{arm} against {title}: {said} ({size(*part)}).")
    return sentences
