"""Qwen2.5-VL: each video one run of positions, whose temporal axis follows real time.

A medium's grid has a fourth column: microseconds from one temporal patch to the next (0 for images), from the
timestamps of the frames actually used. M-RoPE's temporal step is ``tokens_per_second`` times that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from workbench.models.hosts.media import Part, join
from workbench.models.hosts.qwen import QwenModel, QwenProcessor, bounded_size, mean_spacing
from workbench.models.hosts.settings import PictureSettings
from workbench.samples.sample import Clip


class Qwen2_5VLProcessor(QwenProcessor):
    """Frames of a video are bounded one by one; the mark is followed by all temporal patches."""

    image_defaults = PictureSettings({"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280})
    video_defaults = PictureSettings({"shortest_edge": 128 * 28 * 28, "longest_edge": 28 * 28 * 768})

    def video_size(self, frames: int, height: int, width: int) -> tuple[int, int]:
        size, factor = self.video.size, self.patch * self.merge
        least, most = size["shortest_edge"], size["longest_edge"]
        if self.video.cap_pixels_per_frame:
            total = int(self.video.max_video_tokens * factor * factor * 0.9)
            most = max(min(most, total * self.temporal // frames), int(least * 1.05))
        return bounded_size(height, width, factor, least, most)

    def video_parts(self, parts: list[Part], clip: Clip) -> tuple[Part, ...]:
        return (join(parts),)

    def extra(self, clip: Clip, video: bool) -> tuple[int, ...]:
        return (round(mean_spacing(clip) * self.temporal * 1e6) if video else 0,)


class Qwen2_5VLHost(QwenModel):
    """See the module's docstring."""

    def visual_features(self, pixel_values: Tensor, grids: Tensor) -> tuple[Tensor, list[Tensor]]:
        out = self.host.model.get_image_features(pixel_values, grids[:, :3])
        return torch.cat(out.pooler_output), []

    def runs(self, grid: Sequence[int]) -> list[tuple[int, int, int, float]]:
        t, rows, cols, microseconds = grid
        merge = self.config.vision_config.spatial_merge_size
        return [
            (
                t,
                rows // merge,
                cols // merge,
                self.config.vision_config.tokens_per_second * microseconds / 1e6,
            )
        ]

    def _stock_times(self, videos: list[Tensor]) -> dict[str, Any]:
        if not videos:
            return {}
        return {"second_per_grid_ts": torch.tensor([int(grid[3]) / 1e6 for grid in videos])}
