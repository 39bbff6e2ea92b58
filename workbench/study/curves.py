"""Scores over training steps. Early points may ask fewer questions, so a curve uses those asked at every
step.
"""

from __future__ import annotations

import pandas as pd

from workbench.study.arms import BASE
from workbench.study.contrasts import MEASURES, measure_skills
from workbench.study.intervals import over_seeds, seed_means
from workbench.study.results import StudyResults

COLUMNS = ("arm", "measure", "step", "mean", "low", "high", "seeds", "questions")
QUESTION = ["suite", "skill", "sample_id", "question"]


def curve_table(results: StudyResults) -> pd.DataFrame:
    """One row an arm, measure and step: mean over seeds in percent, 95% t interval over seeds (NaN with one
    seed).

    Unfinished runs take part as far as they have come; a step's mean is over the seeds that reached it.
    """
    own = results.scores[results.scores["condition"] == "own"]
    base = own[own["arm"] == BASE]
    lines = []
    for arm in results.arms:
        mine = own[own["arm"] == arm.name]
        if not len(mine):
            continue
        seeds = mine["seed"].unique()
        line = pd.concat([base[base["seed"].isin(seeds)], mine], ignore_index=True)
        for measure in MEASURES:
            kind = "image" if measure.startswith("image") else "video"
            rows = line[(line["kind"] == kind) & line["skill"].isin(measure_skills(results, measure))]
            if len(rows):
                lines += _points(arm.name, measure, rows)
    return pd.DataFrame(lines, columns=list(COLUMNS))


def _points(arm: str, measure: str, rows: pd.DataFrame) -> list[tuple[object, ...]]:
    steps = rows["step"].nunique()
    asked = rows.groupby(QUESTION)["step"].nunique()
    common = asked[asked == steps].index
    rows = rows[pd.MultiIndex.from_frame(rows[QUESTION]).isin(common)]
    points: list[tuple[object, ...]] = []
    for step in sorted(rows["step"].unique().tolist()):
        at = rows[rows["step"] == step]
        found = over_seeds(seed_means(at), len(common))
        points.append((arm, measure, step, found.value, found.low, found.high, found.seeds, len(common)))
    return points
