"""LLaVA-NeXT-Video: images in views, videos of square frames whose patches are averaged 2x2."""

from __future__ import annotations

from typing import Any

import numpy as np

from workbench.errors import CheckpointError
from workbench.models.hosts.anyres import AnyresModel, AnyresProcessor
from workbench.models.hosts.settings import PictureSettings

POOL = 2


class LlavaNextVideoProcessor(AnyresProcessor):
    """See the module's docstring."""

    image_defaults = video_defaults = PictureSettings({"shortest_edge": 336}, crop=(336, 336))

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        if (config.spatial_pool_mode, config.spatial_pool_stride) not in (("average", POOL), ("max", POOL)):
            raise CheckpointError(
                "use this llava_next_video model",
                f"it pools by {config.spatial_pool_mode!r} with stride {config.spatial_pool_stride}",
                "Supported are average and max with stride 2, as published",
            )
        super().__init__(config, *args, **kwargs)

    def pooled(self) -> np.ndarray:
        side = self.side // POOL  # an odd last row or column is dropped
        index = np.arange(self.side**2, dtype=np.int32).reshape(self.side, self.side)
        blocks = index[: side * POOL, : side * POOL].reshape(side, POOL, side, POOL)
        return np.ascontiguousarray(blocks.transpose(0, 2, 1, 3).reshape(-1, POOL * POOL))


class LlavaNextVideoHost(AnyresModel):
    """See the module's docstring."""

    def video_tokens(self, frames: int) -> int:
        return frames * (self.side // POOL) ** 2
