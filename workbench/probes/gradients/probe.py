"""``gradient_probe``: measure how image and video gradients of a model agree, and write it down.

In three phases: (1) inner products of all batches, few gradients kept at a time (``gram``); (2) the one-step
check; (3) the conflict map. Each is a function of the chosen batches alone, so a probe of another checkpoint
with the same seed sees the same batches.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor

from workbench.captures import Capture
from workbench.probes.common import Checkpoint, ProbeError, capture_meta
from workbench.probes.gradients.adam import AdamMetric
from workbench.probes.gradients.batches import (
    COUNTERFACTUALS,
    Batches,
    BatchMaker,
    Item,
    Reader,
    choose_batches,
)
from workbench.probes.gradients.conflict_map import PLACES, ConflictMap, conflict_map
from workbench.probes.gradients.gram import Gram, measure, passes_of
from workbench.probes.gradients.one_step import SHARE, OneStep, one_step, step_size
from workbench.probes.gradients.parameters import ALL, ParameterGroups, parameter_groups
from workbench.probes.gradients.statistics import (
    MEANING,
    STATISTICS,
    Design,
    pair_fractions,
    quotients,
    summarise,
)
from workbench.probes.gradients.stream import GradientStream
from workbench.samples.sample import Sample
from workbench.training.packing import PackedBatch

KIND = "gradients"
STEP = ("eta", "predicted", "measured", "first_order", "curvature")
METHOD = (
    "intervals are 95%, an expanded percentile bootstrap over batch pairs of one checkpoint (Wilson for the "
    "conflict rate); they cover the choice of batches, not another training seed"
)


def gradient_probe(
    model: Any,
    processor: Any,
    images: Sequence[Sample],
    videos: Sequence[Sample],
    *,
    frames: Sequence[int] = (2, 4, 8, 16),
    pairs: int = 8,
    batch: int = 16,
    groups: Sequence[str] | None = None,
    counterfactuals: Sequence[str] = COUNTERFACTUALS,
    static: bool = True,
    subspace: int = 4,
    adam: AdamMetric | None = None,
    check_steps: bool = True,
    map_conflicts: bool = True,
    copies: int = 1,
    reader: Reader | None = None,
    tokens_per_row: int = 512,
    seed: int = 0,
    checkpoint: Checkpoint | None = None,
    recipe_hash: str | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Capture:
    """Decompose video gradients against image gradients.

    Args:
        model, processor: any ``VideoLM`` outside of an engine, and what prepares its inputs.
        images, videos: to draw batches from; samples with an answer.
        frames: counts every video is shown at.
        pairs: disjoint (image, video) batch pairs; fewer than 8 give wide intervals.
        batch: conversations a batch. A batch is one backward pass, so this sets the memory of activations.
        groups: module groups to probe (``module_groups()`` and "llm.0" ...); everything if None.
        counterfactuals: of definition (c).
        static: also run it on videos with ``min_frames == 1``, where there are enough.
        subspace: image batches m of definition (b); 0 leaves it out. Costs no memory with ``copies=1``, but m
            times as many passes over the pairs.
        adam: the second metric, from a checkpoint's optimizer state.
        check_steps: take the one-step check (needs a copy of the probed weights instead of a gradient).
        map_conflicts: make the per-frame conflict map.
        copies: gradients kept at a time, each ``4 bytes x parameters``; more take fewer passes.
        reader: reads media; a ``FrameReader`` by default.
        tokens_per_row: of packing.
        seed: of the draw of batches, of shuffles and resamples.
        progress: called as ``progress(phase, done, total)``.

    Returns:
        A capture of kind "gradients"; docs/formats.md lists its arrays.

    Raises:
        ProbeError: groups the model lacks, gradients that are not finite, too little memory for ``copies``.
        DataError: samples without answer, or too few.
    """
    frames = tuple(dict.fromkeys(int(n) for n in frames))
    _check_arguments(frames, pairs, batch, counterfactuals)
    began = time.perf_counter()
    probed = parameter_groups(model, groups)
    _check_memory(probed, copies)
    with _evaluating(model), _reading(reader) as source:
        chosen = choose_batches(
            processor, images, videos, source,
            frames=max(frames), pairs=pairs, batch=batch, held_out=subspace, seed=seed, static=static,
        )  # fmt: skip
        maker = BatchMaker(processor, source, tokens_per_row, seed)
        bench = _Bench(model, processor, probed, chosen, maker)
        stream = GradientStream(model, probed, adam)
        design = Design(
            pairs,
            frames,
            tuple(counterfactuals),
            bool(chosen.static),
            subspace,
            stream.metrics,
            probed.groups,
        )
        edges = design.edges()
        total = passes_of(edges, copies)
        tell = progress or (lambda phase, done, of: None)
        gram = measure(stream, bench.loss_of, edges, copies, lambda done: tell("inner products", done, total))
        tops, bottoms = pair_fractions(gram, design)
        summary = summarise(tops, bottoms, gram, design, seed)
        arrays: dict[str, np.ndarray] = {
            "values": quotients(tops, bottoms),
            "estimates": summary.estimates,
            "trend": summary.trend,
            "pairs_used": summary.pairs_used,
            "conflict_rate": summary.conflict,
            "signal": summary.signal,
            "corrected_cos": summary.corrected_cos,
            "image_loss": np.array([gram.losses[("image", b)] for b in range(pairs)]),
            "video_loss": np.array([[gram.losses[("video", b, n)] for n in frames] for b in range(pairs)]),
        }
        if check_steps:
            arrays["one_step"] = _steps(bench, gram, design, tell)
        if map_conflicts:
            arrays |= _maps(bench, stream, gram, design, tell)
    meta = capture_meta(
        model,
        axes={name: axes_of(name) for name in arrays},
        units={name: _unit(name) for name in arrays},
        checkpoint=checkpoint,
        recipe_hash=recipe_hash,
        seed=seed,
        statistics=list(STATISTICS),
        meaning=MEANING,
        metrics=list(design.metrics),
        groups=list(probed.groups),
        frame_counts=list(frames),
        pairs=pairs,
        batch=batch,
        answer_tokens=[sum(item.answer_tokens for item in items) for items in chosen.images],
        places=list(PLACES),
        step_columns=list(STEP),
        step_share=SHARE,
        counterfactuals=list(counterfactuals),
        subspace=subspace,
        static=bool(chosen.static),
        missing=_missing(gram, design, probed),
        samples=_ids(chosen),
        skipped=chosen.skipped,
        cost={
            "passes": gram.passes,
            "copies": copies,
            "copy_bytes": probed.copy_bytes,
            "seconds": round(time.perf_counter() - began, 3),
        },
        method=METHOD,
    )
    return Capture(KIND, arrays, meta).completed()


class _Bench:
    """The batches of a probe by name, as losses."""

    def __init__(
        self, model: Any, processor: Any, probed: ParameterGroups, chosen: Batches, maker: BatchMaker
    ) -> None:
        self.model, self.processor, self.probed, self.maker = model, processor, probed, maker
        self.chosen = chosen
        self.device = probed.parameters[0].device

    def items(self, source: tuple) -> list[Item]:
        lists = {
            "image": self.chosen.images,
            "other": self.chosen.others,
            "held_out": self.chosen.held_out,
            "static": self.chosen.static,
            "static_frozen": self.chosen.static,
        }
        return lists.get(source[0], self.chosen.videos)[source[1]]

    def packed(self, source: tuple) -> PackedBatch:
        kind, frames = source[0], source[2] if len(source) > 2 else 1
        changed = {"frozen": "frozen", "shuffled": "shuffled", "static_frozen": "frozen"}.get(kind, "")
        return self.maker.batch(self.items(source), frames, changed)

    def loss_of(self, source: Any) -> Callable[[], Tensor]:
        """Mean over the batch's answer tokens; the forward pass happens when it is called."""
        packed = self.packed(source)
        inputs = packed.model_inputs(self.device)
        return lambda: self.model(**inputs, num_items=packed.answer_tokens).loss


