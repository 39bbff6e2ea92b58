"""What both models attended to on a flipped sample, for ``ScoreView``: made when it is asked for, or carried by a page.

One flipped answer is a *look* (``flips_piece.look_key``): point, suite, sample and the first seed in which it flipped.
Captures are made where they are missing (``AttentionView.of_sample``), which loads torch; scores alone never do.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from workbench.errors import WorkbenchError
from workbench.views.flips import DIRECTIONS
from workbench.views.flips_piece import FlipsPiece, Look
from workbench.views.payload import STATE_LIMIT
from workbench.views.pieces import Module

if TYPE_CHECKING:
    from workbench.views.attention import AttentionView
    from workbench.views.widget import ModuleWidget, Shown

ROOM = STATE_LIMIT - 200_000  # bytes of one sample's attention in a notebook
PAGE_ROOM = 6_000_000  # bytes of single heads that all samples of a page carry together
HOW = (
    "Open this view in a notebook beside the study and choose the sample there, or export the page again with "
    'to_html(path, attention=8) or attention=["the sample\'s id"]'
)


class FlipAttention:
    """Attention of flipped samples, before (the base of the seed) and after.

    Args:
        piece: the flips that are shown.
    """

    def __init__(self, piece: FlipsPiece) -> None:
        self.piece = piece
        self.views: dict[
            str, AttentionView
        ] = {}  # in a notebook the one that is shown, on a page those it carries
        self._lock = threading.Lock()  # around what is wanted and shown
        self._making = (
            threading.Lock()
        )  # one sample at a time: a sample that is no longer wanted is not begun
        self._wanted = ""

    # -- one sample --------------------------------------------------------------------------------

    def view(self, look: str) -> AttentionView:
        """Base and this model on one flipped sample.

        Raises:
            WorkbenchError: the point is not the end of a finished run (no checkpoint is kept on the way), the
                checkpoints or data are gone, torch is not installed.
        """
        return self._made(self.piece.look(look))

    def _made(self, look: Look) -> AttentionView:
        results = self.piece.results
        if results.final_steps.get(look.arm) != look.step or (look.arm, look.seed) not in results.finished:
            raise WorkbenchError(
                f"look at sample {look.sample} at step {look.step}",
                "weights are kept at the end of a run only, and this point is on the way",
                "Choose the end of an arm that has finished",
            )
        try:
            from workbench.views.attention import AttentionView

            return AttentionView.of_sample(results.directory, look.sample, look.arm, look.seed, look.suite)
        except ImportError as error:
            raise WorkbenchError(
                f"look at sample {look.sample}", f"{error.name} is not installed", "pip install -e ."
            ) from error

    # -- the piece ---------------------------------------------------------------------------------

    def module(self, on_page: bool) -> Module:
        """The piece ``attention``: empty until a sample is chosen, or with what a page carries."""
        marked = "a sample that is marked “on this page”" if on_page else "a flipped sample"
        empty = f"Choose {marked} above: what both models attend to appears here."
        choices = {look: view.export_data(ROOM) for look, view in self.views.items()} if on_page else {}
        data = {"choices": choices, "empty": empty}
        return Module("attention", "attention", data, {}, self.answer, self.carried)

    def answer(self, question: dict[str, Any]) -> Any:
        """A question about one of the samples shown. Raises WorkbenchError."""
        view = self.views.get(str(question.get("sample")))
        if view is None:
            raise WorkbenchError(
                "show that sample's attention", "another one is shown now", "Choose it again"
            )
        return view.answer(question)

    def carried(self) -> list[tuple[dict[str, Any], Any]]:
        """What an exported page answers by itself."""
        room = PAGE_ROOM // max(1, len(self.views))
        return [pair for look, view in self.views.items() for pair in view.carried(look, room)]

    def carry(self, wanted: int | Sequence[str]) -> list[WorkbenchError]:
        """Make the attention of some flipped samples for a page; what stood in the way of those that could not be made.

        Args:
            wanted: so many, taken in turn from both directions of every arm's end; or sample ids, at every end where
                they flipped.

        Raises:
            WorkbenchError: a sample that flipped at no end.
        """
        self.views = {}
        problems: list[WorkbenchError] = []
        for look in self._chosen(wanted):
            try:
                self.views[look.key] = self._made(look)
            except WorkbenchError as error:
                problems.append(error)
                if isinstance(wanted, int) and not self.views:
                    break  # without data or checkpoints none of the others can be made
        return problems

    def _chosen(self, wanted: int | Sequence[str]) -> list[Look]:
        ends = [key for key in self.piece.keys if self.piece.is_end(key)]
        rows = {key: self.piece.rows(key)["rows"] for key in ends}
        if isinstance(wanted, int):
            lists = [[r for r in listed if r["way"] == way] for listed in rows.values() for way in DIRECTIONS]
            turns = (row for turn in itertools.zip_longest(*lists) for row in turn if row is not None)
            return [self.piece.look(row["look"]) for row in itertools.islice(turns, max(0, wanted))]
        found = []
        for sample in wanted:
            mine = [row["look"] for listed in rows.values() for row in listed if row["sample"] == sample]
            if not mine:
                raise WorkbenchError(
                    f"carry the attention of sample {sample}",
                    "it flipped at the end of no arm, or is not among the samples listed",
                    "Take an id from ScoreView.flipped(arm)",
                )
            found += [self.piece.look(look) for look in mine]
        return found

    # -- in a notebook -----------------------------------------------------------------------------

    def follow(self, shown: Shown) -> None:
        """Show a sample's attention when it is chosen among the flips; captures are made on a thread of their own."""
        flips, attention = (cast("ModuleWidget", shown.widgets[name]) for name in ("flips", "attention"))

        def chosen(change: Any) -> None:
            look = str(change["new"].get("look") or "")
            with self._lock:
                if look == self._wanted:
                    return
                self._wanted = look
            if look:
                threading.Thread(target=self._show, args=(look, flips, attention), daemon=True).start()

        flips.observe(chosen, "picks")

    def _show(self, look: str, flips: ModuleWidget, attention: ModuleWidget) -> None:
        def say(words: str, busy: bool = False) -> None:
            flips.pick(status={"look": look, "words": words, "busy": busy})

        say("Looking: both models are shown this sample; the first time takes some seconds…", busy=True)
        try:
            with self._making:
                if look != self._wanted:
                    return
                view = self.view(look)
                data = view.export_data(ROOM)
        except Exception as error:  # the view says what went wrong and stays usable
            say(f"Its attention is not shown: {error or type(error).__name__}")
            return
        with self._lock:
            if look != self._wanted:  # another one was chosen meanwhile
                return
            self.views = {look: view}
            attention.show({"choices": {look: data}, "empty": "Choose a flipped sample above."})
            attention.pick(sample=look, **view.picks)
        say("Below: what the base attended to, and what this model attends to.")
