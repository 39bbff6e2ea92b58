"""Colours, markers and layout shared by all figures; readable in light and dark and without colour vision.

Palette: Okabe and Ito (2008) without its yellow, which vanishes on white. An arm differs from the others by
marker and dash as well as by colour. Backgrounds are transparent and greys are mid-tones, so a figure sits
on either theme; the page's script only swaps font and grid colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from workbench.study.intervals import Estimate
from workbench.study.results import StudyResults

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = (
    "circle",
    "square",
    "diamond",
    "triangle-up",
    "cross",
    "star",
    "hexagon",
    "triangle-down",
    "x",
    "bowtie",
)
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
BASE_COLOUR = "#808890"
GRID = "rgba(128,136,144,0.25)"
ZERO = "rgba(128,136,144,0.9)"
LEGEND_WIDTH = 760  # pixels that a legend line has, about, on a page 1100 wide
FONT = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', 'DejaVu Sans', sans-serif"


@dataclass(frozen=True, slots=True)
class Style:
    colour: str
    marker: str
    dash: str

    def faded(self, alpha: float) -> str:
        red, green, blue = (int(self.colour[i : i + 2], 16) for i in (1, 3, 5))
        return f"rgba({red},{green},{blue},{alpha})"


def arm_styles(arms: Sequence[str]) -> dict[str, Style]:
    """The same style for an arm in every figure of a study; the base is a grey circle."""
    styles = {"base": Style(BASE_COLOUR, "circle-open", "solid")}
    for i, arm in enumerate(arms):
        dash = DASHES[(i // len(PALETTE)) % len(DASHES)]
        styles[arm] = Style(PALETTE[i % len(PALETTE)], MARKERS[i % len(MARKERS)], dash)
    return styles


def study_styles(results: StudyResults) -> dict[str, Style]:
    """``arm_styles`` of the arms of a study."""
    return arm_styles([arm.name for arm in results.arms])


def error_bars(estimates: list[Estimate], width: float = 4) -> dict[str, object]:
    """Error bars of the estimates' own intervals, which need not be symmetric."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [e.high - e.value for e in estimates],
        "arrayminus": [e.value - e.low for e in estimates],
        "thickness": 2,
        "width": width,
    }


def layout(figure: go.Figure, height: int, **more: object) -> go.Figure:
    """Apply the house layout: transparent, quiet grid, legend above the plot."""
    figure.update_layout(
        height=height,
        margin={"l": 64, "r": 24, "t": 56, "b": 56},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": FONT, "size": 13, "color": "#5b6470"},
        legend={
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 0.995,
            "yanchor": "top",
            "yref": "container",
        },
        hoverlabel={"font": {"family": FONT}},
        modebar={"orientation": "v"},
        template="none",
    )
    figure.update_layout(**more)
    labels = {t.legendgroup or t.name: t.name for t in figure.data if t.showlegend is not False and t.name}
    rows = 1 + int(sum(48 + 7.2 * len(label) for label in labels.values()) // LEGEND_WIDTH)
    extra = max(0, rows - 1) * 24  # a long legend gets its own room above the plot
    figure.update_layout(height=height + extra, margin={"t": figure.layout.margin.t + extra})
    figure.update_annotations(font={"size": 14})  # subplot titles
    axis = {
        "gridcolor": GRID,
        "zeroline": False,
        "linecolor": GRID,
        "ticks": "outside",
        "tickcolor": GRID,
        "automargin": True,
        "title": {"font": {"size": 13}, "standoff": 8},
    }
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    return figure
