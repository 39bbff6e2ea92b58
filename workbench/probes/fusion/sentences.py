"""Sentences from a fusion capture. What an interval excludes is said; what it does not exclude is not claimed.

Needs no torch. Sentences are about one checkpoint, its clips and images, never about training again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from workbench.captures import Capture
from workbench.probes.fusion.read import WHOLE, of_kind, sweep_changes, table

FEW = 8
CHANGES = {  # numbers whose change over frame counts is put into words: title, as a percentage?
    "update": ("the update |z - x| / |x|", True),
    "beta_local": ("the local branch's beta", True),
    "beta_memory": ("the memory branch's beta", True),
    "beta_periodic": ("the periodic branch's beta", True),
    "effective_frames": ("the frames that memory effectively holds", False),
    "past_share": ("the memory's weight on earlier frames", True),
}


def words(capture: Capture, frames: int | None = None) -> list[str]:
    """What the capture shows, one finding a sentence.

    Args:
        frames: of the videos' sentences; the largest count if None.

    Raises:
        CaptureError: a capture of another kind.
        ValueError: a frame count that was not probed.
    """
    counts = of_kind(capture).meta["frame_counts"]
    frames = max(counts) if frames is None else frames
    if frames not in counts:
        raise ValueError(f"{frames} frames were not probed; the counts are {', '.join(map(str, counts))}")
    rows = table(capture)
    sentences = still_words(capture, rows)
    videos = rows[(rows["shown"] == "videos") & (rows["frames"] == frames)]
    if len(videos):
        for layer in range(capture.meta["layers"]):
            sentences += _layer_words(capture, videos[videos["layer"] == layer], layer, frames)
    sentences.append(frequency_words(frames, capture.meta["frequencies"][str(frames)]))
    return sentences + change_words(capture)


def still_words(capture: Capture, rows: pd.DataFrame) -> list[str]:
    """What the fusion does to images at F = 1."""
    images = rows[rows["shown"] == "images"]
    if not len(images):
        return []
    whole = images[images["layer"] == WHOLE].iloc[0]
    moved = f"move by {_percent(whole)} of their norm (|TFF(x) - x| / |x| at F = 1; n = {whole['n']} images)"
    if capture.meta["still_images"] == "bypass":
        text = f"This model lets still images bypass the fusion; sent through it they would {moved}."
    else:
        text = f"Still images {moved}."
    if capture.meta["layers"] > 1:
        layers = images[(images["number"] == "update") & (images["layer"] != WHOLE)]
        text += " By layer: " + ", ".join(f"{r['layer']}: {_percent(r)}" for _, r in layers.iterrows()) + "."
    sentences = [_few(text, int(whole["n"]), "images")]
    for _, row in images[images["number"] == "offset"].iterrows():
        sentences.append(
            f"Of what layer {row['layer']} adds to a still image, {_percent(row)} is one shift common to all its "
            "patches (by square norm)."
        )
    return sentences


def _layer_words(capture: Capture, rows: pd.DataFrame, layer: int, frames: int) -> list[str]:
    by = {row["number"]: row for _, row in rows.iterrows()}
    n = int(by["update"]["n"])
    where = f"Layer {layer} at {frames} frame{'s' * (frames > 1)} (n = {n} clips)"
    betas = ", ".join(f"{name} {_percent(by[f'beta_{name}'])}" for name in capture.meta["branches"])
    shares = sorted(capture.meta["parts"], key=lambda part: -abs(by[f"share_{part}"]["estimate"]))
    largest = ", ".join(f"{part} {_percent(by[f'share_{part}'])}" for part in shares[:3])
    sentences = [
        _few(f"{where} weighs its branches: {betas}.", n, "clips"),
        f"{where} changes the features by {_percent(by['update'])} of their norm; the largest parts of that update: "
        f"{largest}.",
    ]
    effective, past = by["effective_frames"], by["past_share"]
    if capture.meta["variant"] == "paper":
        sentences.append(
            f"{where}: the last frame's memory holds {_plain(effective)} frames effectively, {_percent(past)} of its "
            f"weight lies on earlier frames, their mean age being {_plain(by['mean_age'])} frames."
        )
    else:
        sentences.append(
            f"{where}: the release's memory does not decay: the weights of its sum are those of {_plain(effective)} "
            f"frames effectively, {_percent(past)} of them before the last frame; the gates of later frames change "
            f"the memory by {_percent(by['leak'])} of its norm (leak)."
        )
    return sentences


def frequency_words(frames: int, found: Mapping[str, Any]) -> str:
    """Which frequencies are left at a frame count; exact."""
    asked = sum(len(group) for group in found["folded"].values())
    text = (
        f"At {frames} frame{'s' * (frames > 1)} {found['oscillating']} different cosines are left of {asked} "
        f"frequencies"
    )
    notes = []
    if found["constant"]:
        notes.append(f"{_list(found['constant'])} {_are(found['constant'])} a constant gain")
    if found["at_half"]:
        notes.append(
            f"{_list(found['at_half'])} only {_are(found['at_half'], 'alternates', 'alternate')} in sign"
        )
    for value, group in found["folded"].items():
        slower = [w for w in group if int(value) not in (0, w)]
        if slower:
            notes.append(f"{_list(slower)} {_are(slower, 'is', 'are')} seen as {value}")
    if found["gains"] is not None:
        gains = found["gains"]
        notes.append(f"the release's gain runs from {min(gains):+.2f} to {max(gains):+.2f} over the frames")
    return text + ("" if not notes else ": " + "; ".join(notes)) + "."


def change_words(capture: Capture) -> list[str]:
    """From the smallest to the largest frame count; what is shown after Holm's correction over the whole table."""
    found = sweep_changes(capture)
    if not len(found):
        return []
    sentences, silent = [], []
    for _, row in found.iterrows():
        if row["number"] not in CHANGES or (row["layer"] == WHOLE) != (row["number"] == "update"):
            continue  # of the update, the whole stack's
        title, percent = CHANGES[row["number"]]
        place = title if row["layer"] == WHOLE else f"{title} in layer {row['layer']}"
        if not row["p_holm"] < 0.05:
            silent.append(place)
            continue
        scale, unit = (100, " points") if percent else (1, "")
        low, high = scale * row["low"], scale * row["high"]
        sentences.append(
            f"From {row['before_frames']} to {row['frames']} frames {place} goes from "
            f"{_value(row['before'], percent)} to {_value(row['after'], percent)} "
            f"({scale * row['difference']:+.3g}{unit} [{low:+.3g}, {high:+.3g}], same {row['n']} clips)."
        )
    if silent:
        counts = capture.meta["frame_counts"]
        sentences.append(f"No change shown from {counts[0]} to {counts[-1]} frames for {'; '.join(silent)}.")
    return sentences


def _percent(row: Any) -> str:
    """``4.1% [3.8, 4.4]``."""
    estimate, low, high = (100 * row[name] for name in ("estimate", "low", "high"))
    digits = 1 if np.isnan(low) or high - low >= 0.1 or abs(estimate) >= 10 else 2
    text = f"{estimate:.{digits}f}%"
    return text if np.isnan(low) else f"{text} [{low:.{digits}f}, {high:.{digits}f}]"


def _plain(row: Any) -> str:
    text = f"{row['estimate']:.2f}"
    return text if np.isnan(row["low"]) else f"{text} [{row['low']:.2f}, {row['high']:.2f}]"


def _value(value: float, percent: bool) -> str:
    return f"{100 * value:.1f}%" if percent else f"{value:.2f}"


def _few(text: str, n: int, what: str) -> str:
    if n == 1:
        return f"{text} One of {what} says nothing about others."
    return text if n >= FEW else f"{text} ({n} {what} are few.)"


def _list(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


def _are(numbers: list[int], one: str = "is", many: str = "are") -> str:
    return one if len(numbers) == 1 else many
