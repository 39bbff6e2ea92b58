"""Samples that flipped: questions whose answer is right for one model and wrong for the other, paired by seed.

Every question that the base of a seed was asked and that this seed's model was asked at a step is one *pair*. McNemar's
table of the pairs has two cells that matter: right -> wrong and wrong -> right. Pairs of one question under several
seeds are not independent, so no exact McNemar test is made of the pooled counts: the interval beside them is the
study's own (``evaluation.statistics``: paired, over questions and seeds). Needs no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pandas as pd

from workbench.errors import WorkbenchError
from workbench.study.arms import BASE
from workbench.study.intervals import Estimate, paired
from workbench.study.results import StudyResults

PAIR = ["seed", "suite", "kind", "skill", "sample_id", "question"]
QUESTION = PAIR[1:]
DETAIL = {"prediction": "", "probability": float("nan"), "frames_used": 0}
LOST, WON = "lost", "won"
DIRECTIONS = {LOST: "right → wrong", WON: "wrong → right"}


def point_key(arm: str, step: int) -> str:
    """How a point of the plane is named in picks: ``fixed-16@120``."""
    return f"{arm}@{int(step)}"


def points_of(results: StudyResults) -> list[tuple[str, int]]:
    """(arm, step) of every point that can be compared with its base, ends first, then backwards in training."""
    own = results.scores[results.scores["condition"] == "own"]
    bases = set(own.loc[own["arm"] == BASE, "seed"])
    found = own[(own["arm"] != BASE) & own["seed"].isin(bases)]
    steps = {arm: sorted(rows["step"].unique(), reverse=True) for arm, rows in found.groupby("arm")}
    ordered = [(a.name, int(s), i) for a in results.arms for i, s in enumerate(steps.get(a.name, ()))]
    return [(arm, step) for arm, step, i in sorted(ordered, key=lambda point: point[2] > 0)]


@dataclass(frozen=True, eq=False)
class Flips:
    """One point against its base.

    Attributes:
        pairs: one row a question and seed that both answered: ``PAIR``, ``answer``, ``before`` and ``after`` (0 or
            1: right), ``change`` (-1, 0, 1), ``min_frames``, and of both sides ``prediction``, ``probability`` (of the
            right answer among the choices), ``frames_used``, the base's with the ending ``_before``.
        unpaired: rows of this point whose question the base of the same seed was not asked.
    """

    arm: str
    step: int
    pairs: pd.DataFrame
    unpaired: int

    @property
    def key(self) -> str:
        return point_key(self.arm, self.step)

    @property
    def seeds(self) -> int:
        return int(self.pairs["seed"].nunique())

    def counts(self, kind: str | None = None, skill: str | None = None) -> dict[str, int]:
        """``pairs``, ``questions``, ``seeds`` and flipped pairs (``lost``, ``won``) of a part of the questions."""
        rows = self.pairs
        if kind is not None:
            rows = rows[rows["kind"] == kind]
        if skill is not None:
            rows = rows[rows["skill"] == skill]
        return {
            "pairs": len(rows),
            "questions": len(rows[QUESTION].drop_duplicates()),
            "seeds": int(rows["seed"].nunique()),
            LOST: int((rows["change"] < 0).sum()),
            WON: int((rows["change"] > 0).sum()),
        }

    def questions(self, direction: str | None = None) -> pd.DataFrame:
        """One row a question that flipped in at least one seed, those that flipped in most seeds first.

        Columns: ``QUESTION``, ``answer``, ``direction``, ``flipped`` (in how many seeds, this way), ``asked`` (seeds),
        ``seeds`` (a tuple: which), and the means over the seeds that flipped of ``probability_before``,
        ``probability``; ``prediction_before``, ``prediction`` (most frequent) and ``frames_used`` (largest).
        """
        asked = self.pairs.groupby(QUESTION)["seed"].nunique().rename("asked")
        parts = []
        for way, sign in ((LOST, -1), (WON, 1)):
            rows = self.pairs[self.pairs["change"] == sign]
            if direction in (None, way) and len(rows):
                grouped = rows.sort_values("seed").groupby(QUESTION)
                table = grouped.agg(
                    answer=("answer", "first"),
                    flipped=("seed", "nunique"),
                    seeds=("seed", tuple),
                    prediction_before=("prediction_before", _most_frequent),
                    prediction=("prediction", _most_frequent),
                    probability_before=("probability_before", "mean"),
                    probability=("probability", "mean"),
                    frames_used=("frames_used", "max"),
                )
                parts.append(table.join(asked).assign(direction=way).reset_index())
        if not parts:
            columns = [*QUESTION, "answer", "flipped", "seeds", "prediction_before", "prediction"]
            return pd.DataFrame(
                columns=[*columns, "probability_before", "probability", "frames_used", "asked", "direction"]
            )
        found = pd.concat(parts, ignore_index=True)
        found["_moved"] = -(found["probability"] - found["probability_before"]).abs().fillna(0.0)
        order = ["direction", "flipped", "_moved", "sample_id", "question"]
        found = found.sort_values(order, ascending=[True, False, True, True, True])
        return found.drop(columns="_moved").reset_index(drop=True)

    def of_question(self, suite: str, sample_id: str, question: str) -> pd.DataFrame:
        """All seeds' pairs of one question, by seed."""
        rows = self.pairs
        chosen = (rows["suite"] == suite) & (rows["sample_id"] == sample_id) & (rows["question"] == question)
        return rows[chosen].sort_values("seed")

    def changes(self) -> dict[str, Estimate]:
        """By kind: the change of the macro average over skills, in points, with its paired 95% interval."""
        found = {}
        for kind, rows in self.pairs.groupby("kind"):
            after = rows.assign(correct=rows["after"].astype(float))
            before = rows.assign(correct=rows["before"].astype(float))
            if (estimate := paired(after, before)) is not None:
                found[str(kind)] = estimate
        return found

    def sentence(self, kind: str | None = None) -> str:
        """``17 right → wrong, 12 wrong → right of 400 questions x 5 seeds``."""
        n = self.counts(kind)
        seeds = f"{n['seeds']} seed{'s' if n['seeds'] != 1 else ''}"
        what = f"{kind} questions" if kind else "questions"
        return f"{n[LOST]} right → wrong, {n[WON]} wrong → right of {n['questions']} {what} × {seeds}"


