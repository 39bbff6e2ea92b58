"""Figures and sentences of a training in stages: losses, and what the model answers after each stage. Needs no torch."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.recipe import Recipe
from workbench.study.intervals import Estimate, level, paired
from workbench.study.stages import BYPASS, THROUGH, UNTRAINED, part, stages_of
from workbench.study.wording import NOTHING, interval, points
from workbench.views.charts.inside import layout, styles
from workbench.views.theme import error_bars

ROOM = {"l": 64, "r": 24, "t": 112, "b": 56}  # titles of two lines
SMOOTH = 15  # steps of the running median
TITLES = {
    THROUGH: "as trained",
    BYPASS: "still images around the fusion layer",
    UNTRAINED: "fusion layer switched on, not yet trained",
}


def stage_table(recipe: Recipe, parameters: Mapping[str, int]) -> str:
    """What every stage of a recipe trains, as Markdown: a learning rate where a part is trained, "frozen" where not.

    Args:
        parameters: by module group, of ``parameters_of``.
    """
    groups = [group for group, count in parameters.items() if count]
    sizes = [f"{group} ({_count(parameters[group])})" for group in groups]
    lines = [
        " | ".join(
            ["", "stage", *sizes, "of all parameters", "data", "frames", "batch", "length", ""]
        ).strip()
    ]
    lines.append("|" + ":---|" * (len(groups) + 6))
    total = sum(parameters.values())
    for row in stages_of(recipe).to_dict("records"):
        trained = [group for group in groups if row[group] == row[group]]
        rates = [_rate(row[group]) if group in trained else "frozen" for group in groups]
        share = f"{sum(parameters[group] for group in trained) / total:.0%}"
        cells = [row["stage"], *rates, share, row["data"], row["frames"], str(row["batch"]), row["length"]]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _rate(value: float) -> str:
    """``0.0015`` -> ``1.5e-3``."""
    digits, _, power = f"{value:.1e}".partition("e-")
    return f"{digits.removesuffix('.0')}e-{int(power)}"


def _count(number: int) -> str:
    for unit, size in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.2f}".rstrip("0").rstrip(".") + f"\u00a0{unit}"
    return str(number)


def losses(table: pd.DataFrame) -> go.Figure:
    """Loss against the step within each stage, one panel a stage: every step faint, a running median drawn through.

    Args:
        table: of ``losses_of``.
    """
    names = list(dict.fromkeys(table["stage"]))
    figure = make_subplots(
        rows=1, cols=len(names), subplot_titles=[_short(name) for name in names], horizontal_spacing=0.05
    )
    colour = styles(names)[names[0]].colour
    for column, name in enumerate(names, start=1):
        rows = table[table["stage"] == name].sort_values("step")
        middle = rows["loss"].rolling(SMOOTH, center=True, min_periods=1).median()
        shown: dict[str, object] = {"showlegend": column == 1}
        each = go.Scatter(
            x=rows["step"].tolist(), y=rows["loss"].tolist(), mode="lines", name="every step",
            line={"color": "rgba(128,136,144,0.45)", "width": 1}, legendgroup="each", **shown,
        )  # fmt: skip
        line = go.Scatter(
            x=rows["step"].tolist(), y=middle.tolist(), mode="lines", name=f"median of {SMOOTH} steps",
            line={"color": colour, "width": 2.2}, legendgroup="median", **shown,
        )  # fmt: skip
        for trace in (each, line):
            figure.add_trace(trace, row=1, col=column)
    figure.update_xaxes(title_text="step")
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(title_text="loss, nats (a token of the answer)", col=1)
    return layout(figure, 360, margin=ROOM)


def scores(table: pd.DataFrame, chance: Mapping[str, float] | None = None) -> go.Figure:
    """Share right after every stage, images and videos, 95% intervals over questions.

    Args:
        table: of ``scores_after_stages``.
        chance: % right of guessing among the choices, by kind.
    """
    kinds = [kind for kind in ("image", "video") if (table["kind"] == kind).any()]
    stages, ways = list(dict.fromkeys(table["stage"])), list(dict.fromkeys(table["way"]))
    sizes = {kind: len(part(table, stages[0], kind)) for kind in kinds}
    figure = make_subplots(
        rows=1, cols=len(kinds), horizontal_spacing=0.09,
        subplot_titles=[f"{kind.capitalize()} questions (n = {sizes[kind]})" for kind in kinds],
    )  # fmt: skip
    look = styles([TITLES[way] for way in ways])
    for column, kind in enumerate(kinds, start=1):
        for way in ways:
            found = {stage: level(part(table, stage, kind, way)) for stage in stages}
            there = {stage: estimate for stage, estimate in found.items() if estimate is not None}
            style, many = look[TITLES[way]], way == THROUGH
            trace = go.Scatter(
                x=[_short(stage) for stage in there],
                y=[e.value for e in there.values()],
                error_y=error_bars(list(there.values())),
                mode="lines+markers" if many else "markers",
                name=TITLES[way],
                legendgroup=way,
                showlegend=column == 1,
                line={"color": style.colour, "dash": style.dash, "width": 2},
                marker={"symbol": style.marker, "size": 10, "color": style.colour},
            )
            if kind == "image" or way != BYPASS:  # videos never go around it: the same as "as trained"
                figure.add_trace(trace, row=1, col=column)
        if chance is not None:
            figure.add_hline(
                chance[kind], row=1, col=column, line={"color": "rgba(128,136,144,0.9)", "dash": "dot"},
                annotation={"text": "guessing", "font": {"size": 12}}, annotation_position="bottom left",
            )  # fmt: skip
    order = [_short(stage) for stage in stages]
    figure.update_xaxes(categoryorder="array", categoryarray=order, title_text="after stage", type="category")
    figure.update_yaxes(title_text="% right (mean over skills)", range=[0, 103], col=1)
    figure.update_yaxes(range=[0, 103])
    return layout(figure, 430)


def _short(stage: str) -> str:
    """Two lines of a stage's name: ``stage-3-temporal-fusion`` -> ``3<br>temporal fusion``."""
    words = stage.removeprefix("stage-").split("-")
    return "<br>".join((words[0], " ".join(words[1:]))) if words[0].isdigit() else " ".join(words)


