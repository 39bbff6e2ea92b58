"""The flips as a piece of a view: what the front-end module ``flips`` is given, asks for and, on a page, carries."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from workbench.errors import WorkbenchError
from workbench.study.arms import BASE
from workbench.study.contrasts import analyse
from workbench.study.intervals import Estimate
from workbench.study.results import StudyResults
from workbench.views.flips import DIRECTIONS, QUESTION, Flips, flips_at, point_key, points_of
from workbench.views.flips_pictures import TestPictures
from workbench.views.payload import size_of

ROWS = 150  # listed a point and direction
PAGE_ROWS = 900_000  # bytes of rows that a page carries, points in the order of the menu
PAGE_PICTURES = 1_500_000  # bytes of pictures that a page carries


@dataclass(frozen=True, slots=True)
class Look:
    """One flipped answer: what is looked at when its row is chosen."""

    arm: str
    step: int
    suite: str
    sample: str
    seed: int
    skill: str

    @property
    def key(self) -> str:
        """How it is named in picks."""
        return f"{point_key(self.arm, self.step)} {self.suite} {self.sample} seed {self.seed} {self.skill}"


class FlipsPiece:
    """Flips of every point of a study, put into JSON values when they are asked for."""

    def __init__(self, results: StudyResults) -> None:
        self.results = results
        self.pictures = TestPictures(results)
        self._rows: dict[str, dict[str, Any]] = {}
        self._looks: dict[str, Look] = {}
        self._points = {point_key(arm, step): (arm, step) for arm, step in points_of(results)}

    @property
    def keys(self) -> list[str]:
        """Points in the order of the menu."""
        return list(self._points)

    def flips(self, key: str) -> Flips:
        """Raises WorkbenchError: no such point."""
        if key not in self._points:
            known = ", ".join(self._points) or "none yet"
            raise WorkbenchError(f"show the flips of {key!r}", f"points are {known}", "Choose one of those")
        return flips_at(self.results, *self._points[key])

    def is_end(self, key: str) -> bool:
        """The point is the end of finished runs: their weights are kept."""
        arm, step = self._points[key]
        return self.results.final_steps.get(arm) == step

    def look(self, key: str) -> Look:
        """A flipped answer by the name it has in picks. Raises WorkbenchError: none is called so."""
        if key not in self._looks and (point := key.partition(" ")[0]) in self._points:
            self.rows(point)
        if key not in self._looks:
            raise WorkbenchError(
                f"look at {key!r}", "no flipped answer is listed under it", "Choose a row again"
            )
        return self._looks[key]

    # -- what the module is given ------------------------------------------------------------------

    def data(self) -> dict[str, Any]:
        """Every point with its counts; rows are asked for."""
        return {"points": [self._point(key) for key in self.keys], "empty": self._empty(), "attention": None}

    def _point(self, key: str) -> dict[str, Any]:
        flips = self.flips(key)
        results, arm = self.results, flips.arm
        end = self.is_end(key)
        changes = {
            c.measure: _interval(c.estimate) for c in analyse(results).skills if end and c.arm == arm
        }  # already computed, over finished runs only
        groups = [
            {
                "kind": kind,
                "skill": skill,
                **flips.counts(kind, skill),
                "change": changes.get(f"{kind}:{skill}"),
            }
            for kind, skill in sorted(set(zip(flips.pairs["kind"], flips.pairs["skill"], strict=True)))
        ]
        return {
            "key": key,
            "title": f"{results.title(arm)}, step {flips.step}{' (end)' if end else ''}",
            "groups": groups,
            "changes": {kind: _interval(e) for kind, e in flips.changes().items()},
            "seeds": flips.seeds,
            "note": self._note(flips),
        }

    def _note(self, flips: Flips) -> str:
        parts = []
        if flips.seeds < len(self.results.seeds):
            parts.append(f"Only {flips.seeds} of {len(self.results.seeds)} seeds have come this far.")
        if flips.seeds == 1:
            parts.append("One seed: intervals cover the choice of questions, not another training run.")
        if flips.unpaired:
            parts.append(f"{flips.unpaired} answers are left out: their base was not asked the same.")
        return " ".join(parts)

    def _empty(self) -> str:
        scored = set(self.results.scores["arm"])
        if BASE not in scored:
            return "The base has not been scored yet: there is nothing that answers could have flipped from."
        if scored == {BASE}:
            return "Only the base has been scored so far: flips appear with the first scores of an arm."
        return "No arm has a base that was asked the same questions: there is nothing to compare with."

    # -- what the module asks for ------------------------------------------------------------------

    def answer(self, question: dict[str, Any]) -> Any:
        """``{"flips": point}`` or ``{"picture": [suite, sample, frames]}``. Raises WorkbenchError."""
        if "flips" in question:
            return self.rows(str(question["flips"]))
        if "picture" in question:
            suite, sample, frames = question["picture"]
            return self.pictures.strip(str(suite), str(sample), int(frames))
        raise WorkbenchError("answer a question of the view", f"it asks for {question}", "Reload the page")

    def rows(self, key: str) -> dict[str, Any]:
        """The questions that flipped at a point, both ways, those of most seeds first; ``left``: how many are not here."""
        if key not in self._rows:
            flips = self.flips(key)
            table = flips.questions()
            kept = table.groupby("direction").head(ROWS)
            by_question = {name: rows for name, rows in flips.pairs.groupby(QUESTION)}
            rows = [self._row(key, row, by_question) for row in kept.to_dict("records")]
            self._rows[key] = {"rows": rows, "left": len(table) - len(kept)}
        return self._rows[key]

    def _row(self, key: str, row: Mapping[Any, Any], by_question: dict[Any, pd.DataFrame]) -> dict[str, Any]:
        pairs = by_question[tuple(row[name] for name in QUESTION)].sort_values("seed")
        look = Look(*self._points[key], row["suite"], row["sample_id"], int(row["seeds"][0]), row["skill"])
        self._looks[look.key] = look
        return {
            "way": row["direction"],
            "suite": row["suite"],
            "kind": row["kind"],
            "skill": row["skill"],
            "sample": row["sample_id"],
            "question": row["question"],
            "answer": row["answer"],
            "before": row["prediction_before"] or "(nothing)",
            "after": row["prediction"] or "(nothing)",
            "flipped": row["flipped"],
            "asked": row["asked"],
            "p": [_rounded(row["probability_before"]), _rounded(row["probability"])],
            "frames": row["frames_used"],
            "look": look.key,
            "by_seed": [_of_seed(pair) for pair in pairs.to_dict("records")],
        }

    # -- what a page carries -----------------------------------------------------------------------

    def carried(self) -> list[tuple[dict[str, Any], Any]]:
        """Rows of every point and pictures of the rows listed first, as far as the budgets go."""
        found: list[tuple[dict[str, Any], Any]] = []
        spent = 0
        for key in self.keys:
            rows = self.rows(key)
            room = max(20, int(len(rows["rows"]) * (PAGE_ROWS - spent) / max(1, size_of(rows))))
            if room < len(rows["rows"]):
                kept = list(itertools.chain.from_iterable(_spread(rows["rows"], room)))
                rows = {"rows": kept, "left": rows["left"] + len(rows["rows"]) - len(kept)}
            spent += size_of(rows)
            found.append(({"flips": key}, rows))
        return found + self._carried_pictures([answer["rows"] for _, answer in found])

    def _carried_pictures(self, points: list[list[dict[str, Any]]]) -> list[tuple[dict[str, Any], Any]]:
        """The first row of each direction of every point, then the second ...: until the budget is spent."""
        lists = [[r for r in rows if r["way"] == way] for rows in points for way in DIRECTIONS]
        wanted = dict.fromkeys(
            (row["suite"], row["sample"], row["frames"])
            for turn in itertools.zip_longest(*lists)
            for row in turn
            if row is not None
        )
        found: list[tuple[dict[str, Any], Any]] = []
        spent = 0
        for asked in wanted:
            try:
                picture = self.pictures.strip(*asked)
            except WorkbenchError as error:
                if not found:  # the data are not here: none of the others would be
                    return []
                picture = {"source": None, "words": str(error), "width": None}
            spent += size_of(picture)
            if spent > PAGE_PICTURES:
                break
            found.append(({"picture": list(asked)}, picture))
        return found


def _of_seed(pair: Mapping[Any, Any]) -> list[Any]:
    """Seed; what the base said and its probability; what this one says and its probability; frames; -1, 0 or 1."""
    names = ("prediction_before", "probability_before", "prediction", "probability")
    said = [_rounded(pair[n]) if n.startswith("probability") else pair[n] for n in names]
    return [pair["seed"], *said, pair["frames_used"], pair["change"]]


def _spread(rows: list[dict[str, Any]], room: int) -> list[list[dict[str, Any]]]:
    return [[r for r in rows if r["way"] == way][: max(1, room // 2)] for way in DIRECTIONS]


def _interval(e: Estimate) -> dict[str, float]:
    return {"value": e.value, "low": e.low, "high": e.high}


def _rounded(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else round(float(value), 3)
