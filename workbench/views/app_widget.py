"""The app's widgets. Imported only when it is shown in a notebook."""

from __future__ import annotations

import functools
import html
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ipywidgets

from workbench.errors import WorkbenchError
from workbench.views.app_tabs import TABS, Found, Tab
from workbench.views.pieces import Module
from workbench.views.widget import ModuleWidget, widget_class

if TYPE_CHECKING:
    from workbench.views.app import Workbench

NO_MACHINE, ANY = "none", "all samples"


class AppShown:
    """Browser above, tabs below; a tab's content is made when it is opened."""

    def __init__(self, view: Workbench) -> None:
        self.view = view
        picks = {"run": view.chosen.name} if view.chosen is not None else {}
        table = Module("runs", "table", view.browser.table(), picks)
        self.runs: ModuleWidget = widget_class("table")(table)
        self.runs.observe(lambda change: self._choose(change["new"].get("run")), "picks")
        wide = {"width": "300px"}
        self.filter = ipywidgets.Text(
            description="Filter:", placeholder="words that a row contains", layout=wide
        )
        self.filter.observe(lambda change: self._filter(change["new"]), "value")
        self.machine = ipywidgets.Dropdown(description="Jobs of:", options=[NO_MACHINE], layout=wide)
        self.refresh = ipywidgets.Button(description="Refresh", tooltip="Look again at files and machines")
        self.refresh.on_click(lambda _: self._refresh())
        self.said, self.chosen = ipywidgets.HTML(), ipywidgets.HTML()
        try:
            self.machine.options = [NO_MACHINE, *view.machines]
        except WorkbenchError as error:
            self.said.value = _note(str(error))
        self.machine.observe(lambda _: self._refresh(), "value")
        self.panels = [_Launch(view), _Monitor(view), *(_Panel(view, tab) for tab in TABS)]
        self.tabs = ipywidgets.Tab([panel.box for panel in self.panels], titles=view.titles)
        self.tabs.observe(lambda change: self._open(change["new"]), "selected_index")
        self.tabs.selected_index = view.titles.index(view.open)
        bar = ipywidgets.HBox([self.filter, self.machine, self.refresh], layout={"flex_flow": "row wrap"})
        heading = ipywidgets.HTML("<h3>Workbench</h3>")
        self.box = ipywidgets.VBox([heading, bar, self.said, self.runs, self.chosen, self.tabs])
        self._name_chosen()
        self._open(self.tabs.selected_index)

    def _choose(self, name: str | None) -> None:
        entry = self.view.browser.find(name or "")
        if entry is None or (self.view.chosen is not None and entry.name == self.view.chosen.name):
            return
        self.view.chosen = self.view.browser.chosen = entry
        self._name_chosen()
        for panel in self.panels:
            panel.stale = True
        self._open(self.tabs.selected_index)

    def _name_chosen(self) -> None:
        entry = self.view.chosen
        text = (
            f"Chosen: <b>{html.escape(entry.name)}</b>, {html.escape(entry.state)}"
            if entry
            else "Choose a run."
        )
        self.chosen.value = f'<div class="wb"><p role="status">{text}</p></div>'

    def _filter(self, text: str) -> None:
        self.view.browser.filter = text
        self.runs.show(self.view.browser.table())

    def _refresh(self) -> None:
        browser = self.view.browser
        browser.machine = None if self.machine.value == NO_MACHINE else self.machine.value
        browser.refresh()
        self.said.value = _note(browser.problem) if browser.problem else ""
        self.runs.show(browser.table())
        if self.view.chosen is None and browser.entries:
            self._choose(browser.entries[0].name)
        for panel in self.panels[2:]:
            panel.stale = True
        self._open(self.tabs.selected_index)

    def _open(self, index: int | None) -> None:
        if index is None:
            return
        self.view.open = self.view.titles[index]
        self.panels[index].open()


class _Part:
    """The content of one tab, made at its first opening and again when something else is chosen."""

    def __init__(self, view: Workbench) -> None:
        self.view, self.stale = view, True
        self.box = ipywidgets.VBox()

    def open(self) -> None:
        if not self.stale:
            return
        self.stale = False
        try:
            self.box.children = self.make()
        except WorkbenchError as error:
            self.box.children = [ipywidgets.HTML(_note(str(error)))]

    def make(self) -> list[Any]:
        raise NotImplementedError


class _Launch(_Part):
    made = False

    def make(self) -> list[Any]:
        return [self.view.launcher().widget]

    def open(self) -> None:  # what is typed belongs to no run: it stays
        self.stale = self.stale and not self.made
        super().open()
        self.made = True


class _Monitor(_Part):
    def make(self) -> list[Any]:
        return [self.view.monitor().widget]


class _Panel(_Part):
    """A view of a study or run; of captures, with what chooses them."""

    def __init__(self, view: Workbench, tab: Tab) -> None:
        super().__init__(view)
        self.tab = tab
        self.place = ipywidgets.VBox()
        self._quiet = False

    def make(self) -> list[Any]:
        if not self.tab.of_captures:
            return [self.view.show(self.tab).widget]
        self.found, problems = self.view.captures(self.tab)
        if not self.found:
            self.view.show(self.tab)  # says what is missing
        samples = list(dict.fromkeys(found.sample for found in self.found if found.sample))
        style, layout = {"description_width": "100px"}, {"width": "700px"}
        common = {"style": style, "layout": layout}
        self.sample = ipywidgets.Dropdown(description="Sample:", options=[ANY, *samples], **common)
        self.capture = ipywidgets.Dropdown(description="Capture:", **common)
        self.before = ipywidgets.Dropdown(description="Before:", **common)
        self._offer()
        for widget, follow in (
            (self.sample, self._offer),
            (self.capture, self._offer_before),
            (self.before, None),
        ):
            widget.observe(functools.partial(self._changed, follow), "value")
        self._draw()
        notes = [ipywidgets.HTML(_note(text)) for text in problems]
        return [self.sample, self.capture, self.before, *notes, self.place]

    def _changed(self, follow: Callable[[], None] | None, change: Any) -> None:
        if self._quiet:
            return
        if follow is not None:
            follow()
        self._draw()

    def _offer(self) -> None:
        wanted = [found for found in self.found if self.sample.value in (ANY, found.sample)]
        self._quiet = True
        self.capture.options = [(found.label, found) for found in wanted]
        self.capture.value = wanted[0]
        self._quiet = False
        self._offer_before()

    def _offer_before(self) -> None:
        """What the chosen one can be compared with: the same kind, of the same sample."""
        chosen: Found = self.capture.value
        same = [f for f in self.found if f.kind == chosen.kind and f.sample == chosen.sample and f != chosen]
        if not self.tab.kinds[chosen.kind].before:
            same = []
        self._quiet = True
        self.before.options = [("(nothing)", None), *((found.label, found) for found in same)]
        self.before.value = None
        self.before.disabled = not same
        self._quiet = False

    def _draw(self) -> None:
        try:
            shown = self.view.show(self.tab, self.capture.value, self.before.value)
            self.place.children = [shown.widget]
        except (WorkbenchError, KeyError, ValueError) as error:  # also a capture whose content is damaged
            self.place.children = [ipywidgets.HTML(_note(str(error) or repr(error)))]


def _note(text: str) -> str:
    return f'<div class="wb"><p class="wb-note" role="alert">{html.escape(text)}</p></div>'
