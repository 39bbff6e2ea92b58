"""Means and paired differences of score tables with 95% intervals, in percentage points.

Two things vary: training runs (seeds) and questions. Both are resampled, crossed: a draw takes seeds with replacement
and, once for all seeds, questions in clusters (all questions about one image or clip together). The interval is the
bootstrap standard error, widened for the small number of seeds and times the t quantile with S - 1 degrees of freedom:
percentile intervals over five seeds would be a third too narrow. With one seed only questions are resampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

DRAWS = 2000
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean or difference in percentage points; ``p`` is two-sided, for differences only."""

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
    """Macro average of ``correct`` over skills; None without rows."""
    return _estimate(rows, rows["correct"].to_numpy(float)) if len(rows) else None


def paired(rows: pd.DataFrame, reference: pd.DataFrame) -> Estimate | None:
    """Macro average over skills of the paired differences; None when no seed or question is shared."""
    key = ["seed", "suite", "skill", "sample_id", "question"]
    both = rows[[*key, "correct"]].merge(reference[[*key, "correct"]], on=key, suffixes=("", "_reference"))
    if not len(both):
        return None
    return _estimate(both, (both["correct"] - both["correct_reference"]).to_numpy(float))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p values, in the order given."""
    order = np.argsort(p_values)
    adjusted = np.empty(len(p_values))
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted.tolist()


def seed_means(rows: pd.DataFrame) -> pd.Series:
    """Macro average of each seed, in percent, indexed by seed."""
    by_skill = rows.groupby(["seed", "skill"])["correct"].mean()
    return 100 * by_skill.groupby("seed").mean()


def _estimate(rows: pd.DataFrame, values: np.ndarray) -> Estimate:
    seed, _ = pd.factorize(rows["seed"], sort=True)
    skill, _ = pd.factorize(rows["skill"], sort=True)
    cluster, _ = pd.factorize(rows["suite"].astype(str) + "\0" + rows["sample_id"].astype(str))
    n_seeds, n_skills, n_clusters = seed.max() + 1, skill.max() + 1, cluster.max() + 1
    sums = np.zeros((n_clusters, n_seeds, n_skills))
    counts = np.zeros_like(sums)
    np.add.at(sums, (cluster, seed, skill), 100 * values)
    np.add.at(counts, (cluster, seed, skill), 1.0)
    value = float(_macro(sums.sum(0)[None], counts.sum(0)[None], np.full((1, n_seeds), 1 / n_seeds))[0])
    rng = np.random.default_rng(0)
    weights = rng.multinomial(n_clusters, np.full(n_clusters, 1 / n_clusters), size=DRAWS).astype(float)
    seeds = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=DRAWS) / n_seeds
    flat = (n_clusters, n_seeds * n_skills)
    shape = (DRAWS, n_seeds, n_skills)
    drawn = _macro(
        (weights @ sums.reshape(flat)).reshape(shape), (weights @ counts.reshape(flat)).reshape(shape), seeds
    )
    error = float(np.nanstd(drawn, ddof=1))
    freedom = np.inf
    if n_seeds > 1:
        error *= float(np.sqrt(n_seeds / (n_seeds - 1)))
        freedom = n_seeds - 1
    half = error * float(stats.t.ppf(0.5 + LEVEL / 2, freedom))
    p = float(2 * stats.t.sf(abs(value) / error, freedom)) if error > 0 else (1.0 if value == 0 else 0.0)
    return Estimate(value, value - half, value + half, len(rows) // n_seeds, int(n_seeds), p)


def _macro(sums: np.ndarray, counts: np.ndarray, seed_weights: np.ndarray) -> np.ndarray:
    """Mean over seeds of the mean over skills of the mean over questions: [draws, seeds, skills] -> [draws]."""
    with np.errstate(invalid="ignore"):
        return (np.nanmean(sums / counts, axis=2) * seed_weights).sum(axis=1)
