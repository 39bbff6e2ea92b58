"""Every comparison a study supports, each paired over seeds and questions, with its interval.

Scores are percentages, differences percentage points. A *macro average* is the mean over skills of the mean
over questions, so that a skill asked often counts no more than one asked rarely. Four measures a
comparison: ``image``, ``image_no_count`` (image skills but counting), ``video`` and ``video_temporal`` (the video
skills that no single frame answers: the video average also asks what one frame shows); per skill, ``image:ocr``
and so on.

Multiple comparisons: Holm's step-down adjustment within each family (arms against the base, arms against
each other, copies probe, single skills, secondary), so that a family's chance of one false alarm stays at
5%.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import pandas as pd

from workbench.study.arms import BASE, Arm, extremes, ladders
from workbench.study.intervals import Estimate, holm, level, paired
from workbench.study.results import StudyResults

MEASURES = ("image", "image_no_count", "video", "video_temporal")
MEASURE_TITLES = {
    "image": "image",
    "image_no_count": "image without counting",
    "video": "video",
    "video_temporal": "temporal video skills",
    "video_common": "video at the common frame count",
}


@dataclass(frozen=True, slots=True)
class Contrast:
    """``arm`` minus ``reference`` on one measure; ``adjusted_p`` is Holm's over ``family_size`` comparisons.

    ``family`` is effect (against the base) | design (between arms) | copies | skills | secondary.
    """

    arm: str
    reference: str
    measure: str
    family: str
    estimate: Estimate
    adjusted_p: float | None = None
    family_size: int = 1

    @property
    def holds(self) -> bool:
        """The interval excludes 0 and still would after Holm's adjustment."""
        return self.estimate.shown and (self.adjusted_p is None or self.adjusted_p < 0.05)


@dataclass(frozen=True, slots=True)
class CopiesSplit:
    """One arm's image loss [OURS]: ``loss = recovered + remaining``.

    ``loss`` = base own - arm own; ``recovered`` = arm copies - arm own (the frame budget was miscalibrated);
    ``remaining`` = base own - arm copies (forgetting). ``copies`` is the mean number of copies shown.
    """

    arm: str
    measure: str
    copies: float
    loss: Contrast
    recovered: Contrast
    remaining: Contrast


@dataclass(frozen=True)
class Analysis:
    """All numbers behind the table, the figures and the sentences of one study."""

    results: StudyResults
    levels: Mapping[tuple[str, str], Estimate]
    contrasts: tuple[Contrast, ...]
    copies: tuple[CopiesSplit, ...]
    skills: tuple[Contrast, ...]

    def find(self, arm: str, reference: str, measure: str) -> Contrast | None:
        for contrast in self.contrasts:
            if (contrast.arm, contrast.reference, contrast.measure) == (arm, reference, measure):
                return contrast
        return None

    def split(self, arm: str, measure: str = "image") -> CopiesSplit | None:
        return next((s for s in self.copies if s.arm == arm and s.measure == measure), None)


@lru_cache(maxsize=8)
def analyse(results: StudyResults) -> Analysis:
    """Levels, planned contrasts, copies splits and skill changes of a study; computed once for a
    results object.
    """
    arms = [arm.name for arm in results.arms if arm.name in results.final_steps]
    names = ([BASE] if BASE in results.final_steps else []) + arms
    measures = [m for m in (*MEASURES, "video_common") if len(measure_skills(results, m))]
    levels = {}
    for name in names:
        for measure in [*measures, *_skill_measures(results)]:
            estimate = level(rows(results, name, measure))
            if estimate is not None:
                levels[name, measure] = estimate
    planned = [
        contrast
        for arm, reference in planned_pairs(results, arms)
        for measure in measures
        if (contrast := difference(results, arm, reference, measure, _family(reference, measure))) is not None
    ]
    skills = [
        contrast
        for arm in arms
        for measure in _skill_measures(results)
        if (contrast := difference(results, arm, BASE, measure, "skills")) is not None
    ]
    return Analysis(results, levels, adjust(planned), _splits(results, arms), adjust(skills))


def planned_pairs(results: StudyResults, arms: Iterable[str]) -> list[tuple[str, str]]:
    """(arm, reference) pairs fixed by the arms' roles before any score is seen."""
    done = set(arms)
    pairs = [(arm, BASE) for arm in done_in_order(results, done)] if BASE in results.final_steps else []
    ends = extremes([arm for arm in results.arms if arm.name in done])
    if ends:
        pairs.append((ends[1].name, ends[0].name))
    for arm in results.arms:
        if arm.name not in done:
            continue
        if arm.role == "aware" and ends:
            pairs += [(arm.name, ends[1].name), (arm.name, ends[0].name)]
        pairs += [(arm.name, control.name) for control in controls(results, arm.name)]
        if arm.role == "variant" and arm.reference is not None:
            pairs.append((arm.name, arm.reference))
    pairs += [(most.name, fewest.name) for most, fewest in ladders(results.arms)]
    return [(a, b) for a, b in pairs if a in done and (b in done or b == BASE)]


