"""Sentences from a fusion capture. What an interval excludes is said; what it does not exclude is not claimed.

Needs no torch. Sentences are about one checkpoint, its clips and images, never about training again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from workbench.captures import Capture, CaptureError
from workbench.evaluation.statistics import mean_interval
from workbench.probes.fusion.read import WHOLE, changes, of_kind, sweep_changes, table

FEW = 8
CHANGES = {  # numbers whose change is put into words: title, as a percentage?
    "update": ("the change |TFF(x) - x| / |x|", True),
    "offset": ("the shift common to all tokens, as a share of the update", True),
    "beta_local": ("the local branch's beta", True),
    "beta_memory": ("the memory branch's beta", True),
    "beta_periodic": ("the periodic branch's beta", True),
    "effective_frames": ("the number of frames that memory effectively holds", False),
    "past_share": ("the memory's weight on earlier frames", True),
    "leak": ("the leak of later gates into the memory", True),
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
        _few(f"{where} weighs its branches: {betas}. {_leader(capture, layer, frames)}", n, "clips"),
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
    """From the smallest to the largest frame count on the same clips; Holm's correction runs over the whole table."""
    found, counts = sweep_changes(capture), capture.meta["frame_counts"]
    return _changes(found, f"{counts[0]} to {counts[-1]} frames", "clips") if len(found) else []


def comparison_words(before: Capture, after: Capture, frames: int | None = None) -> list[str]:
    """What changed from one checkpoint to another on the same images and clips; Holm's correction runs over all numbers
    and frame counts that both captures have.

    Args:
        frames: of the videos' sentences; the largest common count if None.

    Raises:
        CaptureError: see ``changes``; or a frame count that one of them lacks.
    """
    found = changes(before, after)
    names = [(capture.meta["checkpoint"] or {}).get("name", "a model") for capture in (before, after)]
    way, sentences = f"{names[0]} to {names[1]}", []
    images, videos = (found[found["shown"] == shown] for shown in ("images", "videos"))
    if len(images):
        sentences += _changes(images, f"{way}, on still images,", "images")
    if len(videos):
        common = sorted(videos["frames"].unique().tolist())
        frames = common[-1] if frames is None else frames
        if frames not in common:
            raise CaptureError(
                f"compare two fusion captures at {frames} frames",
                f"the counts in common are {_list(common)}",
                "Choose one of those, or probe both at it",
            )
        sentences += _changes(videos[videos["frames"] == frames], f"{way}, at {frames} frames,", "clips")
    return sentences


def _changes(found: pd.DataFrame, way: str, what: str) -> list[str]:
    """``way``: "A to B", what lies between the two sides of every row."""
    sentences, silent = [], []
    for row in found.to_dict("records"):
        if row["number"] not in CHANGES or (row["layer"] == WHOLE) != (row["number"] == "update"):
            continue  # of the update, the whole stack's
        if row["difference"] == row["low"] == row["high"] == 0:
            continue  # so by construction, as the memory of one frame
        title, percent = CHANGES[row["number"]]
        place = title if row["layer"] == WHOLE else f"{title} in layer {row['layer']}"
        if not row["p_holm"] < 0.05:
            silent.append(place)
            continue
        scale, unit = (100, " points") if percent else (1, "")
        low, high = scale * row["low"], scale * row["high"]
        sentences.append(
            f"From {way} {place} goes from {_value(row['before'], percent)} to {_value(row['after'], percent)} "
            f"({scale * row['difference']:+.3g}{unit} [{low:+.3g}, {high:+.3g}], same {row['n']} {what})."
        )
    if silent:
        sentences.append(f"No change shown from {way.rstrip(',')} of {'; '.join(silent)}.")
    return sentences


def _leader(capture: Capture, layer: int, frames: int) -> str:
    """Which branch weighs most: the paired difference to the next decides."""
    count = capture.meta["frame_counts"].index(frames)
    at = [capture.meta["numbers"].index(f"beta_{name}") for name in capture.meta["branches"]]
    values = capture.arrays["sweep"][:, count, layer][:, at]
    values = values[np.isfinite(values).all(1)]
    first, second = np.argsort(-values.mean(0))[:2]
    gap = mean_interval((values[:, first] - values[:, second]).tolist())
    names = capture.meta["branches"]
    if not gap.low > 0:
        return f"There no branch is shown to weigh most ({names[first]} and {names[second]} cannot be told apart)."
    return (
        f"There {names[first]} weighs most: {100 * gap.estimate:.1f} points [{100 * gap.low:.1f}, {100 * gap.high:.1f}] "
        f"above {names[second]}."
    )


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
