"""Plotly figures of a study; each takes the results object, so a notebook can draw them while the study
runs.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.study.arms import BASE
from workbench.study.contrasts import MEASURE_TITLES, MEASURES, analyse
from workbench.study.curves import curve_table
from workbench.study.intervals import seed_means
from workbench.study.results import StudyResults, load_results
from workbench.views.charts.comparisons import copies, forest, skill_changes
from workbench.views.theme import ZERO, Style, error_bars, layout, study_styles

__all__ = ["copies", "curves", "forest", "frames", "plane", "show_live", "skill_changes"]

BOTH = "image %{x:.1f}%, video %{y:.1f}%<extra></extra>"


def show_live(study_dir: str | Path) -> go.Figure:
    """The score curves of a study as far as it has come; call again to refresh.

    Raises:
        StudyError: the directory is no study or nothing has been scored yet.
    """
    return curves(load_results(study_dir))


def curves(results: StudyResults) -> go.Figure:
    """Score against step: image, image without counting, video; band = 95% t interval over seeds."""
    table = curve_table(results)
    measures = [m for m in MEASURES if (table["measure"] == m).any()]
    titles = [MEASURE_TITLES[m].capitalize() for m in measures]
    figure = make_subplots(cols=max(1, len(measures)), rows=1, subplot_titles=titles, horizontal_spacing=0.07)
    look = study_styles(results)
    for column, measure in enumerate(measures, start=1):
        for arm in results.arms:
            line = table[(table["arm"] == arm.name) & (table["measure"] == measure)]
            if not len(line):
                continue
            style = look[arm.name]
            if line["low"].notna().any():
                figure.add_trace(_band(line, style, arm.name), row=1, col=column)
            figure.add_trace(
                go.Scatter(
                    x=line["step"],
                    y=line["mean"],
                    mode="lines+markers",
                    name=arm.title,
                    legendgroup=arm.name,
                    showlegend=column == 1,
                    line={"color": style.colour, "dash": style.dash, "width": 2.2},
                    marker={"symbol": style.marker, "size": 8},
                    hovertemplate=f"{arm.title}<br>step %{{x}}: %{{y:.1f}}%<extra></extra>",
                ),
                row=1,
                col=column,
            )
    figure.update_xaxes(title_text="training step")
    figure.update_yaxes(title_text="% right", col=1)
    return layout(figure, 400, margin={"l": 64, "r": 24, "t": 80, "b": 56})


def _band(line: pd.DataFrame, style: Style, group: str) -> go.Scatter:
    known = line[line["low"].notna()]
    return go.Scatter(
        x=[*known["step"], *known["step"][::-1]],
        y=[*known["high"], *known["low"][::-1]],
        fill="toself",
        fillcolor=style.faded(0.09),
        line={"width": 0},
        mode="lines",
        legendgroup=group,
        showlegend=False,
        hoverinfo="skip",
    )


def plane(results: StudyResults) -> go.Figure:
    """Image against video: one path an arm from the base over its steps; crosses = 95% intervals of the
    change.
    """
    analysis, look = analyse(results), study_styles(results)
    figure = go.Figure()
    base = {m: analysis.levels.get((BASE, m)) for m in ("image", "video")}
    table = curve_table(results)
    for arm in results.arms:
        style = look[arm.name]
        path = table[table["arm"] == arm.name].pivot(index="step", columns="measure", values="mean")
        if {"image", "video"} <= set(path.columns):
            path = path.dropna(subset=["image", "video"])
            figure.add_trace(
                go.Scatter(
                    x=path["image"],
                    y=path["video"],
                    mode="lines+markers",
                    legendgroup=arm.name,
                    showlegend=False,
                    line={"color": style.colour, "dash": style.dash, "width": 1.6},
                    marker={"symbol": style.marker, "size": 6},
                    customdata=path.index,
                    hovertemplate=f"{arm.title}, step %{{customdata}}<br>{BOTH}",
                )
            )
        _seed_dots(figure, results, arm.name, style)
        _end_cross(figure, results, arm.name, arm.title, style)
    if base["image"] is not None and base["video"] is not None:
        figure.add_trace(
            go.Scatter(
                x=[base["image"].value],
                y=[base["video"].value],
                mode="markers+text",
                text=["base"],
                textposition="bottom center",
                name="base (step 0)",
                marker={
                    "color": look[BASE].colour,
                    "symbol": "circle-open",
                    "size": 14,
                    "line": {"width": 3},
                },
                hovertemplate=f"base<br>{BOTH}",
            )
        )
        for axis, value in (("x", base["image"].value), ("y", base["video"].value)):
            add = figure.add_vline if axis == "x" else figure.add_hline
            add(value, line={"color": ZERO, "width": 1, "dash": "dot"})
    figure.update_xaxes(title_text="image, % right (macro average over skills)")
    figure.update_yaxes(title_text="video, % right (macro average over skills)")
    return layout(figure, 560, margin={"l": 64, "r": 24, "t": 72, "b": 56})


def _seed_dots(figure: go.Figure, results: StudyResults, arm: str, style: Style) -> None:
    done = [seed for name, seed in results.finished if name == arm]
    ends = {kind: results.select(arm, kind) for kind in ("image", "video")}
    means = {kind: seed_means(rows[rows["seed"].isin(done)]) for kind, rows in ends.items()}
    both = pd.DataFrame(means).dropna()
    if len(both) > 1:
        figure.add_trace(
            go.Scatter(
                x=both["image"],
                y=both["video"],
                mode="markers",
                legendgroup=arm,
                showlegend=False,
                marker={"symbol": style.marker, "size": 8, "color": style.faded(0.4)},
                customdata=both.index,
                hovertemplate=f"{arm}, seed %{{customdata}}<br>{BOTH}",
            )
        )


def _end_cross(figure: go.Figure, results: StudyResults, arm: str, title: str, style: Style) -> None:
    analysis = analyse(results)
    ends = [analysis.levels.get((arm, kind)) for kind in ("image", "video")]
    changes = [analysis.find(arm, BASE, kind) for kind in ("image", "video")]
    if ends[0] is None or ends[1] is None:
        return
    bars = [error_bars([c.estimate]) if c else None for c in changes]
    figure.add_trace(
        go.Scatter(
            x=[ends[0].value],
            y=[ends[1].value],
            error_x=bars[0],
            error_y=bars[1],
            mode="markers",
            name=title,
            legendgroup=arm,
            marker={"symbol": style.marker, "size": 14, "color": style.colour},
            hovertemplate=f"{title}, end<br>{BOTH}",
        )
    )


def frames(results: StudyResults) -> go.Figure:
    """What the arms were trained on: share of training clips by frame count, and mean frames by skill."""
    figure = make_subplots(
        rows=1,
        cols=2,
        subplot_titles=["Training clips by frame count", "Mean frames by skill"],
        horizontal_spacing=0.1,
    )
    look = study_styles(results)
    for arm in results.arms:
        style = look[arm.name]
        counts = results.histogram[results.histogram["arm"] == arm.name].groupby("frames")["samples"].sum()
        means = results.frames[results.frames["arm"] == arm.name].groupby("skill")["frames"].mean()
        if len(counts):
            figure.add_trace(
                go.Bar(
                    x=[str(count) for count in counts.index],
                    y=100 * counts / counts.sum(),
                    name=arm.title,
                    legendgroup=arm.name,
                    marker={"color": style.colour},
                    hovertemplate=f"{arm.title}<br>%{{x}} frames: %{{y:.0f}}% of clips<extra></extra>",
                ),
                row=1,
                col=1,
            )
        if len(means):
            figure.add_trace(
                go.Scatter(
                    x=list(means.index),
                    y=means,
                    mode="markers",
                    name=arm.title,
                    legendgroup=arm.name,
                    showlegend=not len(counts),
                    marker={"symbol": style.marker, "size": 10, "color": style.colour},
                    hovertemplate=f"{arm.title}<br>%{{x}}: %{{y:.1f}} frames<extra></extra>",
                ),
                row=1,
                col=2,
            )
    order = [str(count) for count in sorted(results.histogram["frames"].unique())]
    figure.update_xaxes(
        title_text="frames", type="category", categoryorder="array", categoryarray=order, col=1
    )
    figure.update_yaxes(title_text="% of training clips", col=1)
    figure.update_xaxes(title_text="skill asked", col=2)
    figure.update_yaxes(title_text="mean frames", rangemode="tozero", col=2)
    return layout(figure, 400, barmode="group", margin={"l": 64, "r": 24, "t": 80, "b": 56})
