"""Qwen3-VL: the time of every temporal patch stands before it as text, ``<1.5 seconds>``; features of several encoder
layers are added in the first layers of the language model (DeepStack).

The chat template's ``<|vision_start|><|video_pad|><|vision_end|>`` becomes, for each temporal patch, its time and
``<|vision_start|>`` its cells ``<|vision_end|>``. The time is the mean of the patch's first and last frame.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from workbench.models.hosts.media import Media, Part, join, text_part
from workbench.models.hosts.processing import frame_times
from workbench.models.hosts.qwen import QwenModel, QwenProcessor, bounded_size
from workbench.models.hosts.settings import HALF, PictureSettings
from workbench.samples.sample import Clip, Sample


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
        return bounded_size(height, width, factor, least, most, frames)

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

    def _spliced(
        self, sample: Sample, ids: np.ndarray, kinds: np.ndarray, media: Media | None, turn: int
    ) -> list[tuple[Part, int, bool]]:
        """The start and end that the template puts around a video go: every temporal patch has its own."""
        at = np.flatnonzero(ids == self.mark_ids["video"])
        around = np.concatenate([at - 1, at + 1]).clip(0, len(ids) - 1)
        kept = np.ones(len(ids), dtype=bool)
        kept[around] = ~np.isin(
            ids[around], [self.config.vision_start_token_id, self.config.vision_end_token_id]
        )
        return super()._spliced(sample, ids[kept], kinds[kept], media, turn)


class Qwen3VLHost(QwenModel):
    """See the module's docstring."""

    def visual_features(self, pixel_values: Tensor, grids: Tensor) -> tuple[Tensor, list[Tensor]]:
        out = self.host.model.get_image_features(pixel_values, grids[:, :3])
        return torch.cat(out.pooler_output), [torch.cat(level) for level in out.deepstack_features]

    def runs(self, grid: Sequence[int]) -> list[tuple[int, int, int, float]]:
        merge = self.config.vision_config.spatial_merge_size
        return [(1, grid[1] // merge, grid[2] // merge, 1.0)] * grid[0]
