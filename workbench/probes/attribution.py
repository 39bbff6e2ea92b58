"""Attribution map: which frames made the answer, by effect, beside where attention went; and whether they agree.

Rankings of the K blocks (frames, or parts of them):

- "attention": mass of the answer's predicting positions on the block, mean over layers, heads and these;
- "knockout": what hiding the block from text in all layers takes from log p(answer) (``knockout.py``);
- "ablation": what replacing its embeddings by the baseline takes (``attribution_methods.py``);
- "ig": integrated gradients of its positions, summed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from workbench.captures import Capture, capture_to
from workbench.models.videolm import Prepared
from workbench.probes.attention import Look, RowWriter, inputs_of, looking, token_texts
from workbench.probes.attention_tap import AttentionTap
from workbench.probes.attribution_curves import (
    MODES,
    RANDOM,
    SCALES,
    curves,
    ordering,
    rank_correlations,
    with_random,
)
from workbench.probes.attribution_methods import ablation, captum_attr, integrated_gradients
from workbench.probes.attribution_score import AnswerScore, frozen
from workbench.probes.common import Checkpoint, ProbeError, capture_meta
from workbench.probes.knockout import knockout_prepared
from workbench.probes.knockout_cells import Blocks, check_turn, frame_blocks
from workbench.probes.pictures import add_pictures
from workbench.samples.sample import Clip, Sample

KIND = "attribution"
RANKINGS = ("attention", "knockout", "ablation", "ig")


def attribution_map(
    model: Any,
    processor: Any,
    sample: Sample,
    clip: Clip | None,
    rankings: Sequence[str] = RANKINGS,
    grid: tuple[int, int] | None = None,
    *,
    baseline: str = "mean",
    steps: int = 32,
    batch: int = 8,
    with_curves: bool = False,
    points: int = 16,
    draws: int = 8,
    turn: int = 0,
    seed: int = 0,
    path: str | Path | None = None,
    checkpoint: Checkpoint | None = None,
    recipe_hash: str | None = None,
    pictures: bool = True,
) -> Capture:
    """What each frame did to the answer of one sample, by several methods.

    Args:
        model: a ``VideoLM``; used as it is, in eval mode.
        processor: what prepares its inputs.
        rankings: which of ``RANKINGS``.
        grid: None takes whole frames, (rows, cols) parts of each.
        baseline: what replaces a position: "mean" or "zero", see ``AnswerScore.baseline``.
        steps: of integrated gradients.
        batch: forward (and backward) passes of one row that run together.
        with_curves: also deletion and insertion curves of every ranking, and of ``draws`` random ones.
        points: at most so many steps a curve.
        turn: which question of the sample.
        seed: of random rankings and of the knockout's checks.
        path: write the capture there; None keeps it in memory.
        pictures: keep the frames too, small (``pictures.py``).

    Returns:
        A capture ``attribution``: ``scores`` [ranking, block]; ``spearman`` [ranking, ranking_too]; ``block_of``
        [key]; with "ig" ``ig_tokens`` [token] and ``tokens`` (positions), and in the metadata ``completeness``
        {error, relative, difference, steps}; with curves ``fractions`` [point], ``curves`` [curve, mode, point], ``auc``
        [curve, mode, scale] (the last curve: mean of random rankings) and ``auc_random`` [draw, mode, scale].

    Raises:
        ProbeError: no answer or nothing visual, an unknown ranking or baseline, captum is missing (with the line that
            installs it), gradients that are not finite; see ``knockout_map``.
    """
    began = time.perf_counter()
    unknown = [name for name in rankings if name not in RANKINGS]
    if unknown or not rankings:
        named = unknown[0] if unknown else "(none)"
        raise ProbeError(f"rank by {named!r}", "there is no such ranking", f"Use {', '.join(RANKINGS)}")
    if {"ig", "ablation"} & set(rankings):
        captum_attr()  # before anything is computed
    check_turn(sample, turn)
    prepared = processor.prepare(sample, clip, turns=(turn,))
    blocks = frame_blocks(prepared.token_map, grid)
    more: dict[str, Any] = {}
    arrays: dict[str, np.ndarray] = {}
    scores: dict[str, np.ndarray] = {}
    with frozen(model):
        score = AnswerScore(model, prepared, sample.id)
        for name in dict.fromkeys(rankings):
            if name == "attention":
                look = Look(heads="mean", store="float32", turn=turn, pictures=False)
                scores[name] = attention_mass(model, processor, sample, clip, prepared, blocks, look)
            elif name == "knockout":
                cut = knockout_prepared(
                    model,
                    prepared,
                    "all",
                    grid,
                    checks=2,
                    seed=seed,
                    sample=sample,
                    clip=clip,
                    pictures=False,
                )
                scores[name] = -cut.arrays["deltas"][0]
                more["knockout_max_error"] = cut.meta["max_error"]
            elif name == "ablation":
                scores[name] = ablation(score, blocks, baseline, batch)
            else:
                found = integrated_gradients(score, baseline, steps, batch)
                of = blocks.of[score.positions]
                scores[name] = np.bincount(of, found.tokens, minlength=len(blocks))
                arrays |= {"ig_tokens": found.tokens, "tokens": score.positions.astype(np.int64)}
                more["completeness"] = {
                    "error": found.error,
                    "relative": found.relative if np.isfinite(found.relative) else None,
                    "difference": found.difference,
                    "steps": steps,
                }
        if with_curves:
            if draws < 1:
                raise ProbeError(f"compare with {draws} random rankings", "one or more are needed", "Give 8")
            rng = np.random.default_rng(seed)
            orders = [ordering(values) for values in scores.values()]
            orders += [rng.permutation(len(blocks)) for _ in range(draws)]
            made, random = with_random(curves(score, blocks, orders, baseline, points, batch), len(scores))
            arrays |= {"fractions": made.fractions, "curves": made.log_probability, "auc": made.auc}
            arrays["auc_random"] = random
    arrays["scores"] = np.stack(list(scores.values()))
    arrays["spearman"] = rank_correlations(scores)
    arrays["block_of"] = blocks.of.astype(np.int64)
    meta = capture_meta(
        model,
        axes={name: AXES[name] for name in arrays},
        units={name: UNITS[name] for name in arrays},
        sample=sample,
        clip=clip,
        prepared=prepared,
        checkpoint=checkpoint,
        recipe_hash=recipe_hash,
        seed=seed,
        turn=turn,
        rankings=list(scores),
        curve_names=[*scores, RANDOM] if with_curves else [],
        modes=list(MODES),
        scales=list(SCALES),
        blocks=blocks.labels,
        grid=grid,
        baseline=baseline,
        answer_tokens=score.answer_tokens,
        deepstack_included=score.embeddings.shape[-1] > score.width,
        tokens_text=token_texts(processor, prepared),
        seconds=time.perf_counter() - began,
        **more,
    )
    with capture_to(path, KIND, meta) as writer:
        for name, array in arrays.items():
            writer.add(name, array)
        add_pictures(writer, clip, pictures)
        return writer.finish()


AXES = {
    "scores": ("ranking", "block"),
    "spearman": ("ranking", "ranking_too"),
    "block_of": ("key",),
    "ig_tokens": ("token",),
    "tokens": ("token",),
    "fractions": ("point",),
    "curves": ("curve", "mode", "point"),
    "auc": ("curve", "mode", "scale"),
    "auc_random": ("draw", "mode", "scale"),
}
UNITS = {
    "scores": "attention: probability mass; others: natural log units of the answer's probability",
    "spearman": "rank correlation over blocks; NaN with fewer than three or all equal",
    "block_of": "index of the block, -1 for none",
    "ig_tokens": "share of log p(answer) - log p(answer | baseline), natural log",
    "tokens": "position",
    "fractions": "share of the blocks replaced (deletion) or kept (insertion)",
    "curves": "log-probability of the answer, natural log",
    "auc": "area under the curve of the answer's probability, and of its natural log",
    "auc_random": "the same for each random ranking",
}


def attention_mass(
    model: Any,
    processor: Any,
    sample: Sample,
    clip: Clip | None,
    prepared: Prepared,
    blocks: Blocks,
    look: Look,
) -> np.ndarray:
    """Attention of the positions that predict the answer on each block, mean over layers, heads and these: ``[K]``.

    NaN where none of them sees any of the block in any layer.
    """
    with RowWriter(model, processor, sample, clip, prepared, "predict", look) as rows:
        with looking(model), AttentionTap(model, rows.see, "llm", rows.layers):
            model(**inputs_of(prepared, model), use_cache=False, return_logits=False)
        found = rows.finish().arrays["rows"][:, 0]  # [layer, query, key]
    mass = np.array([np.nansum(found[..., blocks.members(k)], axis=-1).mean() for k in range(len(blocks))])
    seen = np.array([np.isfinite(found[..., blocks.members(k)]).any() for k in range(len(blocks))])
    return np.where(seen, mass, np.nan)