def _steps(bench: _Bench, gram: Gram, design: Design, tell: Callable[[str, int, int], None]) -> np.ndarray:
    """``[B, N, len(STEP)]``."""
    out = np.full((design.pairs, len(design.frames), len(STEP)), np.nan)
    everything = design.groups[ALL]
    for b in range(design.pairs):
        image = bench.loss_of(("image", b))
        for n, frames in enumerate(design.frames):
            source = ("video", b, frames)
            square = float(np.nansum(gram.square(source)[everything]))
            # parameters the image loss does not reach do not change it: here missing does mean none
            product = float(np.nansum(gram.dot(("image", b), source)[everything]))
            eta = step_size(gram.losses[source], square)
            taken: OneStep = one_step(bench.model, bench.probed, bench.loss_of(source), image, eta, product)
            out[b, n] = [getattr(taken, name) for name in STEP]
            tell("one-step check", b * len(design.frames) + n + 1, out.shape[0] * out.shape[1])
    return out


def _maps(
    bench: _Bench, stream: GradientStream, gram: Gram, design: Design, tell: Callable[[str, int, int], None]
) -> dict[str, np.ndarray]:
    """Maps over |g_I|^2 of their group, so that they add up to the interference: arrays by frame count."""
    found: dict[int, list[ConflictMap]] = {n: [] for n in design.frames}
    squares: list[np.ndarray] = []
    for b in range(design.pairs):
        scalars, image = stream.run(bench.loss_of(("image", b)), keep=True)
        assert image is not None
        for frames in design.frames:
            items = bench.items(("video", b, frames))
            count = sum(item.answer_tokens for item in items)
            maps = [
                conflict_map(
                    bench.model, bench.probed, image, bench.maker.prepared(item, frames), count,
                    bench.processor.pad_token_id,
                )
                for item in items
            ]  # fmt: skip
            total = maps[0]
            for more in maps[1:]:
                total = total + more
            found[frames].append(total)
        common = [np.isfinite(gram.dot(("image", b), ("video", b, n))) for n in design.frames]
        square = scalars.squares["plain"]
        stream.reuse(image)
        squares.append(
            np.array([[np.nansum(square[at][c[at]]) for c in common] for at in design.groups.values()])
        )
        tell("conflict map", b + 1, design.pairs)
    stream.release()
    arrays: dict[str, np.ndarray] = {}
    for n, (frames, maps) in enumerate(found.items()):
        scale = np.array([np.where(s[:, n] > 0, s[:, n], np.nan) for s in squares])
        arrays[f"map_{frames}"] = np.stack([m.frames for m in maps]) / scale[..., None]
        arrays[f"map_rest_{frames}"] = np.stack([m.rest for m in maps]) / scale[..., None]
        if len({m.patches.shape for m in maps}) == 1 and maps[0].patches.shape[-1]:
            patches = np.stack([m.patches for m in maps]) / scale[..., None, None]
            arrays[f"map_patches_{frames}"] = patches.mean(0).astype(np.float32)
    return arrays


