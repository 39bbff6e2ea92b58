"""Qwen3-VL: the time of every temporal patch stands before it as text, ``<1.5 seconds>``; features of several encoder
layers are added in the first layers of the language model (DeepStack).

The mark ``<|video_pad|>`` becomes, for each temporal patch, its time and ``<|vision_start|>`` its cells
``<|vision_end|>``; the time is the mean of the patch's first and last frame. The pair that the chat template puts around
the mark stays, as in transformers 5 (its first version of this model, and vLLM, take it away).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from workbench.models.hosts.media import Part, join, text_part
from workbench.models.hosts.processing import frame_times
from workbench.models.hosts.qwen import QwenModel, QwenProcessor, bounded_size
from workbench.models.hosts.settings import HALF, PictureSettings
from workbench.samples.sample import Clip


class Qwen3VLProcessor(QwenProcessor):
    """Bounds hold for all frames of a video together."""

    image_defaults = PictureSettings(
        {"shortest_edge": 65_536, "longest_edge": 16_777_216}, mean=HALF, std=HALF
    )
    video_defaults = PictureSettings(
        {"shortest_edge": 4096, "longest_edge": 25_165_824}, mean=HALF, std=HALF, max_video_tokens=768
    )

    def video_size(self, frames: int, height: int, width: int) -> tuple[int, int]:
        size, factor = self.video.size, self.patch * self.merge
        frames = max(frames, self.temporal)
        least, most = size["shortest_edge"], size["longest_edge"]
        if self.video.cap_pixels_per_frame:
            cap = self.video.max_video_tokens * factor * factor
            most = max(min(cap, most // frames), int(least * 1.05)) * frames
        if min(height, width) < factor:
            grow = max(factor / height, factor / width)
            height, width = int(height * grow), int(width * grow)
        return bounded_size(height, width, factor, least, most, frames, self.temporal)

    def times(self, clip: Clip) -> list[float]:
        """Seconds of each temporal patch."""
        times = frame_times(clip)
        last = len(times) - 1
        step = self.temporal
        return [(times[i] + times[min(i + step - 1, last)]) / 2 for i in range(0, len(times), step)]

    def video_parts(self, parts: list[Part], clip: Clip) -> tuple[Part, ...]:
        """Time, start, cells, end of every temporal patch."""
        start, end = self.config.vision_start_token_id, self.config.vision_end_token_id
        pieces: list[Part] = []
        for seconds, part in zip(self.times(clip), parts, strict=True):
            label = self.tokenizer(f"<{seconds:.1f} seconds>", add_special_tokens=False)["input_ids"]
            pieces += [text_part(np.array([*label, start])), part, text_part(np.array([end]))]
        return (join(pieces),)


class Qwen3VLHost(QwenModel):
    """See the module's docstring."""

    def visual_features(self, pixel_values: Tensor, grids: Tensor) -> tuple[Tensor, list[Tensor]]:
        out = self.host.model.get_image_features(pixel_values, grids[:, :3])
        return torch.cat(out.pooler_output), [torch.cat(level) for level in out.deepstack_features]

    def runs(self, grid: Sequence[int]) -> list[tuple[int, int, int, float]]:
        merge = self.config.vision_config.spatial_merge_size
        return [(1, grid[1] // merge, grid[2] // merge, 1.0)] * grid[0]
