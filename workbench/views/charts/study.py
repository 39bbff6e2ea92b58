"""Plotly figures of a study; each takes the results object, so a notebook can draw them while the study
runs.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.study.arms import BASE
from workbench.study.contrasts import MEASURE_TITLES, MEASURES, analyse, measure_skills
from workbench.study.curves import curve_table
from workbench.study.intervals import seed_means
from workbench.study.results import StudyResults, load_results
from workbench.views.charts.comparisons import copies, forest, skill_changes
from workbench.views.flips import point_key
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
    """Image against video, one panel a video measure (all video skills, the temporal ones): one path an arm from the
    base over its steps; crosses = 95% intervals of the change. Marks carry the point they stand for (``flips.point_key``).
    """
    measures = [m for m in ("video", "video_temporal") if measure_skills(results, m)] or ["video"]
    figure = make_subplots(rows=1, cols=len(measures), horizontal_spacing=0.09)
    table = curve_table(results)
    for column, measure in enumerate(measures, start=1):
        _plane_panel(figure, results, table, measure, column)
    figure.update_xaxes(title_text=_axis(results, "image"))
    for column, measure in enumerate(measures, start=1):
        figure.update_yaxes(title_text=_axis(results, measure), col=column)
    return layout(figure, 500, margin={"l": 64, "r": 24, "t": 52, "b": 64})


def _axis(results: StudyResults, measure: str) -> str:
    """What an axis of the plane measures, and on how many questions."""
    skills = measure_skills(results, measure)
    asked = results.scores.loc[
        results.scores["skill"].isin(skills), ["kind", "suite", "sample_id", "question"]
    ]
    n = len(asked[asked["kind"] == measure.partition("_")[0]].drop_duplicates())
    title = MEASURE_TITLES[measure].capitalize()
    return f"{title}, % right<br><sup>mean over {len(skills)} skills; {n} questions a seed</sup>"


def _plane_panel(
    figure: go.Figure, results: StudyResults, table: pd.DataFrame, measure: str, column: int
) -> None:
    analysis, look = analyse(results), study_styles(results)
    place = {"row": 1, "col": column}
    base = {m: analysis.levels.get((BASE, m)) for m in ("image", measure)}
    for arm in results.arms:
        style = look[arm.name]
        ended = (arm.name, "image") in analysis.levels and (arm.name, measure) in analysis.levels
        path = table[table["arm"] == arm.name].pivot(index="step", columns="measure", values="mean")
        if {"image", measure} <= set(path.columns):
            path = path.dropna(subset=["image", measure])
            figure.add_trace(
                go.Scatter(
                    x=path["image"],
                    y=path[measure],
                    mode="lines+markers",
                    name=None if ended else arm.title,  # the mark of its end stands in the legend
                    legendgroup=arm.name,
                    showlegend=not ended and column == 1,
                    line={"color": style.colour, "dash": style.dash, "width": 1.6},
                    marker={"symbol": style.marker, "size": 8},
                    customdata=[
                        {"point": point_key(arm.name, step)} if step else None for step in path.index
                    ],
                    text=[f"{arm.title}, step {step}" for step in path.index],
                    hovertemplate=f"%{{text}}<br>{BOTH}",
                ),
                **place,
            )
        _seed_dots(figure, results, arm.name, style, measure, place)
        if ended:
            _end_cross(figure, results, arm.name, style, measure, place)
    if (here := base["image"]) is not None and (there := base[measure]) is not None:
        figure.add_vline(here.value, line={"color": ZERO, "width": 1, "dash": "dot"}, **place)
        figure.add_hline(there.value, line={"color": ZERO, "width": 1, "dash": "dot"}, **place)
        figure.add_trace(
            go.Scatter(
                x=[here.value],
                y=[there.value],
                mode="markers+text",
                text=["base"],
                textposition="bottom center",
                name="base (step 0)",
                legendgroup=BASE,
                showlegend=column == 1,
                marker={
                    "color": look[BASE].colour,
                    "symbol": "circle-open",
                    "size": 14,
                    "line": {"width": 3},
                },
                hovertemplate=f"base<br>{BOTH}",
            ),
            **place,
        )


def _seed_dots(
    figure: go.Figure, results: StudyResults, arm: str, style: Style, measure: str, place: dict[str, int]
) -> None:
    done = [seed for name, seed in results.finished if name == arm]
    skills = {m: measure_skills(results, m) for m in ("image", measure)}
    ends = {m: results.select(arm, m.partition("_")[0]) for m in skills}
    means = {
        m: seed_means(rows[rows["seed"].isin(done) & rows["skill"].isin(skills[m])])
        for m, rows in ends.items()
    }
    both = pd.DataFrame(means).dropna()
    if len(both) > 1:
        figure.add_trace(
            go.Scatter(
                x=both["image"],
                y=both[measure],
                mode="markers",
                legendgroup=arm,
                showlegend=False,
                marker={"symbol": style.marker, "size": 7, "color": style.faded(0.35)},
                customdata=[{"point": point_key(arm, results.final_steps[arm])}] * len(both),
                text=[f"{results.title(arm)}, seed {seed}" for seed in both.index],
                hovertemplate=f"%{{text}}<br>{BOTH}",
            ),
            **place,
        )


def _end_cross(
    figure: go.Figure, results: StudyResults, arm: str, style: Style, measure: str, place: dict[str, int]
) -> None:
    analysis, title = analyse(results), results.title(arm)
    ends = [analysis.levels[arm, m] for m in ("image", measure)]
    changes = [analysis.find(arm, BASE, m) for m in ("image", measure)]
    bars = [error_bars([c.estimate]) if c else None for c in changes]
    said = [
        f"{name} {c.estimate.value:+.1f} [{c.estimate.low:.1f}, {c.estimate.high:.1f}]"
        for name, c in zip(("image", MEASURE_TITLES[measure]), changes, strict=True)
        if c
    ]
    against = f"<br>against the base, points: {', '.join(said)}" if said else ""
    figure.add_trace(
        go.Scatter(
            x=[ends[0].value],
            y=[ends[1].value],
            error_x=bars[0],
            error_y=bars[1],
            mode="markers",
            name=title,
            legendgroup=arm,
            showlegend=place["col"] == 1,
            marker={"symbol": style.marker, "size": 14, "color": style.colour},
            customdata=[{"point": point_key(arm, results.final_steps[arm])}],
            hovertemplate=f"{title}, end{against}<br>{BOTH}",
        ),
        **place,
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