def controls(results: StudyResults, arm: str) -> list[Arm]:
    """The random-matched arms that deal out this arm's own frame counts (recipe key ``like``)."""
    return [other for other in results.arms if other.role == "matched" and other.reference == arm]


def done_in_order(results: StudyResults, done: set[str]) -> list[str]:
    return [arm.name for arm in results.arms if arm.name in done]


def measure_skills(results: StudyResults, measure: str) -> list[str]:
    """The skills a measure averages over; none where it would be the same as the whole average."""
    kind, _, skill = measure.partition(":")
    if skill:
        return [skill]
    if kind == "image_no_count":
        counting = results.counting_skills()
        return [s for s in results.skills("image") if s not in counting] if counting else []
    if kind == "video_temporal":
        temporal = [s for s in results.skills("video") if s in (results.temporal or ())]
        return temporal if len(temporal) < len(results.skills("video")) else []
    return results.skills("video" if kind.startswith("video") else "image")


def rows(results: StudyResults, arm: str, measure: str, condition: str = "own") -> pd.DataFrame:
    """Final score rows of the arm's finished runs that belong to a measure."""
    kind = "image" if measure.startswith("image") else "video"
    if measure == "video_common":
        condition = "common"
    table = _final_rows(results).get((arm, kind, condition))
    if table is None:
        return results.scores.iloc[:0]
    return table[table["skill"].isin(measure_skills(results, measure))]


@lru_cache(maxsize=8)
def _final_rows(results: StudyResults) -> dict[tuple[str, str, str], pd.DataFrame]:
    """Last rows of finished runs by arm, kind and condition; names as numbers, which pair faster."""
    scores = results.scores
    last = scores["arm"].map({**results.final_steps, BASE: 0})
    done = pd.MultiIndex.from_frame(scores[["arm", "seed"]]).isin(list(results.finished))
    final = scores[(scores["step"] == last) & done]
    slim = pd.DataFrame(
        {
            "seed": final["seed"].to_numpy(int),
            "skill": final["skill"].to_numpy(object),
            "correct": final["correct"].to_numpy(float),
            **{name: pd.factorize(final[name])[0] for name in ("suite", "sample_id", "question")},
        }
    )
    if "frames_used" in final:
        slim["frames_used"] = final["frames_used"].to_numpy()
    keys = [final[name].to_numpy(object) for name in ("arm", "kind", "condition")]
    return {(str(arm), str(kind), str(how)): table for (arm, kind, how), table in slim.groupby(keys)}


def difference(
    results: StudyResults,
    arm: str,
    reference: str,
    measure: str,
    family: str,
    conditions: tuple[str, str] = ("own", "own"),
) -> Contrast | None:
    """``arm`` minus ``reference``, paired; None when they share no seed or no question."""
    estimate = paired(
        rows(results, arm, measure, conditions[0]), rows(results, reference, measure, conditions[1])
    )
    return Contrast(arm, reference, measure, family, estimate) if estimate is not None else None


def adjust(contrasts: Iterable[Contrast]) -> tuple[Contrast, ...]:
    """The contrasts with Holm's adjusted p values, each family by itself, in the order given."""
    done = list(contrasts)
    for family in dict.fromkeys(contrast.family for contrast in done):
        places = [i for i, contrast in enumerate(done) if contrast.family == family]
        for i, p in zip(places, holm([done[i].estimate.p for i in places]), strict=True):
            done[i] = replace(done[i], adjusted_p=p, family_size=len(places))
    return tuple(done)


def _family(reference: str, measure: str) -> str:
    if measure not in MEASURES:
        return "secondary"
    return "effect" if reference == BASE else "design"


def _skill_measures(results: StudyResults) -> list[str]:
    return [f"{kind}:{skill}" for kind in ("image", "video") for skill in results.skills(kind)]


def _splits(results: StudyResults, arms: list[str]) -> tuple[CopiesSplit, ...]:
    found: list[tuple[str, str, float, list[Contrast]]] = []
    counting = [f"image:{skill}" for skill in sorted(results.counting_skills())]
    for arm in arms:
        for measure in ("image", "image_no_count", *counting):
            family = "secondary" if ":" in measure else "copies"
            parts = [
                difference(results, BASE, arm, measure, family),
                difference(results, arm, arm, measure, family, ("copies", "own")),
                difference(results, BASE, arm, measure, family, ("own", "copies")),
            ]
            shown = rows(results, arm, measure, "copies")
            copies = (
                float(shown["frames_used"].mean()) if "frames_used" in shown and len(shown) else float("nan")
            )
            complete = [part for part in parts if part is not None]
            if len(complete) == 3:
                found.append((arm, measure, copies, complete))
    adjusted = iter(adjust([contrast for _, _, _, parts in found for contrast in parts]))
    return tuple(
        CopiesSplit(arm, measure, copies, next(adjusted), next(adjusted), next(adjusted))
        for arm, measure, copies, _ in found
    )
