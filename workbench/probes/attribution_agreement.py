"""Do attention and effect agree? Rank correlations and curve areas over a set of samples, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from workbench.captures import Capture
from workbench.errors import MediaError
from workbench.probes.attribution import RANKINGS, attribution_map
from workbench.probes.attribution_curves import MODES, RANDOM, mean_over_samples
from workbench.probes.common import ProbeError, capture_meta
from workbench.probes.target import Target

KIND = "attribution_agreement"
STATISTICS = ("mean", "low", "high", "samples")


@dataclass(frozen=True, eq=False)
class _Seen:
    ids: list[str]
    captures: list[Capture]
    left_out: list[str]


def agreement_over(target: Target, rankings: Sequence[str] = RANKINGS, **asked: Any) -> Capture:
    """Rank correlations of the rankings over the samples of ``target``.

    Samples without media or answer, or whose media cannot be read, are left out and named.

    Args:
        asked: of ``attribution_map`` (grid, baseline, steps, batch, with_curves, points, draws).

    Returns:
        A capture ``attribution_agreement``: ``spearman`` [sample, pair], ``agreement`` [pair, statistic] = mean, 95%
        interval (Student's t over samples) and how many samples have a value; ``completeness`` [sample] = relative
        error of integrated gradients; with curves ``auc`` [sample, curve, mode] of the log-probability and
        ``auc_gain`` [curve, mode, statistic]: better than random by so much, paired within samples (deletion: random
        minus it; insertion: it minus random). The metadata name ``pairs``, ``curve_names``, ``samples``.

    Raises:
        ProbeError: no sample could be used; see ``attribution_map``.
    """
    seen = _look(target, rankings, asked)
    names = seen.captures[0].meta["rankings"]
    pairs = list(combinations(range(len(names)), 2))
    correlations = np.array(
        [[capture.arrays["spearman"][i, j] for i, j in pairs] for capture in seen.captures]
    ).reshape(len(seen.ids), len(pairs))
    arrays = {
        "spearman": correlations,
        "agreement": np.array([mean_over_samples(column) for column in correlations.T]).reshape(-1, 4),
    }
    arrays["agreement"][:, :3] = arrays["agreement"][:, :3].clip(-1, 1)  # no correlation lies outside
    if "ig" in names:
        arrays["completeness"] = np.array([_relative(capture) for capture in seen.captures])
    if asked.get("with_curves"):
        auc = np.stack([capture.arrays["auc"][..., 1] for capture in seen.captures])
        gain = (auc - auc[:, -1:]) * np.array([-1.0, 1.0])  # the last curve is the random one
        arrays["auc"] = auc
        arrays["auc_gain"] = np.array(
            [[mean_over_samples(gain[:, c, m]) for m in range(len(MODES))] for c in range(len(names))]
        )
    meta = capture_meta(
        target.model,
        axes={name: AXES[name] for name in arrays},
        units={name: UNITS[name] for name in arrays},
        checkpoint=target.checkpoint,
        recipe_hash=target.recipe_hash,
        seed=target.seed,
        turn=target.turn,
        rankings=names,
        pairs=[[names[i], names[j]] for i, j in pairs],
        statistics=list(STATISTICS),
        curve_names=[*names, RANDOM] if asked.get("with_curves") else [],
        modes=list(MODES),
        samples=seen.ids,
        left_out=seen.left_out,
        frames_of_videos=target.frames,
        method="mean over samples with Student's t interval, 95%; says nothing about another training seed",
        **asked,
    )
    return Capture(KIND, arrays, meta)


AXES = {
    "spearman": ("sample", "pair"),
    "agreement": ("pair", "statistic"),
    "completeness": ("sample",),
    "auc": ("sample", "curve", "mode"),
    "auc_gain": ("ranking", "mode", "statistic"),
}
UNITS = {
    "spearman": "rank correlation over the blocks of a sample; NaN with fewer than three or all equal",
    "agreement": "rank correlation: mean, low, high; number of samples",
    "completeness": "|completeness error| / |log p(answer) - log p(answer | baseline)|",
    "auc": "area under the curve of the answer's log-probability, natural log",
    "auc_gain": "natural log units better than random rankings: mean, low, high; number of samples",
}


def _look(target: Target, rankings: Sequence[str], asked: dict[str, Any]) -> _Seen:
    seen = _Seen([], [], [])
    for sample in target.samples:
        if sample.media is None:
            seen.left_out.append(f"{sample.id}: no image or video")
            continue
        turns = sample.turns
        if target.turn >= len(turns) or not turns[target.turn].answer.strip():
            seen.left_out.append(f"{sample.id}: no question {target.turn} with an answer")
            continue
        try:
            clip = target.clip(sample)
        except MediaError as error:
            seen.left_out.append(f"{sample.id}: {error}")
            continue
        capture = attribution_map(
            target.model,
            target.processor,
            sample,
            clip,
            rankings,
            turn=target.turn,
            seed=target.seed,
            pictures=False,
            **asked,
        )
        seen.ids.append(sample.id)
        seen.captures.append(capture)
    if not seen.ids:
        why = seen.left_out[0] if seen.left_out else "there are none"
        raise ProbeError(
            "compare rankings", f"no sample of {len(target.samples)} could be used ({why})", "Give others"
        )
    return seen


def _relative(capture: Capture) -> float:
    found = capture.meta["completeness"]["relative"]
    return float("nan") if found is None else float(found)
