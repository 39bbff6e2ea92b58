"""How a host's published processor treats pictures, read from the files beside its weights.

Three layouts are in use: ``processor_config.json`` with both processors inside (transformers 5), or
``preprocessor_config.json`` with ``video_preprocessor_config.json`` beside it; without a file for videos the one for
images holds for both, as in transformers. Files are kept as read and written back with a checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench.errors import CheckpointError

PROCESSOR, IMAGE, VIDEO = (
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5, 0.5, 0.5)
BICUBIC = 3


@dataclass(frozen=True, slots=True)
class PictureSettings:
    """One processor's settings.

    Attributes:
        size: ``{"shortest_edge", "longest_edge"}`` in pixels of *area* (Qwen), ``{"shortest_edge"}`` or ``{"height",
            "width"}`` in pixels (LLaVA).
        crop: (height, width) cut from the middle after resizing, or None.
        pad_square: pad to a square with the mean colour before resizing.
        resample: Pillow's number of the filter (3: bicubic).
        rescale, mean, std: a pixel becomes (value * rescale - mean) / std.
        cap_pixels_per_frame, max_video_tokens: Qwen's bound on the pixels of a whole video, off unless set.
    """

    size: dict[str, int]
    crop: tuple[int, int] | None = None
    pad_square: bool = False
    resample: int = BICUBIC
    rescale: float = 1 / 255
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    cap_pixels_per_frame: bool = False
    max_video_tokens: int = 128_000


@dataclass(frozen=True)
class ProcessorFiles:
    """The published settings as found: file name -> content; and the processor's own chat template, if it has one."""

    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    chat_template: str | None = None

    def image(self) -> dict[str, Any]:
        return self.files.get(PROCESSOR, {}).get("image_processor") or self.files.get(IMAGE, {})

    def video(self) -> dict[str, Any]:
        own = self.files.get(PROCESSOR, {}).get("video_processor") or self.files.get(VIDEO)
        return self.image() if own is None else own

    def write(self, directory: Path) -> None:
        """The same files in another folder."""
        for name, content in self.files.items():
            (directory / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        if self.chat_template is not None:
            (directory / "chat_template.jinja").write_text(self.chat_template, encoding="utf-8")


def read_files(folder: Path) -> ProcessorFiles:
    """What a folder holds of the files above (all are optional).

    Raises:
        CheckpointError: a file is not JSON.
    """
    files: dict[str, dict[str, Any]] = {}
    for name in (PROCESSOR, IMAGE, VIDEO):
        if (folder / name).is_file():
            files[name] = _read(folder / name)
    template = None
    if (folder / "chat_template.jinja").is_file():
        template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    elif (folder / "chat_template.json").is_file():
        template = _read(folder / "chat_template.json").get("chat_template")
    return ProcessorFiles(files, template)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it is not a mapping")
        return content
    except (ValueError, OSError) as error:
        raise CheckpointError(
            f"read {path.name}",
            f"it is not readable JSON ({error})",
            "download the checkpoint again",
            str(path),
        ) from error


def picture_settings(
    raw: Mapping[str, Any], defaults: PictureSettings, pads_to_square: bool = False
) -> PictureSettings:
    """``raw`` over ``defaults``; keys that do not concern pixels are left alone.

    Args:
        pads_to_square: what ``do_pad`` means to this processor (others fill up a batch with it).

    Raises:
        CheckpointError: a step is switched off that the hosts' published processors all take.
    """
    size = raw.get("size", defaults.size)
    size = {"shortest_edge": size} if isinstance(size, int) else dict(size)
    if raw.get("min_pixels") is not None:  # the older names of Qwen's bounds on the area
        size["shortest_edge"] = raw["min_pixels"]
    if raw.get("max_pixels") is not None:
        size["longest_edge"] = raw["max_pixels"]
    size = {
        name: int(size[name])
        for name in ("shortest_edge", "longest_edge", "height", "width")
        if size.get(name)
    }
    crop: Any = raw.get("crop_size", defaults.crop)
    if not raw.get("do_center_crop", defaults.crop is not None):
        crop = None
    elif isinstance(crop, int):
        crop = (crop, crop)
    elif isinstance(crop, Mapping):
        crop = (int(crop["height"]), int(crop["width"]))
    for name in ("do_resize", "do_rescale", "do_normalize"):
        if raw.get(name) is False:
            raise CheckpointError(
                "prepare pictures as this checkpoint's processor does",
                f"its settings switch {name} off, which no published processor of these hosts does",
                f"set {name} to true in {IMAGE}",
            )
    return PictureSettings(
        size,
        crop,
        pads_to_square and bool(raw.get("do_pad", defaults.pad_square)),
        int(raw.get("resample", defaults.resample)),
        float(raw.get("rescale_factor", defaults.rescale)),
        _triple(raw.get("image_mean", defaults.mean)),
        _triple(raw.get("image_std", defaults.std)),
        bool(raw.get("cap_pixels_per_frame") or defaults.cap_pixels_per_frame),
        int(raw.get("max_video_tokens") or defaults.max_video_tokens),
    )


def _triple(values: Any) -> tuple[float, float, float]:
    r, g, b = values
    return float(r), float(g), float(b)
