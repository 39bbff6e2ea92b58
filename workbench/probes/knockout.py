"""Knockout map: how the answer's log-probability changes when text may not look at a frame in some layers.

Attention says where a model looks; this says what difference it makes. T answer tokens (end mark included, as in
scores), W windows of layers, K blocks (frames, or parts of them). [OURS, science.md section 2]

    delta[w, k] = log p(answer | text does not see block k in window w) - log p(answer)

Text behind the video is replayed alone on kept keys and values (``knockout_replay.py``); some cells, drawn at random,
are computed again by a whole forward pass with a mask (``knockout_masked.py``), and a map that differs is refused.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor

from workbench.captures import Capture, capture_to
from workbench.models.videolm import Prepared
from workbench.probes.attention import inputs_of, looking, token_texts
from workbench.probes.common import Checkpoint, ProbeError, capture_meta
from workbench.probes.knockout_cells import (
    Blocks,
    Cut,
    Windows,
    answer_places,
    check_turn,
    cut_of,
    frame_blocks,
    layer_windows,
)
from workbench.probes.knockout_masked import hide_edges
from workbench.probes.knockout_replay import Kept, keep, logits_at, replay, rows_at_once
from workbench.probes.pictures import add_pictures
from workbench.samples.sample import Clip, Sample

KIND = "knockout"
# largest difference from the whole forward pass, for each answer token
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4, torch.float16: 0.03, torch.bfloat16: 0.2}
REPLAY, RECOMPUTE = "suffix replay", "full recomputation"


def knockout_map(
    model: Any,
    processor: Any,
    sample: Sample,
    clip: Clip | None,
    windows: Windows = None,
    grid: tuple[int, int] | None = None,
    edges: str = "text",
    *,
    recompute: bool = False,
    checks: int = 4,
    turn: int = 0,
    seed: int = 0,
    path: str | Path | None = None,
    checkpoint: Checkpoint | None = None,
    recipe_hash: str | None = None,
    pictures: bool = True,
) -> Capture:
    """The knockout map of one sample.

    Args:
        model: a ``VideoLM``; used as it is, in eval mode and without gradients.
        processor: what prepares its inputs.
        windows: of layers, see ``layer_windows`` (default: every run of a quarter of the layers, and all layers).
        grid: None blocks whole frames, (rows, cols) parts of each.
        edges: "text": text may not look at the block; "all": nothing behind it may, later frames included.
        recompute: run a whole forward pass for each cell. Needed, and only then allowed, where replay does not hold:
            ``edges="all"``, and questions between visual positions.
        checks: cells computed again by a whole forward pass (suffix replay only).
        turn: which question of the sample.
        seed: of the choice of those cells.
        path: write the capture there; None keeps it in memory.
        pictures: keep the frames too, small (``pictures.py``).

    Returns:
        A capture ``knockout``: ``deltas`` [window, block] in natural log units, below 0 where the block helped the
        answer; NaN where no blocked position sees any of the block (sliding windows); ``token_deltas`` [window, block,
        answer]; ``baseline`` [answer]; ``windows`` [window, edge] half-open; ``block_of`` [key] (-1: none);
        ``spot_cells`` [check, cell] and ``spot_error`` [check]. The metadata name ``method``, ``blocks``,
        ``baseline_logprob``, ``answer_tokens``, ``max_error``, ``replay_error`` (of the baseline) and ``tolerance``.

    Raises:
        ProbeError: no answer or nothing visual, windows or edges that are not there, an architecture that cannot be
            read, keys and values that do not fit into memory, or a map that the checks do not confirm.
    """
    check_turn(sample, turn)
    prepared = processor.prepare(sample, clip, turns=(turn,))
    return knockout_prepared(
        model, prepared, windows, grid, edges, recompute=recompute, checks=checks, seed=seed, path=path,
        sample=sample, clip=clip, turn=turn, checkpoint=checkpoint, recipe_hash=recipe_hash,
        tokens=token_texts(processor, prepared), pictures=pictures,
    )  # fmt: skip


def knockout_prepared(
    model: Any,
    prepared: Prepared,
    windows: Windows = None,
    grid: tuple[int, int] | None = None,
    edges: str = "text",
    *,
    recompute: bool = False,
    checks: int = 4,
    seed: int = 0,
    path: str | Path | None = None,
    pictures: bool = True,
    **about: Any,
) -> Capture:
    """``knockout_map`` of a conversation that is prepared already; ``about`` goes to ``capture_meta``."""
    began = time.perf_counter()
    name = about["sample"].id if about.get("sample") is not None else "this conversation"
    layers = len(model.attention_layers()["llm"])
    pairs = layer_windows(windows, layers)
    blocks, cut = frame_blocks(prepared.token_map, grid), cut_of(prepared.token_map, edges)
    places = answer_places(prepared.labels.numpy(), name)
    _refuse(cut, places, recompute, edges)
    inputs = inputs_of(prepared, model)
    targets = prepared.input_ids[places + 1].to(inputs["input_ids"].device)
    cells = [(w, k) for w in range(len(pairs)) for k in range(len(blocks))]
    token_deltas = np.full((len(pairs), len(blocks), len(places)), np.nan)
    more: dict[str, Any] = {}
    with looking(model):
        if recompute:
            baseline = gained(logits_at(model, inputs, places), targets)
            for w, k in cells:
                masked = _brute(model, inputs, places, cut, blocks, pairs[w], k, targets)
                token_deltas[w, k] = (masked - baseline).cpu().numpy()
            spots: list[tuple[int, int]] = []
            errors: list[float] = []
        else:
            _refuse_if_too_large(model, name, len(prepared), layers)
            kept = keep(model, inputs, places, cut.prefix)
            baseline = gained(kept.logits, targets)
            blind = _blind(kept, pairs, blocks)
            spots = [cell for cell in cells if not blind[cell]]
            more["replay_error"] = _replay_all(
                model, kept, places, targets, pairs, blocks, spots, token_deltas
            )
            drawn = np.random.default_rng(seed).permutation(len(spots))[:checks]
            spots = [spots[i] for i in sorted(drawn.tolist())]
            errors = []
            for w, k in spots:
                masked = _brute(model, inputs, places, cut, blocks, pairs[w], k, targets)
                wanted = float((masked - baseline).sum())
                errors.append(abs(wanted - float(token_deltas[w, k].sum())))
    tolerance = TOLERANCE.get(_dtype(model), 1e-4) * len(places)
    _confirm(baseline, [*errors, more.get("replay_error", 0.0)], tolerance)
    meta = capture_meta(
        model,
        axes=AXES,
        units=UNITS,
        prepared=prepared,
        seed=seed,
        method=RECOMPUTE if recompute else REPLAY,
        edges="text -> block" if edges == "text" else "all later positions -> block",
        blocks=blocks.labels,
        grid=grid,
        layers=layers,
        answer_tokens=len(places),
        baseline_logprob=float(baseline.sum()),
        max_error=max(errors, default=None),
        tolerance=tolerance,
        positions={"prefix": cut.prefix, "suffix": len(prepared) - cut.prefix},
        template_inside_media=cut.inside,
        seconds=time.perf_counter() - began,
        **more,
        **about,
    )
    with capture_to(path, KIND, meta) as writer:
        writer.add("deltas", token_deltas.sum(-1))
        add_pictures(writer, about.get("clip"), pictures)
        writer.add("token_deltas", token_deltas)
        writer.add("baseline", baseline.double().cpu().numpy())
        writer.add("answer", (places + 1).astype(np.int64))
        writer.add("windows", np.array(pairs, dtype=np.int64))
        writer.add("block_of", blocks.of.astype(np.int64))
        writer.add("spot_cells", np.array(spots, dtype=np.int64).reshape(-1, 2))
        writer.add("spot_error", np.array(errors, dtype=np.float64))
        return writer.finish()


AXES = {
    "deltas": ("window", "block"),
    "token_deltas": ("window", "block", "answer"),
    "baseline": ("answer",),
    "answer": ("answer",),
    "windows": ("window", "edge"),
    "block_of": ("key",),
    "spot_cells": ("check", "cell"),
    "spot_error": ("check",),
}
UNITS = {
    "deltas": "change of the answer's log-probability, natural log; NaN where nothing of the block is visible",
    "token_deltas": "the same for each answer token",
    "baseline": "log-probability of each answer token, natural log",
    "answer": "position of each answer token",
    "windows": "layers, first and last + 1",
    "block_of": "index of the block, -1 for none",
    "spot_cells": "indices of window and block",
    "spot_error": "|delta - delta of a whole masked forward pass|",
}


def _dtype(model: Any) -> torch.dtype:
    return next(model.language_model.parameters()).dtype


def _refuse(cut: Cut, places: np.ndarray, recompute: bool, edges: str) -> None:
    if recompute:
        return
    todo = "Give recompute=True (--recompute): one whole forward pass for each cell"
    if edges == "all":
        found = "it changes the keys and values of the frames behind the block, so they cannot be kept"
        raise ProbeError("block video to video edges by replay", found, todo)
    if cut.interleaved:
        found = f"{cut.interleaved} text positions stand between visual ones, which see them"
        raise ProbeError("replay the text behind the video", found, todo)
    if places[0] < cut.prefix:
        found = "the answer follows the video directly: a visual position predicts its first token"
        raise ProbeError("replay the text behind the video", found, "Ask a question behind the video")


def gained(logits: Tensor, targets: Tensor) -> Tensor:
    """Log-probability of the answer tokens: ``[..., T, V]`` and ``[T]`` -> ``[..., T]`` float64.

    Few rows at a time: in float64 a large vocabulary would take twice the memory of its logits.
    """
    own = logits.gather(-1, targets.expand(logits.shape[:-1])[..., None])[..., 0].double()
    total = torch.cat([part.double().logsumexp(-1) for part in logits.flatten(0, -2).split(16)])
    return own - total.view_as(own)


def _blind(kept: Kept, pairs: Sequence[tuple[int, int]], blocks: Blocks) -> np.ndarray:
    """Bool ``[W, K]``: cells where no text position sees any of the block in any layer of the window."""
    return np.array(
        [[not kept.seen_prefix[a:b, blocks.members(k)].any() for k in range(len(blocks))] for a, b in pairs]
    )


def _replay_all(
    model: Any,
    kept: Kept,
    places: np.ndarray,
    targets: Tensor,
    pairs: Sequence[tuple[int, int]],
    blocks: Blocks,
    cells: Sequence[tuple[int, int]],
    token_deltas: np.ndarray,
) -> float:
    """Fill ``token_deltas`` in batches; the answer's error of a replay with nothing blocked, against the model."""
    hidden = torch.from_numpy(blocks.of[: kept.prefix])
    device = kept.layers[0].key.device
    nothing = torch.zeros(kept.prefix, dtype=torch.bool, device=device)
    # the same rounding is in both terms of a difference: replayed minus replayed
    own = gained(replay(model, kept, places, [((0, 0), nothing)]), targets)[0]
    error = float((own.sum() - gained(kept.logits, targets).sum()).abs())
    ordered = sorted(cells, key=lambda cell: pairs[cell[0]][0])  # a batch starts at its first blocked layer
    step = rows_at_once(kept, kept.logits.numel())
    for start in range(0, len(ordered), step):
        batch = ordered[start : start + step]
        asked = [(pairs[w], (hidden == k).to(device)) for w, k in batch]
        logs = gained(replay(model, kept, places, asked), targets)
        for (w, k), values in zip(batch, (logs - own).cpu().numpy(), strict=True):
            token_deltas[w, k] = values
    return error


