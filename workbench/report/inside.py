"""The report's section "Inside the model": what the captures in a study's runs show, in words and one figure each.

Made from captures alone, without torch. A study without captures has no such section.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go

from workbench.captures import Capture, CaptureError
from workbench.probes.fusion import comparison_words
from workbench.probes.fusion import words as fusion_words
from workbench.probes.gradients import words as gradient_words
from workbench.runs import captures as files
from workbench.study.arms import BASE
from workbench.study.results import StudyResults
from workbench.views.charts import inside as inside_figures
from workbench.views.charts import inside_words


@dataclass(frozen=True)
class Found:
    """A capture, and the run it lies in."""

    arm: str
    seed: int
    path: Path
    capture: Capture

    @property
    def checkpoint(self) -> str:
        return str((self.capture.meta.get("checkpoint") or {}).get("name", ""))


@dataclass(frozen=True)
class Piece:
    """One kind of capture: its figure and what is said of it."""

    id: str
    title: str
    caption: str
    words: list[tuple[str, list[str]]]  # (whose, sentences)
    figure: go.Figure


@dataclass(frozen=True)
class Inside:
    """Everything found; ``unread`` says which captures could not be."""

    pieces: list[Piece]
    unread: list[str]


def look_inside(results: StudyResults) -> Inside:
    """Captures of the study's runs, as far as there are any."""
    found, unread = _captures(results)
    makers = (_gradients, _fusion, _scatter)
    pieces = []
    for make in makers:
        try:
            piece = make(results, found)
        except (CaptureError, ValueError, KeyError) as error:  # of another version, or not comparable
            unread.append(f"{make.__name__.strip('_')}: {error}")
            continue
        if piece is not None:
            pieces.append(piece)
    return Inside(pieces, unread)


def _captures(results: StudyResults) -> tuple[list[Found], list[str]]:
    found, unread = [], []
    runs = results.directory / "runs"
    for arm in [BASE, *(a.name for a in results.arms if a.name != BASE)]:
        for run in sorted(runs.glob(f"{arm}-s*")):
            seed = run.name.removeprefix(f"{arm}-s")
            for path in files.complete(run) if seed.isdigit() else ():
                try:
                    found.append(Found(arm, int(seed), path, Capture.load(path)))
                except CaptureError as error:
                    unread.append(f"{run.name}/{path.stem}: {error.found}")
    return found, unread


def _newest(found: Sequence[Found]) -> Found:
    return max(found, key=lambda f: str(f.capture.meta.get("created")))


def _gradients(results: StudyResults, found: list[Found]) -> Piece | None:
    """The newest capture of each arm's first seed that has one, if all were asked the same."""
    chosen: dict[str, Found] = {}
    for one in (f for f in found if f.capture.kind == "gradients"):
        earlier = chosen.get(one.arm)
        if earlier is None or one.seed == earlier.seed:
            chosen[one.arm] = one if earlier is None else _newest([earlier, one])
    if not chosen:
        return None
    captures = {f"{results.title(arm)} (seed {f.seed})": f.capture for arm, f in chosen.items()}
    first = next(iter(captures.values()))
    return Piece(
        "gradients",
        "Do image and video gradients agree?",
        "Left: cosine of the gradients of image and of video batches, and of two image batches (the ceiling). Right: "
        "how much of the video gradient one frame repeated does not have. 95% intervals over "
        f"{first.meta['pairs']} batch pairs of one checkpoint each; they say nothing about another training seed.",
        [(title, gradient_words(capture)) for title, capture in captures.items()],
        inside_figures.gradients(captures, counterfactual=(first.meta["counterfactuals"] or ["frozen"])[0]),
    )


def _fusion(results: StudyResults, found: list[Found]) -> Piece | None:
    """Every checkpoint of one seed that has a fusion capture, in the order of training."""
    mine = [f for f in found if f.capture.kind == "fusion"]
    if not mine:
        return None
    seed = min(f.seed for f in mine)
    by_place: dict[tuple[str, str], list[Found]] = {}
    for one in (f for f in mine if f.seed == seed):
        by_place.setdefault((one.arm, one.checkpoint), []).append(one)
    chosen = sorted(
        (_newest(several) for several in by_place.values()),
        key=lambda f: (f.arm != BASE, (f.capture.meta.get("checkpoint") or {}).get("step") or 0),
    )
    captures = {f"{results.title(f.arm)}, {f.checkpoint}": f.capture for f in chosen}
    words = [(title, fusion_words(capture)) for title, capture in captures.items()]
    if len(chosen) > 1:
        words.append(("From the first to the last", comparison_words(chosen[0].capture, chosen[-1].capture)))
    return Piece(
        "fusion",
        "What temporal fusion does to frames and still images",
        "Left: how far the fusion moves the features. Right: how many frames its memory effectively holds at the last "
        f"one. 95% intervals over clips or images; one training seed ({seed}).",
        words,
        inside_figures.fusion(captures),
    )


def _scatter(results: StudyResults, found: list[Found]) -> Piece | None:
    """Before and after, an arm a row of marks, over all seeds that have the numbers."""
    by_arm: dict[str, dict[int, list[Found]]] = {}
    for one in found:
        if one.capture.kind == "attention_scatter" and "before" in one.capture.arrays:
            by_arm.setdefault(one.arm, {}).setdefault(one.seed, []).append(one)
    if not by_arm:
        return None
    asked = _newest([f for seeds in by_arm.values() for several in seeds.values() for f in several])
    same = asked.capture.meta.get("asked")  # captures of other samples or queries would not be comparable
    by_arm = {
        arm: kept
        for arm, seeds in by_arm.items()
        if (
            kept := {
                s: k for s, v in seeds.items() if (k := [f for f in v if f.capture.meta.get("asked") == same])
            }
        )
    }
    changes = {
        results.title(arm): inside_words.scatter_changes(
            {seed: _newest(several).capture for seed, several in seeds.items()}
        )
        for arm, seeds in by_arm.items()
    }
    return Piece(
        "scatter",
        "Did Video-SFT scatter attention?",
        "Change from the base to the end of training on the same samples. Filled: shown at 5% after Holm's adjustment "
        "over these numbers. 95% intervals; with one seed they cover the choice of samples only.",
        [
            (title, inside_words.scatter_words(table, title) + inside_words.box_words(table, title))
            for title, table in changes.items()
        ],
        inside_figures.scatter(changes),
    )
