"""Which video skills are temporal: those none of whose questions can be answered from one frame.

It is a property of the data, never of scores: ``min_frames`` of a test row (docs/formats.md), which evaluation
copies into its score rows. For studies scored before it did so, the recipe's test files are looked up where they
can still be read. Where neither says, nothing is known and no temporal average is made. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from workbench.errors import DataError
from workbench.samples.source import load_source

QUESTION = ["suite", "sample_id", "skill"]


def temporal_skills(scores: pd.DataFrame, recipe: Mapping[str, Any]) -> frozenset[str] | None:
    """Video skills whose every question is known to need more than one frame; None when no need is known at all.

    Args:
        scores: tidy rows (``StudyResults.scores``); the column ``min_frames`` may be missing or partly empty.
        recipe: the resolved recipe, which says where the rows came from.
    """
    asked = scores[scores["kind"] == "video"]
    needed = pd.to_numeric(asked.get("min_frames", pd.Series(index=asked.index, dtype=float)))
    questions = asked[QUESTION].assign(needed=needed).groupby(QUESTION, as_index=False)["needed"].max()
    if questions["needed"].isna().any():  # scored by an older version
        known = {suite: _in_files(str(suite), recipe) for suite in questions["suite"].unique()}
        told = [known[suite].get(sample) for suite, sample in questions[QUESTION[:2]].itertuples(index=False)]
        questions["needed"] = questions["needed"].fillna(pd.Series(told, index=questions.index, dtype=float))
    if questions["needed"].isna().all():
        return None
    more = (questions["needed"] > 1).groupby(questions["skill"]).all()
    return frozenset(str(skill) for skill in more.index[more])


def _in_files(suite: str, recipe: Mapping[str, Any]) -> dict[str, int]:
    """``min_frames`` by sample id of a suite's JSONL file; empty where the file is gone or cannot be read."""
    data = recipe.get("data") or {}
    name = ((recipe.get("evaluation") or {}).get("suites") or {}).get(suite)
    path = ((data.get("sources") or {}).get(name) or {}).get("path")
    if path is None:
        return {}
    try:
        samples = load_source(Path(str(data.get("root") or ".")) / path)
    except DataError:
        return {}
    return {s.id: s.min_frames for s in samples if s.min_frames is not None and len(s.turns) == 1}