def _most_frequent(values: pd.Series) -> str:
    return str(values.value_counts().index[0])


@lru_cache(maxsize=64)
def flips_at(results: StudyResults, arm: str, step: int | None = None) -> Flips:
    """An arm at a step against the base it started from, by seed, condition ``own``.

    Args:
        step: default the last one that any of its runs reached.

    Raises:
        WorkbenchError: the arm was not scored at that step, or no seed of it has a scored base.
    """
    own = results.scores[results.scores["condition"] == "own"]
    mine = own[own["arm"] == arm]
    steps = sorted(int(s) for s in mine["step"].unique())
    step = steps[-1] if step is None and steps else step
    if step not in steps or arm == BASE:
        known = ", ".join(point_key(a, s) for a, s in points_of(results)) or "none yet"
        found = "the base is what others are compared with" if arm == BASE else f"scored are {known}"
        raise WorkbenchError(
            f"compare {arm} with its base", found, "Choose an arm and a step that were scored"
        )
    mine = _complete(mine[mine["step"] == step])
    base = _complete(own[own["arm"] == BASE])
    both = mine.merge(base[[*PAIR, "correct", *DETAIL]], on=PAIR, suffixes=("", "_before"), validate="1:1")
    if both.empty:
        raise WorkbenchError(
            f"compare {point_key(arm, step)} with its base",
            "no seed of it has a base that was asked the same questions",
            "Wait until the base of its seed has been scored",
        )
    pairs = pd.DataFrame(
        both[[*PAIR, "answer", "min_frames", *DETAIL, *(f"{name}_before" for name in DETAIL)]]
    )
    pairs["before"] = (both["correct_before"] > 0.5).astype(int)
    pairs["after"] = (both["correct"] > 0.5).astype(int)
    pairs["change"] = pairs["after"] - pairs["before"]
    return Flips(arm, int(step), pairs, len(mine) - len(both))


def _complete(rows: pd.DataFrame) -> pd.DataFrame:
    """Columns that score tables of other versions may lack; a sample that could not be shown has no prediction."""
    lacking: dict[str, Any] = {"answer": "", "min_frames": float("nan"), **DETAIL}
    rows = rows.assign(**{name: value for name, value in lacking.items() if name not in rows})
    texts = {name: rows[name].fillna("").astype(str) for name in ("answer", "prediction")}
    return rows.assign(**texts, frames_used=rows["frames_used"].fillna(0).astype(int))
