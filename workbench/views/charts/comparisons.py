"""Figures of differences between arms: forest, skills, copies probe."""

from __future__ import annotations

from collections.abc import Callable

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.study.contrasts import MEASURE_TITLES, MEASURES, Contrast, analyse
from workbench.study.results import StudyResults
from workbench.views.flips import point_key
from workbench.views.theme import ZERO, error_bars, layout, study_styles

BUDGET, FORGOTTEN = "#56B4E9", "#D55E00"
HATCH = {"fillmode": "overlay", "fgcolor": "rgba(255,255,255,0.6)", "size": 7, "solidity": 0.25}


def skill_changes(results: StudyResults) -> go.Figure:
    """Change of every skill against the base, one row a skill, 95% intervals."""
    analysis = analyse(results)
    kinds = [k for k in ("image", "video") if any(c.measure.startswith(k + ":") for c in analysis.skills)]
    figure = make_subplots(
        rows=1,
        cols=max(1, len(kinds)),
        subplot_titles=[f"{k.capitalize()} skills" for k in kinds],
        horizontal_spacing=0.14,
    )
    for column, kind in enumerate(kinds, start=1):
        found = [c for c in analysis.skills if c.measure.startswith(kind + ":")]
        _dots(figure, results, found, lambda c: c.measure.partition(":")[2], column)
    figure.update_xaxes(title_text="change against the base, points")
    rows = max((len(results.skills(kind)) for kind in kinds), default=1)
    height = 170 + rows * max(40, 15 * len(results.arms))
    return layout(figure, height, margin={"l": 90, "r": 24, "t": 80, "b": 56})


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
        for shown in (True, False):
            part = [c for c in chosen if c.holds == shown]
            name = "interval excludes 0, also after Holm" if shown else "not shown, or not after Holm"
            figure.add_trace(
                go.Scatter(
                    x=[c.estimate.value for c in part],
                    y=[f"{c.arm} − {c.reference}" for c in part],
                    error_x=error_bars([c.estimate for c in part], 4),
                    mode="markers",
                    name=name,
                    legendgroup=name,
                    showlegend=column == 1,
                    marker={
                        "symbol": "circle" if shown else "circle-open",
                        "size": 10,
                        "color": "#0072B2" if shown else "#808890",
                    },
                    customdata=[_hover(c) for c in part],
                    hovertemplate="%{y}<br>%{customdata}<extra></extra>",
                ),
                row=1,
                col=column,
            )
        _zero(figure, column)
    figure.update_yaxes(categoryorder="array", categoryarray=labels)
    figure.update_xaxes(title_text="difference, points")
    return layout(figure, 170 + 34 * max(1, len(labels)), margin={"l": 170, "r": 24, "t": 80, "b": 56})


def _dots(
    figure: go.Figure,
    results: StudyResults,
    found: list[Contrast],
    label: Callable[[Contrast], str],
    column: int,
) -> None:
    look = study_styles(results)
    rows = list(dict.fromkeys(label(c) for c in found))[::-1]
    arms = [arm for arm in results.arms if any(c.arm == arm.name for c in found)]
    spread = 0.7 / max(1, len(arms))
    for i, arm in enumerate(arms):
        part = [c for c in found if c.arm == arm.name]
        style = look[arm.name]
        offset = ((len(arms) - 1) / 2 - i) * spread
        figure.add_trace(
            go.Scatter(
                x=[c.estimate.value for c in part],
                y=[rows.index(label(c)) + offset for c in part],
                error_x=error_bars([c.estimate for c in part], 0),
                mode="markers",
                name=arm.title,
                legendgroup=arm.name,
                showlegend=column == 1,
                marker={"symbol": style.marker, "size": 9, "color": style.colour},
                customdata=[
                    {"point": point_key(arm.name, results.final_steps[arm.name]), "skill": c.measure}
                    for c in part
                ],
                text=[f"{label(c)}: {_hover(c)}" for c in part],
                hovertemplate=f"{arm.title}<br>%{{text}}<extra></extra>",
            ),
            row=1,
            col=column,
        )
    _zero(figure, column)
    figure.update_yaxes(
        tickvals=list(range(len(rows))), ticktext=rows, range=[-0.6, len(rows) - 0.4], row=1, col=column
    )


def copies(results: StudyResults) -> go.Figure:
    """The copies probe: each image loss as what copies bring back (budget) and what they do not
    (forgetting).
    """
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
                    marker={"color": colour, "pattern": {"shape": pattern, **HATCH}},
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
                error_x=error_bars(loss, 6),
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
        _zero(figure, column)
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(title_text="loss against the base, points")
    arms = len({s.arm for s in analysis.copies})
    return layout(
        figure,
        190 + 46 * max(1, arms),
        barmode="relative",
        bargap=0.45,
        margin={"l": 150, "r": 24, "t": 80, "b": 56},
    )


def _zero(figure: go.Figure, column: int) -> None:
    """The line of no difference; plotly ignores it on a panel that has no trace yet."""
    figure.add_vline(0, line={"color": ZERO, "width": 1}, row=1, col=column)


def _hover(contrast: Contrast) -> str:
    e = contrast.estimate
    holm = "" if contrast.adjusted_p is None else f", Holm p = {contrast.adjusted_p:.3f}"
    return f"{e.value:.1f} points [{e.low:.1f}, {e.high:.1f}]{holm}"
