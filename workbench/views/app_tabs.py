"""The tabs of the workbench: which view each shows, of which captures, and the command that makes what is missing."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench.captures import Capture, CaptureError
from workbench.runs.captures import complete
from workbench.views.browser import Entry


@dataclass(frozen=True, slots=True)
class Shows:
    """How captures of one kind are shown.

    Attributes:
        view: ``module:Class`` of the view. Of captures it takes the capture, of a study or run its folder.
        beside: other kinds -> the argument that takes a capture of the same run, checkpoint and sample.
        before: it also takes an earlier capture, to compare with.
    """

    view: str
    beside: Mapping[str, str] = field(default_factory=dict)
    before: bool = True

    def load(self) -> Any:
        """The class."""
        module, _, name = self.view.partition(":")
        return getattr(importlib.import_module(module), name)


@dataclass(frozen=True, slots=True)
class Tab:
    """One tab.

    Attributes:
        kinds: capture kind -> how it is shown; of a tab that shows a study or run itself the only key is ``""``.
        probe: the command that makes its captures, ``RUN`` to be filled in.
    """

    title: str
    kinds: Mapping[str, Shows]
    probe: str = ""

    @property
    def of_captures(self) -> bool:
        return "" not in self.kinds


ROWS, ATLAS, KNOCKOUT, ATTRIBUTION = "attention_rows", "temporal_atlas", "knockout", "attribution"
TABS = (
    Tab("Scores", {"": Shows("workbench.views.scores:ScoreView")}),
    Tab(
        "Attention",
        {
            ROWS: Shows(
                "workbench.views.attention:AttentionView", {KNOCKOUT: "knockout", ATTRIBUTION: "attribution"}
            )
        },
        "workbench probe attention RUN --queries text",
    ),
    Tab(
        "Effects",
        {
            KNOCKOUT: Shows(
                "workbench.views.effects:EffectView",
                {ROWS: "attention", ATTRIBUTION: "attribution"},
                before=False,
            ),
            ATLAS: Shows("workbench.views.atlas:AtlasView"),
        },
        "workbench probe knockout RUN, and workbench probe attribution RUN beside it; or workbench probe atlas RUN",
    ),
    Tab("Fusion", {"fusion": Shows("workbench.views.fusion:FusionView")}, "workbench probe fusion RUN"),
    Tab(
        "Gradients",
        {"gradients": Shows("workbench.views.gradients:GradientView")},
        "workbench probe gradients RUN",
    ),
    Tab("Frames", {"": Shows("workbench.views.frameplan:FramePlanView")}),
)


@dataclass(frozen=True, slots=True)
class Found:
    """A capture that a tab may show; its arrays stay on disk until they are."""

    path: Path
    run: str
    kind: str
    checkpoint: str
    sample: str

    @property
    def label(self) -> str:
        return " · ".join(part for part in (self.run, self.checkpoint, self.sample, self.path.stem) if part)

    def load(self) -> Capture:
        """Raises ``CaptureError``."""
        return Capture.load(self.path)


def captures_of(entry: Entry, kinds: Collection[str]) -> tuple[list[Found], list[str]]:
    """Captures of an entry's study (those of the entry itself first), and what could not be opened."""
    if entry.path is None:
        return [], []
    own = [entry.path] if entry.kind == "run" else []
    study = entry.study or (entry.path if entry.kind != "run" else None)
    runs = own + [run for run in sorted(study.glob("runs/*")) if run not in own] if study else own
    found, problems = [], []
    for run in runs:
        for path in complete(run):
            try:
                capture = Capture.load(path)
            except CaptureError as error:
                problems.append(str(error))
                continue
            if capture.kind in kinds:
                checkpoint = (capture.meta.get("checkpoint") or {}).get("name") or ""
                sample = (capture.meta.get("sample") or {}).get("id") or ""
                found.append(Found(path, run.name, capture.kind, str(checkpoint), str(sample)))
    return found, problems


def missing(tab: Tab, entry: Entry) -> str:
    """What is not there, and what makes it."""
    if entry.path is None:
        return f"{entry.name} is elsewhere: fetch it first, with `workbench fetch {entry.name} runs`."
    run = entry.path if entry.kind == "run" else _some_run(entry.path)
    command = tab.probe.replace("RUN", str(run))
    return f"{entry.name} has no captures for this tab. To make one: {command}"


def _some_run(study: Path) -> Path | str:
    runs = sorted(path.parent for path in study.glob("runs/*/run.json"))
    return next((run for run in runs if not run.name.startswith("base")), runs[0] if runs else "RUN")
