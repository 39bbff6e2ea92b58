"""Attention inside the vision encoder, in raster order whatever order the encoder works in.

Axes: T pictures of one call, S positions of each, F frames and P patches a frame as ``Prepared.grid`` counts them.

Encoders see a clip in different orders: one picture after the other (ours, CLIP, SigLIP; CLIP with a class token in
front), cell by cell (Qwen: 2x2 cells for the merger), window by window (Qwen2.5-VL). An ``EncoderLayout`` says which
frame and patch each position is, and rows come out over the P patches of the query's own frame. Patches of that frame
which a query cannot see (another window, another tile) are not visible; other frames never are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from workbench.captures import Capture, capture_to
from workbench.captures.rows import chosen_store
from workbench.models.videolm import Prepared
from workbench.probes.attention import (
    Look,
    head_count,
    head_list,
    inputs_of,
    looking,
)
from workbench.probes.attention_keeping import CHECK_UNIT, describe, look_meta, put, refuse_if_too_large
from workbench.probes.attention_math import BLOCK, check, exact_rows, output_factors, value_norms
from workbench.probes.attention_size import kept_bytes
from workbench.probes.attention_tap import AttentionTap, Call, attention_modules
from workbench.probes.common import ProbeError
from workbench.probes.pictures import add_pictures
from workbench.samples.sample import Clip, Sample


@dataclass(frozen=True, eq=False)
class EncoderLayout:
    """``frame`` and ``patch`` of each encoder position, int64 ``[n]``; patch -1 is a class token."""

    frame: np.ndarray
    patch: np.ndarray


def encoder_layout(config: Any, grid: Sequence[int], pictures: int, length: int) -> EncoderLayout:
    """The order of one medium in the encoder.

    Args:
        config: of the model.
        grid: (F, rows, cols, ...) of ``Prepared``.
        pictures, length: T and S of the first call; Qwen's calls are windows and say nothing.

    Raises:
        ProbeError: lengths that fit no known order.
    """
    frames, rows, cols = (int(n) for n in grid[:3])
    patches = rows * cols
    if getattr(config, "model_type", "") in ("qwen2_5_vl", "qwen3_vl"):
        return _cells(config, frames, rows, cols)
    for extra in (0, 1):
        if pictures * (length - extra) == frames * patches:
            patch = np.arange(frames * patches).reshape(pictures, length - extra)
            patch = np.concatenate([np.full((pictures, extra), -1), patch % patches], axis=1)
            frame = np.repeat(np.arange(pictures) * frames // pictures, length)
            return EncoderLayout(frame, patch.ravel())
    raise ProbeError(
        "look into the attention of the encoder",
        f"it sees {pictures} pictures of {length} positions where the frames make {frames} x {patches} patches",
        "This encoder's order is not known",
    )


def _cells(config: Any, frames: int, rows: int, cols: int) -> EncoderLayout:
    merge = config.vision_config.spatial_merge_size
    raster = np.arange(rows * cols).reshape(rows // merge, merge, cols // merge, merge)
    patch = np.tile(raster.transpose(0, 2, 1, 3).ravel(), frames)
    frame = np.repeat(np.arange(frames), rows * cols)
    if config.model_type == "qwen2_5_vl":
        from transformers.vision_utils import get_vision_window_index

        vision = config.vision_config
        grid = torch.tensor([[frames, rows, cols]])
        order = get_vision_window_index(grid, merge, vision.window_size, vision.patch_size)[0].numpy()
        places = (order[:, None] * merge**2 + np.arange(merge**2)).ravel()
        frame, patch = frame[places], patch[places]
    return EncoderLayout(frame, patch)


def encoder_rows(
    model: Any,
    processor: Any,
    sample: Sample,
    clip: Clip | None,
    queries: str | Sequence[int],
    look: Look,
    path: str | Path | None = None,
) -> Capture:
    """Attention of the vision encoder on one sample.

    Args:
        queries: patches by number, frame * P + raster index in the frame; or ``"mean"``: for every patch the attention
            it receives from a patch of its frame, averaged over those that see it.

    Returns:
        A capture ``encoder_rows``: ``rows`` [layer, head, query, patch], ``queries`` [query] and, where the encoder has
        a class token, ``class_mass`` [layer, head, query]; or ``encoder_mean``: ``received`` [layer, head, frame,
        patch]. Both with ``self_check`` [layer]; ``grid`` (F, rows, cols) in the metadata. With norms ``value_norms``
        [layer, head, frame, patch] = |v W_O| of every patch (not of a class token), or with heads="mean" the weighted
        map itself, ``norm_weighted``, shaped as the map.

    Raises:
        ProbeError: see ``attention_rows``; a sample without image or video.
    """
    prepared: Prepared = processor.prepare(sample, clip, turns=(look.turn,))
    if prepared.grid is None:
        raise ProbeError(
            f"look at {sample.id} in the encoder", "it has no image or video", "Give a sample with media"
        )
    frames, rows, cols = (int(n) for n in prepared.grid[:3])
    patches = rows * cols
    mean = isinstance(queries, str)
    if isinstance(queries, str):
        if queries != "mean":
            raise ProbeError(
                f"look from {queries!r} in the encoder", "it knows no text", "Give patches, or 'mean'"
            )
        wanted = np.arange(frames * patches)
    else:
        wanted = np.asarray(list(queries), dtype=np.int64)
        wrong = wanted[(wanted < 0) | (wanted >= frames * patches)]
        if len(wrong) or not len(wanted):
            raise ProbeError(
                f"look from patch {wrong[0] if len(wrong) else '(none given)'}",
                f"the clip has patches 0 to {frames * patches - 1} ({frames} frames of {rows} x {cols})",
                "Give patches of the clip",
            )
    layers, modules = attention_modules(model, "encoder", look.layers)
    n_heads = head_count(modules[0])
    listed, average = head_list(look.heads, n_heads)
    kept_heads = 1 if average else len(listed)
    maps = 1 + (average and look.norms)
    size = (len(layers), kept_heads, frames if mean else len(wanted), patches)
    store = chosen_store(look.store, maps * size[0] * size[1] * size[2], patches)
    norm_bytes = 4 * size[0] * kept_heads * frames * patches * (look.norms and not average)
    a_layer = 8 * len(listed) * (frames if mean else len(wanted)) * patches
    refuse_if_too_large(
        f"look at {sample.id} in the encoder",
        maps * kept_bytes(*size, store) + norm_bytes,
        3 * a_layer + 12 * BLOCK,
        path,
        maps * kept_bytes(*size, "topk") + norm_bytes,
    )
    arrays = {"self_check": (("layer",), f"max |A V - O| of all rows, {CHECK_UNIT}")}
    if not mean:
        arrays["queries"] = (("query",), "frame * P + raster index of the patch")
    meta = look_meta(
        model, look, sample, clip, prepared,
        where="encoder",
        layers=layers,
        heads="mean" if average else listed,
        heads_of_model=n_heads,
        arrays=arrays,
        store=store,
        grid=[frames, rows, cols],
    )  # fmt: skip
    gather = _Gather(model.config, prepared.grid, wanted, mean, len(listed), patches, look.norms)
    name, unit = "rows", "attention probability"
    axes: tuple[str, ...] = ("layer", "head", "query", "patch")
    if mean:
        name, unit = "received", "attention received from a patch of the same frame"
        axes = ("layer", "head", "frame", "patch")
    with capture_to(path, "encoder_mean" if mean else "encoder_rows", meta) as writer:
        if not mean:
            writer.add("queries", wanted)
        add_pictures(writer, clip, look.pictures)

        def flush() -> None:
            if gather.layer is None:
                return
            check(gather.layer, "encoder", gather.error, gather.largest, gather.dtype)
            maps = gather.maps()
            if gather.norms is not None and average:
                weighted = maps * (gather.norms if mean else gather.norms[:, wanted // patches])
                put(
                    writer, "norm_weighted", weighted.mean(0, keepdims=True), store, f"{unit} x |v W_O|", axes
                )
            elif gather.norms is not None:
                writer.append("value_norms", gather.norms)
                describe(writer.meta, "value_norms", ("layer", "head", "frame", "patch"), "|v W_O|")
            put(writer, name, maps.mean(0, keepdims=True) if average else maps, store, unit, axes)
            if gather.has_class and not mean:
                mass = gather.class_mass.mean(0, keepdims=True) if average else gather.class_mass
                writer.append("class_mass", mass)
                describe(writer.meta, "class_mass", axes[:-1], "attention on the class token")
            writer.append("self_check", np.asarray(gather.error))

        def see(call: Call) -> None:
            if call.layer != gather.layer:
                flush()
                gather.begin(call)
            gather.take(call, None if average else listed)

        with looking(model), AttentionTap(model, see, "encoder", layers):
            model(**inputs_of(prepared, model), use_cache=False, return_logits=False)
        flush()
        return writer.finish()


class _Gather:
    """One encoder layer, whose calls come picture by picture or window by window."""

    def __init__(
        self,
        config: Any,
        grid: Sequence[int],
        wanted: np.ndarray,
        mean: bool,
        heads: int,
        patches: int,
        weigh: bool,
    ) -> None:
        self.config, self.grid, self.wanted, self.mean = config, grid, wanted, mean
        self.heads, self.patches, self.weigh = heads, patches, weigh
        self.norms: np.ndarray | None = None  # |v W_O| [heads, frame, patch]
        self.layer: int | None = None
        self.layout: EncoderLayout | None = None
        self.has_class = False

    def begin(self, call: Call) -> None:
        """A new layer."""
        if self.layout is None:
            pictures, length = call.query.shape[0], call.query.shape[2]
            self.layout = encoder_layout(self.config, self.grid, pictures, length)
            self.has_class = bool((self.layout.patch < 0).any())
            at = self.layout.frame * self.patches + self.layout.patch
            row_of = np.full(int(self.grid[0]) * self.patches, -1)
            row_of[self.wanted] = np.arange(len(self.wanted))
            # which row an encoder position fills; several equal queries keep the last and are copied in maps()
            self.row_of = np.where(self.layout.patch >= 0, row_of[at], -1)
            self.source = row_of[self.wanted]
        self.layer, self.dtype, self.at = call.layer, call.output.dtype, 0
        self.factors: list[torch.Tensor] | None = None
        if self.weigh:
            self.norms = np.full((self.heads, int(self.grid[0]), self.patches), np.nan, dtype=np.float32)
        self.error = self.largest = 0.0
        n_rows = int(self.grid[0]) if self.mean else len(self.wanted)
        self.total = np.zeros((self.heads, n_rows, self.patches))
        self.count = np.zeros((self.heads, n_rows, self.patches), dtype=np.int32)
        self.class_mass = np.zeros((self.heads, n_rows), dtype=np.float32)

    def take(self, call: Call, heads: Sequence[int] | None) -> None:
        """One call of that layer."""
        assert self.layout is not None
        for picture in range(call.query.shape[0]):
            here = slice(self.at, self.at + call.query.shape[2])
            self.at = here.stop
            rows, frames, patches = self.row_of[here], self.layout.frame[here], self.layout.patch[here]
            if self.norms is not None:
                self.factors = output_factors(call, heads) if self.factors is None else self.factors
                norms = value_norms(call, picture, heads, factors=self.factors).cpu().numpy()
                shown = patches >= 0
                self.norms[:, frames[shown], patches[shown]] = norms[:, shown]
            places = np.flatnonzero(rows >= 0)
            if not len(places):
                continue
            for block in exact_rows(call, torch.from_numpy(places), picture, heads):
                self.error, self.largest = max(self.error, block.error), max(self.largest, block.largest)
                if np.isnan(block.error):
                    self.error = float("nan")
                weights = block.weights.cpu().numpy()
                asked = places[block.start : block.start + weights.shape[1]]
                for i, place in enumerate(asked):
                    row = frames[place] if self.mean else rows[place]
                    keys = np.flatnonzero((frames == frames[place]) & (patches >= 0))
                    seen = ~np.isnan(weights[:, i, keys])
                    self.total[:, row, patches[keys]] += np.where(seen, weights[:, i, keys], 0)
                    self.count[:, row, patches[keys]] += seen
                    if self.has_class:
                        self.class_mass[:, row] = np.nansum(weights[:, i, patches < 0], axis=-1)

    def maps(self) -> np.ndarray:
        """float32 ``[heads, query or frame, patch]``, NaN where not visible."""
        with np.errstate(invalid="ignore"):
            maps = np.where(self.count > 0, self.total / self.count, np.nan).astype(np.float32)
        if not self.mean:
            self.class_mass = self.class_mass[:, self.source]
        return maps if self.mean else maps[:, self.source]
