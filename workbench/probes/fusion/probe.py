"""``fusion_probe``: the TFF lens on a model, in three parts.

1. maps: one clip at every frame count, everything per layer, frame and patch;
2. sweep: every clip at every frame count, a few numbers per layer, with intervals over clips;
3. still images: the same numbers at F = 1, with intervals over images.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from torch import Tensor

from workbench.captures import Capture, CaptureWriter, CollectedCapture, capture_to
from workbench.evaluation.statistics import mean_interval
from workbench.probes.common import Checkpoint, ProbeError, capture_meta
from workbench.probes.fusion.frequencies import frequency_table
from workbench.probes.fusion.layer import BLOCK, LayerView
from workbench.probes.fusion.media import Chosen, Source, choose, opened
from workbench.probes.fusion.names import (
    BOUNDS,
    BRANCHES,
    HORIZON,
    KIND,
    MEANING,
    METHOD,
    NORMS,
    NUMBERS,
    PARTS,
    TAPS,
)
from workbench.probes.fusion.stack import features_of, fusion_of, look
from workbench.probes.pictures import NAME as PICTURES
from workbench.probes.pictures import add_pictures
from workbench.samples.sample import Clip, Sample

Writer = CaptureWriter | CollectedCapture
MAPS = {  # array -> (axes, unit); "{}" is the frame count
    "weights_{}": (("layer", "place", "branch"), "share of a branch (beta), sums to 1"),
    "norms_{}": (("layer", "frame_{}", "place", "norm"), "L2 norm over channels"),
    "shares_{}": (("layer", "frame_{}", "place", "part"), "share of the layer's update, sums to 1"),
    "horizon_{}": (("layer", "frame_{}", "place", "horizon"), "frames (effective, age); 1 (others)"),
    "horizon_channels_{}": (
        ("layer", "channel"),
        "effective frames at the last frame, mean over places",
    ),
    "memory_weights_{}": (("layer", "frame_{}", "seen_{}"), "weight v, mean over places and channels"),
    "gains_{}": (("layer", "frame_{}"), "|C_f|_F / sqrt(D) of the periodic branch"),
    "kernels_{}": (("layer", "place", "tap"), "mean over channels; L2 norm over channels"),
    "kernels_full_{}": (("layer", "place", "offset", "channel"), "local kernel, frames f - 1, f, f + 1"),
    "parts_{}": (("layer", "frame_{}", "place", "part", "channel"), "what the part adds to the output"),
    "check_{}": (("layer",), "max |x + parts - z| / max |z|"),
}
REST = {
    "sweep": (("clip", "frames", "layer", "number"), "see meta.meaning"),
    "sweep_whole": (("clip", "frames"), "|TFF(x) - x| / |x| of the whole stack"),
    "sweep_mean": (("frames", "layer", "number", "bound"), "see meta.meaning"),
    "sweep_whole_mean": (("frames", "bound"), "|TFF(x) - x| / |x| of the whole stack"),
    "still": (("image", "layer", "number"), "see meta.meaning"),
    "still_whole": (("image",), "|TFF(x) - x| / |x| of the whole stack"),
    "still_mean": (("layer", "number", "bound"), "see meta.meaning"),
    "still_whole_mean": (("bound",), "|TFF(x) - x| / |x| of the whole stack"),
}


def fusion_probe(
    model: Any,
    processor: Any,
    samples: Sequence[Sample],
    reader: Any = None,
    *,
    clips: Sequence[Clip] | None = None,
    frames: Sequence[int] = (2, 4, 8, 16),
    kernels: bool = False,
    parts: bool = False,
    seed: int = 0,
    path: str | Path | None = None,
    checkpoint: Checkpoint | None = None,
    recipe_hash: str | None = None,
    pictures: bool = True,
) -> Capture:
    """Look into the temporal fusion of a model.

    Args:
        model, processor: a TempFlex model whose fusion is active, and what prepares its inputs.
        samples: videos for maps (the first that has enough frames) and sweep, images for the still images. A medium
            counts once. Without videos the maps are of the first image at F = 1.
        reader: reads media; a ``FrameReader`` by default.
        clips: instead of files: all frames of every sample.
        frames: counts every video is shown at, by midpoint sampling; a video with fewer is left out at that count.
        kernels: keep the local kernels whole, ``[layer, place, 3, channel]``.
        parts: keep the parts as vectors, ``[layer, frame, place, 6, channel]``.
        seed: stored; nothing is drawn at random.
        path: write there layer by layer; in memory if None.
        pictures: keep the frames of the maps' clip too, small (``probes/pictures.py``): ``pictures_N``.

    Returns:
        A capture of kind "fusion"; docs/tff.md, "The lens", lists arrays and formulas.

    Raises:
        ProbeError: no fusion or a sleeping one (says how to get one), a frame count that no video has, values that
            are not finite (names the layer), or more memory needed than there is (says how much).
        DataError: clips that do not fit the samples.
    """
    fusion = fusion_of(model)
    frames = tuple(sorted({int(n) for n in frames}))
    if not frames or frames[0] < 1:
        raise ProbeError(
            "probe the fusion", f"the frame counts are {list(frames)}", "Give one or more, from 1 on"
        )
    training = model.training
    model.eval()
    try:
        with opened(samples, reader, clips) as source:
            chosen = choose(samples, source, frames)
            counts = frames if chosen.videos else (1,)
            lens = _Lens(model, processor, fusion, source, chosen)
            meta = _meta(model, fusion, counts, checkpoint, recipe_hash, seed)
            with capture_to(path, KIND, meta) as writer:
                lens.maps(writer, counts, kernels, parts, pictures, streamed=path is not None)
                if chosen.videos:
                    lens.sweep(writer, counts)
                if chosen.images:
                    lens.still(writer)
                writer.meta["left_out"] = chosen.left_out
                return writer.finish()
    finally:
        model.train(training)


class _Lens:
    """A model's fusion and what it is shown."""

    def __init__(self, model: Any, processor: Any, fusion: Any, source: Source, chosen: Chosen) -> None:
        self.model, self.processor, self.fusion = model, processor, fusion
        self.source, self.chosen = source, chosen
        self.depth = len(fusion.layers)

    def maps(
        self,
        writer: Writer,
        counts: tuple[int, ...],
        kernels: bool,
        parts: bool,
        pictures: bool,
        streamed: bool,
    ) -> None:
        """Everything about one clip."""
        sample, shown = self._mapped(counts)
        writer.meta["clips"] = {}
        for n, clip in shown.items():
            prepared = self.processor.prepare(sample, clip, turns=(0,))
            _, rows, cols = prepared.grid
            copies = (1 if streamed else self.depth) * parts
            check_memory(n, rows * cols, self.fusion.dim, copies)

            def seen(_: int, view: LayerView, n: int = n) -> None:
                for name, array in _arrays_of(view, kernels).items():
                    writer.append(f"{name}_{n}", array)

            look(self.fusion, features_of(self.model, prepared), seen, parts)
            add_pictures(writer, clip, pictures, f"{PICTURES}_{n}", f"frame_{n}")
            names = [name for name in MAPS if name != "kernels_full_{}" or kernels]
            _describe(writer, [name for name in names if name != "parts_{}" or parts], MAPS, n)
            writer.meta["clips"][str(n)] = {
                "indices": list(clip.indices),
                "timestamps": list(clip.timestamps_s),
            }
        described = capture_meta(
            self.model, axes={}, units={}, sample=sample, clip=clip, prepared=prepared, turn=0
        )
        writer.meta |= {key: described[key] for key in ("sample", "frames", "token_map")}
        writer.meta["places"] = {"what": "patch in raster order", "rows": rows, "cols": cols}

    def _mapped(self, counts: tuple[int, ...]) -> tuple[Sample, dict[int, Clip]]:
        """The first sample that can be read at every count, with its clips."""
        for sample in self.chosen.videos or self.chosen.images:
            found = {n: self.chosen.clip(self.source, sample, n) for n in counts}
            clips = {n: clip for n, clip in found.items() if clip is not None}
            if len(clips) == len(counts):
                return sample, clips
        raise ProbeError(
            f"probe the fusion at {', '.join(map(str, counts))} frames",
            f"no sample could be read at all of them ({'; '.join(self.chosen.left_out[:2])})",
            "Give others, or fewer frame counts",
        )

    def sweep(self, writer: Writer, counts: tuple[int, ...]) -> None:
        """The same clips at every frame count."""
        videos = self.chosen.videos
        values = np.full((len(videos), len(counts), self.depth, len(NUMBERS)), np.nan)
        whole = np.full((len(videos), len(counts)), np.nan)
        for c, sample in enumerate(videos):
            for i, n in enumerate(counts):
                if (clip := self.chosen.clip(self.source, sample, n)) is not None:
                    values[c, i], whole[c, i] = self._numbers(sample, clip)
        self._write(writer, "sweep", values, whole)
        writer.meta["videos"] = [sample.id for sample in videos]

    def still(self, writer: Writer) -> None:
        """Images at F = 1, whether or not the model sends them through the fusion (``model.images``)."""
        shown, rows = [], []
        for sample in self.chosen.images:
            if (clip := self.chosen.clip(self.source, sample, 1)) is not None:
                shown.append(sample.id)
                rows.append(self._numbers(sample, clip))
        if rows:
            self._write(writer, "still", np.array([r[0] for r in rows]), np.array([r[1] for r in rows]))
        writer.meta["images"] = shown

    def _numbers(self, sample: Sample, clip: Clip) -> tuple[np.ndarray, float]:
        """``[layer, NUMBERS]`` and the whole stack's relative change."""
        prepared = self.processor.prepare(sample, clip, turns=(0,))
        check_memory(len(clip.frames), prepared.grid[1] * prepared.grid[2], self.fusion.dim)
        rows: list[np.ndarray] = []
        whole = look(
            self.fusion, features_of(self.model, prepared), lambda _, view: rows.append(numbers_of(view))
        )
        return np.array(rows), whole

    def _write(self, writer: Writer, name: str, values: np.ndarray, whole: np.ndarray) -> None:
        arrays = {name: values, f"{name}_whole": whole}
        for key in list(arrays):
            arrays[f"{key}_mean"] = bounds_of(arrays[key])
        for key, array in arrays.items():
            writer.add(key, array)
        _describe(writer, list(arrays), REST)


