"""Scores with intervals: means over seeds, paired differences between arms, flips. Needs no torch.

A *score table* has one row a question asked: ``sample_id, suite, skill, correct, arm, seed, step, condition``
(and ``question``, where a sample has several). Callers choose arm, step and condition; two rows for one
question of one seed are an error. All values are fractions, not percent. A *macro average* is the mean over
skills of each skill's accuracy, so that a skill with many questions does not weigh more.

How a difference gets its interval, in phases (S seeds, Q clusters, K skills, R resamples; O(R Q S K)):

1. pair: the same question under both arms of the same seed gives one difference in {-1, 0, 1};
2. resample clusters (all questions about one sample), once for all seeds, because every seed is asked the
same
   questions, and resample seeds: the two-way bootstrap (Owen 2007, "The pigeonhole bootstrap");
3. split its variance: resampling seeds alone sees A + C, clusters alone B + C, both together A + B + 3 C,
where A is
   between seeds, B between questions and C their interaction, so that the variance sought, A + B + C, is
   known;
4. stretch: percentiles over few seeds are too narrow (a 95% interval over five covers about 85%), so the
percentiles'
   distances from the estimate are scaled to half-width t * sqrt(A + B + C), t with Satterthwaite's degrees of
   freedom (A + C has S - 1, B has Q - 1). Skewness of the bootstrap stays; the width is honest.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from workbench.errors import DataError

RESAMPLES = 2000
FEW_SEEDS = 3
PAIR = ("seed", "suite", "skill", "sample_id", "question")
GROUP = ("arm", "seed", "step", "condition", "suite")


@dataclass(frozen=True, slots=True)
class MeanInterval:
    """A mean over seeds; ``low`` and ``high`` are NaN with one seed, which has no spread to measure."""

    estimate: float
    low: float
    high: float
    sd: float
    n_seeds: int


@dataclass(frozen=True, slots=True)
class Difference:
    """Arm a minus arm b, as a fraction. ``method`` says in words what the interval covers and what it does
    not.

    ``n_samples`` counts clusters (samples) that were asked under both arms, ``n_unpaired`` the rows left out
    because the other arm lacks them; ``p`` is two-sided, from the same standard error as the interval (for
    ``holm``).
    """

    estimate: float
    low: float
    high: float
    p: float
    n_samples: int
    n_seeds: int
    n_unpaired: int
    method: str

    @property
    def shown(self) -> bool:
        """The interval excludes 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, slots=True)
class SkillInterval:
    """Accuracy of one skill over the ``n`` questions of one table."""

    skill: str
    n: int
    accuracy: float
    low: float
    high: float


# -- levels ----------------------------------------------------------------------------------------


def mean_interval(values_by_seed: Mapping[int, float] | Sequence[float], level: float = 0.95) -> MeanInterval:
    """Mean over seeds with its Student t interval: mean +- t * sd / sqrt(S).

    Raises:
        ValueError: no value, or one that is not finite.
    """
    found = values_by_seed.values() if isinstance(values_by_seed, Mapping) else values_by_seed
    values = np.array(list(found), dtype=np.float64)
    if not values.size or not np.isfinite(values).all():
        raise ValueError(f"a mean over seeds needs finite values, got {values.tolist()}")
    mean, n = float(values.mean()), len(values)
    if n == 1:
        return MeanInterval(mean, math.nan, math.nan, math.nan, 1)
    sd = float(values.std(ddof=1))
    half = _t_quantile(level, n - 1) * sd / math.sqrt(n)
    return MeanInterval(mean, mean - half, mean + half, sd, n)


def skill_scores(scores: pd.DataFrame) -> pd.DataFrame:
    """Accuracy by arm, seed, step, condition, suite and skill: columns those, ``score`` and ``n``
    questions.
    """
    keys = [*(name for name in GROUP if name in scores), "skill"]
    table = scores.groupby(keys)["correct"].agg(score="mean", n="size").reset_index()
    return table.astype({"score": np.float64})


def macro_scores(scores: pd.DataFrame, exclude: Collection[str] = ()) -> pd.DataFrame:
    """Macro average by arm, seed, step, condition and suite: columns those, ``score`` and ``n`` questions.

    Args:
        exclude: skills left out, for example ``{"count"}`` for the image average without counting.
    """
    by_skill = skill_scores(scores[~scores["skill"].isin(list(exclude))])
    keys = [name for name in GROUP if name in by_skill]
    return by_skill.groupby(keys).agg(score=("score", "mean"), n=("n", "sum")).reset_index()


