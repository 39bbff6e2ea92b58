"""Do rankings of frames agree, and which one names the frames that matter? Deletion and insertion curves, Spearman.

K blocks, R rankings. A ranking is a score a block, greatest first; NaN (not visible) comes last.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from workbench.evaluation.statistics import mean_interval
from workbench.probes.attribution_score import AnswerScore
from workbench.probes.common import ProbeError
from workbench.probes.knockout_cells import Blocks

MODES = ("deletion", "insertion")
SCALES = ("probability", "log_probability")
RANDOM = "random"


@dataclass(frozen=True, eq=False)
class Curves:
    """``fractions`` ``[point]`` of the blocks; ``log_probability`` ``[R, mode, point]`` of the answer (natural log) when
    that many are replaced by the baseline (deletion) or kept (insertion); ``auc`` ``[R, mode, scale]`` areas under
    them: a ranking is good where deletion falls early (small area) and insertion rises early (large)."""

    fractions: np.ndarray
    log_probability: np.ndarray
    auc: np.ndarray


def ordering(scores: np.ndarray) -> np.ndarray:
    """Blocks from the greatest score to the least, equal ones in their order, NaN last."""
    return np.argsort(-np.where(np.isnan(scores), -np.inf, scores), kind="stable")


def curves(
    score: AnswerScore,
    blocks: Blocks,
    orders: Sequence[np.ndarray],
    baseline: str = "mean",
    points: int = 16,
    batch: int = 8,
) -> Curves:
    """Curves of each order of the blocks [Petsiuk et al. 2018, RISE], by replacing embeddings.

    Args:
        points: at most so many steps from nothing to everything.

    Raises:
        ProbeError: an unknown baseline, or fewer than one step.
    """
    if points < 1:
        raise ProbeError(f"draw a curve of {points} steps", "it needs one or more", "Give 16")
    k = len(blocks)
    counts = np.unique(np.linspace(0, k, min(points, k) + 1).round().astype(int))
    own, base = score.embeddings[0], score.baseline(baseline)[0]
    of = torch.from_numpy(blocks.of[score.positions]).to(own.device)

    def rows() -> Iterator[Tensor]:
        for order in orders:
            place = torch.full(
                (k + 1,), k, device=own.device
            )  # where each block stands; the last: of no block
            place[torch.from_numpy(order).to(own.device)] = torch.arange(k, device=own.device)
            for deleting in (True, False):
                for count in counts.tolist():
                    top = (place[of] < count)[:, None]
                    yield torch.where(top == deleting, base, own)

    logs = score.many(rows(), batch).reshape(len(orders), 2, len(counts))
    fractions = counts / k
    areas = [np.trapezoid(values, fractions, axis=-1) for values in (np.exp(logs), logs)]
    return Curves(fractions, logs, np.stack(areas, -1))


def with_random(made: Curves, named: int) -> tuple[Curves, np.ndarray]:
    """Curves of the first ``named`` orders and, in one row behind, the mean over the others, which were drawn at
    random; and the areas of each draw ``[draw, mode, scale]``."""
    drawn = made.log_probability[named:]
    # the mean curve of the draws; its areas are the mean areas, also of the probability
    logs = np.concatenate([made.log_probability[:named], drawn.mean(0, keepdims=True)])
    auc = np.concatenate([made.auc[:named], made.auc[named:].mean(0, keepdims=True)])
    return Curves(made.fractions, logs, auc), made.auc[named:]


def rank_correlations(scores: Mapping[str, np.ndarray]) -> np.ndarray:
    """Spearman's rank correlation of every two rankings, ``[R, R]``.

    Over blocks that both score; NaN with fewer than three of them or where all scores of one are equal.
    """
    names = list(scores)
    found = np.full((len(names), len(names)), np.nan)
    for i, a in enumerate(names):
        for j, b in enumerate(names):
            both = np.isfinite(scores[a]) & np.isfinite(scores[b])
            x, y = scores[a][both], scores[b][both]
            if both.sum() >= 3 and np.ptp(x) > 0 and np.ptp(y) > 0:
                found[i, j] = spearmanr(x, y).statistic
    return found


def mean_over_samples(values: np.ndarray) -> tuple[float, float, float, int]:
    """Mean, 95% interval (Student's t over samples) and number of the finite values; NaN where there are too few."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return float("nan"), float("nan"), float("nan"), 0
    found = mean_interval(finite.tolist())
    return found.estimate, found.low, found.high, len(finite)
