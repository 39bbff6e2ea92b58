"""What the LLaVA hosts share: a vision tower of fixed square inputs (CLIP or SigLIP) and a projector.

S pixels a side, G = S // patch patches a side; a still image may be several inputs ("views"). Pixel values are float32
``[views, 3, S, S]``, all media one behind the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from workbench.errors import CheckpointError
from workbench.models.hosts.media import Part, union
from workbench.models.hosts.modeling import HostModel
from workbench.models.hosts.pixels import View, patch_corners
from workbench.models.hosts.processing import HostProcessor
from workbench.models.tokenmap import VISUAL

TOWERS = {
    "clip_vision_model": "default",
    "siglip_vision_model": "full",
}  # vision model -> which tokens are taken


class SquareProcessor(HostProcessor):
    """Sizes of the vision tower, and positions of one input."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        check_tower(config)
        self.side_px, self.patch = int(config.vision_config.image_size), int(config.vision_config.patch_size)
        self.side = self.side_px // self.patch
        super().__init__(config, *args, **kwargs)

    def check_pixels(self, height: int, width: int) -> None:
        """Raises CheckpointError when the picture settings do not make what the vision tower takes."""
        if (height, width) != (self.side_px, self.side_px):
            raise CheckpointError(
                f"prepare pictures for this {self.config.model_type} model",
                f"its processor settings make inputs of {width}x{height}, its vision tower takes "
                f"{self.side_px}x{self.side_px}",
                "use the preprocessor_config.json that belongs to the model",
            )

    def view_boxes(self, view: View, frame: tuple[int, int]) -> np.ndarray:
        """Boxes of the patches of one input, float32 ``[G * G, 4]``."""
        return view.boxes(patch_corners(self.side, self.side, self.patch), frame)

    def frame_part(self, mark: int, frame: int, patches: np.ndarray, boxes_of_patches: np.ndarray) -> Part:
        """Positions of one frame: ``patches [n, 4]`` merged into each (-1 fills up)."""
        n = len(patches)
        return Part(
            np.full(n, mark, dtype=np.int64),
            np.full(n, VISUAL, dtype=np.uint8),
            np.tile(np.array([frame, frame + 1], dtype=np.int32), (n, 1)),
            patches,
            union(boxes_of_patches[np.where(patches < 0, patches[:, :1], patches)]),
        )


def check_tower(config: Any) -> None:
    """Raises CheckpointError for a vision tower whose tokens this room does not know."""
    tower, taken = config.vision_config.model_type, config.vision_feature_select_strategy
    if TOWERS.get(tower) != taken:
        known = " or ".join(f"{name} with {strategy!r}" for name, strategy in TOWERS.items())
        raise CheckpointError(
            f"use this {config.model_type} model",
            f"its vision tower is {tower!r} with vision_feature_select_strategy {taken!r}",
            f"Supported are {known}",
        )


def single_patches(side: int) -> np.ndarray:
    """One patch a token: int32 ``[side * side, 4]``."""
    out = np.full((side * side, 4), -1, dtype=np.int32)
    out[:, 0] = np.arange(side * side)
    return out


class SquareModel(HostModel):
    """Parts of the stock models."""

    @property
    def encoder(self) -> Any:
        return self.host.model.vision_tower

    @property
    def side(self) -> int:
        vision = self.config.vision_config
        return int(vision.image_size // vision.patch_size)

    def encoder_layers(self) -> list[str]:
        layers = len(self.encoder.encoder.layers)
        return [f"host.model.vision_tower.encoder.layers.{i}.self_attn" for i in range(layers)]

    def _merger(self, name: str) -> bool:
        return name.startswith(
            ("host.model.multi_modal_projector.", "host.model.image_newline", "host.model.vision_resampler.")
        )

    def _unused(self, name: str) -> bool:
        """Features are hidden states before the last normalisation: what comes after them has no part in the
        output."""
        layers = len(self.encoder.encoder.layers)
        taken = self.config.vision_feature_layer
        last = max(i if i >= 0 else layers + 1 + i for i in ([taken] if isinstance(taken, int) else taken))
        tail = name.removeprefix("host.model.vision_tower.")
        if tail.startswith(("post_layernorm.", "head.")):
            return True
        return tail.startswith("encoder.layers.") and int(tail.split(".")[2]) >= last
