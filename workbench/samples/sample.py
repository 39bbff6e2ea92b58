"""The nouns of the data side: a ``Sample`` (what to learn or ask) and a ``Clip`` (the frames really used)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


@dataclass(frozen=True, slots=True)
class ImageRef:
    """A still image on disk."""

    path: Path


@dataclass(frozen=True, slots=True)
class VideoRef:
    """A video file, or a folder of numbered images, on disk."""

    path: Path


MediaRef = ImageRef | VideoRef


@dataclass(frozen=True, slots=True)
class Turn:
    """One question and its answer. ``choices`` is empty for free-form answers."""

    question: str
    answer: str
    choices: tuple[str, ...] = ()
    skill: str = "unknown"


@dataclass(frozen=True, slots=True)
class Sample:
    """One conversation about at most one image or video.

    ``frames_column`` is a frame count stored in the data (read by the ``column`` policy only); ``min_frames`` is the
    smallest count that can answer, where the data knows it (used to *evaluate* policies, never by them).
    ``where`` is ``file:line`` of the row, for error messages.
    """

    id: str
    turns: tuple[Turn, ...]
    media: MediaRef | None = None
    source: str = ""
    frames_column: int | None = None
    min_frames: int | None = None
    where: str = ""

    @property
    def question(self) -> str:
        return self.turns[0].question

    @property
    def answer(self) -> str:
        return self.turns[0].answer

    @property
    def choices(self) -> tuple[str, ...]:
        return self.turns[0].choices

    @property
    def skill(self) -> str:
        return self.turns[0].skill

    @property
    def is_video(self) -> bool:
        return isinstance(self.media, VideoRef)


@dataclass(frozen=True, slots=True)
class ClipInfo:
    """What a media file holds: ``frames`` >= 1 (1 for an image), ``fps`` in frames/s (0 for an image), sizes in pixels."""

    frames: int
    fps: float
    duration_s: float
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Clip:
    """Decoded frames, uint8 ``[F, H, W, 3]`` RGB, with the source indices and timestamps *actually used*."""

    frames: np.ndarray
    indices: tuple[int, ...]
    timestamps_s: tuple[float, ...]
    backend: str = ""
    info: ClipInfo | None = field(default=None, compare=False)
