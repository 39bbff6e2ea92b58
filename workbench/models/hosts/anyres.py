"""Still images in several views (AnyRes of LLaVA-NeXT and LLaVA-OneVision), and videos of pooled frames.

A picture is resized to fit the best of the model's resolutions, padded to it and cut into S x S tiles; a view of the
whole picture, stretched to S x S, comes first. Its tokens: G * G of the whole view, then the rows of the tiled picture
without the padding, each with a newline token behind it. OneVision resizes that map of features when it is too large.

A medium's grid is (F, rows, cols, height, width): of an image, F = 1, rows = views * G (views below one another, as for
our own tiled encoding), cols = G and the source size in pixels, from which the model drops the padding; of a video, its
frames, G, G, 0, 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from transformers.image_processing_utils import select_best_resolution

from workbench.models.hosts.media import Media, Part, join
from workbench.models.hosts.pixels import View, normalise, patch_corners, resize, square_pixels
from workbench.models.hosts.square import SquareModel, SquareProcessor, single_patches
from workbench.models.tokenmap import NEWLINE
from workbench.samples.sample import Clip


@dataclass(frozen=True, slots=True)
class Tiling:
    """How one picture is laid on tiles. ``rows`` and ``cols``: half-open ranges of the patches that are not padding,
    counted over all tiles; ``out``: (rows, cols) of tokens made of them."""

    tiles: tuple[int, int]
    resized: tuple[int, int]
    offset: tuple[int, int]
    rows: tuple[int, int]
    cols: tuple[int, int]
    out: tuple[int, int]

    @property
    def views(self) -> int:
        return self.tiles[0] * self.tiles[1] + 1


@lru_cache(maxsize=4096)
def tile(
    height: int, width: int, pinpoints: tuple[tuple[int, int], ...], side_px: int, side: int, most: int | None
) -> Tiling:
    """Tiling of a picture of ``height`` x ``width``; ``most``: tiles' worth of tokens kept at most (OneVision)."""
    best_height, best_width = select_best_resolution((height, width), list(pinpoints))
    tiles = best_height // side_px, best_width // side_px
    wide, tall = best_width / width, best_height / height
    if wide < tall:
        resized = min(math.ceil(height * wide), best_height), best_width
    else:
        resized = best_height, min(math.ceil(width * tall), best_width)
    offset = (best_height - resized[0]) // 2, (best_width - resized[1]) // 2
    all_rows, all_cols = tiles[0] * side, tiles[1] * side
    rows, cols = (0, all_rows), (0, all_cols)
    if width / height > all_cols / all_rows:
        padding = (all_rows - int(round(height * (all_cols / width), 7))) // 2
        rows = padding, all_rows - padding
    else:
        padding = (all_cols - int(round(width * (all_rows / height), 7))) // 2
        cols = padding, all_cols - padding
    out = rows[1] - rows[0], cols[1] - cols[0]
    if most is not None:
        ratio = math.sqrt(out[0] * out[1] / (most * side**2))
        if ratio > 1.1:
            out = int(out[0] // ratio), int(out[1] // ratio)
    return Tiling(tiles, resized, offset, rows, cols, out)


def bilinear_sources(size: int, to: int) -> np.ndarray:
    """The two source indices that each of ``to`` samples of bilinear interpolation from ``size`` reads (half-pixel
    centres, as torch without ``align_corners``): int ``[to, 2]``, equal where only one counts."""
    at = np.clip((np.arange(to) + 0.5) * (size / to) - 0.5, 0, None)
    low = np.minimum(at.astype(int), size - 1)
    high = np.minimum(low + 1, size - 1)
    return np.stack([low, np.where(at > low, high, low)], axis=1)


def grouped(rows: np.ndarray, cols: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Patches read by each token: ``rows [R, 2]``, ``cols [C, 2]`` of ``index [rows, cols]`` -> int32 ``[R * C, 4]``,
    each once, -1 behind."""
    picked = index[rows[:, None, :, None], cols[None, :, None, :]].reshape(-1, 4)
    ordered = np.sort(picked, axis=1)
    repeated = np.zeros_like(ordered, dtype=bool)
    repeated[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    out = np.where(repeated, np.iinfo(np.int32).max, ordered)
    out.sort(axis=1)
    return np.where(out == np.iinfo(np.int32).max, -1, out).astype(np.int32)


class AnyresProcessor(SquareProcessor):
    """Images in views, videos in pooled frames."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        self.pinpoints = tuple((int(h), int(w)) for h, w in config.image_grid_pinpoints)

    def most_tiles(self) -> int | None:
        """Tiles' worth of tokens that an image keeps at most; None without a bound."""
        return None

    def pooled(self) -> np.ndarray:
        """Patches merged into each token of a video's frame, int32 ``[n, 4]``."""
        raise NotImplementedError

    def video_end(self, frames: int) -> Part | None:
        """What follows the frames of a video."""
        return None

    def media(self, clip: Clip, video: bool) -> Media:
        n, height, width = clip.frames.shape[:3]
        if not video:
            return self._image(clip.frames, height, width)
        pixels, view = square_pixels(clip.frames, self.video)
        self.check_pixels(view.height, view.width)
        boxes, patches = self.view_boxes(view, (width, height)), self.pooled()
        parts = [self.frame_part(self.mark_ids["video"], f, patches, boxes) for f in range(n)]
        if (end := self.video_end(n)) is not None:
            parts.append(end)
        grid = (n, self.side, self.side)
        return Media("video", pixels, (*grid, 0, 0), grid, (width, height), (join(parts),))

    def _image(self, frames: np.ndarray, height: int, width: int) -> Media:
        side, s = self.side, self.side_px
        plan = tile(height, width, self.pinpoints, s, side, self.most_tiles())
        whole = resize(frames, s, s, self.image.resample)
        fitted = resize(frames, *plan.resized, self.image.resample)[0]
        canvas = np.zeros((plan.tiles[0] * s, plan.tiles[1] * s, 3), dtype=np.uint8)
        y, x = plan.offset
        canvas[y : y + plan.resized[0], x : x + plan.resized[1]] = fitted
        cut = (
            canvas.reshape(plan.tiles[0], s, plan.tiles[1], s, 3)
            .transpose(0, 2, 1, 3, 4)
            .reshape(-1, s, s, 3)
        )
        pixels = normalise(np.concatenate([whole, cut]), self.image)
        grid = (1, plan.views * side, side)
        part = self._image_part(plan, height, width)
        return Media("image", pixels, (*grid, height, width), grid, (width, height), (part,))

    def _image_part(self, plan: Tiling, height: int, width: int) -> Part:
        side, s, mark, frame = self.side, self.side_px, self.mark_ids["image"], (width, height)
        boxes = [self.view_boxes(View(s, s, s / width, s / height, 0, 0), frame)]
        scale = plan.resized[1] / width, plan.resized[0] / height
        corners = patch_corners(side, side, self.patch)
        for i in range(plan.tiles[0]):
            for j in range(plan.tiles[1]):
                view = View(s, s, *scale, plan.offset[1] - j * s, plan.offset[0] - i * s)
                boxes.append(view.boxes(corners, frame))
        all_boxes = np.concatenate(boxes)
        # patch index of every place of the tiled picture, whose tiles lie below one another in the token map
        row, col = np.mgrid[0 : plan.tiles[0] * side, 0 : plan.tiles[1] * side]
        view_index = 1 + (row // side) * plan.tiles[1] + col // side
        index = view_index * side * side + (row % side) * side + col % side
        index = index[plan.rows[0] : plan.rows[1], plan.cols[0] : plan.cols[1]]
        if plan.out == index.shape:
            patches = np.full((index.size, 4), -1, dtype=np.int32)
            patches[:, 0] = index.ravel()
        else:
            rows, cols = (bilinear_sources(index.shape[axis], plan.out[axis]) for axis in (0, 1))
            patches = grouped(rows, cols, index)
        tiled = self.frame_part(mark, 0, patches, all_boxes)
        return join(
            [self.frame_part(mark, 0, single_patches(side), all_boxes), with_newlines(tiled, plan.out)]
        )


def with_newlines(part: Part, shape: tuple[int, int]) -> Part:
    """A newline behind each of ``shape[0]`` rows of ``shape[1]`` tokens; it has the row's frame and no patches."""
    rows, cols = shape
    place = np.insert(np.arange(rows * cols), np.arange(1, rows + 1) * cols, -1)
    new = place < 0
    kinds, patches, boxes = part.kinds[place], part.patches[place], part.boxes[place]
    kinds[new], patches[new], boxes[new] = NEWLINE, -1, -1
    return Part(part.ids[place], kinds, part.span[place], patches, boxes)


def newline_part(mark: int, span: tuple[int, int]) -> Part:
    """One newline over a range of frames."""
    return Part(
        np.array([mark], dtype=np.int64),
        np.array([NEWLINE], dtype=np.uint8),
        np.array([span], dtype=np.int32),
        np.full((1, 4), -1, dtype=np.int32),
        np.full((1, 4), -1, dtype=np.float32),
    )


class AnyresModel(SquareModel):
    """Features by the stock model's own methods: all images in one call, videos of equal frame counts in one."""

    def video_tokens(self, frames: int) -> int:
        """Placeholders of a video."""
        raise NotImplementedError

    def most_tiles(self) -> int | None:
        return None

    def media_tokens(self, grids: Tensor) -> list[int]:
        pinpoints = tuple((int(h), int(w)) for h, w in self.config.image_grid_pinpoints)
        counts = []
        for frames, _, _, height, width in grids.tolist():
            if height:
                plan = tile(
                    height,
                    width,
                    pinpoints,
                    self.config.vision_config.image_size,
                    self.side,
                    self.most_tiles(),
                )
                counts.append(self.side**2 + plan.out[0] * (plan.out[1] + 1))
            else:
                counts.append(self.video_tokens(frames))
        return counts

    def _split(
        self, pixel_values: Tensor, grids: Tensor
    ) -> tuple[list[Tensor], list[int], dict[int, list[int]]]:
        """Views of each medium; which are images; videos by frame count."""
        rows = grids.tolist()
        views = list(pixel_values.to(self.dtype).split([f * r // self.side for f, r, *_ in rows]))
        images = [i for i, row in enumerate(rows) if row[3]]
        videos: dict[int, list[int]] = {}
        for i, row in enumerate(rows):
            if not row[3]:
                videos.setdefault(row[0], []).append(i)
        return views, images, videos

    def visual_features(self, pixel_values: Tensor, grids: Tensor) -> tuple[Tensor, list[Tensor]]:
        views, images, videos = self._split(pixel_values, grids)
        parts: list[Tensor | None] = [None] * len(views)
        if images:
            out = self.host.model.get_image_features(
                torch.cat([views[i] for i in images]), grids[images][:, 3:]
            )
            for i, features in zip(images, out.pooler_output, strict=True):
                parts[i] = features
        for members in videos.values():
            out = self.host.model.get_video_features(torch.stack([views[i] for i in members]))
            for i, features in zip(members, out.pooler_output, strict=True):
                parts[i] = features
        joined = torch.cat([part for part in parts if part is not None])
        if not images and self.training and dist.is_available() and dist.is_initialized():
            # the newline belongs to images: a rank without any must still enter the reduction of its gradient
            joined = joined + 0.0 * self.host.model.image_newline.sum()
        return joined, []

    def stock_inputs(self, input_ids: Tensor, pixel_values: Tensor, grids: Tensor) -> dict[str, Any]:
        views, images, videos = self._split(pixel_values, grids)
        inputs: dict[str, Any] = {}
        if images:
            most = max(len(views[i]) for i in images)  # filled up, the stock model cuts them again
            filled = [
                torch.cat([v, v.new_zeros(most - len(v), *v.shape[1:])]) for v in (views[i] for i in images)
            ]
            inputs |= {"pixel_values": torch.stack(filled), "image_sizes": grids[images][:, 3:]}
        if len(videos) > 1:
            raise ValueError(
                f"videos of {sorted(videos)} frames in one call of generate: this host takes one frame count at a time"
            )
        for members in videos.values():
            inputs["pixel_values_videos"] = torch.stack([views[i] for i in members])
        return inputs