def _brute(
    model: Any,
    inputs: dict[str, Any],
    places: np.ndarray,
    cut: Cut,
    blocks: Blocks,
    window: tuple[int, int],
    block: int,
    targets: Tensor,
) -> Tensor:
    """Log-probabilities of the answer tokens by a whole forward pass with the edges of one cell hidden."""
    mine = blocks.of == block
    queries = ~mine if cut.queries is None else cut.queries
    edges = torch.from_numpy(queries[:, None] & mine[None, :]).to(inputs["input_ids"].device)
    with hide_edges(model, dict.fromkeys(range(*window), edges)):
        return gained(logits_at(model, inputs, places), targets)


def _confirm(baseline: Tensor, errors: Sequence[float], tolerance: float) -> None:
    if not bool(baseline.isfinite().all()):
        raise ProbeError(
            "measure the answer", "its log-probability is not finite", "Check the weights of this checkpoint"
        )
    worst = max(errors)
    if not worst <= tolerance:
        raise ProbeError(
            "trust the knockout map",
            f"replay differs from the whole forward pass by {worst:.3g} (allowed: {tolerance:.3g})",
            "Give recompute=True (--recompute); the model's attention is not what replay takes it for",
        )


def _refuse_if_too_large(model: Any, name: str, positions: int, layers: int) -> None:
    """Refuse keys and values that do not fit, naming the size. Raises ProbeError."""
    config = model.language_model.config
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    shared = getattr(config, "num_key_value_heads", None) or heads
    weight = next(model.language_model.parameters())
    size = 2 * layers * positions * shared * width * weight.element_size()
    free = (
        torch.cuda.mem_get_info(weight.device)[0]
        if weight.device.type == "cuda"
        else psutil.virtual_memory().available
    )
    if size > free:
        raise ProbeError(
            f"keep the keys and values of {name}",
            f"{positions:,} positions in {layers} layers take {size / 2**30:,.1f} GiB, {free / 2**30:,.1f} are free",
            "Show fewer frames or smaller ones, or give recompute=True (--recompute), which keeps none",
        )
