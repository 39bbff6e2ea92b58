"""A view's pieces as Jupyter widgets. Imported only when a view is shown in a notebook."""

from __future__ import annotations

import copy
import functools
import html
import threading
from collections.abc import Sequence
from importlib import resources
from typing import Any

import anywidget
import ipywidgets
import plotly.graph_objects as go
import traitlets

from workbench.errors import WorkbenchError
from workbench.views.payload import STATE_LIMIT, jsonable, size_of
from workbench.views.pieces import Answer, Link, Module, Piece, Plot, plain_figure


class ModuleWidget(anywidget.AnyWidget):
    """One front-end module. ``data`` goes to the browser, ``picks`` both ways, questions are answered in JSON."""

    data = traitlets.Dict().tag(sync=True)
    picks = traitlets.Dict().tag(sync=True)

    def __init__(self, piece: Module) -> None:
        state = jsonable(piece.data)
        if (size := size_of(state)) > STATE_LIMIT:
            raise WorkbenchError(
                f"show the view's part {piece.name!r}",
                f"its state takes {size:,} bytes, more than the {STATE_LIMIT:,} that a notebook should keep",
                "Show fewer queries, layers or frames",
            )
        self._answer: Answer | None = piece.answer
        self._lock = threading.Lock()  # ipykernel may run handlers on other threads
        super().__init__(data=state, picks=jsonable(dict(piece.picks)))
        self.on_msg(self._asked)

    def show(self, data: Any) -> None:
        """Replace what is shown."""
        self.data = jsonable(data)

    def pick(self, **picks: Any) -> None:
        """Choose, as the reader would."""
        self.picks = self.picks | jsonable(picks)

    def _asked(self, _: Any, content: Any, buffers: Any) -> None:
        if not isinstance(content, dict) or "asks" not in content:
            return
        reply: dict[str, Any] = {"answers": content["asks"]}
        try:
            if self._answer is None:
                raise WorkbenchError("answer", "this view has nothing more to show", "Nothing is to be done")
            with self._lock:
                reply["answer"] = jsonable(self._answer(content["question"]))
        except Exception as error:  # the view says what went wrong and stays usable
            reply["error"] = str(error) or type(error).__name__
        self.send(reply)


@functools.cache
def widget_class(module: str) -> type[ModuleWidget]:
    """The class whose browser side is ``static/MODULE.js``."""
    static = resources.files("workbench.views") / "static"
    texts = {
        key: (static / name).read_text("utf-8")
        for key, name in (("_esm", f"{module}.js"), ("_css", "views.css"))
    }
    return type(f"{module.title().replace('_', '')}Widget", (ModuleWidget,), texts)


def fitting() -> ModuleWidget:
    """What keeps the plots of the box that it is put into as wide as their places; it shows nothing."""
    return widget_class("fit")(Module("fit", "fit", {}))


class Figure(go.FigureWidget):
    """A figure as wide as its place (see ``fitting``), and whose state is the one it has now: a page that is loaded again
    gets what was drawn since, too.
    """

    def __init__(self, *arguments: Any, **values: Any) -> None:
        super().__init__(*arguments, **values)
        self._config: dict[str, Any] = {**self._config, "responsive": True, "displaylogo": False}

    def get_state(self, key: Any = None, drop_defaults: bool = False) -> Any:
        state = super().get_state(key, drop_defaults)
        if "_data" not in self.__dict__:  # the widget opens before the figure is in it
            return state
        now = {"_widget_data": self._data, "_widget_layout": self._layout_obj._props}
        return state | {name: copy.deepcopy(value) for name, value in now.items() if name in state}


class PlotWidget:
    """A plotly figure widget whose clicked points become picks."""

    def __init__(self, piece: Plot) -> None:
        self.widget = Figure(plain_figure(piece.figure))
        self.picks: dict[str, Any] = dict(piece.picks)
        self._listeners: list[Any] = []
        for trace in self.widget.data:
            if trace.customdata is not None and any(isinstance(c, dict) for c in trace.customdata):
                trace.on_click(self._clicked)

    def observe(self, listener: Any) -> None:
        self._listeners.append(listener)

    def pick(self, **picks: Any) -> None:
        """Choose, as a click would."""
        self.picks = self.picks | picks
        for listener in self._listeners:
            listener(self.picks)

    def _clicked(self, trace: Any, points: Any, state: Any) -> None:
        if points.point_inds and isinstance(chosen := trace.customdata[points.point_inds[0]], dict):
            self.pick(**chosen)


class Shown:
    """The widgets of one view, linked.

    Attributes:
        widgets: by piece name: ``ModuleWidget`` or ``PlotWidget``.
        box: what a cell shows.
    """

    def __init__(
        self, title: str, pieces: Sequence[Piece], links: Sequence[Link], caption: str, words: str
    ) -> None:
        self.widgets: dict[str, ModuleWidget | PlotWidget] = {
            piece.name: PlotWidget(piece) if isinstance(piece, Plot) else widget_class(piece.module)(piece)
            for piece in pieces
        }
        for link in links:
            self._link(link)
        inner = [w.widget if isinstance(w, PlotWidget) else w for w in self.widgets.values()]
        note = (
            f'<div class="wb"><p class="wb-caption">{html.escape(caption)}</p>'
            f"<details><summary>In words</summary><p>{html.escape(words)}</p></details></div>"
        )
        heading = ipywidgets.HTML(f"<h3>{html.escape(title)}</h3>") if title else None
        fit = [fitting()] if any(isinstance(piece, Plot) for piece in pieces) else []
        self.box = ipywidgets.VBox([*([heading] if heading else []), *inner, *fit, ipywidgets.HTML(note)])

    def _link(self, link: Link) -> None:
        source, target = self.widgets[link.source], self.widgets[link.target]

        def follow(picks: dict[str, Any]) -> None:
            if link.key in picks and target.picks.get(link.to) != picks[link.key]:
                target.pick(**{link.to: picks[link.key]})

        if isinstance(source, PlotWidget):
            source.observe(follow)
        else:
            source.observe(lambda change: follow(change["new"]), "picks")
