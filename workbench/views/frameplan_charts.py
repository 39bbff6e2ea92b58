"""Figures of frame plans: who gets how many frames, by skill; what frames were worth beside what was chosen."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.views.charts import framing
from workbench.views.frameplan_data import ALL, Planned, Plans
from workbench.views.theme import layout

MOST_COUNTS = 8  # different counts that bars can show; more are put together in doublings
ACROSS = 4  # panels a row
TITLE = 30  # characters of a panel's title that fit beside the next one


def counts_of(plans: Sequence[Planned]) -> list[int]:
    return sorted({count for plan in plans for count in plan.counts})


def bins(counts: Sequence[int]) -> list[tuple[str, range]]:
    """(name, counts in it): every count by itself, or doublings ``1``, ``2``, ``3–4``, ``5–8`` ... of many counts."""
    if len(counts) <= MOST_COUNTS:
        return [(str(count), range(count, count + 1)) for count in counts]
    found, low, high = [], 1, 1
    while low <= max(counts):
        if any(low <= count <= high for count in counts):
            found.append((str(low) if low == high else f"{low}–{high}", range(low, high + 1)))
        low, high = high + 1, high * 2
    return found


def colours(n: int) -> list[str]:
    """Dark to light as frames grow, without the scale's ends."""
    from workbench.views.stills import matplotlib

    scale = matplotlib().colormaps["viridis"]
    return [
        f"rgb{tuple(round(255 * c) for c in scale(0.1 + 0.82 * i / max(1, n - 1))[:3])}" for i in range(n)
    ]


def shares(plan: Planned, groups: Sequence[tuple[str, range]]) -> pd.DataFrame:
    """% of questions by skill (rows, the whole last) and group of counts (columns); column ``n``: questions."""
    table = plan.by_skill()
    found = pd.DataFrame(
        {name: table[[c for c in table.columns if c in span]].sum(axis=1) for name, span in groups},
        index=table.index,
    )
    n = found.sum(axis=1)
    return (100 * found.div(n.where(n > 0), axis=0)).fillna(0.0).assign(n=n)


def panels(plans: int) -> tuple[int, int]:
    """(panels a row, rows)."""
    across = min(ACROSS, max(1, plans))
    return across, max(1, -(-plans // across))


def histogram(plans: Sequence[Planned]) -> go.Figure:
    """One panel a plan, one bar a skill, split by frames used (% of questions)."""
    shown = [plan for plan in plans if plan.videos]
    groups = bins(counts_of(shown))
    tables = [shares(plan, groups) for plan in shown]
    skills = [s for s in dict.fromkeys(s for t in tables for s in t.index) if s != ALL]
    rows = [*sorted(skills), *([ALL] if any(ALL in t.index for t in tables) else [])]
    across, down = panels(len(shown))
    figure = make_subplots(
        rows=down, cols=across, shared_yaxes=True, horizontal_spacing=0.03, vertical_spacing=0.26 / down,
        subplot_titles=[
            f"{'<br>'.join(textwrap.wrap(p.title, TITLE))}<br><sup>mean {p.mean:.1f} frames, {p.videos} clips</sup>" for p in shown
        ],
    )  # fmt: skip
    for i, (plan, table) in enumerate(zip(shown, tables, strict=True)):
        table = table.reindex([r for r in rows if r in table.index])
        for (name, _), colour in zip(groups, colours(len(groups)), strict=True):
            part = table[name]
            figure.add_trace(
                go.Bar(
                    x=part.tolist(),
                    y=table.index.tolist(),
                    orientation="h",
                    name=f"{name} frame{'s' if name != '1' else ''}",
                    legendgroup=name,
                    showlegend=i == 0,
                    marker={"color": colour, "line": {"width": 1, "color": "rgba(255,255,255,0.6)"}},
                    text=[name if value >= 9 else "" for value in part],
                    textposition="inside",
                    insidetextanchor="middle",
                    textangle=0,
                    hovertemplate=[
                        f"{plan.title}, {skill}: {value:.0f}% of {n} questions get {name} frames<extra></extra>"
                        for skill, value, n in zip(table.index, part, table["n"], strict=True)
                    ],
                ),
                row=i // across + 1,
                col=i % across + 1,
            )
    figure.update_xaxes(range=[0, 100], tickvals=[0, 50, 100])
    for column in range(1, across + 1):
        last = max((i // across + 1 for i in range(len(shown)) if i % across + 1 == column), default=1)
        figure.update_xaxes(title_text="% of questions", row=last, col=column)
    figure.update_yaxes(categoryorder="array", categoryarray=rows[::-1], type="category")
    height = 130 + down * (110 + 26 * max(1, len(rows)))
    drawn = layout(figure, height, barmode="stack", bargap=0.25, margin={"l": 84, "r": 24, "t": 100, "b": 56})
    drawn.update_annotations(font={"size": 13})
    return drawn


def losses(plans: Plans) -> go.Figure:
    """What frames were worth to the pilot, by skill; rings: the count that the first plan gives a skill most often."""
    assert plans.measured is not None
    figure = framing.pilot(plans.measured, plans.epsilon)
    if ringed := chosen(plans):
        table = framing.excess_by_skill(plans.measured).set_index(["skill", "frames"])["mean"]
        there = [(skill, n, share) for skill, (n, share) in ringed.items() if (skill, n) in table.index]
        figure.add_trace(
            go.Scatter(
                x=[str(n) for _, n, _ in there],
                y=[float(table[skill, n]) for skill, n, _ in there],
                mode="markers",
                name=f"most frequent choice of {plans.plans[0].title}",
                marker={"symbol": "circle-open", "size": 20, "color": RING, "line": {"width": 2.5}},
                text=[f"{skill}: {share:.0f}% get {n} frames" for skill, n, share in there],
                hovertemplate="%{text}<extra></extra>",
            )
        )
    return layout(figure, 420, margin={"l": 64, "r": 24, "t": 72, "b": 56})


def chosen(plans: Plans) -> dict[str, tuple[int, float]]:
    """(count, % of its questions) that the first plan gives each skill most often."""
    if not plans.plans or plans.plans[0].rows is None:
        return {}
    table = plans.plans[0].by_skill().drop(index=ALL, errors="ignore")
    most, share = table.idxmax(axis=1), 100 * table.max(axis=1) / table.sum(axis=1)
    return {str(skill): (int(most[skill]), float(share[skill])) for skill in table.index}


RING = "#808890"
