"""Intervals over a few batch pairs. Needs no torch.

B pairs, R resamples. A statistic's percentiles over B resampled pairs are too narrow for small B (a 95% interval
over 8 covers about 89%), so its levels are expanded: alpha' = Phi(-sqrt(B / (B - 1)) t_{1 - alpha/2, B - 1})
(Hesterberg 2015, "What teachers should know about the bootstrap", expanded percentile interval). It holds for
ratios of means too, which a t interval does not.
"""

from __future__ import annotations

import math

import numpy as np

RESAMPLES = 4000
LEVEL = 0.95


def draws(pairs: int, seed: int = 0, resamples: int = RESAMPLES) -> np.ndarray:
    """How often each pair is drawn, ``[R, B]``."""
    rng = np.random.default_rng([seed, pairs])
    picks = rng.integers(pairs, size=(resamples, pairs)) + pairs * np.arange(resamples)[:, None]
    counts = np.bincount(picks.ravel(), minlength=resamples * pairs)
    return counts.reshape(resamples, pairs).astype(np.float64)


def expanded_levels(pairs: int, level: float = LEVEL) -> tuple[float, float]:
    """Quantile levels of the resampled statistic for ``pairs`` >= 2."""
    from scipy.special import ndtr, stdtrit  # scipy.stats takes a second to import

    t = float(stdtrit(pairs - 1, 0.5 + level / 2))
    low = float(ndtr(-math.sqrt(pairs / (pairs - 1)) * t))
    return low, 1 - low


def fraction_intervals(
    tops_SB: np.ndarray, bottoms_SB: np.ndarray, seed: int = 0, level: float = LEVEL
) -> np.ndarray:
    """mean(top) / mean(bottom) over pairs with its interval: ``[S, 3]`` (estimate, low, high).

    A ratio of means, not a mean of ratios: one pair with a gradient near zero does not decide it. With bottoms
    of 1 it is the mean. NaN marks a missing pair and is left out; the interval is NaN with fewer than two.
    """
    there = np.isfinite(tops_SB) & np.isfinite(bottoms_SB)
    tops, bottoms = np.where(there, tops_SB, 0.0), np.where(there, bottoms_SB, 0.0)
    out = np.full((len(tops), 3), np.nan)
    counts, whole = there.sum(axis=1), bottoms.sum(axis=1)
    some = (counts > 0) & (whole > 0)
    out[some, 0] = tops[some].sum(axis=1) / whole[some]
    weights_RB = draws(tops.shape[1], seed)
    for n in np.unique(counts[some & (counts > 1)]):
        rows = some & (counts == n)
        with np.errstate(invalid="ignore", divide="ignore"):
            drawn = (weights_RB @ tops[rows].T) / (weights_RB @ bottoms[rows].T)
        out[rows, 1:] = np.nanquantile(drawn, expanded_levels(int(n), level), axis=0).T
    return out


def change_intervals(
    before: tuple[np.ndarray, np.ndarray],
    after: tuple[np.ndarray, np.ndarray],
    root_S: np.ndarray,
    seed: int = 0,
    level: float = LEVEL,
) -> np.ndarray:
    """Paired change of mean(top) / mean(bottom), or of its root where ``root_S``: ``[S, 3]``.

    ``before`` and ``after`` are (tops, bottoms) ``[S, B]``. Each resample draws the same pairs for both. NaN
    where a pair is missing on either side or there are fewer than two.
    """
    out = np.full((len(root_S), 3), np.nan)
    pairs = before[0].shape[1]
    whole = np.isfinite(np.stack([*before, *after])).all(axis=(0, 2))
    if pairs < 2 or not whole.any():
        return out

    def quotient(weights_RB: np.ndarray, side: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            found = (weights_RB @ side[0][whole].T) / (weights_RB @ side[1][whole].T)
            return np.where(root_S[whole], np.sqrt(np.maximum(found, 0.0)), found)

    equal, drawn = np.ones((1, pairs)), draws(pairs, seed)
    out[whole, 0] = (quotient(equal, after) - quotient(equal, before))[0]
    changes = quotient(drawn, after) - quotient(drawn, before)
    there = np.isfinite(changes).mean(0) > 0.99
    ends = np.full((len(there), 2), np.nan)
    ends[there] = np.nanquantile(changes[:, there], expanded_levels(pairs, level), axis=0).T
    out[whole, 1:] = ends
    return out


def ratio_interval(
    top_B: np.ndarray, bottoms: list[np.ndarray], seed: int = 0, level: float = LEVEL
) -> tuple[float, float, float]:
    """mean(top) / sqrt(prod of mean(bottom)) with its interval; ``bottoms`` are one or two series ``[B]``.

    NaN throughout when a series has a missing pair, fewer than two pairs, or a mean that is not positive; the
    interval alone is NaN when more than one in a hundred resamples has a mean that is not positive.
    """
    series = [top_B, *bottoms]
    if len(top_B) < 2 or not all(np.isfinite(s).all() for s in series) or any(b.mean() <= 0 for b in bottoms):
        return math.nan, math.nan, math.nan
    weights_RB = draws(len(top_B), seed) / len(top_B)
    power = 1 / len(bottoms)
    below = [np.where((found := weights_RB @ b) > 0, found, np.nan) for b in bottoms]
    drawn = (weights_RB @ top_B) / np.prod(below, axis=0) ** power
    estimate = float(top_B.mean() / math.prod(float(b.mean()) for b in bottoms) ** power)
    if np.isnan(drawn).mean() > 0.01:
        return estimate, math.nan, math.nan
    low, high = np.nanquantile(drawn, expanded_levels(len(top_B), level))
    return estimate, float(low), float(high)


def share_interval(hits: int, n: int, level: float = LEVEL) -> tuple[float, float, float]:
    """A share with Wilson's interval, which keeps a width when all pairs agree; NaN without pairs."""
    from scipy.special import ndtri

    if n == 0:
        return math.nan, math.nan, math.nan
    z, share = float(ndtri(0.5 + level / 2)), hits / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))
