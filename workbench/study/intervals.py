"""Means and paired differences of score tables in percentage points, as ``evaluation.statistics`` computes
them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from workbench.errors import DataError
from workbench.evaluation.statistics import holm, mean_interval, paired_difference, skill_intervals

__all__ = ["Estimate", "holm", "level", "over_seeds", "paired", "seed_means"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean or difference in percentage points with its 95% interval; ``p`` is two-sided, for
    differences only.
    """

    value: float
    low: float
    high: float
    questions: int
    seeds: int
    p: float = float("nan")

    @property
    def shown(self) -> bool:
        """The interval excludes 0."""
        return self.low > 0 or self.high < 0

    def negated(self) -> Estimate:
        return Estimate(-self.value, -self.high, -self.low, self.questions, self.seeds, self.p)


def level(rows: pd.DataFrame) -> Estimate | None:
    """Macro average over skills; None without rows.

    The interval is over seeds (t). With one seed it is over questions: the skills' Wilson intervals,
    combined as independent, which says nothing about training again.
    """
    if not len(rows):
        return None
    means = seed_means(rows)
    questions = len(rows) // len(means)
    if len(means) > 1:
        return over_seeds(means, questions)
    skills = skill_intervals(rows)
    value = float(means.iloc[0])
    below = 100 * math.sqrt(sum((s.accuracy - s.low) ** 2 for s in skills)) / len(skills)
    above = 100 * math.sqrt(sum((s.high - s.accuracy) ** 2 for s in skills)) / len(skills)
    return Estimate(value, value - below, value + above, questions, 1)


def over_seeds(means: pd.Series, questions: int) -> Estimate:
    """Mean over seeds with its t interval (NaN with one seed)."""
    found = mean_interval(means.tolist())
    return Estimate(found.estimate, found.low, found.high, questions, found.n_seeds)


def paired(rows: pd.DataFrame, reference: pd.DataFrame) -> Estimate | None:
    """Macro average over skills of the paired differences; None when no seed or question is shared."""
    if not len(rows) or not len(reference):
        return None
    try:
        found = paired_difference(rows, reference)
    except DataError:  # nothing in common: duplicates cannot occur, the results drop them
        return None
    questions = (len(rows) + len(reference) - found.n_unpaired) // (2 * found.n_seeds)
    ends = (100 * found.low, 100 * found.high)
    return Estimate(100 * found.estimate, *ends, questions, found.n_seeds, found.p)


def seed_means(rows: pd.DataFrame) -> pd.Series:
    """Macro average of each seed, in percent, indexed by seed."""
    by_skill = rows.groupby(["seed", "skill"])["correct"].mean()
    return 100 * by_skill.groupby("seed").mean()