def skill_intervals(
    scores: pd.DataFrame, level: float = 0.95, cluster: str = "sample_id"
) -> list[SkillInterval]:
    """Accuracy by skill of one model, with Wilson intervals over its questions, skills in alphabetical order.

    Questions about one sample are not independent: Wilson's n is divided by the design effect (the variance
    of the mean by clusters over the one by questions, at least 1). Unlike a bootstrap, 50 right of 50 keeps a
    width. These intervals say nothing about another training seed.
    """
    z = _z_quantile(level)
    rows = []
    for skill, table in scores.groupby("skill", sort=True):
        right = table["correct"].to_numpy(np.float64)
        n, mean = len(right), float(right.mean())
        residuals = pd.Series(right - mean).groupby(table[cluster].to_numpy()).sum().to_numpy()
        spread = mean * (1 - mean) * n
        effective = n / max(1.0, float(residuals @ residuals) / spread) if spread > 0 else n
        centre = (mean + z * z / (2 * effective)) / (1 + z * z / effective)
        half = z * math.sqrt(mean * (1 - mean) / effective + z * z / (4 * effective**2))
        half /= 1 + z * z / effective
        low, high = max(0.0, min(mean, centre - half)), min(1.0, max(mean, centre + half))
        rows.append(SkillInterval(str(skill), n, mean, low, high))
    return rows


# -- differences -----------------------------------------------------------------------------------


def paired_difference(
    scores_a: pd.DataFrame,
    scores_b: pd.DataFrame,
    *,
    exclude: Collection[str] = (),
    cluster: str = "sample_id",
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:
    """Macro average of arm a minus arm b over the same questions and seeds, with a clustered paired bootstrap
    interval.

    The module's docstring tells how. With one seed only questions are resampled, and ``method`` says so.

    Args:
        scores_a, scores_b: score tables, one arm, step and condition each.
        exclude: skills left out of the average.
        cluster: column that says which questions belong together (``sample_id``, or the medium if samples
        share it). seed: of the resampling: the same arguments give the same interval.

    Raises:
        DataError: no question in common, or a question that comes twice in one table.
    """
    pairs, unpaired = _pair(scores_a, scores_b, exclude, cluster)
    seeds, seed_of = np.unique(pairs["seed"].to_numpy(), return_inverse=True)
    skills, skill_of = np.unique(pairs["skill"].to_numpy(dtype=str), return_inverse=True)
    names, cluster_of = np.unique(
        (pairs["suite"].astype(str) + "\0" + pairs[cluster].astype(str)).to_numpy(dtype=str),
        return_inverse=True,
    )
    n_s, n_k, n_q = len(seeds), len(skills), len(names)
    sums_QSK, counts_QSK = np.zeros((n_q, n_s, n_k)), np.zeros((n_q, n_s, n_k))
    at = (cluster_of, seed_of, skill_of)
    np.add.at(sums_QSK, at, pairs["difference"].to_numpy(np.float64))
    np.add.at(counts_QSK, at, 1.0)

    by_seed_S = _macro(sums_QSK.sum(axis=0), counts_QSK.sum(axis=0))
    estimate = float(by_seed_S.mean())
    rng = np.random.default_rng(seed)
    weights_RQ = _draws(rng, resamples, n_q)
    flat = (n_q, n_s * n_k)
    drawn_RS = _macro(
        (weights_RQ @ sums_QSK.reshape(flat)).reshape(resamples, n_s, n_k),
        (weights_RQ @ counts_QSK.reshape(flat)).reshape(resamples, n_s, n_k),
    )
    shares_RS = _draws(rng, resamples, n_s) / n_s
    both_R = np.nansum(drawn_RS * shares_RS, axis=1)
    questions = float(drawn_RS.mean(axis=1).var()) * n_q / max(1, n_q - 1)
    error, freedom = math.sqrt(questions), float(n_q - 1)
    if n_s > 1:
        seeds_part = float(by_seed_S.var(ddof=1)) / n_s
        overlap = float(both_R.var()) - seeds_part * (n_s - 1) / n_s - questions  # C (S - 1) / S
        interaction = min(max(0.0, overlap * n_s / (n_s - 1)), questions)
        rest = questions - interaction
        seeds_part = max(seeds_part, interaction)  # it estimates A + C: seeds that agree by chance hide C
        error = math.sqrt(seeds_part + rest)
        below = seeds_part**2 / (n_s - 1) + rest**2 / max(1, n_q - 1)
        freedom = (seeds_part + rest) ** 2 / below if below > 0 else 1.0
    half = _t_quantile(level, freedom) * error
    low, high = _stretched(both_R, estimate, half, level)
    method = _method(n_s, n_q, resamples, cluster)
    return Difference(estimate, low, high, _p_value(estimate, error, freedom), n_q, n_s, unpaired, method)


def flips(scores_a: pd.DataFrame, scores_b: pd.DataFrame) -> pd.DataFrame:
    """Questions that one arm answers and the other does not, going from ``scores_a`` to ``scores_b``.

    Returns:
        Columns ``seed``, ``suite``, ``skill``, ``sample_id``, ``question`` (those the tables have) and
        ``flip``: ``"right->wrong"`` or ``"wrong->right"``; ``flips(before, after)["flip"].value_counts()``
        counts them.

    Raises:
        DataError: as ``paired_difference``.
    """
    pairs, _ = _pair(scores_b, scores_a, (), "sample_id")
    changed = pairs[pairs["difference"] != 0]
    keys = [name for name in PAIR if name in changed]
    return (
        changed[keys]
        .assign(flip=np.where(changed["difference"] < 0, "right->wrong", "wrong->right"))
        .reset_index(drop=True)
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given: keeps the error rate of a whole table of
    contrasts.

    Source: Holm 1979. The i-th smallest of m becomes the largest of (m - j) p_(j) over j <= i, at most 1.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.minimum(1.0, np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order]))
    adjusted = np.empty_like(p)
    adjusted[order] = stepped
    return [float(value) for value in adjusted]