def numbers_of(view: LayerView) -> np.ndarray:
    """A layer's view of one clip as ``NUMBERS``, float64."""
    horizon_FPH = view.horizon.double()
    last = dict(zip(HORIZON, horizon_FPH[-1].mean(0).tolist(), strict=True))
    last["leak"] = float(horizon_FPH[..., HORIZON.index("leak")].mean())
    betas, shares = view.beta.double().mean(0).tolist(), view.whole_shares.tolist()
    own = [view.update, view.offset, *betas, *shares]
    return np.array([*own, *(last[name] for name in NUMBERS[len(own) :])], dtype=np.float64)


def bounds_of(values: np.ndarray) -> np.ndarray:
    """Mean over the first axis with its 95% t interval, ``[..., 3]``; NaNs (left out) do not count."""
    flat = values.reshape(len(values), -1)
    out = np.full((flat.shape[1], len(BOUNDS)), np.nan)
    for column in range(flat.shape[1]):
        there = flat[np.isfinite(flat[:, column]), column]
        if len(there):
            found = mean_interval(there.tolist())
            out[column] = found.estimate, found.low, found.high
    return out.reshape(*values.shape[1:], len(BOUNDS))


def check_memory(frames: int, places: int, dim: int, kept: int = 0, available: int | None = None) -> None:
    """Refuse a clip whose lens would not fit.

    Args:
        kept: layers whose parts stay in memory as vectors.
        available: bytes; the machine's free memory if None.

    Raises:
        ProbeError: says the size needed and what to reduce.
    """
    clip = 4 * frames * places * dim
    needed = clip * (6 + 2 * len(PARTS) * kept) + 4 * 30 * min(frames * places * dim, BLOCK)
    available = psutil.virtual_memory().available if available is None else available
    if needed > available:
        raise ProbeError(
            f"take apart a clip of {frames} frames with {places} patches of {dim} channels",
            f"it needs about {needed / 2**30:,.1f} GiB and {available / 2**30:,.1f} GiB are free",
            "Show fewer frames"
            + (" or smaller ones" if not kept else ", leave out parts, or write to a path"),
        )