# -- what goes with it -----------------------------------------------------------------------------


def axes_of(name: str) -> list[str]:
    """Names of an array's axes."""
    for prefix, axes in (
        ("map_patches_", ["group", "frame_{}", "patch"]),
        ("map_rest_", ["pair", "group", "place"]),
        ("map_", ["pair", "group", "frame_{}"]),
    ):
        if name.startswith(prefix):
            return [axis.format(name.removeprefix(prefix)) for axis in axes]
    return {
        "values": ["statistic", "metric", "pair", "group", "frames"],
        "estimates": ["statistic", "metric", "group", "frames", "bound"],
        "trend": ["statistic", "metric", "group", "bound"],
        "pairs_used": ["statistic", "metric", "group", "frames"],
        "conflict_rate": ["metric", "group", "frames", "bound"],
        "signal": ["metric", "group", "bound"],
        "corrected_cos": ["metric", "group", "frames", "bound"],
        "image_loss": ["pair"],
        "video_loss": ["pair", "frames"],
        "one_step": ["pair", "frames", "step_column"],
    }[name]


def _unit(name: str) -> str:
    if name.startswith("map_"):
        return "part of <g_I, g_V> / |g_I|^2"
    if name.endswith("_loss") or name == "one_step":
        return "nats per answer token (eta: step size)" if name == "one_step" else "nats per answer token"
    return "pairs" if name == "pairs_used" else "1"


def _missing(gram: Gram, design: Design, probed: ParameterGroups) -> dict[str, list[str]]:
    """Parameters without a gradient on either side: names by "image" and "video" (frames as used)."""
    image = np.isnan([gram.square(("image", b)) for b in range(design.pairs)]).any(0)
    out = {"image": [probed.names[i] for i in np.flatnonzero(image)]}
    for n in design.frames:
        video = np.isnan([gram.square(("video", b, n)) for b in range(design.pairs)]).any(0)
        out[f"video_{n}"] = [probed.names[i] for i in np.flatnonzero(video)]
    return out


def _ids(chosen: Batches) -> dict[str, list[list[str]]]:
    """Sample ids of every batch."""
    named = {"image": chosen.images, "other": chosen.others, "video": chosen.videos}
    named |= {"static": chosen.static, "held_out": chosen.held_out}
    return {
        name: [[f"{item.sample.id}#{item.turn}" for item in items] for items in batches]
        for name, batches in named.items()
    }


def _check_arguments(frames: tuple[int, ...], pairs: int, batch: int, counterfactuals: Sequence[str]) -> None:
    if not frames or min(frames) < 1 or pairs < 1 or batch < 1:
        raise ProbeError(
            "probe gradients",
            f"frames={list(frames)}, pairs={pairs}, batch={batch} leave nothing to measure",
            "Give frame counts, pairs and batch of at least 1",
        )
    for kind in counterfactuals:
        if kind not in COUNTERFACTUALS:
            raise ProbeError(
                f"use the counterfactual {kind!r}",
                f"there are {', '.join(COUNTERFACTUALS)}",
                "Name one of them",
            )


def _check_memory(probed: ParameterGroups, copies: int) -> None:
    device = probed.parameters[0].device
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    needed = copies * probed.copy_bytes
    if needed > free:
        raise ProbeError(
            f"keep {copies} gradient{'s' if copies > 1 else ''}",
            f"that takes {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free",
            "Lower copies, or probe fewer module groups",
        )


@contextlib.contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Eval mode: dropout would make the same batch another gradient each time."""
    was = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was)


@contextlib.contextmanager
def _reading(reader: Reader | None) -> Iterator[Reader]:
    if reader is not None:
        yield reader
        return
    from workbench.samples.reader import FrameReader

    with FrameReader() as made:
        yield made
