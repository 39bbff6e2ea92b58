"""What Qwen2.5-VL and Qwen3-VL share: native resolution, two source frames a temporal patch, 2x2 merging, M-RoPE.

T temporal patches of ``temporal_patch_size`` frames (2), rows and cols in patches. A patch vector is ordered (channel,
frame, y, x); patches are in the order in which the merger takes them: 2x2 cells in raster order, row by row in a cell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbench.models.hosts.media import Media, Part, union
from workbench.models.hosts.modeling import HostModel
from workbench.models.hosts.pixels import View, normalise, patch_corners, resize
from workbench.models.hosts.processing import HostProcessor, frame_times
from workbench.models.hosts.rows import segment_starts, text_positions
from workbench.models.hosts.settings import PictureSettings
from workbench.models.tokenmap import VISUAL
from workbench.samples.sample import Clip

MOST_ELONGATED = 200  # longer over shorter side, as the published processors allow


def bounded_size(
    height: int, width: int, factor: int, least: int, most: int, frames: int = 1, temporal: int = 1
) -> tuple[int, int]:
    """(height, width), multiples of ``factor`` in about the same proportion, so that all ``frames`` together (rounded
    to multiples of ``temporal``) have between ``least`` and ``most`` pixels.

    Raises:
        ValueError: a side more than ``MOST_ELONGATED`` times the other.
    """
    if max(height, width) > MOST_ELONGATED * min(height, width):
        raise ValueError(
            f"its frames are {width}x{height}, one side more than {MOST_ELONGATED} times the other"
        )
    tall, wide = round(height / factor) * factor, round(width / factor) * factor
    area = round(frames / temporal) * temporal * tall * wide
    if area > most:
        shrink = math.sqrt(frames * height * width / most)
        tall = max(factor, math.floor(height / shrink / factor) * factor)
        wide = max(factor, math.floor(width / shrink / factor) * factor)
    elif area < least:
        grow = math.sqrt(least / (frames * height * width))
        tall, wide = math.ceil(height * grow / factor) * factor, math.ceil(width * grow / factor) * factor
    return tall, wide


def patchify(frames_FCHW: Tensor, patch: int, merge: int, temporal: int) -> Tensor:
    """float32 ``[F, 3, H, W]`` -> ``[T * rows * cols, 3 * temporal * patch * patch]``; the last frame is repeated to
    fill its temporal patch."""
    if missing := -len(frames_FCHW) % temporal:
        frames_FCHW = torch.cat([frames_FCHW, frames_FCHW[-1:].expand(missing, -1, -1, -1)])
    f, c, h, w = frames_FCHW.shape
    cell = merge * patch
    x = frames_FCHW.view(f // temporal, temporal, c, h // cell, merge, patch, w // cell, merge, patch)
    return x.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(-1, c * temporal * patch * patch)


class QwenProcessor(HostProcessor):
    """Frames -> patches and positions; how a size is bounded and what surrounds the frames differs by version."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        vision = self.config.vision_config
        self.patch, self.merge = int(vision.patch_size), int(vision.spatial_merge_size)
        self.temporal = int(vision.temporal_patch_size)
        if self.merge != 2:
            raise ValueError(f"spatial_merge_size is {self.merge}; a token map holds 2x2 cells")

    def image_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) an image is resized to."""
        size = self.image.size
        return bounded_size(
            height, width, self.patch * self.merge, size["shortest_edge"], size["longest_edge"]
        )

    def video_size(self, frames: int, height: int, width: int) -> tuple[int, int]:
        """(height, width) the frames of a video are resized to."""
        raise NotImplementedError

    def video_parts(self, parts: list[Part], clip: Clip) -> tuple[Part, ...]:
        """What replaces the mark of a video, from the positions of each temporal patch."""
        raise NotImplementedError

    def extra(self, clip: Clip, video: bool) -> tuple[int, ...]:
        """The host's own columns of a medium's grid."""
        return ()

    def media(self, clip: Clip, video: bool) -> Media:
        n, height, width = clip.frames.shape[:3]
        tall, wide = self.video_size(n, height, width) if video else self.image_size(height, width)
        settings: PictureSettings = self.video if video else self.image
        pixels = normalise(resize(clip.frames, tall, wide, settings.resample), settings)
        rows, cols = tall // self.patch, wide // self.patch
        grid = (-(-n // self.temporal), rows, cols)
        kind = "video" if video else "image"
        patches, boxes = cells(rows, cols, self.patch, height, width)
        parts = []
        for t in range(grid[0]):
            span = (t * self.temporal, min(n, (t + 1) * self.temporal))
            count = len(patches)
            parts.append(
                Part(
                    np.full(count, self.mark_ids[kind], dtype=np.int64),
                    np.full(count, VISUAL, dtype=np.uint8),
                    np.tile(np.array(span, dtype=np.int32), (count, 1)),
                    patches,
                    boxes,
                )
            )
        placed = self.video_parts(parts, clip) if video else tuple(parts)
        return Media(
            kind,
            patchify(pixels, self.patch, self.merge, self.temporal),
            (*grid, *self.extra(clip, video)),
            grid,
            (width, height),
            placed,
        )


@lru_cache(maxsize=512)
def cells(rows: int, cols: int, patch: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Patches and boxes of the 2x2 cells of one temporal patch: int32 and float32 ``[rows * cols / 4, 4]``; boxes in
    pixels of a source frame of ``height`` x ``width``."""
    index = np.arange(rows * cols, dtype=np.int32).reshape(rows // 2, 2, cols // 2, 2)
    patches = index.transpose(0, 2, 1, 3).reshape(-1, 4)
    tall, wide = rows * patch, cols * patch
    view = View(tall, wide, wide / width, tall / height, 0, 0)
    boxes = view.boxes(patch_corners(rows, cols, patch), (width, height))
    return np.ascontiguousarray(patches), union(boxes[patches])


class QwenModel(HostModel):
    """Features and M-RoPE of both versions."""

    @property
    def encoder(self) -> Any:
        return self.host.model.visual

    def encoder_layers(self) -> list[str]:
        return [f"host.model.visual.blocks.{i}.attn" for i in range(len(self.encoder.blocks))]

    def media_tokens(self, grids: Tensor) -> list[int]:
        merge = self.config.vision_config.spatial_merge_size
        return (grids[:, :3].prod(-1) // merge**2).tolist()

    def _merger(self, name: str) -> bool:
        return name.startswith(("host.model.visual.merger.", "host.model.visual.deepstack_merger_list."))

    def stock_inputs(self, input_ids: Tensor, pixel_values: Tensor, grids: Tensor) -> dict[str, Any]:
        config = self.config
        videos = self._is_video(input_ids, grids)
        patches = list(pixel_values.split(grids[:, :3].prod(-1).tolist()))
        types = (input_ids == config.image_token_id).int() + 2 * (input_ids == config.video_token_id).int()
        inputs: dict[str, Any] = {"mm_token_type_ids": types}
        for which, pixels, thw in (
            (False, "pixel_values", "image_grid_thw"),
            (True, "pixel_values_videos", "video_grid_thw"),
        ):
            members = [i for i, video in enumerate(videos) if video == which]
            if members:
                inputs[pixels] = torch.cat([patches[i] for i in members])
                inputs[thw] = grids[members][:, :3]
        return inputs | self._stock_times([grids[i] for i, video in enumerate(videos) if video])

    def _stock_times(self, videos: list[Tensor]) -> dict[str, Any]:
        return {}

    def _is_video(self, input_ids: Tensor, grids: Tensor) -> list[bool]:
        """Of each medium, from its first placeholder."""
        flat = input_ids.flatten()
        places = torch.isin(flat, torch.tensor(self.visual_ids(), device=flat.device)).nonzero().flatten()
        firsts = torch.tensor([0, *self.media_tokens(grids)[:-1]], device=flat.device).cumsum(0)
        return (flat[places[firsts]] == self.config.video_token_id).tolist()

    def runs(self, grid: Sequence[int]) -> list[tuple[int, int, int, float]]:
        """Stretches of adjacent visual positions of one medium: (temporal, rows, cols) in merged cells and how far
        one temporal patch lies from the next in positions."""
        raise NotImplementedError

    def rope_positions(self, input_ids: Tensor | None, grids: Tensor | None, segments: Tensor) -> Tensor:
        if grids is None or input_ids is None:
            return text_positions(segments)[None].expand(3, -1, -1)
        visual = torch.isin(input_ids, torch.tensor(self.visual_ids(), device=input_ids.device))
        return mrope_positions(visual, segments, [run for grid in grids.tolist() for run in self.runs(grid)])


def mrope_positions(visual: Tensor, segments: Tensor, runs: Sequence[tuple[int, int, int, float]]) -> Tensor:
    """Multimodal rotary positions (time, height, width), ``[3, B, L]``; Qwen2-VL, section 2.1.

    Text counts on by one in all three. A run of T x H x W cells starts where the text before it ended; its cells lie at
    (int(t * interval), h, w) from there; the text behind it goes on max(H, W) later.

    Args:
        visual, segments: ``[B, L]``; positions restart in every segment and are 0 on padding (segment 0).
        runs: of every stretch of visual positions in order: T, H, W and the interval.

    Raises:
        ValueError: the runs do not add up to the visual positions.
    """
    shape, device = segments.shape, segments.device
    places = (visual.flatten() & (segments.flatten() > 0)).nonzero().flatten()
    counts = torch.tensor([t * h * w for t, h, w, _ in runs], dtype=torch.long)
    if int(counts.sum()) != len(places):
        raise ValueError(f"{len(places)} visual positions, their grids make {int(counts.sum())}")
    firsts = places[(counts.cumsum(0) - counts).to(device)]
    step = ((segments > 0) & ~visual).long().flatten()
    step[firsts] = torch.tensor([max(h, w) for _, h, w, _ in runs], device=device)
    before = step.cumsum(0) - step
    start = segment_starts(segments) + torch.arange(shape[0], device=device)[:, None] * shape[1]
    base = before - before[start.flatten()]
    positions = base.repeat(3, 1)
    offsets = torch.cat([_offsets(t, h, w, interval) for t, h, w, interval in runs], dim=1).to(device)
    positions[:, places] = base[firsts].repeat_interleave(counts.to(device)) + offsets
    return (positions * (segments.flatten() > 0)).view(3, *shape)


@lru_cache(maxsize=128)
def _offsets(t: int, h: int, w: int, interval: float) -> Tensor:
    """Cells in raster order, frames in time order: int64 ``[3, t * h * w]``."""
    time = (torch.arange(t) * interval).long()
    return torch.stack(torch.meshgrid(time, torch.arange(h), torch.arange(w), indexing="ij")).reshape(3, -1)


def mean_spacing(clip: Clip) -> float:
    """Seconds from one frame to the next, on average; 0 for a single frame."""
    times = frame_times(clip)
    return (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 0.0
