"""Means and paired differences of score tables in percentage points, as ``evaluation.statistics`` computes
them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
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

    The interval covers both things that vary: training runs (t over seeds) and the choice of questions (the
    skills' Wilson intervals, clustered by sample over all seeds), added as independent. With one seed it
    covers questions only.
    """
    if not len(rows):
        return None
    means = seed_means(rows)
    questions = len(rows) // len(means)
    mean = over_seeds(means, questions)
    seeds = max(mean.high - mean.value, mean.value - mean.low) if mean.seeds > 1 else 0.0
    skills = skill_intervals(rows)
    below, above = (
        math.hypot(seeds, 100 * math.sqrt(sum(end**2 for end in ends)) / len(skills))
        for ends in ([s.accuracy - s.low for s in skills], [s.high - s.accuracy for s in skills])
    )
    low, high = max(0.0, mean.value - below), min(100.0, mean.value + above)
    return Estimate(mean.value, low, high, questions, mean.seeds)


def over_seeds(means: pd.Series, questions: int) -> Estimate:
    """Mean over seeds with its t interval (NaN with one seed)."""
    found = mean_interval(means.tolist())
    # a score is a percentage: t intervals over few seeds may reach beyond. NaN stays NaN
    low, high = np.clip([found.low, found.high], 0.0, 100.0).tolist()
    return Estimate(found.estimate, low, high, questions, found.n_seeds)


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
