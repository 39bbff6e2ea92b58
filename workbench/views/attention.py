"""``AttentionView``: where chosen tokens look, frame by frame; every layer and head; before and after."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.captures import Capture
from workbench.errors import WorkbenchError
from workbench.probes.boxes import Box, ground_truth
from workbench.samples.sample import Sample
from workbench.views import attention_payload as payload
from workbench.views.attention_reading import KEYS, Reading
from workbench.views.attention_text import differences, readable
from workbench.views.base import View
from workbench.views.payload import STATE_LIMIT
from workbench.views.pieces import Link, Module, Piece
from workbench.views.provenance import of_capture

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from workbench.views.effects import EffectView

STATE_ROOM = STATE_LIMIT - 100_000
Boxes = Box | Sequence[float] | Sequence[Box] | Sample | None


class AttentionView(View):
    """Attention rows of one conversation over its frames.

    Args:
        capture: of the kind ``attention_rows``; ``queries="text"`` lets one pick every token and tells sinks.
        before: the same sample, frames and queries seen by an earlier checkpoint. One that cannot be compared is left out,
            and the view says what differs.
        knockout, attribution: captures of the same sample; shown below by ``EffectView``.
        box: of the object: one or several boxes in pixels of source frames, or the sample, whose ground truth is then
            read from beside its data.

    Raises:
        WorkbenchError: a capture of another kind, a box outside the frame, a sample without ground truth.
    """

    def __init__(
        self,
        capture: Capture,
        before: Capture | None = None,
        knockout: Capture | None = None,
        attribution: Capture | None = None,
        box: Boxes = None,
    ) -> None:
        boxes = _boxes(box)
        self.reading = Reading(capture, boxes)
        self.sides: payload.Sides = {"after": self.reading}
        self.notes: list[str] = []
        if before is not None:
            if against := differences(capture, before):
                self.notes.append(
                    f"The capture given as “before” cannot be compared and is left out: {'; '.join(against)}."
                )
            else:
                self.sides["before"] = Reading(before, boxes)
        if self.reading.strip is None:
            self.notes.append("This conversation has no frames: there is nothing visual to look at.")
        self._state: tuple[tuple[int, dict[str, int]], dict[str, Any]] | None = None
        self.effects: EffectView | None = None
        if knockout is not None:
            from workbench.views.effects import EffectView

            self.effects = EffectView(knockout, capture, attribution)
        elif attribution is not None:
            self.notes.append("An attribution is shown beside a knockout of the same sample: give that too.")
        self._tokens = readable(capture.meta.get("tokens") or [])
        sample = capture.meta.get("sample") or {}
        asked = str(sample.get("question") or sample.get("id") or "a conversation")
        self.title = f"Attention: {asked if len(asked) <= 100 else asked[:99] + '…'}"
        self.picks: dict[str, Any] = {
            "query": self.reading.start(),
            "layer": len(self.reading.layers) // 2,
            "head": 0,
            "frame": 0,
            "side": "after",
            "box": None,
        }

    @classmethod
    def of_sample(
        cls, study_dir: str | Path, sample_id: str, arm: str, seed: int, suite: str
    ) -> AttentionView:
        """One sample of a study as its base and an arm see it; captures are made where they are missing.

        Frames: one for an image; for a video as many as the arm's own scores say it was shown.

        Raises:
            WorkbenchError: no such run, sample or score; or the captures are missing and the checkpoints are gone.
        """
        from workbench.views.attention_study import of_sample

        return of_sample(study_dir, sample_id, arm, seed, suite)

    @classmethod
    def of(
        cls,
        where: str | Path,
        sample_id: str,
        frames: int | None = None,
        *,
        arm: str | None = None,
        seed: int | None = None,
        suite: str | None = None,
    ) -> AttentionView:
        """One sample as a run sees it, and before it the base of its study; see ``of_sample``.

        Args:
            where: a run directory, or a study directory with ``arm`` (default: its first) and ``seed``.
            frames: of a video; by default what the run's scores say, else the recipe's.
            suite: that the sample is in; by default the one that has it.
        """
        from workbench.views.attention_study import of

        return of(where, sample_id, frames, arm=arm, seed=seed, suite=suite)

    def pick(self, **picks: Any) -> AttentionView:
        """Choose what is shown first and in the still: ``query`` (place among the captured ones), ``layer`` (place among
        the captured ones), ``head`` (0 is the mean, then the captured ones), ``frame`` (of the clip), ``side``.

        Raises:
            WorkbenchError: a key or place that there is not.
        """
        strip = self.reading.strip
        ends = {
            "query": len(self.reading.positions),
            "layer": len(self.reading.layers),
            "head": len(self.reading.heads),
            "frame": 1 if strip is None else strip.spans[-1][1],
        }
        for key, value in picks.items():
            sides = [*self.sides, *(["difference"] if len(self.sides) == 2 else [])]
            if (key == "side" and value not in sides) or (key in ends and not 0 <= value < ends[key]):
                there = ", ".join(sides) if key == "side" else f"0 to {ends[key] - 1}"
                raise WorkbenchError(f"show the {key} {value}", f"there are {there}", "Choose one of those")
            if key not in (*ends, "side"):
                raise WorkbenchError(
                    f"pick {key!r} in an attention view", f"there are {', '.join(ends)} and side", "Use one"
                )
        self.picks |= picks
        if "_shown" in self.__dict__:
            self.shown.widgets["attention"].pick(**picks)
        return self

    def export_data(self, limit: int = STATE_ROOM) -> dict[str, Any]:
        """The data of one view, for a page that holds several: ``{"choices": {sample id: this}, "empty": text}``."""
        picks = {key: self._now(key) for key in ("query", "layer", "head")}
        if self._state is None or self._state[0] != (limit, picks):
            made = payload.state(self.sides, self._side_names(), self.notes, picks, limit)
            self._state = ((limit, picks), made)
        return self._state[1]

    def answer(self, question: dict[str, Any]) -> Any:
        """Answers of the browser's questions: a query's numbers, one head's map, the mass in a drawn box.

        Args:
            question: ``{"sample", "query"}`` and nothing, or ``layer`` and ``head``, or ``box`` in pixels.

        Raises:
            WorkbenchError: a place that there is not, a box outside the frame.
        """
        query = int(question["query"])
        if not 0 <= query < len(self.reading.positions) or self.reading.strip is None:
            raise WorkbenchError("show that token", "the capture does not hold it", "Choose another")
        if "box" in question:
            return payload.boxed(self.sides, query, question["box"])
        if "head" in question:
            return payload.head(self.sides, query, int(question["layer"]), int(question["head"]))
        return payload.bundle(self.sides, query)

    def carried(
        self, sample: str | None = None, limit: int = payload.HEADS_LIMIT
    ) -> list[tuple[dict[str, Any], Any]]:
        """Answers that an exported page carries: the picked query's numbers, and single heads up to ``limit`` bytes.

        Args:
            sample: the key among ``choices``, for a page that holds several.
        """
        if self.reading.strip is None:
            return []
        query, layer = self._now("query"), self._now("layer")
        found: list[tuple[dict[str, Any], Any]] = [
            ({"sample": sample, "query": query}, payload.bundle(self.sides, query))
        ]
        for q, i, place in payload.carried_heads(self.sides, query, layer, limit):
            question = {"sample": sample, "query": q, "layer": i, "head": place}
            found.append((question, payload.head(self.sides, q, i, place)))
        return found

    def pieces(self) -> Sequence[Piece]:
        """The view, and effects below it where there are any."""
        module = Module(
            "attention",
            "attention",
            {"shown": self.export_data()},
            dict(self.picks),
            self.answer,
            self.carried,
        )
        return [module, *(self.effects.pieces() if self.effects is not None else ())]

    def links(self) -> Sequence[Link]:
        """A frame picked in the attention is picked in the effects, and back."""
        if self.effects is None:
            return ()
        both = (("attention", "effects"), ("effects", "attention"))
        return [Link(one, "frame", other, "frame") for one, other in both] + list(self.effects.links())

    def data(self) -> pd.DataFrame:
        """Numbers of every query that the view carries: attention by frame for the mean over heads (``frame`` counts from
        1), and statistics for every layer and head (``frame`` empty)."""
        import pandas as pd

        parts = [
            part
            for query in sorted(map(int, self.export_data()["queries"]))
            for side in self.sides
            for part in self._tables(side, query)
        ]
        columns = ["side", "token", "position", "layer", "head", "frame", "time_s", "mass", *KEYS]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)

    def _tables(self, side: str, query: int) -> list[pd.DataFrame]:
        """Of one query: by frame, and by layer and head. float32, so that CSV holds no digits that are not there."""
        import pandas as pd

        reading, strip = self.sides[side], self.reading.strip
        assert strip is not None
        found, count, heads = reading.query(query), len(strip.spans), len(reading.heads)
        known = {"side": side, "token": self._token(query), "position": int(reading.positions[query])}
        frames: dict[str, Any] = known | {
            "layer": np.repeat(reading.layers, count),
            "head": "mean",
            "frame": pd.array(np.tile(np.arange(1, count + 1), len(reading.layers)), dtype="Int64"),
            "time_s": np.tile([np.nan if t is None else t for t in strip.times], len(reading.layers)),
            "mass": found.frames.ravel(),
        }
        numbers: dict[str, Any] = known | {
            "layer": np.repeat(reading.layers, heads),
            "head": np.tile([str(head) for head in reading.heads], len(reading.layers)),
            "frame": pd.array([pd.NA] * (heads * len(reading.layers)), dtype="Int64"),
            "time_s": np.nan,
            "mass": np.float32("nan"),
        }
        numbers |= {key: found.statistics[i].ravel() for i, key in enumerate(KEYS)}
        frames |= {key: np.full(len(frames["mass"]), np.nan, np.float32) for key in KEYS}
        return [pd.DataFrame(frames), pd.DataFrame(numbers)]

    def words(self) -> str:
        """Where the picked token looks in the picked layer, mean over heads."""
        strip = self.reading.strip
        if strip is None:
            return " ".join(self.notes)
        query, layer = self._now("query"), self._now("layer")
        said = list(self.notes)
        for side, one in self.sides.items():
            found = one.query(query)
            numbers = dict(zip(KEYS, found.statistics[:, layer, 0].tolist(), strict=True))
            frames = found.frames[layer]
            best = int(frames.argmax())
            time = "" if strip.times[best] is None else f" ({strip.times[best]:.2f} s)"
            text = (
                f"{self._side_names()[side]}: in layer {one.layers[layer]}, mean over heads, “{self._token(query)}” gives "
                f"{numbers['visual_mass']:.1%} of its attention to the {len(frames)} "
                f"frame{'s' if len(frames) != 1 else ''} and the rest to text; most to {strip.names[best]}{time}, "
                f"{frames[best]:.1%}; entropy / log n {numbers['entropy']:.2f}"
            )
            if one.inside is not None:
                chance = one.chance(one.inside, query)
                text += f"; {numbers['box_mass']:.1%} of the visual part in the box, where its area would give {chance:.1%}"
            if one.sinks is not None and np.isfinite(numbers["sink_mass"]):
                text += f"; {numbers['sink_mass']:.1%} on {int(one.sink_tokens[layer].sum())} sink tokens"
            said.append(text + ".")
        said.append(
            f"These are values of one conversation, not estimates; rows {payload.precision(self.reading)}."
        )
        if self.effects is not None:
            said.append(self.effects.words())
        return " ".join(said)

    def caption(self) -> str:
        """Both captures' provenance."""
        said = of_capture(self.reading.capture)
        if "before" in self.sides:
            said = f"After: {said} Before: {of_capture(self.sides['before'].capture)}"
        return said

    def picture(self) -> Figure:
        """The film strip of the head-mean map of the picked layer and query; with two captures also before and difference."""
        from workbench.views.attention_still import draw

        query, layer = self._now("query"), self._now("layer")
        return draw(self.sides, self._side_names(), query, layer, self._token(query), self.notes)

    def _now(self, key: str) -> int:
        """What is picked, in the notebook too."""
        if "_shown" in self.__dict__:
            return int(self.shown.widgets["attention"].picks.get(key, self.picks[key]))
        return int(self.picks[key])

    def _token(self, query: int) -> str:
        position = int(self.reading.positions[query])
        return self._tokens[position].strip() if self._tokens else f"#{position}"

    def _side_names(self) -> dict[str, str]:
        names = {}
        for side, reading in self.sides.items():
            checkpoint = reading.capture.meta.get("checkpoint") or {}
            name = str(checkpoint.get("name") or "the model")
            step = "" if checkpoint.get("step") is None else f", step {checkpoint['step']}"
            names[side] = f"{side.capitalize()} ({name}{step})" if len(self.sides) == 2 else f"{name}{step}"
        return names


def _boxes(given: Boxes) -> list[Box]:
    """Boxes in whatever form they come."""
    if given is None:
        return []
    if isinstance(given, Sample):
        return ground_truth(given)
    if isinstance(given, Box):
        return [given]
    listed = list(given)
    if listed and not isinstance(listed[0], Box):
        return [Box(*(float(corner) for corner in listed))]  # type: ignore[arg-type]
    return [box for box in listed if isinstance(box, Box)]
