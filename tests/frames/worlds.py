"""Samples, real clips and simulated losses for the tests of frame policies."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pandas as pd
from PIL import Image

from workbench.samples.sample import ClipInfo, ImageRef, MediaRef, Sample, Turn, VideoRef

QUESTIONS = {  # true smallest count -> phrasings
    2: ("what digit is {c}?", "where is the {c} digit?", "name the colour of the {d}.", "count the digits."),
    4: ("which way does the {c} digit move?", "what colour does the {d} become?"),
    8: ("which comes first, {c} or {e}?", "does the {c} digit get faster or slower?"),
    16: ("what number comes and goes?", "how often does the light flash?", "count the flashes."),
}
COUNTS = tuple(QUESTIONS)
COLOURS = ("red", "green", "blue", "yellow")


def sample(
    name: str,
    question: str = "what is it?",
    *more: str,
    media: MediaRef | None = None,
    column: int | None = None,
    needed: int | None = None,
    skill: str = "static",
) -> Sample:
    turns = tuple(Turn(text, "red", ("red", "blue"), skill) for text in (question, *more))
    return Sample(name, turns, media, frames_column=column, min_frames=needed, where=f"rows.jsonl:{name}")


def video(name: str, question: str = "what is it?", *more: str, **keys) -> Sample:
    return sample(name, question, *more, media=VideoRef(Path(f"clips/{name}.mkv")), **keys)


class Clips:
    """Answers ``info`` from a table of lengths in frames, at 8 frames/s; counts how often it is asked."""

    def __init__(self, lengths: dict[str, int] | int = 32) -> None:
        self.lengths, self.asked = lengths, 0

    def info(self, ref: MediaRef, /) -> ClipInfo:
        self.asked += 1
        if isinstance(ref, ImageRef):
            return ClipInfo(1, 0.0, 0.0, 8, 8)
        frames = self.lengths if isinstance(self.lengths, int) else self.lengths[ref.path.stem]
        return ClipInfo(frames, 8.0, frames / 8, 8, 8)


def write_clip(path: Path, frames: int, rate: int = 8) -> Path:
    """A real lossless clip whose frame i is flat grey of level 4 i."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=Fraction(rate))
        stream.width, stream.height, stream.pix_fmt = 16, 16, "gray"
        for i in range(frames):
            picture = av.VideoFrame.from_ndarray(np.full((16, 16), 4 * i, np.uint8), format="gray")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def write_image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), (200, 10, 10)).save(path)
    return path


def measured(n: int, seed: int, noise: str) -> tuple[pd.DataFrame, dict[str, int]]:
    """Losses of a model that needs the true count of each question, and {sample id: that count}.

    ``noise``: ``normal`` (sd 0.3) or ``heavy`` (gamma with shape 0.6, some of several nats), drawn anew at
    every count. Expected loss is 0.25 nats with enough frames and up to 1 nat more without.
    """
    rng = np.random.default_rng(seed)
    rows, truth = [], {}
    for i in range(n):
        needed = int(rng.choice(COUNTS, p=[0.5, 0.2, 0.15, 0.15]))
        text = str(rng.choice(QUESTIONS[needed]))
        c, e = rng.choice(COLOURS, 2, replace=False)
        text = text.format(c=c, e=e, d=rng.choice(["one", "two", "seven"]))
        truth[f"s{i}"] = needed
        for frames in COUNTS:
            mean = 0.25 + (0.45 * np.log2(needed / frames) ** 0.5 if frames < needed else 0.0)
            loss = mean + rng.normal(0, 0.3) if noise == "normal" else rng.gamma(0.6, mean / 0.6)
            rows.append((f"s{i}", text, frames, max(0.0, loss), loss < 0.7))
    return pd.DataFrame(rows, columns=["sample_id", "question", "frames", "loss", "correct"]), truth
