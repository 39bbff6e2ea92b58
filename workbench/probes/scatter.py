"""Scatter numbers: how concentrated, and where, attention over visual tokens is. Works on captures; needs no torch.

Axes: n visual tokens that the row sees, p their attention divided by its sum (so that all numbers but ``visual_mass``
describe how the visual part is spread, whatever its size).

| number | |
|---|---|
| ``visual_mass`` | sum of the row over visual tokens, 0 .. 1 |
| ``entropy`` | -sum p log p / log n: 1 is uniform, 0 a single token |
| ``gini`` | Gini coefficient of p: 0 is uniform, (n - 1) / n a single token |
| ``top1`` | mass of the largest ceil(n / 100) tokens |
| ``border_mass`` | mass of the tokens that touch the border of their frame |
| ``spread`` | root mean square distance from the centre of mass of the same frame, in sides of a token |
| ``box_mass``, ``box_share`` | mass inside the boxes (by area, where they cut a token); the boxes' share of the area: chance |
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from workbench.captures import Capture
from workbench.captures.rows import rows_of
from workbench.models.tokenmap import TokenMap
from workbench.probes.boxes import Box, inside
from workbench.probes.common import ProbeError

NUMBERS = ("visual_mass", "entropy", "gini", "top1", "border_mass", "spread", "box_mass")


def scatter_numbers(
    weights: np.ndarray, token_map: TokenMap, boxes: Sequence[Box] | None = None
) -> dict[str, np.ndarray]:
    """The numbers of rows ``[..., N]`` (float, NaN where not visible): float64 ``[...]`` each.

    A row that sees no visual token, or gives it no attention, has NaN; ``entropy`` needs two tokens.

    Args:
        boxes: in pixels of source frames; without them there is no ``box_mass`` and no ``box_share``.

    Raises:
        ProbeError: a conversation without visual tokens, or a box outside its frame.
    """
    visual = token_map.visual
    if not len(visual) or token_map.frame_size is None:
        raise ProbeError(
            "measure scatter", "the conversation has no visual tokens", "Give a sample with media"
        )
    w = weights[..., visual].astype(np.float64)
    seen = ~np.isnan(w)
    w = np.where(seen, w, 0.0)
    mass, n = w.sum(-1), seen.sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        p = w / np.where(mass > 0, mass, np.nan)[..., None]
        logs = np.where(p > 0, np.log(np.where(p > 0, p, 1.0)), 0.0)
        out = {
            "visual_mass": np.where(n > 0, mass, np.nan),
            "entropy": np.where(n > 1, -(p * logs).sum(-1) / np.log(np.maximum(n, 2)), np.nan),
            "gini": _gini(p, seen, n),
            "top1": _top(p, n),
        }
    width, height = token_map.frame_size
    box = token_map.boxes[visual].astype(np.float64)
    touching = (
        (box[:, 0] <= 0.5) | (box[:, 1] <= 0.5) | (box[:, 2] >= width - 0.5) | (box[:, 3] >= height - 0.5)
    )
    out["border_mass"] = p @ touching
    out["spread"] = _spread(p, token_map, visual, box)
    if boxes is not None:
        share = inside(token_map, visual, boxes)
        out["box_mass"] = p @ share
        with np.errstate(invalid="ignore"):
            area = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
            out["box_share"] = np.where(n > 0, seen @ (share * area) / (seen @ area), np.nan)
    return out


def _gini(p: np.ndarray, seen: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Tokens that are not seen are sorted to the front with weight 0, and their ranks do not count."""
    ordered = np.sort(np.where(seen, p, -1.0), axis=-1)
    rank = np.arange(1, p.shape[-1] + 1) - (p.shape[-1] - n)[..., None]
    weight = np.where(rank > 0, 2 * rank - n[..., None] - 1, 0)
    return (weight * np.maximum(ordered, 0)).sum(-1) / np.where(n > 0, n, np.nan) + 0 * p.sum(-1)


def _top(p: np.ndarray, n: np.ndarray) -> np.ndarray:
    ordered = -np.sort(-np.nan_to_num(p, nan=0.0), axis=-1)
    count = np.ceil(n / 100)
    return (ordered * (np.arange(p.shape[-1]) < count[..., None])).sum(-1) + 0 * p.sum(-1)


def _spread(p: np.ndarray, token_map: TokenMap, visual: np.ndarray, box: np.ndarray) -> np.ndarray:
    centre = (box[:, :2] + box[:, 2:]) / 2
    side = math.sqrt(float(np.median((box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]))))
    total = np.zeros(p.shape[:-1])
    for span in np.unique(token_map.frame_span[visual], axis=0):
        mine = (token_map.frame_span[visual] == span).all(1)
        q, at = p[..., mine], centre[mine] / side
        mass = q.sum(-1, keepdims=True)
        middle = q @ at / np.where(mass > 0, mass, 1.0)
        total += (q * ((at - middle[..., None, :]) ** 2).sum(-1)).sum(-1)
    return np.sqrt(np.maximum(total, 0.0))