def words(table: pd.DataFrame) -> list[str]:
    """What each stage changed, and what the fusion layer does to still images; a direction only where an interval excludes 0."""
    stages = list(dict.fromkeys(table["stage"]))
    found = []
    for before, after in itertools.pairwise(stages):
        for kind in ("image", "video"):
            change = paired(part(table, after, kind), part(table, before, kind))
            if change is not None:
                found.append(f"From {_name(before)} to {_name(after)}: {_moved(change, kind)}.")
    for stage in stages:
        untrained = paired(part(table, stage, "image", UNTRAINED), part(table, stage, "image"))
        if untrained is not None:
            film = paired(part(table, stage, "video", UNTRAINED), part(table, stage, "video"))
            also = f"; {_moved(film, 'video')}" if film is not None else ""
            lead = f"Switching the untrained fusion layer on after {_name(stage)}"
            found.append(f"{lead}: {_moved(untrained, 'image')}{also}.")
        around = paired(part(table, stage, "image"), part(table, stage, "image", BYPASS))
        if around is not None:
            lead = f"After {_name(stage)}, still images through the layer rather than around it"
            found.append(f"{lead}: {_moved(around, 'image')}.")
    return found


def _name(stage: str) -> str:
    words = stage.removeprefix("stage-").replace("-", " ")
    return f"stage {words}" if words[0].isdigit() else words


def _moved(change: Estimate, kind: str) -> str:
    size = f"n\u00a0=\u00a0{change.questions} questions"
    if not change.shown:
        return f"{kind} {NOTHING} ({points(change.value)} {interval(change)}, {size})"
    verb, shown = ("gains", change) if change.value > 0 else ("loses", change.negated())
    return f"{kind} {verb} {points(shown.value)} {interval(shown)} ({size})"
