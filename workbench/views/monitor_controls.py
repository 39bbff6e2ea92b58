"""A monitor's widgets: state, controls, curves. Imported only when it is shown in a notebook."""

from __future__ import annotations

import functools
import html
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ipywidgets
import plotly.graph_objects as go

from workbench.errors import WorkbenchError
from workbench.views.monitor_figure import MonitorFigure
from workbench.views.pieces import Module, Plot
from workbench.views.widget import ModuleWidget, PlotWidget, fitting, widget_class

if TYPE_CHECKING:
    from workbench.views.monitor import RunMonitor

ALL = "all runs"


class MonitorShown:
    """The widgets of one monitor."""

    def __init__(
        self,
        view: RunMonitor,
        state: dict[str, Any],
        figure: go.Figure,
        caption: str,
        answer: Callable[[dict[str, Any]], Any],
    ) -> None:
        self.state: ModuleWidget = widget_class("runs")(Module("state", "runs", state, answer=answer))
        self.plot = PlotWidget(Plot("curves", figure))
        self.widgets = {"state": self.state, "curves": self.plot}
        self.curves = MonitorFigure(self.plot.widget)
        self._view, self._quiet = view, False
        wide = {"width": "auto"}  # a mapping: each widget gets a layout of its own, which may be hidden alone
        self.runs = ipywidgets.Dropdown(options=[ALL], description="Show:", layout=wide)
        self.runs.observe(lambda change: self._choose(change["new"]), "value")
        button = functools.partial(ipywidgets.Button, layout=wide)
        self.checkpoint = button(
            description="Checkpoint now", tooltip="Write a checkpoint after the next step"
        )
        self.stop = button(description="Stop …", tooltip="Finish the step, save and end; asks first")
        self.sure = button(description="Yes, stop it", button_style="danger")
        self.go_on = button(description="No, let it go on")
        self.again = button(description="Look again", tooltip="Read what was written meanwhile")
        self.checkpoint.on_click(self._safely(view.checkpoint))
        self.stop.on_click(lambda _: self._confirm(True))
        self.sure.on_click(self._safely(functools.partial(self._confirm, False), view.stop))
        self.go_on.on_click(lambda _: self._confirm(False))
        self.again.on_click(self._safely(view.refresh, view.follow))
        question = ipywidgets.Label("Stop after this step, saving first?")
        self.question = ipywidgets.HBox([question, self.sure, self.go_on], layout={"display": "none"})
        self.controls = ipywidgets.HBox(
            [self.runs, self.checkpoint, self.stop, self.question, self.again],
            layout={"flex_flow": "row wrap"},
        )
        self.said = ipywidgets.HTML()
        self.caption = ipywidgets.HTML()
        self._caption = ""
        self._say_caption(caption)
        heading = ipywidgets.HTML(f"<h3>{html.escape(view.title)}</h3>")
        parts = [heading, self.state, self.controls, self.said, self.plot.widget, fitting(), self.caption]
        self.box = ipywidgets.VBox(parts)

    def draw(self, state: dict[str, Any], ended: bool) -> None:
        """Follow a state; only what changed is sent."""
        if self.state.data != state:
            self.state.show(state)
        names = [run["name"] for run in state["runs"]]
        if list(self.runs.options) != [ALL, *names]:
            chosen = self.runs.value
            self._quiet = True  # new options choose the first of them
            self.runs.options = [ALL, *names]
            self.runs.value = chosen if chosen in names else ALL
            self._quiet = False
        self.runs.layout.display = None if len(names) > 1 else "none"
        for button in (self.checkpoint, self.stop, self.sure):
            button.disabled = ended
        if ended:
            self._confirm(False)
        self._say_caption(self._view.caption())

    def _choose(self, name: str) -> None:
        if not self._quiet:
            self._view.choose(None if name == ALL else name)

    def close(self) -> None:
        """Take the widgets out of the page and out of the kernel."""
        for widget in (*self.question.children, *self.controls.children, *self.box.children, self.box):
            widget.close()

    def _confirm(self, open_: bool) -> None:
        display = None if open_ else "none"
        if self.question.layout.display != display:
            self.question.layout.display = display
            self.stop.layout.display = "none" if open_ else None

    def _say_caption(self, text: str) -> None:
        if text != self._caption:
            self._caption = text
            self.caption.value = f'<div class="wb"><p class="wb-caption">{html.escape(text)}</p></div>'

    def _safely(self, *steps: Callable[[], Any]) -> Callable[[Any], None]:
        """A handler that says what went wrong beside the buttons and stays usable."""

        def handler(_: Any) -> None:
            try:
                for step in steps:
                    step()
                text = ""
            except WorkbenchError as error:
                text = f'<div class="wb"><p class="wb-note" role="alert">{html.escape(str(error))}</p></div>'
            if self.said.value != text:
                self.said.value = text

        return handler
