"""Small things that training and evaluation tests share: a tiny model and clips of noise."""

from __future__ import annotations

import numpy as np

from workbench.models.tempflex import new_tempflex
from workbench.samples.sample import Clip

TEXTS = ["what colour is the red blue seven two digit", "left right top bottom one three green"]


def tiny_model(**options):
    return new_tempflex("tiny", seed=0, vocab_texts=TEXTS, **options)


def clip(frames: int, height: int = 32, width: int = 32, seed: int = 0) -> Clip:
    rng = np.random.default_rng(seed + frames)
    pixels = rng.integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
    return Clip(pixels, tuple(range(frames)), tuple(i / 8 for i in range(frames)))