def _arrays_of(view: LayerView, kernels: bool) -> dict[str, np.ndarray]:
    mean_PJ, norm_PJ = view.kernels.mean(-1), view.kernels.norm(dim=-1)
    found: dict[str, Tensor | None] = {
        "weights": view.beta,
        "norms": view.norms,
        "shares": view.shares,
        "horizon": view.horizon,
        "memory_weights": view.memory_weights,
        "horizon_channels": view.horizon_channels,
        "gains": view.gains,
        "kernels_full": view.kernels if kernels else None,
        "parts": view.parts,
    }
    arrays = {name: t.float().cpu().numpy() for name, t in found.items() if t is not None}
    arrays["kernels"] = np.concatenate([t.float().cpu().numpy() for t in (mean_PJ, norm_PJ)], axis=-1)
    arrays["check"] = np.array(view.check)
    return arrays


def _describe(writer: Writer, names: Sequence[str], table: dict[str, tuple], frames: int = 0) -> None:
    for name in names:
        axes, unit = table[name]
        writer.meta["axes"][name.format(frames)] = [axis.format(frames) for axis in axes]
        writer.meta["units"][name.format(frames)] = unit


def _meta(
    model: Any,
    fusion: Any,
    counts: tuple[int, ...],
    checkpoint: Checkpoint | None,
    recipe_hash: str | None,
    seed: int,
) -> dict[str, Any]:
    return capture_meta(
        model,
        axes={},
        units={},
        checkpoint=checkpoint,
        recipe_hash=recipe_hash,
        seed=seed,
        variant=fusion.variant,
        layers=len(fusion.layers),
        branches=list(BRANCHES),
        parts=list(PARTS),
        norms=list(NORMS),
        horizon=list(HORIZON),
        taps=list(TAPS),
        numbers=list(NUMBERS),
        bounds=list(BOUNDS),
        meaning=MEANING,
        method=METHOD,
        frame_counts=list(counts),
        still_images=model.config.images,
        frequencies={str(n): frequency_table(n, fusion.frequencies, fusion.variant) for n in counts},
    )
