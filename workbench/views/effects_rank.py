"""Do attention and effect rank the blocks of one sample alike? Spearman's correlation that respects how cells hang together.

Cells (window of layers, block) of one sample are not independent: windows overlap, and a frame that matters in one window
matters in the next. So blocks are ranked within each window and the windows' correlations averaged (windows with more
layers have larger effects, which says nothing about blocks), and whole blocks are shuffled and drawn, with all their
windows: the permutation test asks whether blocks could be exchanged, the interval resamples blocks. Both speak of this
sample alone. [OURS]
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from scipy.stats import rankdata

RESAMPLES, SHUFFLES = 1000, 5000
EXACT = 7  # so many blocks are put into every order
FEWEST = 4  # blocks: below, no interval and no test
AT_ONCE = 2_000_000  # numbers that are ranked together


@dataclass(frozen=True, slots=True)
class Agreement:
    """Attributes:
    rho: Spearman's rank correlation over blocks, mean over the windows where neither side is constant; NaN without one.
    low, high: 95% percentile interval, blocks resampled; NaN with fewer than ``FEWEST`` blocks.
    p: two-sided, blocks exchanged; NaN likewise.
    windows, blocks: that were used; cells = windows * blocks.
    """

    rho: float
    low: float
    high: float
    p: float
    windows: int
    blocks: int

    @property
    def cells(self) -> int:
        return self.windows * self.blocks

    @property
    def verdict(self) -> str:
        """ "agree", "disagree", "open" (the interval holds 0) or "none" (not to be had)."""
        if not math.isfinite(self.rho) or not math.isfinite(self.low):
            return "none"
        return "agree" if self.low > 0 else "disagree" if self.high < 0 else "open"


def rank_agreement(effect: np.ndarray, attention: np.ndarray, seed: int = 0) -> Agreement:
    """Rank correlation of two maps ``[window, block]`` over blocks, mean over windows.

    Windows without any cell that both maps have are left out, then blocks that lack a cell (not visible is NaN).
    """
    there = np.isfinite(effect) & np.isfinite(attention)
    windows = there.any(1)
    blocks = there[windows].all(0) if windows.any() else np.zeros(effect.shape[1], dtype=bool)
    mine, other = (np.asarray(m, dtype=np.float64)[windows][:, blocks] for m in (effect, attention))
    w, k = mine.shape
    rho = float(_mean_spearman(mine[None], other[None])[0]) if k >= 2 else math.nan
    if k < FEWEST or not math.isfinite(rho):
        return Agreement(rho, math.nan, math.nan, math.nan, w, k)
    rng = np.random.default_rng(seed)
    return Agreement(rho, *_interval(mine, other, rng), _p(mine, other, rho, rng), w, k)


def _interval(mine: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    w, k = mine.shape
    found = []
    step = max(1, AT_ONCE // (w * k))
    for start in range(0, RESAMPLES, step):
        drawn = rng.integers(0, k, (min(step, RESAMPLES - start), k))
        found.append(_mean_spearman(*(m[:, drawn].transpose(1, 0, 2) for m in (mine, other))))
    low, high = np.nanpercentile(np.concatenate(found), (2.5, 97.5))
    return float(low), float(high)


def _p(mine: np.ndarray, other: np.ndarray, rho: float, rng: np.random.Generator) -> float:
    """Ranks do not change when blocks are exchanged: a shuffle is a sum over a table [block, block]."""
    k = mine.shape[1]
    one, two = (_standard(rankdata(m, axis=1)) for m in (mine, other))
    used = (np.abs(one).sum(1) > 0) & (np.abs(two).sum(1) > 0)
    products = one[used].T @ two[used] / max(int(used.sum()), 1)
    exact = k <= EXACT
    orders = (
        np.array(list(permutations(range(k))))
        if exact
        else rng.permuted(np.tile(np.arange(k), (SHUFFLES, 1)), axis=1)
    )
    shuffled = np.abs(products[np.arange(k), orders].sum(1))
    extra = 0 if exact else 1  # the order found is one of those drawn
    return float((shuffled >= abs(rho) - 1e-9).sum() + extra) / (len(orders) + extra)


def _standard(ranks: np.ndarray) -> np.ndarray:
    """Rows centred and of length 1; 0 where a row is constant."""
    centred = ranks - ranks.mean(-1, keepdims=True)
    length = np.sqrt((centred**2).sum(-1, keepdims=True))
    return np.divide(centred, length, out=np.zeros_like(centred), where=length > 1e-12)


def _mean_spearman(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """``[n, window, block]`` twice -> ``[n]``: correlations over blocks, mean over windows without a constant side."""
    a, b = (_standard(rankdata(m, axis=-1)) for m in (one, two))
    used = (np.abs(a).sum(-1) > 0) & (np.abs(b).sum(-1) > 0)
    with np.errstate(invalid="ignore"):
        return (a * b).sum((-1, -2)) / used.sum(-1)
