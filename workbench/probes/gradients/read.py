"""A gradients capture as a table. Needs no torch."""

from __future__ import annotations

import numpy as np
import pandas as pd

from workbench.captures import Capture, CaptureError

COLUMNS = ("statistic", "meaning", "metric", "group", "frames", "estimate", "low", "high", "pairs")


def of_kind(capture: Capture) -> Capture:
    """The capture itself. Raises CaptureError when it is of another kind."""
    if capture.kind != "gradients":
        raise CaptureError(
            "read gradients", f"this is a capture of {capture.kind!r}", "Give a gradients capture"
        )
    return capture


def table(capture: Capture) -> pd.DataFrame:
    """One row a statistic, metric, group and frame count, with its 95% interval over ``pairs`` batch pairs.

    ``conflict_rate`` (Wilson), ``signal`` and ``corrected_cos`` are rows too. Missing numbers are NaN.

    Raises:
        CaptureError: a capture of another kind.
    """
    meta = of_kind(capture).meta
    rows: list[tuple] = []
    estimates, used = capture.arrays["estimates"], capture.arrays["pairs_used"]
    for m, metric in enumerate(meta["metrics"]):
        for g, group in enumerate(meta["groups"]):
            for n, frames in enumerate(meta["frame_counts"]):
                where = (metric, group, int(frames))
                for s, name in enumerate(meta["statistics"]):
                    meaning = meta["meaning"].get(name.split(".")[-1], "")
                    rows.append(
                        (name, meaning, *where, *map(float, estimates[s, m, g, n]), int(used[s, m, g, n]))
                    )
                pairs = int(used[meta["statistics"].index("cos"), m, g, n])
                for name, values, meaning in (
                    (
                        "conflict_rate",
                        capture.arrays["conflict_rate"][m, g, n],
                        "share of pairs with <g_I, g_V> < 0",
                    ),
                    ("signal", capture.arrays["signal"][m, g], "share of |g_I|^2 that another batch repeats"),
                    ("corrected_cos", capture.arrays["corrected_cos"][m, g, n], "cosine without batch noise"),
                ):
                    rows.append((name, meaning, *where, *map(float, values), pairs))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def step_check(capture: Capture) -> pd.DataFrame | None:
    """The one-step check, one row a pair and frame count; None when it was not taken.

    Raises:
        CaptureError: a capture of another kind.
    """
    if "one_step" not in of_kind(capture).arrays:
        return None
    taken = np.asarray(capture.arrays["one_step"])
    pairs, counts, _ = taken.shape
    frame = pd.DataFrame(taken.reshape(pairs * counts, -1), columns=capture.meta["step_columns"])
    frame.insert(0, "frames", np.tile(capture.meta["frame_counts"], pairs))
    frame.insert(0, "pair", np.repeat(np.arange(pairs), counts))
    return frame