# -- parts -----------------------------------------------------------------------------------------


def _pair(
    scores_a: pd.DataFrame, scores_b: pd.DataFrame, exclude: Collection[str], cluster: str
) -> tuple[pd.DataFrame, int]:
    """Rows with ``difference`` in {-1, 0, 1} for questions under both arms, and the number of rows left
    out.
    """
    keys = [name for name in PAIR if name in scores_a and name in scores_b]
    a, b = (s.loc[~s["skill"].isin(list(exclude))] for s in (scores_a, scores_b))
    for table in (a, b):
        twice = table.duplicated(keys)
        if twice.any():
            first = table.loc[twice, keys].iloc[0].to_dict()
            raise DataError(
                "compare two arms",
                f"one table scores a question twice: {first}",
                "select one arm, step and condition",
            )
    extra = [] if cluster in keys else [cluster]
    pairs = a[[*keys, *extra, "correct"]].merge(b[[*keys, "correct"]], on=keys, suffixes=("_a", "_b"))
    if pairs.empty:
        raise DataError(
            "compare two arms",
            f"{len(a)} and {len(b)} rows have no seed and question in common",
            "score both arms on the same suite and seeds",
        )
    pairs["difference"] = pairs["correct_a"].astype(np.float64) - pairs["correct_b"].astype(np.float64)
    return pairs, len(a) + len(b) - 2 * len(pairs)


def _draws(rng: np.random.Generator, resamples: int, n: int) -> np.ndarray:
    """How often each of ``n`` things is drawn, with replacement, ``n`` at a time: [resamples, n]."""
    picks = rng.integers(n, size=(resamples, n)) + n * np.arange(resamples)[:, None]
    return np.bincount(picks.ravel(), minlength=resamples * n).reshape(resamples, n).astype(np.float64)


def _macro(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean over skills (last axis) of sums / counts, without skills that a resample or seed lacks."""
    there = counts > 0
    means = np.divide(sums, counts, out=np.zeros_like(sums), where=there)
    return means.sum(axis=-1) / np.maximum(1, there.sum(axis=-1))


def _stretched(draws: np.ndarray, estimate: float, half: float, level: float) -> tuple[float, float]:
    """The draws' percentiles, scaled about the estimate so that the interval is ``2 * half`` wide."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2]) - estimate
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    if high - low <= 0:  # all draws agree
        return estimate - half, estimate + half
    scale = 2 * half / (high - low)
    return max(-1.0, estimate + scale * low), min(1.0, estimate + scale * high)


def _method(n_seeds: int, n_clusters: int, resamples: int, cluster: str) -> str:
    what = f"{n_clusters} clusters by {cluster}, {resamples} resamples"
    if n_seeds == 1:
        return f"paired bootstrap over samples only ({what}); one seed says nothing about training again"
    text = f"paired bootstrap over {n_seeds} seeds and samples ({what}), widened for few seeds"
    if n_seeds < FEW_SEEDS:
        text += f"; {n_seeds} seeds are too few to trust"
    return text


def _p_value(estimate: float, error: float, freedom: float) -> float:
    from scipy.special import stdtr

    if error == 0:
        return 1.0 if estimate == 0 else 0.0
    return float(2 * stdtr(freedom, -abs(estimate) / error))


def _t_quantile(level: float, freedom: float) -> float:
    from scipy.special import stdtrit  # scipy.stats takes a second to import

    return float(stdtrit(max(1.0, freedom), 0.5 + level / 2))


def _z_quantile(level: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(0.5 + level / 2))
