"""LLaVA-OneVision: images in views, at most ``anyres_max_9`` tiles' worth of tokens; videos of square frames, each
interpolated to half its patches a side, with one newline behind the last."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from workbench.errors import CheckpointError
from workbench.models.hosts.anyres import (
    AnyresModel,
    AnyresProcessor,
    bilinear_sources,
    grouped,
    newline_part,
)
from workbench.models.hosts.media import Part
from workbench.models.hosts.settings import PictureSettings


def most_tiles(config: Any) -> int:
    """K of ``anyres_max_K``. Raises CheckpointError for another rule."""
    match = re.fullmatch(r"anyres_max_(\d+)", config.vision_aspect_ratio)
    if match is None:
        raise CheckpointError(
            "use this llava_onevision model",
            f"its vision_aspect_ratio is {config.vision_aspect_ratio!r}",
            "Supported is anyres_max_K, as published",
        )
    return int(match[1])


class LlavaOnevisionProcessor(AnyresProcessor):
    """See the module's docstring."""

    # SigLIP's processors would say mean = std = .5; the published ones of this host say CLIP's
    image_defaults = video_defaults = PictureSettings({"height": 384, "width": 384})

    def most_tiles(self) -> int | None:
        return most_tiles(self.config)

    def pooled(self) -> np.ndarray:
        half = bilinear_sources(self.side, math.ceil(self.side / 2))
        return grouped(half, half, np.arange(self.side**2).reshape(self.side, self.side))

    def video_end(self, frames: int) -> Part | None:
        return newline_part(self.mark_ids["video"], (0, frames))


class LlavaOnevisionHost(AnyresModel):
    """See the module's docstring."""

    def most_tiles(self) -> int | None:
        return most_tiles(self.config)

    def video_tokens(self, frames: int) -> int:
        return frames * math.ceil(self.side / 2) ** 2 + 1
