"""``Workbench()``: everything as one app. Runs above, below them a tab for each thing one can do with the chosen one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import WorkbenchError
from workbench.views.app_tabs import TABS, Found, Shows, Tab, captures_of, missing
from workbench.views.base import View
from workbench.views.browser import Entry, RunBrowser
from workbench.views.pieces import Link, Piece

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from workbench.captures import Capture
    from workbench.views.launcher import Launcher
    from workbench.views.monitor import RunMonitor

LAUNCH, MONITOR = "Launch", "Monitor"


class Workbench(View):
    """Run browser, launcher, monitor and the views of what runs and captures hold.

    Args:
        root: folder of studies and runs.
        recipes: folder of recipe files, for the launcher.

    A view is made when its tab is opened for the first time. As a ``View`` it is the one that is open: ``to_html``,
    ``save``, ``data``, ``words`` and ``caption`` are of that.

    Attributes:
        browser: what there is.
        open: title of the open tab.
        views: the views made so far for the chosen entry, by tab.
    """

    def __init__(self, root: str | Path = "runs", recipes: str | Path = "recipes") -> None:
        self.browser = RunBrowser(root)
        self.recipes = Path(recipes)
        self.open = LAUNCH
        self.views: dict[str, View] = {}
        self._launcher: Launcher | None = None
        entries = self.browser.entries
        self.chosen = next((e for e in entries if e.state == "running"), entries[0] if entries else None)
        self.browser.chosen = self.chosen

    @property
    def titles(self) -> list[str]:
        """Of the tabs, in order."""
        return [LAUNCH, MONITOR, *(tab.title for tab in TABS)]

    @property
    def chosen(self) -> Entry | None:
        """The study, job or run that the tabs show."""
        return self._chosen

    @chosen.setter
    def chosen(self, entry: Entry | None) -> None:
        self._chosen = entry
        monitor = self.views.pop(MONITOR, None)
        if monitor is not None:
            monitor.close()  # type: ignore[attr-defined]
        self.views = {}

    @property
    def machines(self) -> list[str]:
        """Names of the machines file.

        Raises:
            WorkbenchError: the file is wrong.
        """
        from workbench.machines.config import load_entries

        return list(load_entries())

    # -- what the tabs show --------------------------------------------------------------------------------

    def launcher(self) -> Launcher:
        """The launcher; one for the app. Raises ``WorkbenchError``: no recipes."""
        from workbench.views.launcher import Launcher

        if self._launcher is None:
            self._launcher = Launcher(recipes=self.recipes)
        return self._launcher

    def monitor(self) -> RunMonitor:
        """A monitor of the chosen entry.

        Raises:
            WorkbenchError: nothing is chosen, or it cannot be read.
        """
        from workbench.views.monitor import RunMonitor

        if MONITOR not in self.views:
            self.views[MONITOR] = RunMonitor(self._entry().address)
        return self.views[MONITOR]  # type: ignore[return-value]

    def captures(self, tab: Tab) -> tuple[list[Found], list[str]]:
        """The captures that a tab may show, and what could not be opened. Raises as ``monitor``."""
        return captures_of(self._entry(), tab.kinds)

    def show(self, tab: Tab, capture: Found | None = None, before: Found | None = None) -> View:
        """The view of a tab.

        Args:
            capture, before: what it shows, and what that is compared with; for tabs of captures.

        Raises:
            WorkbenchError: nothing is chosen, nothing is there yet (with the command that makes it), or what is there
                cannot be shown.
        """
        entry = self._entry()
        if not tab.of_captures:
            if entry.path is None:
                raise WorkbenchError(f"show the {tab.title.lower()}", missing(tab, entry), "Fetch it")
            whole = entry.study if tab.title == "Scores" and entry.study is not None else entry.path
            view: View = tab.kinds[""].load()(whole)
        else:
            if capture is None:
                found, problems = self.captures(tab)
                if not found:
                    said = " ".join([missing(tab, entry), *problems])
                    raise WorkbenchError(f"show {tab.title.lower()}", said, "Then press Refresh")
                capture = found[0]
            shows = tab.kinds[capture.kind]
            more = {} if before is None or not shows.before else {"before": before.load()}
            view = shows.load()(capture.load(), **self._beside(capture, shows), **more)
        self.views[tab.title] = view
        return view

    def _beside(self, capture: Found, shows: Shows) -> dict[str, Capture]:
        """Captures of other kinds that belong to this one: of the same run, checkpoint and sample."""
        others, _ = captures_of(self._entry(), shows.beside)
        same = [
            o
            for o in others
            if (o.run, o.checkpoint, o.sample) == (capture.run, capture.checkpoint, capture.sample)
        ]
        return {shows.beside[other.kind]: other.load() for other in reversed(same)}

    def _entry(self) -> Entry:
        if self._chosen is None:
            raise WorkbenchError("show it", "no run is chosen", "Choose one in the table above")
        return self._chosen

    def current(self) -> View:
        """The view in the open tab; the run browser where there is none."""
        if self.open == LAUNCH and self._launcher is not None:
            return self._launcher
        return self.views.get(self.open, self.browser)

    # -- as a view -----------------------------------------------------------------------------------------

    @property
    def title(self) -> str:  # type: ignore[override]
        return self.current().title

    def pieces(self) -> Sequence[Piece]:
        return self.current().pieces()

    def links(self) -> Sequence[Link]:
        return self.current().links()

    def data(self) -> pd.DataFrame:
        return self.current().data()

    def words(self) -> str:
        return self.current().words()

    def caption(self) -> str:
        return self.current().caption()

    def picture(self) -> Figure:
        return self.current().picture()

    @cached_property
    def shown(self) -> Any:
        """The app's widgets (``app_widget.AppShown``)."""
        from workbench.views.app_widget import AppShown

        return AppShown(self)
