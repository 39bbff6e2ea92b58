"""Tables from fusion captures. Needs no torch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from workbench.captures import Capture, CaptureError
from workbench.evaluation.statistics import holm, mean_interval
from workbench.probes.fusion.names import BOUNDS, KIND

WHOLE = "whole"


def of_kind(capture: Capture) -> Capture:
    """The capture itself. Raises CaptureError when it is of another kind."""
    if capture.kind != KIND:
        raise CaptureError(
            "read a fusion capture",
            f"it is of kind {capture.kind}",
            "Make one with `workbench probe fusion RUN`",
        )
    return capture


def table(capture: Capture) -> pd.DataFrame:
    """Every number with its interval: columns ``shown`` ("images" or "videos"), ``frames``, ``layer`` (an int, or
    "whole" for the stack), ``number``, ``estimate``, ``low``, ``high`` (95%), ``n`` (images or clips).

    Raises:
        CaptureError: a capture of another kind.
    """
    of_kind(capture)
    rows: list[dict[str, Any]] = []
    for shown, frames, values, whole, means, whole_means in _sides(capture):
        for layer in range(values.shape[1]):
            for at, number in enumerate(capture.meta["numbers"]):
                found = dict(zip(BOUNDS, means[layer, at].tolist(), strict=True))
                n = int(np.isfinite(values[:, layer, at]).sum())
                rows.append(
                    {"shown": shown, "frames": frames, "layer": layer, "number": number} | found | {"n": n}
                )
        found = dict(zip(BOUNDS, whole_means.tolist(), strict=True))
        n = int(np.isfinite(whole).sum())
        rows.append({"shown": shown, "frames": frames, "layer": WHOLE, "number": "update"} | found | {"n": n})
    return pd.DataFrame(rows)


def _sides(capture: Capture) -> list[tuple[str, int, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """(what, frames, values ``[n, layer, number]``, whole ``[n]``, and the means of both) of every group shown."""
    a = capture.arrays
    sides = []
    if "still" in a:
        sides.append(("images", 1, a["still"], a["still_whole"], a["still_mean"], a["still_whole_mean"]))
    if "sweep" in a:
        for i, n in enumerate(capture.meta["frame_counts"]):
            means = a["sweep_mean"][i], a["sweep_whole_mean"][i]
            sides.append(("videos", int(n), a["sweep"][:, i], a["sweep_whole"][:, i], *means))
    return sides


def sweep_changes(capture: Capture) -> pd.DataFrame:
    """From the smallest to the largest frame count, on the same clips: columns as ``changes``, with ``frames`` the
    largest count and ``before_frames`` the smallest. Empty with one count or without videos.

    Raises:
        CaptureError: a capture of another kind.
    """
    of_kind(capture)
    counts = capture.meta["frame_counts"]
    if "sweep" not in capture.arrays or len(counts) < 2:
        return _changes([])
    first, last = (
        _columns(capture, capture.arrays["sweep"], capture.arrays["sweep_whole"], i) for i in (0, -1)
    )
    rows = [
        {
            "shown": "videos",
            "before_frames": counts[0],
            "frames": counts[-1],
            "layer": layer,
            "number": number,
        }
        | _paired(first[layer, number], last[layer, number])
        for layer, number in first
    ]
    return _changes(rows)


def changes(before: Capture, after: Capture) -> pd.DataFrame:
    """Paired change from one checkpoint to another on the same images and clips, at the frame counts both have.

    Returns:
        Columns ``shown``, ``frames``, ``layer``, ``number``, ``before``, ``after``, ``difference``, ``low``, ``high``
        (95%, Student t over pairs), ``p``, ``p_holm`` (over the table), ``n`` pairs.

    Raises:
        CaptureError: a capture of another kind, or nothing in common.
    """
    rows = []
    sides = {name: _by_sample(capture) for name, capture in (("before", before), ("after", after))}
    for key, earlier in sides["before"].items():
        later = sides["after"].get(key)
        if later is None:
            continue
        common = [sample for sample in earlier if sample in later]
        a, b = (np.array([side[sample] for sample in common]) for side in (earlier, later))
        if common:
            shown, frames, layer, number = key
            place = {"shown": shown, "frames": frames, "layer": layer, "number": number}
            rows.append(place | _paired(a, b))
    if not rows:
        raise CaptureError(
            "compare two fusion captures",
            "they have no image or clip at one frame count and layer in common",
            "Probe both checkpoints with the same samples and frame counts",
        )
    return _changes(rows)


def _by_sample(capture: Capture) -> dict[tuple[str, int, Any, str], dict[str, float]]:
    """(shown, frames, layer, number) -> value by sample id."""
    of_kind(capture)
    found = {}
    for shown, frames, values, whole, *_ in _sides(capture):
        ids = capture.meta[shown]
        for (layer, number), column in _columns(capture, values, whole).items():
            found[shown, frames, layer, number] = dict(zip(ids, column.tolist(), strict=True))
    return found


def _columns(
    capture: Capture, values: np.ndarray, whole: np.ndarray, count: int | None = None
) -> dict[tuple[Any, str], np.ndarray]:
    """(layer, number) -> values ``[n]``."""
    if count is not None:
        values, whole = values[:, count], whole[:, count]
    found: dict[tuple[Any, str], np.ndarray] = {
        (layer, number): values[:, layer, at]
        for layer in range(values.shape[1])
        for at, number in enumerate(capture.meta["numbers"])
    }
    return found | {(WHOLE, "update"): whole}


def _paired(before: np.ndarray, after: np.ndarray) -> dict[str, Any]:
    there = np.isfinite(before) & np.isfinite(after)
    n = int(there.sum())
    if not n:
        return dict.fromkeys(("before", "after", "difference", "low", "high", "p"), math.nan) | {"n": 0}
    a, b = before[there], after[there]
    found = mean_interval((b - a).tolist())
    return {
        "before": float(a.mean()),
        "after": float(b.mean()),
        "difference": found.estimate,
        "low": found.low,
        "high": found.high,
        "p": _p_value(found.estimate, found.sd, n),
        "n": n,
    }


def _p_value(difference: float, sd: float, n: int) -> float:
    """Two-sided, Student t over pairs; NaN for one pair, and where no pair differs (then there is nothing to test)."""
    from scipy.special import stdtr  # scipy.stats takes a second to import

    if n < 2 or difference == sd == 0:
        return math.nan
    if sd == 0:
        return 0.0
    return float(2 * stdtr(n - 1, -abs(difference) / (sd / math.sqrt(n))))


def _changes(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The rows as a table with Holm's p over those that have one."""
    columns = ["shown", "frames", "layer", "number", "before", "after", "difference", "low", "high", "p"]
    found = pd.DataFrame(rows) if rows else pd.DataFrame(columns=[*columns, "n"])
    tested = found["p"].notna()
    found["p_holm"] = np.nan
    found.loc[tested, "p_holm"] = holm(found.loc[tested, "p"].tolist())
    return found
