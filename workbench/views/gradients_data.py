"""Gradient captures as JSON for the browser, and what each statistic and definition can say.

Axes: S statistics, M metrics, G module groups, N frame counts, F frames of a clip, P patches; "bound" is (estimate,
low, high). What could not be had is NaN here and null or hidden in the browser, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from workbench.captures import Capture
from workbench.evaluation.statistics import mean_interval
from workbench.probes.gradients.read import table
from workbench.views.payload import pack

MEAN, RATIO, ROOT = "mean over pairs", "ratio of means over pairs", "root of a ratio of means over pairs"
MORE = ("conflict_rate", "corrected_cos", "signal")  # arrays of their own in a capture
TITLES = {
    "cos": "agreement: cos(g_I, g_V)",
    "interference": "interference: ⟨g_I, g_V⟩ / |g_I|²",
    "conflict_rate": "conflict rate: share of pairs with ⟨g_I, g_V⟩ < 0",
    "corrected_cos": "agreement without batch noise",
    "signal": "share of |g_I|² that another image batch repeats",
    "image_ceiling": "noise ceiling of images: cos(g_I′, g_I″)",
    "video_ceiling": "noise ceiling of videos: cos(g_V′, g_V″)",
    "image_norm": "length |g_I|",
    "video_norm": "length |g_V|",
    "static_cos": "agreement on static questions: cos(g_I, g_V)",
    "static_interference": "interference on static questions: ⟨g_I, g_V⟩ / |g_I|²",
}
PART_TITLES = {
    "cos_s": "cos(g_I, s)",
    "cos_t": "cos(g_I, t)",
    "share_s": "share |s| / |g_V|",
    "share_t": "share |t| / |g_V|",
    "interference_s": "⟨g_I, s⟩ / |g_I|²",
    "interference_t": "⟨g_I, t⟩ / |g_I|²",
}


@dataclass(frozen=True)
class Definition:
    """One way to split g_V = s + t, with one sentence on what it can and one on what it cannot show."""

    title: str
    shared: str
    shows: str
    cannot: str


DEFINITIONS = {
    "projection": Definition(
        "projection",
        "s is the part of g_V along g_I.",
        "How much of the video gradient lies along the image gradient.",
        "Conflict in t: ⟨g_I, t⟩ is 0 by construction, so all agreement or conflict sits in s.",
    ),
    "subspace": Definition(
        "subspace",
        "s is the part of g_V in the span of held-out image gradients.",
        "How much of the video gradient other image batches span, and whether the rest meets a new image gradient.",
        "Noise apart from signal: few noisy image gradients span little, and t then looks large.",
    ),
    "frozen": Definition(
        "one frame repeated",
        "s is the gradient of the same questions on the clip's middle frame shown n times.",
        "What different frames add, and whether conflict sits in that or in what a still frame gives already.",
        "Motion apart from appearance: the clip also loses what only other frames show.",
    ),
    "shuffled": Definition(
        "frames shuffled",
        "s is the gradient of the same questions with the frames in another order.",
        "What the order of the frames adds.",
        "What there being several frames adds: both sides have all of them.",
    ),
    "static_frozen": Definition(
        "one frame repeated, static questions",
        "As one frame repeated, on videos whose questions one frame answers.",
        "Whether more frames than a question needs change the gradient.",
        "Anything about questions that need several frames.",
    ),
}


def described(key: str) -> dict[str, Any]:
    """Title, kind of estimate and colour scale of a statistic; ``centre`` is the value that an interval may exclude."""
    definition, _, part = key.rpartition(".")
    last = part if definition else key
    title = TITLES.get(key, key)
    if definition:
        named = DEFINITIONS[definition].title if definition in DEFINITIONS else definition
        title = f"{named}: {PART_TITLES.get(part, part)}"
    found: dict[str, Any] = {
        "key": key,
        "title": title,
        "centre": 0.0,
        "ceiling": None,
        "family": "Agreement",
    }
    if definition:
        found["family"] = f"Parts by {found['title'].split(':')[0]}"
    if last == "conflict_rate":
        return found | {"how": "share of pairs, Wilson interval", "centre": 0.5}
    if last.startswith("share_") or last.endswith("_norm"):
        return found | {"how": ROOT, "centre": None}
    if last == "signal" or last.endswith("ceiling"):
        how = RATIO if last == "signal" else MEAN
        return found | {"how": how, "family": "Noise"}
    if last == "corrected_cos":
        return found | {"how": RATIO, "family": "Noise", "ceiling": None}
    if "interference" in last:
        return found | {"how": RATIO, "ceiling": "signal"}
    return found | {"how": MEAN, "ceiling": "image_ceiling"}


def statistics(captures: Mapping[str, Capture]) -> list[str]:
    """Every statistic that some capture has a number of, in reading order."""
    first = [
        "cos",
        "interference",
        "conflict_rate",
        "corrected_cos",
        "signal",
        "image_ceiling",
        "video_ceiling",
    ]
    listed = dict.fromkeys([*first, *(name for c in captures.values() for name in c.meta["statistics"])])
    return [name for name in listed if any(np.isfinite(values_of(c, name)).any() for c in captures.values())]


def values_of(capture: Capture, name: str) -> np.ndarray:
    """``[M, G, N, bound]`` of a statistic; NaN where the capture does not have it."""
    meta = capture.meta
    shape = (len(meta["metrics"]), len(meta["groups"]), len(meta["frame_counts"]), 3)
    if name == "signal":
        return np.broadcast_to(np.asarray(capture.arrays["signal"], np.float64)[:, :, None], shape)
    if name in MORE:
        return np.asarray(capture.arrays[name], np.float64)
    if name not in meta["statistics"]:
        return np.full(shape, np.nan)
    return np.asarray(capture.arrays["estimates"][meta["statistics"].index(name)], np.float64)


def pairs_of(capture: Capture, name: str) -> np.ndarray:
    """``[M, G, N]`` pairs behind a statistic."""
    listed = capture.meta["statistics"]
    at = listed.index(name if name in listed else "cos")
    return np.asarray(capture.arrays["pairs_used"][at])


def checkpoint(title: str, capture: Capture, names: list[str], groups: list[str]) -> dict[str, Any]:
    """One capture: numbers of ``groups`` (those it lacks are NaN) and its maps."""
    meta = capture.meta
    at = [meta["groups"].index(g) if g in meta["groups"] else -1 for g in groups]
    values = np.stack([values_of(capture, name) for name in names]).astype(np.float32)
    used = np.stack([pairs_of(capture, name) for name in names]).astype(np.uint16)
    values, used = values[:, :, at], used[:, :, at]
    lacking = np.array(at) < 0
    values[:, :, lacking], used[:, :, lacking] = np.nan, 0
    return {
        "title": title,
        "metrics": list(meta["metrics"]),
        "counts": [int(n) for n in meta["frame_counts"]],
        "pairs": int(meta["pairs"]),
        "batch": int(meta.get("batch") or 0),
        "values": pack(values),
        "used": pack(used),
        "maps": {
            str(n): conflict(capture, int(n), at)
            for n in meta["frame_counts"]
            if f"map_{n}" in capture.arrays
        },
    }


def conflict(capture: Capture, n: int, groups: list[int]) -> dict[str, Any]:
    """The conflict map at n frames: means over pairs with 95% t intervals, ``[G, F, bound]``, and what has no frame."""
    found = map_means(capture, n)[groups].astype(np.float32)
    found[np.array(groups) < 0] = np.nan
    out: dict[str, Any] = {"frames": pack(found)}
    if f"map_rest_{n}" in capture.arrays:
        rest = np.asarray(capture.arrays[f"map_rest_{n}"], np.float64)[:, groups].mean(0)
        out["rest"] = {"places": list(capture.meta["places"]), "values": pack(rest.astype(np.float32))}
    if f"map_patches_{n}" in capture.arrays:
        patches = np.asarray(capture.arrays[f"map_patches_{n}"], np.float32)[groups]
        if np.isfinite(patches).any():
            side = math.isqrt(patches.shape[-1])
            square = side * side == patches.shape[-1]
            out["patches"] = {
                "values": pack(patches),
                "rows": side if square else 1,
                "cols": side if square else patches.shape[-1],
            }
    return out


def map_means(capture: Capture, n: int) -> np.ndarray:
    """``[G, F, bound]``: mean over pairs of each pair's part of <g_I, g_V> / |g_I|^2, with its 95% t interval."""
    values = np.asarray(capture.arrays[f"map_{n}"], np.float64)
    found = np.full((*values.shape[1:], 3), np.nan)
    for at in np.ndindex(*values.shape[1:]):
        there = values[(slice(None), *at)]
        there = there[np.isfinite(there)]
        if there.size:
            interval = mean_interval(there.tolist())
            found[at] = interval.estimate, interval.low, interval.high
    return found


