"""One figure of a study that is still running: loss of every task, image and video scores of every arm.

All data go in as plain Python lists: as a widget's state they then travel as text. Binary buffers break
Jupyter behind a gateway (ipywidgets#3798).
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.study.arms import BASE
from workbench.study.curves import curve_table
from workbench.study.intervals import seed_means
from workbench.study.results import StudyResults
from workbench.study.snapshot import Snapshot, TaskNow
from workbench.views.theme import BASE_COLOUR, Style, arm_styles, layout

PANELS = {"image": 2, "video": 3}  # measure -> column; the loss is in column 1
SMOOTH = 11  # steps of the moving mean that makes a noisy loss readable
POINTS = 400  # of one loss curve at most: a picture has no more pixels
SPAN = 20.0  # points of score that a score axis shows at least


class LiveFigure:
    """``figure`` grows with every ``update``. Its traces never change in number: an update is one message."""

    def __init__(self, snapshot: Snapshot, widget: bool = False) -> None:
        study = snapshot.study
        hidden = set(study.get("hidden") or ())
        self._arms = [name for name in study["arms"] if name != BASE and name not in hidden]
        self._look = {name: Style(BASE_COLOUR, "circle", "solid") for name in hidden} | arm_styles(self._arms)
        self._keys: dict[tuple[str, str], int] = {}
        titles = ["Training loss, base then arms", "Images, % right", "Videos, % right"]
        drawing = make_subplots(rows=1, cols=3, subplot_titles=titles, horizontal_spacing=0.07)
        for name in (BASE, *self._arms):
            for panel in PANELS:
                self._add(
                    drawing, name, panel, PANELS[panel], self._score_style(name, panel, study["arms"][name])
                )
        for now in snapshot.tasks:
            line = {"color": self._look[now.task.arm].colour, "width": 1.6}
            self._add(drawing, now.task.id, "loss", 1, {"mode": "lines", "line": line, "showlegend": False})
        drawing.update_xaxes(title_text="training step")
        drawing.update_xaxes(
            title_text="Video-SFT step", range=[-0.04 * _steps(snapshot), 1.04 * _steps(snapshot)], col=2
        )
        drawing.update_xaxes(
            title_text="Video-SFT step", range=[-0.04 * _steps(snapshot), 1.04 * _steps(snapshot)], col=3
        )
        drawing.update_yaxes(rangemode="tozero", col=1)
        for column in PANELS.values():
            drawing.update_yaxes(range=[0, 100], col=column)
        layout(drawing, 380, margin={"l": 48, "r": 16, "t": 84, "b": 52}, autosize=True)
        self.figure: go.Figure = go.FigureWidget(drawing) if widget else drawing
        self.update(snapshot)

    def update(self, snapshot: Snapshot) -> None:
        """Bring every curve up to the snapshot."""
        lines = self._losses(snapshot) | (self._scores(snapshot.results) if snapshot.results else {})
        with self.figure.batch_update():
            for key, (x, y) in lines.items():
                trace = self.figure.data[self._keys[key]]
                if len(trace.x or ()) != len(x) or list(trace.y) != y:
                    trace.x, trace.y = x, y
            for panel, column in PANELS.items():
                values = [v for (_, of), (_, y) in lines.items() if of == panel for v in y if v is not None]
                if values:
                    self.figure.update_yaxes(range=_range(values), col=column)

    def _add(self, drawing: go.Figure, name: str, panel: str, column: int, how: Mapping[str, object]) -> None:
        self._keys[name, panel] = len(drawing.data)
        drawing.add_trace(go.Scatter(x=[], y=[], **how), row=1, col=column)

    def _score_style(self, name: str, panel: str, title: str) -> dict[str, object]:
        style = self._look[name]
        return {
            "mode": "lines+markers",
            "name": "base" if name == BASE else title,
            "legendgroup": name,
            "showlegend": panel == "image",
            "line": {"color": style.colour, "dash": style.dash, "width": 2.2},
            "marker": {"symbol": style.marker, "size": 12 if name == BASE else 8},
            "hovertemplate": f"{title}, step %{{x}}: %{{y:.1f}}%<extra></extra>",
        }

    def _losses(self, snapshot: Snapshot) -> dict[tuple[str, str], tuple[list[int], list[float | None]]]:
        ends = {now.task.seed: now.total or 0 for now in snapshot.tasks if now.task.arm == BASE}
        return {
            (now.task.id, "loss"): _smooth(now, 0 if now.task.arm == BASE else ends.get(now.task.seed, 0))
            for now in snapshot.tasks
        }

    def _scores(self, results: StudyResults) -> dict[tuple[str, str], tuple[list[int], list[float | None]]]:
        found: dict[tuple[str, str], tuple[list[int], list[float | None]]] = {}
        table = curve_table(results)
        for panel in PANELS:
            base = results.select(BASE, panel)
            if len(base):
                found[BASE, panel] = ([0], [round(float(seed_means(base).mean()), 3)])
            for name in self._arms:
                rows = table[(table["arm"] == name) & (table["measure"] == panel)]
                found[name, panel] = (
                    [int(s) for s in rows["step"]],
                    [round(float(v), 3) for v in rows["mean"]],
                )
            starts = [found[name, panel][1][0] for name in self._arms if found[name, panel][1]]
            if len(set(starts)) == 1 and BASE in {key for key, of in found if of == panel}:
                found[BASE, panel] = ([0], starts[:1])  # over the questions that the arms' curves use
        return found


def _steps(snapshot: Snapshot) -> int:
    """Steps of the longest arm, as the recipe says."""
    arms = (snapshot.recipe.get("arms") or {}).items()
    used = {now.task.arm for now in snapshot.tasks}
    return (
        max(
            (sum(stage.get("steps") or 0 for stage in arm["stages"]) for name, arm in arms if name in used),
            default=0,
        )
        or 100
    )


def _smooth(now: TaskNow, start: int) -> tuple[list[int], list[float | None]]:
    """The moving mean of a loss, thinned; stages are apart (their losses measure different things)."""
    x: list[int] = []
    y: list[float | None] = []
    every = max(1, len(now.losses) // POINTS)
    for _, rows in now.losses.groupby("stage", sort=False):
        mean = rows["loss"].rolling(SMOOTH, min_periods=1, center=True).mean()
        kept = pd.DataFrame({"step": rows["step"], "loss": mean}).dropna().iloc[::every]
        x += [start + int(step) for step in kept["step"]]
        y += [round(float(loss), 4) for loss in kept["loss"]]
        if len(kept):
            x.append(x[-1])
            y.append(None)
    return x, y


def _range(values: list[float]) -> list[float]:
    low, high = min(values), max(values)
    spare = max(0.12 * (high - low), (SPAN - (high - low)) / 2, 3.0)
    return [round(max(0.0, low - spare), 2), round(min(102.0, high + spare), 2)]
