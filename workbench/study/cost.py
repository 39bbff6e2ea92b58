"""How much work a task is, from the recipe alone: for the order of tasks and the remaining time of a study.

The unit is one frame of one clip, read and trained once. What else takes time is counted in frames, measured with
``recipes/laptop/trap.yaml`` on one core (four visual tokens a frame; tests/study/measured_seconds.csv), where a frame
takes 0.67 ms: the text of a turn, the step itself, questions asked at evaluation points, and the start. With larger
frames or models all but the frames weigh less, so the estimate is then long where frames are few. Not known without
reading files, hence assumed: the size of a suite, how often a policy chooses which count, and that a stage which
mixes images and clips shows clips only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from workbench.recipe.schema import EvaluationSection, FramesSection, Recipe, StageSection

TURN = 1.4  # question and answer of one turn
STEP = 4.0  # optimizer, records, packing
ALIGNED = 0.6  # a frame in an alignment stage: no language model
ASKED, QUESTION = (
    0.8,
    0.2,
)  # a frame and its question at evaluation: no backward pass, but nothing is read ahead
DECODED = 12.0  # the clip of a question, when it is asked for the first time: at the end of the base
FIRST, NEXT = 8000.0, 500.0  # a base reads every text for its vocabulary, an arm loads the base
SUITE = 400  # questions assumed in a suite or measured source


@dataclass(frozen=True)
class Work:
    """A task's work in frames.

    Attributes:
        start: before the first step.
        stages: (number of steps, work of one) of each stage.
        points: (step, work of the evaluation after it), ascending; what follows the last step belongs to its point.
    """

    start: float
    stages: tuple[tuple[int, float], ...]
    points: tuple[tuple[int, float], ...]

    @property
    def total(self) -> float:
        steps = math.fsum(count * each for count, each in self.stages)
        return self.start + steps + math.fsum(work for _, work in self.points)

    def done(self, step: int, steps: int | None = None) -> float:
        """Share of the work that is behind, in [0, 1], when ``step`` steps are done and their evaluation is not.

        Args:
            steps: of all stages in truth, where it is known by now (epochs).
        """
        if step <= 0:
            return 0.0
        planned = sum(count for count, _ in self.stages)
        at = left = step * planned / steps if steps else float(step)
        found = self.start
        for count, each in self.stages:
            found += min(left, count) * each
            left -= min(left, count)
        return min(1.0, (found + math.fsum(work for point, work in self.points if point < at)) / self.total)


def task_work(recipe: Recipe, arm: str | None, points: Sequence[int]) -> Work:
    """The work of one arm (None: the recipe's own stages), evaluated at the steps ``points``."""
    section = None if arm is None else recipe.arms[arm]
    stages = recipe.stages if section is None else section.stages
    common = float(recipe.evaluation.common_frames or 8)
    own = frames_guess(stages[-1].frames, recipe) if section is not None and stages else common
    works = [_evaluation(recipe.evaluation, own, recipe.evaluation.limit) for _ in points[:-1]]
    works.append(_final(recipe.evaluation, own, common, copies=section is not None))
    if section is None:
        works[-1] += _suites(recipe.evaluation)[1] * SUITE * DECODED
    elif section.measure is not None:
        works[-1] += SUITE * DECODED + math.fsum(_asking(SUITE, frames) for frames in section.measure.frames)
    return Work(
        start=FIRST if arm is None else NEXT,
        stages=tuple((steps_of(stage), _step(stage, recipe)) for stage in stages),
        points=tuple(zip(points, works, strict=True)),
    )


def steps_of(stage: StageSection) -> int:
    """Steps of a stage; an epoch, whose length only the data know, counts as 100."""
    return stage.steps or 100 * (stage.epochs or 1)


def frames_guess(section: FramesSection, recipe: Recipe | None = None) -> float:
    """Mean frames a policy is likely to use, before a plan exists."""
    if section.like is not None and recipe is not None and section.like in recipe.arms:
        stages = recipe.arms[section.like].stages
        if stages and stages[-1].frames.like is None:
            return frames_guess(stages[-1].frames)
    given = () if section.frames is None else (section.frames,)
    counts = section.choices or {*given, *(section.rules or {}).values()}
    if counts:  # each count that a rule or a choice may give, taken as often as the others
        return math.fsum(counts) / len(counts)
    return float(section.max_frames or 8)


def _step(stage: StageSection, recipe: Recipe) -> float:
    frames = frames_guess(stage.frames, recipe)
    one = ALIGNED * frames if stage.objective == "align" else frames + TURN * (stage.turns or 1)
    return STEP + stage.batch * one


def _asking(questions: float, frames: float) -> float:
    return questions * (QUESTION + ASKED * frames)


def _suites(section: EvaluationSection) -> tuple[int, int]:
    """Image and video suites, told apart by their names as the results do."""
    images = sum("image" in name.lower() for name in section.suites)
    return images, len(section.suites) - images


def _evaluation(section: EvaluationSection, own: float, limit: int | None) -> float:
    """Every suite once, the videos at the arm's own counts."""
    images, films = _suites(section)
    asked = min(SUITE, limit or SUITE)
    return images * _asking(asked, 1) + films * _asking(asked, own)


def _final(section: EvaluationSection, own: float, common: float, copies: bool) -> float:
    """The last point: whole suites, videos also at the common count (unless it is the same), images as copies."""
    images, films = _suites(section)
    work = _evaluation(section, own, None)
    if section.common_frames is not None and own != common:
        work += films * _asking(SUITE, common)
    if section.copies and copies:
        work += images * _asking(SUITE, own)
    return work
