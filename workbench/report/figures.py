"""Plotly figures of a study; each takes the results object, so a notebook can draw them while the study runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.report.theme import ZERO, Style, arm_styles, layout
from workbench.study.arms import BASE
from workbench.study.contrasts import MEASURE_TITLES, MEASURES, Contrast, analyse
from workbench.study.curves import curve_table
from workbench.study.intervals import Estimate, seed_means
from workbench.study.results import StudyResults, load_results

BUDGET, FORGOTTEN = "#56B4E9", "#D55E00"


def show_live(study_dir: str | Path) -> go.Figure:
    """The score curves of a study as far as it has come; call again to refresh.

    Raises:
        StudyError: the directory is no study or nothing has been scored yet.
    """
    return curves(load_results(study_dir))


def styles(results: StudyResults) -> dict[str, Style]:
    return arm_styles([arm.name for arm in results.arms])


# --------------------------------------------------------------------------------------------------- over steps


def curves(results: StudyResults) -> go.Figure:
    """Score against step: image, image without counting, video; band = 95% t interval over seeds."""
    table = curve_table(results)
    measures = [m for m in MEASURES if (table["measure"] == m).any()]
    titles = [MEASURE_TITLES[m].capitalize() for m in measures]
    figure = make_subplots(cols=max(1, len(measures)), rows=1, subplot_titles=titles, horizontal_spacing=0.07)
    look = styles(results)
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
    return layout(figure, 400, margin={"l": 64, "r": 24, "t": 96, "b": 56})


def _band(line: pd.DataFrame, style: Style, group: str) -> go.Scatter:
    known = line[line["low"].notna()]
    return go.Scatter(
        x=[*known["step"], *known["step"][::-1]],
        y=[*known["high"], *known["low"][::-1]],
        fill="toself",
        fillcolor=style.faded(0.13),
        line={"width": 0},
        mode="lines",
        legendgroup=group,
        showlegend=False,
        hoverinfo="skip",
    )


def plane(results: StudyResults) -> go.Figure:
    """Image against video: one path an arm from the base over its steps; crosses = 95% intervals of the change."""
    analysis, look = analyse(results), styles(results)
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
                    hovertemplate=f"{arm.title}, step %{{customdata}}<br>image %{{x:.1f}}%, video %{{y:.1f}}%<extra></extra>",
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
                marker={"color": look[BASE].colour, "symbol": "circle-open", "size": 14, "line": {"width": 3}},
                hovertemplate="base<br>image %{x:.1f}%, video %{y:.1f}%<extra></extra>",
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
                hovertemplate=f"{arm}, seed %{{customdata}}<br>image %{{x:.1f}}%, video %{{y:.1f}}%<extra></extra>",
            )
        )


def _end_cross(figure: go.Figure, results: StudyResults, arm: str, title: str, style: Style) -> None:
    analysis = analyse(results)
    ends = [analysis.levels.get((arm, kind)) for kind in ("image", "video")]
    changes = [analysis.find(arm, BASE, kind) for kind in ("image", "video")]
    if ends[0] is None or ends[1] is None:
        return
    bars = [_bars([c.estimate]) if c else None for c in changes]
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
            hovertemplate=f"{title}, end<br>image %{{x:.1f}}%, video %{{y:.1f}}%<extra></extra>",
        )
    )


# --------------------------------------------------------------------------------------------------- contrasts


def skill_changes(results: StudyResults) -> go.Figure:
    """Change of every skill against the base, one row a skill, 95% intervals."""
    analysis = analyse(results)
    kinds = [k for k in ("image", "video") if any(c.measure.startswith(k + ":") for c in analysis.skills)]
    figure = make_subplots(
        rows=1, cols=max(1, len(kinds)), subplot_titles=[f"{k.capitalize()} skills" for k in kinds], horizontal_spacing=0.14
    )
    for column, kind in enumerate(kinds, start=1):
        found = [c for c in analysis.skills if c.measure.startswith(kind + ":")]
        _dots(figure, results, found, lambda c: c.measure.partition(":")[2], column)
    figure.update_xaxes(title_text="change against the base, points")
    rows = max((len(results.skills(kind)) for kind in kinds), default=1)
    height = 170 + rows * max(40, 15 * len(results.arms))
    return layout(figure, height, margin={"l": 90, "r": 24, "t": 96, "b": 56})


def forest(results: StudyResults) -> go.Figure:
    """All planned contrasts, one row a pair of arms, one column a measure, 95% intervals."""
    analysis = analyse(results)
    measures = [m for m in MEASURES if any(c.measure == m for c in analysis.contrasts)]
    figure = make_subplots(
        rows=1,
        cols=max(1, len(measures)),
        shared_yaxes=True,
        subplot_titles=[MEASURE_TITLES[m].capitalize() for m in measures],
        horizontal_spacing=0.04,
    )
    pairs = list(dict.fromkeys((c.arm, c.reference) for c in analysis.contrasts))
    labels = [f"{a} − {b}" for a, b in pairs][::-1]
    for column, measure in enumerate(measures, start=1):
        found = {(c.arm, c.reference): c for c in analysis.contrasts if c.measure == measure}
        chosen = [found[pair] for pair in pairs if pair in found]
        figure.add_vline(0, line={"color": ZERO, "width": 1}, row=1, col=column)
        for shown in (True, False):
            part = [c for c in chosen if c.holds == shown]
            name = "interval excludes 0, also after Holm" if shown else "not shown, or not after Holm"
            figure.add_trace(
                go.Scatter(
                    x=[c.estimate.value for c in part],
                    y=[f"{c.arm} − {c.reference}" for c in part],
                    error_x=_bars([c.estimate for c in part], 4),
                    mode="markers",
                    name=name,
                    legendgroup=name,
                    showlegend=column == 1,
                    marker={"symbol": "circle" if shown else "circle-open", "size": 10, "color": "#0072B2" if shown else "#808890"},
                    customdata=[_hover(c) for c in part],
                    hovertemplate="%{y}<br>%{customdata}<extra></extra>",
                ),
                row=1,
                col=column,
            )
    figure.update_yaxes(categoryorder="array", categoryarray=labels)
    figure.update_xaxes(title_text="difference, points")
    return layout(figure, 170 + 34 * max(1, len(labels)), margin={"l": 170, "r": 24, "t": 96, "b": 56})


def _dots(figure: go.Figure, results: StudyResults, found: list[Contrast], label: Callable[[Contrast], str], column: int) -> None:
    look = styles(results)
    rows = list(dict.fromkeys(label(c) for c in found))[::-1]
    arms = [arm for arm in results.arms if any(c.arm == arm.name for c in found)]
    spread = 0.7 / max(1, len(arms))
    figure.add_vline(0, line={"color": ZERO, "width": 1}, row=1, col=column)
    for i, arm in enumerate(arms):
        part = [c for c in found if c.arm == arm.name]
        style = look[arm.name]
        offset = ((len(arms) - 1) / 2 - i) * spread
        figure.add_trace(
            go.Scatter(
                x=[c.estimate.value for c in part],
                y=[rows.index(label(c)) + offset for c in part],
                error_x=_bars([c.estimate for c in part], 0),
                mode="markers",
                name=arm.title,
                legendgroup=arm.name,
                showlegend=column == 1,
                marker={"symbol": style.marker, "size": 9, "color": style.colour},
                customdata=[f"{label(c)}: {_hover(c)}" for c in part],
                hovertemplate=f"{arm.title}<br>%{{customdata}}<extra></extra>",
            ),
            row=1,
            col=column,
        )
    figure.update_yaxes(tickvals=list(range(len(rows))), ticktext=rows, range=[-0.6, len(rows) - 0.4], row=1, col=column)


# --------------------------------------------------------------------------------------------------- copies, frames


def copies(results: StudyResults) -> go.Figure:
    """The copies probe: each image loss as what copies bring back (budget) and what they do not (forgetting)."""
    analysis = analyse(results)
    measures = [m for m in ("image", "image_no_count") if any(s.measure == m for s in analysis.copies)]
    figure = make_subplots(
        rows=1,
        cols=max(1, len(measures)),
        shared_yaxes=True,
        subplot_titles=[MEASURE_TITLES[m].capitalize() for m in measures],
        horizontal_spacing=0.05,
    )
    parts = (
        ("recovered", "returns with copies: frame budget", BUDGET, ""),
        ("remaining", "does not return: forgetting", FORGOTTEN, "/"),
    )
    for column, measure in enumerate(measures, start=1):
        splits = [s for s in analysis.copies if s.measure == measure]
        for name, title, colour, pattern in parts:
            values = [getattr(s, name).estimate for s in splits]
            figure.add_trace(
                go.Bar(
                    x=[v.value for v in values],
                    y=[results.title(s.arm) for s in splits],
                    orientation="h",
                    name=title,
                    legendgroup=name,
                    showlegend=column == 1,
                    marker={"color": colour, "pattern": {"shape": pattern, "fgcolor": "white", "size": 6}},
                    customdata=[f"{v.value:.1f} points [{v.low:.1f}, {v.high:.1f}]" for v in values],
                    hovertemplate=f"%{{y}}: {title}<br>%{{customdata}}<extra></extra>",
                ),
                row=1,
                col=column,
            )
        loss = [s.loss.estimate for s in splits]
        figure.add_trace(
            go.Scatter(
                x=[v.value for v in loss],
                y=[results.title(s.arm) for s in splits],
                error_x=_bars(loss, 6),
                mode="markers",
                name="whole image loss, 95% interval",
                legendgroup="loss",
                showlegend=column == 1,
                marker={"symbol": "line-ns-open", "size": 14, "color": "#808890", "line": {"width": 3}},
                customdata=[f"{v.value:.1f} points [{v.low:.1f}, {v.high:.1f}]" for v in loss],
                hovertemplate="%{y}: whole loss<br>%{customdata}<extra></extra>",
            ),
            row=1,
            col=column,
        )
        figure.add_vline(0, line={"color": ZERO, "width": 1}, row=1, col=column)
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(title_text="loss against the base, points")
    arms = len({s.arm for s in analysis.copies})
    return layout(figure, 190 + 46 * max(1, arms), barmode="relative", bargap=0.45, margin={"l": 150, "r": 24, "t": 96, "b": 56})


def frames(results: StudyResults) -> go.Figure:
    """What the arms were trained on: share of training clips by frame count, and mean frames by skill."""
    figure = make_subplots(
        rows=1, cols=2, subplot_titles=["Training clips by frame count", "Mean frames by skill"], horizontal_spacing=0.1
    )
    look = styles(results)
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
    figure.update_xaxes(title_text="frames", type="category", categoryorder="array", categoryarray=order, col=1)
    figure.update_yaxes(title_text="% of training clips", col=1)
    figure.update_xaxes(title_text="skill asked", col=2)
    figure.update_yaxes(title_text="mean frames", rangemode="tozero", col=2)
    return layout(figure, 400, barmode="group", margin={"l": 64, "r": 24, "t": 96, "b": 56})


def _bars(estimates: list[Estimate], width: float = 4) -> dict[str, object]:
    """Error bars of the estimates' own intervals, which need not be symmetric."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [e.high - e.value for e in estimates],
        "arrayminus": [e.value - e.low for e in estimates],
        "thickness": 2,
        "width": width,
    }


def _hover(contrast: Contrast) -> str:
    e = contrast.estimate
    holm = "" if contrast.adjusted_p is None else f", Holm p = {contrast.adjusted_p:.3f}"
    return f"{e.value:.1f} points [{e.low:.1f}, {e.high:.1f}]{holm}"
