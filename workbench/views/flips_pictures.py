"""The picture of a test sample, small: the image, or the frames that were used, as one strip to be read like a text."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from workbench.errors import WorkbenchError
from workbench.frames import midpoint_indices
from workbench.samples.reader import FrameCache, FrameReader
from workbench.samples.sample import Sample
from workbench.samples.source import load_source
from workbench.study.results import StudyResults

SIDES = ((1, 240), (8, 160), (32, 112), (64, 80))  # (at most so many frames, longest side in pixels)
SMALLEST_SIDE = 56
STRIP = 960  # pixels: a strip goes on in a new row after it
EIGHT = 8  # frames a row at most
GAP = 2
WIDTH, LARGE = 780, 144  # pixels that a drawn world's strip and one frame of it are shown at, at most
DRAWN = 64  # frames up to this side are pixel worlds: enlarged without smoothing, and kept exactly while that is small
EXACT = 12_000  # bytes of a PNG; what takes more is kept as JPEG


class TestPictures:
    """Pictures of the test samples of one study; files are read when they are first asked for."""

    __test__ = False  # no test class, whatever its name begins with

    def __init__(self, results: StudyResults) -> None:
        self._results = results
        self._suites: dict[str, dict[str, Sample]] = {}

    @cached_property
    def _recipe(self) -> dict[str, Any]:
        found = yaml.safe_load(self._results.recipe_yaml) if self._results.recipe_yaml else None
        return found if isinstance(found, dict) else {}

    @cached_property
    def _reader(self) -> FrameReader:
        kept = self._results.directory / "cache" / "frames"  # decoded while the study ran
        return FrameReader(cache=FrameCache(kept) if kept.is_dir() else None)

    def sample(self, suite: str, sample_id: str) -> Sample:
        """A sample of one of the study's test suites.

        Raises:
            WorkbenchError: the recipe does not say where the suite lies, the data are gone, or lack this sample.
        """
        asked = f"show sample {sample_id}"
        if suite not in self._suites:
            path = self._file(suite, asked)
            self._suites[suite] = {sample.id: sample for sample in load_source(path)}
        try:
            return self._suites[suite][sample_id]
        except KeyError:
            raise WorkbenchError(
                asked,
                f"the data of the suite {suite!r} have no such sample now",
                "Make the data again as the recipe says",
            ) from None

    def _file(self, suite: str, asked: str) -> Path:
        data = self._recipe.get("data") or {}
        name = ((self._recipe.get("evaluation") or {}).get("suites") or {}).get(suite)
        relative = ((data.get("sources") or {}).get(name) or {}).get("path")
        if relative is None:
            raise WorkbenchError(
                asked,
                f"the study's recipe does not say where the suite {suite!r} lies",
                "Nothing can be done",
            )
        root = Path(str(data.get("root") or "."))
        folders = [Path.cwd(), *self._results.directory.resolve().parents]
        for file in (folder / root / relative for folder in folders):
            if file.is_file():
                return file
        raise WorkbenchError(
            asked,
            f"the data are not on this machine ({root.name}/{relative})",
            "Make them again as the recipe says, or show the study where they are",
        )

    def strip(self, suite: str, sample_id: str, frames: int) -> dict[str, Any]:
        """``source`` (a data URL), ``words`` (which frames, when), ``width`` (pixels to show a drawn world at; else null).

        Args:
            frames: how many were used, as the score row says; they are sampled as a frame plan does.

        Raises:
            WorkbenchError: the sample or its file cannot be read, or it has no picture.
        """
        sample = self.sample(suite, sample_id)
        if sample.media is None:
            return {"source": None, "words": "This question comes without a picture.", "width": None}
        if frames < 1:
            raise WorkbenchError(
                f"show sample {sample_id}",
                "the model was shown no frame of it",
                "Look at the error in its score row",
            )
        available = self._reader.info(sample.media).frames if sample.is_video else 1
        indices = midpoint_indices(available, min(frames, available))
        clip = self._reader.read(sample.media, indices)
        side = next((s for most, s in SIDES if len(indices) <= most), SMALLEST_SIDE)
        small = max(clip.frames.shape[1:3]) <= DRAWN
        words = "The image." if not sample.is_video else _when(indices, clip.timestamps_s, available)
        strip = _compose(clip.frames, side)
        shown = max(strip.width, min(WIDTH, _per_row(len(indices), clip.frames.shape[2]) * LARGE))
        return {"source": _data_url(strip), "words": words, "width": shown if small else None}

    def close(self) -> None:
        """End the worker that decodes videos."""
        if "_reader" in self.__dict__:
            self._reader.close()


def _when(indices: tuple[int, ...], times: tuple[float, ...], available: int) -> str:
    one = len(indices) == 1
    shown = [f"{i} ({t:.1f} s)" for i, t in zip(indices, times, strict=True)]
    listed = ", ".join(shown if len(shown) <= 16 else [*shown[:3], "…", shown[-1]])
    return (
        f"{len(indices)} of {available} frames {'was' if one else 'were'} used, in reading order: {listed}."
    )


def _compose(frames: np.ndarray, side: int) -> Image.Image:
    """Frames ``[F, H, W, 3]`` beside one another, in rows; white between them. Never enlarged."""
    height, width = frames.shape[1:3]
    scale = min(1.0, side / max(height, width))
    w, h = max(1, round(width * scale)), max(1, round(height * scale))
    per_row = _per_row(len(frames), w)
    rows = -(-len(frames) // per_row)
    size = (per_row * (w + GAP) - GAP, rows * (h + GAP) - GAP)
    canvas = Image.new("RGB", size, "white")
    for place, picture in zip(_places(per_row, w, h), frames, strict=False):
        canvas.paste(Image.fromarray(picture).resize((w, h), Image.Resampling.LANCZOS), place)
    return canvas


def _per_row(frames: int, width: int) -> int:
    return max(1, min(frames, EIGHT, (STRIP + GAP) // (width + GAP)))


def _places(per_row: int, w: int, h: int) -> Iterator[tuple[int, int]]:
    row = 0
    while True:
        yield from ((column * (w + GAP), row * (h + GAP)) for column in range(per_row))
        row += 1


def _data_url(picture: Image.Image) -> str:
    for kind, options in (("png", {}), ("jpeg", {"quality": 88, "subsampling": 0})):
        buffer = io.BytesIO()
        picture.save(buffer, kind, **options)
        if buffer.tell() <= EXACT:
            break
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
