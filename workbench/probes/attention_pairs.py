"""Scatter over a set of samples, and its change from one checkpoint to another on the same samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from workbench.captures import Capture
from workbench.errors import MediaError
from workbench.probes.attention import Heads, attention_rows
from workbench.probes.boxes import ground_truth
from workbench.probes.common import Checkpoint, ProbeError, capture_meta
from workbench.probes.scatter import NUMBERS, paired_scatter, scatter_by_sample, scatter_table
from workbench.probes.target import Target

STATISTICS = ("before", "after", "difference", "low", "high", "p", "p_holm")


def scatter_over(
    target: Target,
    queries: str | Sequence[int] = "answer",
    layers: Sequence[int] | None = None,
    heads: Heads = None,
    boxes: str = "asked",
) -> pd.DataFrame:
    """Scatter numbers of every sample of ``target``, one row each (``scatter_by_sample``).

    Samples without media, or whose media cannot be read, are left out.

    Args:
        boxes: objects whose boxes count: "asked", "all", or "none" (no box mass; for data without ground truth).

    Raises:
        ProbeError: no sample could be looked at; see ``attention_rows``.
    """
    tables, reasons = [], []
    for sample in target.samples:
        if sample.media is None:
            continue
        try:
            clip = target.clip(sample)
        except MediaError as error:
            reasons.append(str(error))
            continue
        capture = attention_rows(
            target.model,
            target.processor,
            sample,
            clip,
            queries,
            layers,
            heads,
            store="float32",
            turn=target.turn,
            pictures=False,
        )
        tables.append(scatter_table(capture, None if boxes == "none" else ground_truth(sample, boxes)))
    if not tables:
        why = reasons[0] if reasons else "none has an image or video"
        raise ProbeError(
            "measure scatter", f"no sample of {len(target.samples)} could be used ({why})", "Give others"
        )
    found = scatter_by_sample(tables)
    found.attrs["left_out"] = reasons
    return found


def scatter_capture(
    target: Target,
    after: pd.DataFrame,
    before: pd.DataFrame | None = None,
    before_checkpoint: Checkpoint | None = None,
    **asked: Any,
) -> tuple[Capture, pd.DataFrame | None]:
    """The numbers of all samples, and their paired change when there is a table of another checkpoint.

    Args:
        target: what ``after`` was measured in.
        asked: queries, layers, heads, boxes: stored with the numbers.

    Returns:
        A capture ``attention_scatter``: ``after`` [sample, number], ``box_share`` [sample] (chance for box_mass), and
        with ``before``: ``before`` [sample, number], ``change`` [number, statistic], where both have the sample; and
        the table of ``paired_scatter``, or None.

    Raises:
        DataError: no sample in common.
    """
    numbers = [name for name in NUMBERS if name in after]
    table = None
    arrays: dict[str, np.ndarray] = {}
    if before is not None:
        table = paired_scatter(before, after, target.seed)
        keys = after[["sample_id", "question"]].merge(before[["sample_id", "question"]])
        before, after = (keys.merge(side, on=["sample_id", "question"]) for side in (before, after))
        arrays["before"] = before[numbers].to_numpy(np.float64)
        arrays["change"] = table[list(STATISTICS)].to_numpy(np.float64)
    arrays["after"] = after[numbers].to_numpy(np.float64)
    if "box_share" in after:
        arrays["box_share"] = after["box_share"].to_numpy(np.float64)
    sides = {name: ["sample", "number"] for name in ("before", "after")}
    axes = sides | {"change": ["number", "statistic"], "box_share": ["sample"]}
    unit = "see workbench.probes.scatter: shares 0 .. 1, spread in sides of a token"
    meta = capture_meta(
        target.model,
        axes={name: axes[name] for name in arrays},
        units={
            name: "share of the visible area: chance for box_mass" if name == "box_share" else unit
            for name in arrays
        },
        checkpoint=target.checkpoint,
        recipe_hash=target.recipe_hash,
        seed=target.seed,
        turn=target.turn,
        samples=after["sample_id"].tolist(),
        questions=after["question"].tolist(),
        numbers=numbers,
        statistics=list(STATISTICS),
        frames_of_videos=target.frames,
        left_out=after.attrs.get("left_out", []),
        before=None if before_checkpoint is None else asdict(before_checkpoint),
        method=None if table is None else table["method"].iloc[0],
        **asked,
    )
    return Capture("attention_scatter", arrays, meta), table
