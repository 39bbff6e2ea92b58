"""The six panels of a monitor: one plotly figure that grows, sending only the curves that changed; and a still of it.

Everything goes in as plain lists: as a widget's state it then travels as text (binary buffers break Jupyter behind
a gateway, ipywidgets#3798).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.views import stills
from workbench.views.monitor_curves import PANELS, SUITES, Curve
from workbench.views.theme import GRID, layout

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 3
# a widget is made from a plain figure, which has axes and no longer a grid
AXIS = {name: f"xaxis{i + 1 if i else ''}" for i, name in enumerate(PANELS)}
PLACE = {name: (i // COLUMNS + 1, i % COLUMNS + 1) for i, name in enumerate(PANELS)}
LINE_STYLES = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-.", "longdash": (0, (8, 3))}
MARKERS = {"circle": "o", "square": "s", "diamond": "D", "cross": "P", "x": "X"}
KEYED = ("scores", "rates")
SYMBOLS = {"circle": "●", "square": "■", "diamond": "◆", "cross": "✚", "x": "✖"}
WORDS = {
    "solid": "solid",
    "dash": "dashed",
    "dot": "dotted",
    "dashdot": "dash-dotted",
    "longdash": "long-dashed",
}
LINES = {"solid": "━━", "dash": "━ ━", "dot": "┅┅", "dashdot": "━ •", "longdash": "━━ ━━"}
EMPTY = "nothing yet"
HEIGHT, TOP, BOTTOM = 670, 104, 52  # pixels; TOP has room for three lines of arms


def empty_figure() -> go.Figure:
    """The panels without a curve."""
    titles = [title for title, _, _ in PANELS.values()]
    figure = make_subplots(
        rows=2, cols=COLUMNS, subplot_titles=titles, horizontal_spacing=0.1, vertical_spacing=0.22
    )
    for name, (row, col) in PLACE.items():
        _, x, y = PANELS[name]
        figure.update_xaxes(title_text=x, row=row, col=col)
        figure.update_yaxes(title_text=y, rangemode="tozero", row=row, col=col)
        figure.add_annotation(
            text=EMPTY, name=name, showarrow=False, x=0.5, y=0.5, row=row, col=col,
            xref="x domain", yref="y domain",
        )  # fmt: skip
        # plotly draws no axes where there is no trace, and what is written there moves into the first panel
        figure.add_trace(go.Scatter(x=[None], y=[None], showlegend=False, hoverinfo="skip"), row=row, col=col)
    row, col = PLACE["frames"]
    figure.update_xaxes(type="category", row=row, col=col)
    margin = {"l": 60, "r": 16, "t": TOP, "b": BOTTOM}
    layout(figure, HEIGHT, margin=margin, autosize=True, barmode="group")
    for name in (
        KEYED
    ):  # what dashes and markers mean; text, because legends on a panel's edge move the plot's margins
        row, col = PLACE[name]
        figure.add_annotation(
            text="", name=f"key {name}", showarrow=False, x=0, y=1, yshift=2, row=row, col=col, font={"size": 11},
            xref="x domain", yref="y domain", xanchor="left", yanchor="bottom",
        )  # fmt: skip
    for annotation in figure.layout.annotations:
        if annotation.text in titles:
            annotation.yshift = 20  # above the legend of its panel
    return figure


class MonitorFigure:
    """``figure`` follows the curves it is given; a curve that is gone is emptied, a new one added."""

    def __init__(self, figure: go.Figure) -> None:
        self.figure = figure
        self._shown: dict[tuple[str, str], Curve] = {}
        self._traces: dict[tuple[str, str], int] = {}
        self._legend: set[str] = set()
        self._counts: list[str] = []

    def update(self, found: Sequence[Curve], names: dict[str, str], about: str | None) -> int:
        """Draw; returns how many curves were sent.

        Args:
            names: titles of groups, for the legend.
            about: the run of the lower panels.
        """
        now = {(curve.panel, curve.key): curve for curve in found}
        new = [curve for key, curve in now.items() if key not in self._traces]
        changed = [key for key, curve in now.items() if key in self._traces and self._shown.get(key) != curve]
        gone = [key for key in self._shown if key not in now]
        if new:
            traces = [self._trace(curve, names) for curve in new]
            for i, curve in enumerate(new):
                self._traces[curve.panel, curve.key] = len(self.figure.data) + i
            self.figure.add_traces(traces)
        with self.figure.batch_update():
            for key in changed:
                trace = self.figure.data[self._traces[key]]
                for name, value in _numbers(now[key]).items():
                    trace[name] = value
            for key in gone:
                trace = self.figure.data[self._traces[key]]
                trace.x, trace.y = [], []
            keys = {f"key {panel}": key_of(panel, found) for panel in KEYED}
            self._titles({curve.panel for curve in found}, about, keys)
            counts = sorted({x for curve in found if curve.panel == "frames" for x in curve.x}, key=int)
            if self._counts != counts:
                self._counts = counts
                self.figure.layout[AXIS["frames"]].update(categoryorder="array", categoryarray=counts)
        self._shown = now
        return len(new) + len(changed) + len(gone)

    def _titles(self, drawn: set[str], about: str | None, keys: dict[str, str]) -> None:
        texts = {PANELS[name][0]: name for name in PANELS}
        for annotation in self.figure.layout.annotations:
            if annotation.name in keys and annotation.text != keys[annotation.name]:
                annotation.text = keys[annotation.name]
            if annotation.name in PANELS:  # "nothing yet"
                text = "" if annotation.name in drawn else EMPTY
                if annotation.text != text:
                    annotation.text = text
                continue
            panel = next((n for title, n in texts.items() if annotation.text.startswith(title)), None)
            if panel in ("rates", "speed", "padding") and about is not None:
                text = f"{PANELS[panel][0]}, {about}"
                if annotation.text != text:
                    annotation.text = text

    def _trace(self, curve: Curve, names: dict[str, str]) -> go.Scatter | go.Bar:
        style = curve.style
        title = names.get(curve.group, curve.group)
        common: dict[str, Any] = {"name": title, "legendgroup": curve.group, "showlegend": False}
        number = AXIS[curve.panel].removeprefix("xaxis")
        common |= {"xaxis": f"x{number}", "yaxis": f"y{number}"} | _numbers(curve)
        if curve.panel == "frames":
            common |= {"hovertemplate": f"{title}: %{{y:.0f}}% at %{{x}} frames, n = %{{customdata}}"}
            return go.Bar(marker={"color": style.colour}, **common)
        line = {"color": style.colour, "dash": style.dash, "width": 1.8}
        if curve.panel == "scores":
            common["marker"] = {"symbol": style.marker, "size": 8}
            common["hovertemplate"] = f"{title}, {curve.name}, step %{{x}}: %{{y:.1f}}%, n = %{{customdata}}"
            return go.Scatter(mode="lines+markers", line=line, **common)
        if curve.panel == "rates":
            line["width"] = 3.4 if curve.style.dash == "solid" else 1.8  # equal rates lie on each other
        if curve.panel == "loss":
            common["showlegend"] = self._first(curve.group)
            line["dash"] = "solid"
        unit = PANELS[curve.panel][2]
        common["hovertemplate"] = f"{curve.key}, step %{{x}}: %{{y:.4~g}} {unit}"
        return go.Scatter(mode="lines", line=line, connectgaps=False, **common)

    def _first(self, group: str) -> bool:
        fresh = group not in self._legend
        self._legend.add(group)
        return fresh


def key_of(panel: str, found: Sequence[Curve]) -> str:
    """What the marks of a panel mean, in a line."""
    marks: dict[str, str] = {}
    for curve in found:
        if curve.panel == "scores" == panel:
            mark = SYMBOLS.get(curve.style.marker, "")
            marks.setdefault(
                curve.name, f"{mark} {curve.name}, {WORDS.get(curve.style.dash, curve.style.dash)}"
            )
        elif curve.panel == "rates" == panel:
            line = LINES.get(curve.style.dash, "━")
            marks.setdefault(
                curve.name, f'<span style="color:{curve.style.colour}">{line} {curve.name}</span>'
            )
    return "    ".join(marks.values())


def _numbers(curve: Curve) -> dict[str, Any]:
    found: dict[str, Any] = {"x": list(curve.x), "y": list(curve.y)}
    if curve.n is not None:
        found["customdata"] = list(curve.n)
    if curve.low is not None and curve.high is not None:
        values = [0.0 if y is None else y for y in curve.y]
        found["error_y"] = {
            "type": "data", "symmetric": False, "thickness": 1.2, "width": 3,
            "array": [round(h - v, 3) for h, v in zip(curve.high, values, strict=True)],
            "arrayminus": [round(v - low, 3) for low, v in zip(curve.low, values, strict=True)],
        }  # fmt: skip
    return found


def still(found: Sequence[Curve], names: dict[str, str], about: str | None) -> Figure:
    """The same panels without a browser."""
    figure = stills.figure(10.5, 6.2)
    axes = dict(zip(PANELS, figure.subplots(2, COLUMNS).flat, strict=True))
    handles: dict[str, Any] = {}
    for name, axis in axes.items():
        title, x, y = PANELS[name]
        if name in ("rates", "speed", "padding") and about:
            title += f", {about}"
        axis.set(title=title, xlabel=x, ylabel=y)
        axis.title.set_fontsize(9)
        mine = [curve for curve in found if curve.panel == name]
        if not mine:
            axis.text(0.5, 0.5, EMPTY, ha="center", transform=axis.transAxes, color="#57606a")
        if name == "frames":
            _bars(axis, mine)
            continue
        labels: set[str] = set()
        for curve in mine:
            label = curve.name if name in ("scores", "rates") and curve.name not in labels else None
            labels.add(curve.name)
            y_values = [float("nan") if v is None else v for v in curve.y]
            marker = (
                MARKERS.get(curve.style.marker) if name == "scores" and curve.style.marker in SUITES else None
            )
            dash = "-" if name == "loss" else LINE_STYLES.get(curve.style.dash, "-")
            (line,) = axis.plot(
                curve.x, y_values, color=curve.style.colour, linestyle=dash, marker=marker, ms=4, lw=1.2,
                label=label,
            )  # fmt: skip
            if curve.low is not None:
                axis.vlines(curve.x, curve.low, curve.high, color=curve.style.colour, lw=0.8)
            if name == "loss":
                handles.setdefault(names.get(curve.group, curve.group), line)
        axis.set_ylim(bottom=0)
        if labels and name in ("scores", "rates"):
            axis.legend(fontsize=7)
    if len(handles) > 1:
        figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=4, fontsize=8)
    return figure


def _bars(axis: Any, found: Sequence[Curve]) -> None:
    counts = sorted({x for curve in found for x in curve.x}, key=int)
    width = 0.8 / max(1, len(found))
    for i, curve in enumerate(found):
        places = [counts.index(x) + (i - (len(found) - 1) / 2) * width for x in curve.x]
        axis.bar(places, [y or 0.0 for y in curve.y], width, color=curve.style.colour)
    axis.set_xticks(range(len(counts)), counts)
    axis.grid(axis="y", color=GRID if GRID.startswith("#") else "#d0d4d9", lw=0.5)
