"""``RunMonitor``: a run, a study or a job as it goes on; made anew from its files in any kernel at any time."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench import __version__
from workbench.errors import WorkbenchError
from workbench.views.base import View
from workbench.views.monitor_curves import Curve, curves, detailed, title_of
from workbench.views.monitor_figure import MonitorFigure, empty_figure, still
from workbench.views.monitor_source import Source, open_source
from workbench.views.monitor_words import headline, runs_table, share_done, words_of
from workbench.views.pieces import Module, Piece, Plot

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from workbench.machines.attached import Attached

FASTEST_S = 0.25  # more than four updates a second only fill the browser's queue
UNSEEN_S = (
    150.0  # a page says every 20 s that it is there (a hidden one once a minute): longer, and nobody looks
)
AWAY_S = 10.0  # between two looks at a machine that does not answer, at most


class RunMonitor(View):
    """Loss, learning rates, throughput, padding, frames and scores of what trains now or has trained.

    Args:
        where: folder of a run or a study; ``MACHINE:JOB`` or ``MACHINE:JOB/RUN``; or what ``workbench.attach`` gave.
        every_s: seconds between two looks in a notebook, at least a quarter.

    In a notebook it follows until the end, while somebody looks at it: a page that was closed stops it, a page that
    comes back starts it again. It only reads, but for ``stop()`` and ``checkpoint()``.

    Raises:
        WorkbenchError: there is nothing of that name, or its machine does not answer.
    """

    def __init__(self, where: str | Path | Attached, every_s: float = 0.5) -> None:
        self.source: Source = open_source(where)
        self.every_s = max(FASTEST_S, every_s)
        self.title = f"Monitor of {self.source.address}"
        self.chosen: str | None = None
        self._lock = threading.RLock()  # the follower and the reader's clicks come from different threads
        self._note, self._away = "", ""
        self._waiting: dict[str, int] = {}  # checkpoints that there were when another was asked for
        self._kept: dict[Any, list[Curve]] = {}
        self._follower: threading.Thread | None = None
        self._closed = threading.Event()
        self._seen = time.monotonic()
        self.source.read()

    # -- what it is made of --------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Read what is new; what a notebook shows follows.

        Raises:
            WorkbenchError: it cannot be read now; what was read before stays.
        """
        with self._lock:
            self.source.read()
            self._away = ""
            self._draw()

    def curves(self) -> list[Curve]:
        """What the panels show now."""
        with self._lock:
            return curves(self.source, self.chosen, self._kept)

    def pieces(self) -> Sequence[Piece]:
        figure = empty_figure()
        self._update(MonitorFigure(figure))
        return [Module("state", "runs", self._state(live=False)), Plot("curves", figure)]

    def data(self) -> pd.DataFrame:
        import pandas as pd

        rows = [
            {"panel": c.panel, "curve": c.key, "x": x, "y": y}
            | ({"low": c.low[i], "high": c.high[i]} if c.low and c.high else {})
            | ({"n": c.n[i]} if c.n else {})
            for c in self.curves()
            for i, (x, y) in enumerate(zip(c.x, c.y, strict=True))
            if y is not None
        ]
        return pd.DataFrame(rows, columns=["panel", "curve", "x", "y", "low", "high", "n"])

    def words(self) -> str:
        return words_of(self.source, self.curves())

    def caption(self) -> str:
        source = self.source
        recipe = f"recipe {source.recipe['name']}; " if source.recipe.get("name") else ""
        runs = f"{len(source.runs)} run{'s' if len(source.runs) != 1 else ''}"
        seeds = sorted({record.seed for record in source.runs.values()})
        return (
            f"{source.address}: {recipe}{runs}, seed{'s' if len(seeds) != 1 else ''} "
            f"{', '.join(map(str, seeds)) or 'not known yet'}. Loss, throughput and padding: moving means over 11 steps. "
            "Scores: mean over skills of the questions asked at every step, 95% intervals over questions"
            f"{' and seeds' if len(seeds) > 1 else ''}. workbench {__version__}, {time.strftime('%Y-%m-%d')}."
        )

    def picture(self) -> Figure:
        return still(self.curves(), self._names(), detailed(self.source, self.chosen))

    def _names(self) -> dict[str, str]:
        arms = {record.arm for record in self.source.runs.values()}
        return {arm: title_of(self.source, arm) for arm in arms}

    def _update(self, figure: MonitorFigure) -> None:
        figure.update(self.curves(), self._names(), detailed(self.source, self.chosen))

    def _state(self, live: bool) -> dict[str, Any]:
        source = self.source
        return {
            "state": "away" if self._away else source.state,
            "headline": headline(source),
            "share": share_done(source),
            "error": self._away or source.error,
            "note": self._note,
            "runs": runs_table(source),
            "words": self.words() if live else "",  # a page of its own has them already
            "live": live,
        }

    # -- asking --------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Ask it to finish its step, save and end.

        Raises:
            WorkbenchError: it has ended, or does not answer.
        """
        self._ask("stop", "Asked to stop: it finishes its step, saves and ends.")

    def checkpoint(self) -> None:
        """Ask for a checkpoint at the next step, of the chosen run or of all that work. Raises as ``stop``."""
        self._ask("checkpoint", "A checkpoint follows the next step.")

    def _ask(self, what: str, said: str) -> None:
        with self._lock:
            self.source.ask(what, self.chosen if what == "checkpoint" else None)
            known = {name: len(record.checkpoints) for name, record in self.source.runs.items()}
            self._waiting = known if what == "checkpoint" else {}
            self._note = f"{time.strftime('%H:%M:%S')} {said}"
            self._draw()

    def _notice(self) -> None:
        for name, before in self._waiting.items():
            if (record := self.source.runs.get(name)) and len(record.checkpoints) > before:
                self._note = (
                    f"{time.strftime('%H:%M:%S')} {name} wrote the checkpoint {record.checkpoints[-1]}."
                )
                self._waiting = {}
                return

    # -- in a notebook -------------------------------------------------------------------------------------

    @cached_property
    def shown(self) -> Any:
        """The widgets (``monitor_controls.MonitorShown``)."""
        from workbench.views.monitor_controls import MonitorShown

        with self._lock:
            return MonitorShown(self, self._state(live=True), empty_figure(), self.caption(), self._answer)

    @property
    def widget(self) -> Any:
        """The widget; from now on it follows."""
        box = self.shown.box
        with self._lock:
            self._draw()
            self.follow()
        return box

    def follow(self) -> None:
        """Go on looking, in the background, until the end or until nobody looks."""
        with self._lock:
            self._seen = time.monotonic()
            working = self._follower is not None and self._follower.is_alive()
            if not working and not self._closed.is_set() and not self.source.ended:
                arguments = (weakref.ref(self), self._closed)
                self._follower = threading.Thread(target=_follow, args=arguments, daemon=True)
                self._follower.start()

    @property
    def following(self) -> bool:
        """Whether the background thread works."""
        return self._follower is not None and self._follower.is_alive()

    def close(self) -> None:
        """Stop following and take the widgets away; the run is not touched."""
        self._closed.set()
        if self._follower is not None and self._follower is not threading.current_thread():
            self._follower.join(5)
        if "shown" in self.__dict__:
            self.shown.close()

    def choose(self, run: str | None) -> None:
        """Show one run, or all (None)."""
        with self._lock:
            self.chosen = run
            self._draw()

    def _answer(self, question: dict[str, Any]) -> Any:
        self.follow()
        return {}

    def _draw(self) -> None:
        """Bring the widgets, where there are any, up to what was read."""
        if "shown" not in self.__dict__ or self._closed.is_set():
            return
        self._notice()
        self.shown.draw(self._state(live=True), self.source.ended)
        self._update(self.shown.curves)

    def _look(self) -> float | None:
        """One look of the follower: seconds to the next one, None when there is nothing more to see."""
        with self._lock:
            if self._closed.is_set() or time.monotonic() - self._seen > UNSEEN_S:
                return None
            began = time.monotonic()
            try:
                self.source.read()
                self._away = ""
            except (
                WorkbenchError,
                OSError,
                ValueError,
            ) as error:  # a cut line, a file that is being replaced
                self._away = str(error)
            self._draw()
            if self.source.ended and not self._away:
                return None
            spent = time.monotonic() - began  # a look that takes long takes place less often
            return AWAY_S if self._away else max(self.every_s, 2 * spent)


def _follow(reference: weakref.ref[RunMonitor], closed: threading.Event) -> None:
    """Looks again and again. Holds the view only while it looks: one that nobody has any more ends it."""
    pause: float | None = FASTEST_S
    while pause is not None and not closed.wait(pause):
        view = reference()
        if view is None:
            return
        pause = view._look()
        del view