def scatter_table(capture: Capture, boxes: Sequence[Box] | None = None) -> pd.DataFrame:
    """One row for each layer, head and query of an ``attention_rows`` capture, with its scatter numbers.

    Returns:
        Columns sample_id, skill, question, layer, head (-1 for the mean), query (a position), the numbers.

    Raises:
        ProbeError: another kind of capture, no visual tokens, a box outside its frame.
    """
    if capture.kind != "attention_rows" or capture.token_map is None:
        raise ProbeError(
            "measure scatter", f"this is a {capture.kind} capture", "Give an attention_rows capture"
        )
    token_map = capture.token_map
    sample: dict[str, Any] = capture.meta.get("sample") or {}
    heads = capture.meta["heads"]
    queries = np.asarray(capture.arrays["queries"])
    tables = []
    for i, layer in enumerate(
        capture.meta["layers"]
    ):  # one layer at a time: captures may be larger than memory
        numbers = scatter_numbers(rows_of(capture.arrays, i), token_map, boxes)
        listed = [-1] if heads == "mean" else heads
        index = pd.MultiIndex.from_product(
            [[layer], listed, queries.tolist()], names=["layer", "head", "query"]
        )
        tables.append(pd.DataFrame({k: v.ravel() for k, v in numbers.items()}, index=index).reset_index())
    table = pd.concat(tables, ignore_index=True)
    for at, (name, value) in enumerate(
        (
            ("sample_id", sample.get("id")),
            ("skill", sample.get("skill")),
            ("question", sample.get("question")),
        )
    ):
        table.insert(at, name, value)
    return table


def scatter_by_sample(tables: Iterable[pd.DataFrame], layers: Sequence[int] | None = None) -> pd.DataFrame:
    """Means over layers, heads and queries, one row a sample (and question): what pairs are made of.

    Args:
        layers: only these.
    """
    table = pd.concat(list(tables), ignore_index=True)
    if layers is not None:
        table = table[table["layer"].isin(list(layers))]
    numbers = [name for name in (*NUMBERS, "box_share") if name in table]
    keys = ["sample_id", "skill", "question"]
    return table.groupby(keys, sort=False, dropna=False)[numbers].mean().reset_index()


def paired_scatter(
    before: pd.DataFrame, after: pd.DataFrame, seed: int = 0, level: float = 0.95, resamples: int = 2000
) -> pd.DataFrame:
    """Change of every scatter number from one checkpoint to another, over the same samples, with intervals.

    Args:
        before, after: of ``scatter_by_sample``; a column ``seed``, where they have one, pairs training seeds too.

    Returns:
        One row a number: ``number, before, after, difference, low, high, p, p_holm, shown, n_samples, n_unpaired,
        method``. ``difference`` is after minus before; ``shown`` says that the interval, not corrected for looking at
        several numbers, excludes 0; ``p_holm`` is corrected for that.

    Raises:
        DataError: no sample in common, or one that comes twice in a table.
    """
    from workbench.evaluation.statistics import holm, paired_difference

    rows: list[dict[str, Any]] = []
    for name in (name for name in NUMBERS if name in before and name in after):
        pair = [_as_scores(table, name) for table in (before, after)]
        joined = np.concatenate([table["correct"].to_numpy() for table in pair])
        # intervals of scores are cut at -1 and 1: numbers go in with a spread of at most 1
        unit = max(float(np.ptp(joined)), 1e-12) if len(joined) else 1.0
        for table in pair:
            table["correct"] /= unit
        found = paired_difference(pair[1], pair[0], level=level, resamples=resamples, seed=seed)
        keys = [key for key in ("sample_id", "question", "seed") if key in pair[0]]
        both = pair[0].merge(pair[1], on=keys, suffixes=("_before", "_after"))
        rows.append(
            {
                "number": name,
                "before": float(both["correct_before"].mean()) * unit,
                "after": float(both["correct_after"].mean()) * unit,
                "difference": found.estimate * unit,
                "low": found.low * unit,
                "high": found.high * unit,
                "p": found.p,
                "shown": found.shown,
                "n_samples": found.n_samples,
                "n_unpaired": found.n_unpaired,
                "method": found.method,
            }
        )
    table = pd.DataFrame(rows)
    table.insert(7, "p_holm", holm(table["p"].tolist()))
    return table


def _as_scores(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """In the columns of a score table, one skill for all: a plain mean over samples."""
    kept = table[table[name].notna()]
    keys = [key for key in ("sample_id", "question", "seed") if key in kept]
    scores = kept[keys].copy()
    if "seed" not in scores:
        scores["seed"] = 0
    return scores.assign(suite="attention", skill="all", correct=kept[name].to_numpy(np.float64))
