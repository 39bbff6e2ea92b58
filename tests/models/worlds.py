"""Tiny models and random samples that the tests of this room share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from workbench.models.tempflex import new_tempflex
from workbench.samples.sample import Clip, ImageRef, Sample, Turn, VideoRef

torch.set_num_threads(1)  # tiny tensors: threads only get into each other's way

TEXTS = ["what colour comes first ?", "which digit is where ?", "red blue green", "0 1 2 3", "left or right"]


def model(preset: str = "tiny", seed: int = 0, **options: Any):
    options.setdefault("fusion_layers", 1)
    return new_tempflex(preset, seed, vocab_texts=TEXTS, **options)


def clip(frames: int, width: int = 32, height: int = 32, seed: int = 0) -> Clip:
    rng = np.random.default_rng([seed, frames, width, height])
    pixels = rng.integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
    return Clip(pixels, tuple(range(0, 3 * frames, 3)), tuple(0.5 * i for i in range(frames)))


def sample(frames: int, turns: int = 1) -> Sample:
    asked = (
        Turn("what colour comes first?", "red"),
        Turn("which digit is where?", "3 left"),
        Turn("left or right?", "blue"),
    )
    ref = None if frames == 0 else ImageRef(Path("a")) if frames == 1 else VideoRef(Path("a"))
    return Sample(f"s{frames}", asked[:turns], ref)


def mixed(
    processor,
    sizes=((1, 32, 32), (5, 32, 32), (0, 0, 0), (2, 48, 32), (1, 32, 48), (12, 32, 32), (5, 32, 32)),
):
    """Prepared conversations: images, short and long clips of several shapes, text only."""
    return [
        processor.prepare(sample(f, 1 + i % 3), clip(f, w, h, seed=i) if f else None)
        for i, (f, w, h) in enumerate(sizes)
    ]


def gradients(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}
