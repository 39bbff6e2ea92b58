"""LLaVA-1.5: one square input a picture, one token a patch; it knows no video, so each frame is a picture of its own,
in time order, as its chat template writes several pictures."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from workbench.models.hosts.media import Media
from workbench.models.hosts.pixels import square_pixels
from workbench.models.hosts.settings import PictureSettings
from workbench.models.hosts.square import SquareModel, SquareProcessor, single_patches
from workbench.samples.sample import Clip


class LlavaProcessor(SquareProcessor):
    """A mark a frame."""

    image_defaults = video_defaults = PictureSettings({"shortest_edge": 336}, crop=(336, 336))
    pads_to_square = True

    def _mark_ids(self) -> dict[str, int]:
        config: Any = self.config
        return {"image": config.image_token_id}

    def media(self, clip: Clip, video: bool) -> Media:
        n, height, width = clip.frames.shape[:3]
        pixels, view = square_pixels(clip.frames, self.image)
        self.check_pixels(view.height, view.width)
        boxes, patches = self.view_boxes(view, (width, height)), single_patches(self.side)
        parts = tuple(self.frame_part(self.mark_ids["image"], f, patches, boxes) for f in range(n))
        grid = (n, self.side, self.side)
        return Media("image", pixels, grid, grid, (width, height), parts)


class LlavaHost(SquareModel):
    """See the module's docstring."""

    def media_tokens(self, grids: Tensor) -> list[int]:
        return grids[:, :3].prod(-1).tolist()

    def visual_features(self, pixel_values: Tensor, grids: Tensor) -> tuple[Tensor, list[Tensor]]:
        out = self.host.model.get_image_features(pixel_values.to(self.dtype))
        return torch.cat(list(out.pooler_output)), []

    def stock_inputs(self, input_ids: Tensor, pixel_values: Tensor, grids: Tensor) -> dict[str, Any]:
        return {"pixel_values": pixel_values.to(self.dtype)}