def tidy(title: str, capture: Capture, steps: pd.DataFrame | None) -> pd.DataFrame:
    """Everything shown of one capture; ``frame`` and ``pair`` are set where a row is about one of them."""
    parts = [table(capture).rename(columns={"pairs": "n"})]
    for n in capture.meta["frame_counts"]:
        if f"map_{n}" in capture.arrays:
            means = map_means(capture, int(n))
            group, frame = (axis.ravel() for axis in np.indices(means.shape[:2]))
            rows: dict[str, Any] = {
                "statistic": "map",
                "meaning": "part of <g_I, g_V> / |g_I|^2 at a frame, mean over pairs",
            }
            rows |= {
                "metric": "plain",
                "group": np.array(capture.meta["groups"])[group],
                "frames": int(n),
                "frame": frame + 1,
            }
            bounds = dict(zip(("estimate", "low", "high"), means.reshape(-1, 3).T, strict=True))
            parts.append(pd.DataFrame(rows | bounds | {"n": int(capture.meta["pairs"])}))
    if steps is not None:
        for name in ("predicted", "measured", "first_order"):
            checked: dict[str, Any] = {
                "statistic": f"one_step.{name}",
                "meaning": "change of the image loss, nats per answer token",
            }
            checked |= {
                "metric": "plain",
                "group": "all",
                "frames": steps["frames"],
                "pair": steps["pair"] + 1,
            }
            parts.append(pd.DataFrame(checked | {"estimate": steps[name], "n": 1}))
    found = pd.concat([part.astype(object) for part in parts], ignore_index=True)
    found.insert(0, "checkpoint", title)
    return found
