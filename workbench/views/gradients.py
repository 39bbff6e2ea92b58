"""``GradientView``: do video gradients help or hurt the image skill, in which module, at how many frames, in which frame?

    GradientView(capture)                                   # kind "gradients" (docs/formats.md)
    GradientView(after, before)
    GradientView({"before": first, "half way": second, "after": third})

Needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from workbench.captures import Capture
from workbench.errors import WorkbenchError
from workbench.probes.gradients import words
from workbench.probes.gradients.read import of_kind, step_check
from workbench.views import colours, gradients_data
from workbench.views.base import View
from workbench.views.gradients_charts import step_scatter
from workbench.views.pieces import Module, Piece, Plot
from workbench.views.provenance import of_capture

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class GradientView(View):
    """Image and video gradients of one checkpoint or of several, on one scale.

    Args:
        captures: kind ``gradients``, one, or several by title. Captures of another kind are left out, and named.
        before: one more, shown first: of an earlier checkpoint.
        statistic, metric: shown first; the others are a choice away.
        groups: only these module groups, for models with very many.

    Raises:
        CaptureError: no capture of kind ``gradients``.
        WorkbenchError: a statistic, metric or group that none of them has.
    """

    def __init__(
        self,
        captures: Capture | Mapping[str, Capture],
        before: Capture | None = None,
        *,
        statistic: str = "cos",
        metric: str = "plain",
        groups: Sequence[str] | None = None,
    ) -> None:
        given = {_name(captures): captures} if isinstance(captures, Capture) else dict(captures)
        if before is not None:
            first = _name(before)
            given = {first if first not in given else f"{first} (before)": before} | given
        if not given:
            raise WorkbenchError("show gradients", "there is no capture", "Give one of kind gradients")
        self.captures = {title: c for title, c in given.items() if c.kind == "gradients"}
        if not self.captures:
            of_kind(next(iter(given.values())))  # says what it is instead
        self.notes = [
            f"{title} is a capture of kind {c.kind}: it is left out."
            for title, c in given.items()
            if title not in self.captures
        ]
        every = list(dict.fromkeys(g for c in self.captures.values() for g in c.meta["groups"]))
        self.groups = list(groups) if groups is not None else every
        self.statistics = gradients_data.statistics(self.captures)
        metrics = list(dict.fromkeys(m for c in self.captures.values() for m in c.meta["metrics"]))
        for what, value, known in (
            ("module group", self.groups, every), ("statistic", [statistic], self.statistics), ("metric", [metric], metrics),
        ):  # fmt: skip
            if wrong := [name for name in value if name not in known]:
                raise WorkbenchError(
                    f"show the {what} {wrong[0]!r} of gradients",
                    f"there are {', '.join(known)}",
                    "Name one of them",
                )
        self.statistic, self.metric, self.metrics = statistic, metric, metrics
        self.notes += self._differences() + self._lacking()
        self.title = f"Gradients of images and videos: {', '.join(self.captures)}"

    def pieces(self) -> Sequence[Piece]:
        data = {
            "checkpoints": [
                gradients_data.checkpoint(title, c, self.statistics, self.groups)
                for title, c in self.captures.items()
            ],
            "groups": self.groups,
            "metrics": self.metrics,
            "statistics": [gradients_data.described(name) for name in self.statistics],
            "definitions": [
                {"key": key, "title": d.title, "shared": d.shared, "shows": d.shows, "cannot": d.cannot}
                for key, d in gradients_data.DEFINITIONS.items()
            ],
            "parts": gradients_data.PART_TITLES,
            "colours": colours.tables(),
            "notes": self.notes,
        }
        counts = [int(n) for c in self.captures.values() for n in c.meta["frame_counts"]]
        chosen = {
            "statistic": self.statistic,
            "metric": self.metric,
            "checkpoint": 0,
            "group": self.groups[0],
            "frames": max(counts),
        }
        pieces: list[Piece] = [Module("gradients", "gradients", data, chosen)]
        if figure := step_scatter(self.captures):
            pieces.append(Plot("steps", figure))
        return pieces

    def data(self) -> pd.DataFrame:
        """Every statistic with its interval and pairs, the conflict map's means by frame, the one-step check by pair."""
        found = [gradients_data.tidy(title, c, step_check(c)) for title, c in self.captures.items()]
        whole = pd.concat(found, ignore_index=True)
        return whole[whole["group"].isin([*self.groups, "all"])].reset_index(drop=True)

    def words(self) -> str:
        sentences = list(self.notes)
        for title, capture in self.captures.items():
            found = words(capture, "all" if "all" in capture.meta["groups"] else capture.meta["groups"][0])
            sentences += [f"{title}: {found[0]}", *found[1:]]
        return " ".join(sentences)

    def caption(self) -> str:
        parts = []
        for title, capture in self.captures.items():
            meta = capture.meta
            lead = f"{title}: " if len(self.captures) > 1 else ""
            counts = ", ".join(str(n) for n in meta["frame_counts"])
            parts.append(
                f"{lead}{of_capture(capture)} n = {meta['pairs']} batch pairs of {meta.get('batch', '?')} conversations "
                f"a side, videos at {counts} frames."
            )
        return " ".join(
            [*parts, "95% intervals over batch pairs of one checkpoint, not over training seeds."]
        )

    def picture(self) -> Figure:
        from workbench.views.gradients_stills import draw

        return draw(self.captures, self.groups, self.statistic, self.metric)

    def _differences(self) -> list[str]:
        """What keeps several captures from being compared."""
        found, captures = [], list(self.captures.values())
        for what, values in (
            ("models", [(c.meta.get("model") or {}).get("type") for c in captures]),
            ("module groups", [c.meta["groups"] for c in captures]),
            ("numbers of pairs", [c.meta["pairs"] for c in captures]),
            ("batch sizes", [c.meta.get("batch") for c in captures]),
            ("batches", [c.meta.get("samples") for c in captures]),
        ):
            if any(value != values[0] for value in values):
                extra = {
                    "models": "groups of one name need not correspond",
                    "module groups": "a group that a checkpoint lacks is missing there",
                    "batches": "the checkpoints did not see the same samples, so differences are not paired",
                }.get(what, "intervals are not equally wide for that reason alone")
                found.append(f"The captures have different {what}: {extra}.")
        return found

    def _lacking(self) -> list[str]:
        """What no capture, or not every capture, holds."""
        found = []
        for what, there in (
            ("the one-step check", lambda c: "one_step" in c.arrays),
            (
                "the per-frame conflict map",
                lambda c: any(f"map_{n}" in c.arrays for n in c.meta["frame_counts"]),
            ),
            ("the Adam metric (it needs the optimizer's state)", lambda c: "adam" in c.meta["metrics"]),
        ):
            without = [title for title, c in self.captures.items() if not there(c)]
            if without:
                where = "" if len(self.captures) == 1 else f" in {', '.join(without)}"
                found.append(f"Not captured{where}: {what}.")
        return found


def _name(capture: Capture) -> str:
    return (capture.meta.get("checkpoint") or {}).get("name") or "a model"
