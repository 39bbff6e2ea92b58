"""Attributions by captum: integrated gradients of visual positions, ablation of frames or parts of them.

Both answer "what if this were replaced by the baseline": the whole effect through all layers, later frames included,
where a knockout (``knockout.py``) hides a frame from text only. V visual positions, K blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from workbench.probes.attribution_score import AnswerScore
from workbench.probes.common import ProbeError
from workbench.probes.knockout_cells import Blocks

INSTALL = "pip install 'captum>=0.9,<0.10'"
LARGE = 0.05  # share of the explained difference above which a completeness error is called large


def captum_attr() -> Any:
    """captum's methods, imported here only. Raises ProbeError with the line that installs it."""
    try:
        import captum.attr
    except ImportError as error:
        raise ProbeError("attribute an answer", f"captum cannot be imported ({error})", INSTALL) from error
    return captum.attr


@dataclass(frozen=True, eq=False)
class Gradients:
    """Integrated gradients. ``tokens`` float64 ``[V]`` add up to ``difference`` = log p(answer) - log p(answer |
    baseline), but for ``error``; natural log."""

    tokens: np.ndarray
    difference: float
    error: float

    @property
    def relative(self) -> float:
        """|error| as a share of |difference|; infinite without a difference."""
        return abs(self.error) / abs(self.difference) if self.difference else np.inf


def integrated_gradients(
    score: AnswerScore, baseline: str = "mean", steps: int = 32, batch: int = 8
) -> Gradients:
    """Integrated gradients along the straight line from the baseline [Sundararajan et al. 2017], Gauss-Legendre.

    Args:
        steps: points on the line. The mean baseline is well served by 32; zero may need 512.
        batch: points that run together.

    Raises:
        ProbeError: captum is missing, an unknown baseline, fewer than 2 steps, or gradients that are not finite.
    """
    if steps < 2:
        raise ProbeError(f"integrate gradients in {steps} steps", "a line needs 2 or more", "Give 32")
    base = score.baseline(baseline)
    method = captum_attr().IntegratedGradients(score)
    found, error = method.attribute(
        score.embeddings, base, n_steps=steps, internal_batch_size=batch, return_convergence_delta=True
    )
    tokens = found[0].detach().double().sum(-1).cpu().numpy()
    with torch.no_grad():
        difference = float((score(score.embeddings) - score(base)).double())
    if not np.isfinite(tokens).all():
        raise ProbeError(
            "integrate gradients",
            "they are not finite",
            "Check the weights of this checkpoint, or use float32",
        )
    return Gradients(tokens, difference, float(error.double().sum()))


def ablation(score: AnswerScore, blocks: Blocks, baseline: str = "mean", batch: int = 8) -> np.ndarray:
    """log p(answer) - log p(answer | block replaced by the baseline) for each block, float64 ``[K]``.

    Raises:
        ProbeError: captum is missing, or an unknown baseline.
    """
    of = torch.from_numpy(blocks.of[score.positions]).to(score.embeddings.device)
    mask = of[None, :, None]  # every visual position lies in a block
    with torch.no_grad():
        found = (
            captum_attr()
            .FeatureAblation(score)
            .attribute(
                score.embeddings, score.baseline(baseline), feature_mask=mask, perturbations_per_eval=batch
            )
        )
    first = [int((of == block).nonzero()[0]) for block in range(len(blocks))]
    return found[0, first, 0].double().cpu().numpy()
