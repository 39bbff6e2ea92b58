"""A study as a task graph: one task trains one model. ``base-s0`` runs the recipe's stages; ``fixed-16-s0``
goes on from it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from workbench.errors import RecipeError
from workbench.recipe.schema import FramesSection, Recipe, StageSection

BASE = "base"


@dataclass(frozen=True)
class Task:
    """``needs`` are ids of tasks that must be finished; ``cost`` is a relative estimate of the time it
    takes.
    """

    id: str
    arm: str
    seed: int
    needs: tuple[str, ...]
    cost: float


def task_id(arm: str, seed: int) -> str:
    return f"{arm}-s{seed}"


def base_seed(recipe: Recipe, seed: int) -> int:
    """Seed of the base that an arm of ``seed`` starts from."""
    return seed if recipe.base_seed is None else recipe.base_seed


def make_tasks(
    recipe: Recipe, seeds: Sequence[int] | None = None, arms: Sequence[str] | None = None
) -> list[Task]:
    """The tasks of a study, each after the ones it needs.

    Args:
        seeds: default ``recipe.seeds`` or ``(recipe.seed,)``.
        arms: only these (and the arms they need); default all.

    Raises:
        RecipeError: an arm that the recipe does not have, or arms that need each other in a circle.
    """
    seeds = tuple(seeds or recipe.seeds or (recipe.seed,))
    wanted = _closure(recipe, tuple(recipe.arms) if arms is None else tuple(arms))
    bases = dict.fromkeys(base_seed(recipe, seed) for seed in seeds)
    tasks = [Task(task_id(BASE, s), BASE, s, (), _cost(recipe.stages, recipe)) for s in bases]
    for name in wanted:
        arm = recipe.arms[name]
        for seed in seeds[:1] if arm.first_seed_only else seeds:
            needs = [task_id(BASE, base_seed(recipe, seed))]
            for other in arm_needs(recipe, name):
                needs.append(task_id(other, seeds[0] if recipe.arms[other].first_seed_only else seed))
            tasks.append(Task(task_id(name, seed), name, seed, tuple(needs), _cost(arm.stages, recipe)))
    return tasks


def arm_needs(recipe: Recipe, name: str) -> tuple[str, ...]:
    """Arms that must be finished before ``name``: what it says, the pilot of its policy, the arm it is
    matched to.
    """
    arm = recipe.arms[name]
    found = dict.fromkeys(arm.needs)
    for stage in arm.stages:
        for other in (stage.frames.pilot, stage.frames.like):
            if other is not None:
                found[other] = None
    return tuple(found)


def _closure(recipe: Recipe, names: tuple[str, ...]) -> list[str]:
    order: list[str] = []

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name not in recipe.arms:
            raise RecipeError(
                f"run arm {name!r}", f"the recipe has {', '.join(recipe.arms)}", "choose one of these"
            )
        if name in path:
            raise RecipeError(
                f"order the arms {' -> '.join((*path, name))}",
                "they need each other",
                "remove one of the needs",
            )
        if name not in order:
            for other in arm_needs(recipe, name):
                visit(other, (*path, name))
            order.append(name)

    for name in names:
        visit(name, ())
    return order


def frames_guess(section: FramesSection) -> float:
    """Mean frames a policy is likely to use, for estimates of time before a plan exists."""
    if section.frames is not None:
        return section.frames
    if section.choices:
        return sum(section.choices) / len(section.choices)
    if section.rules:
        return sum(section.rules.values()) / len(section.rules)
    if section.max_frames is not None:
        return section.max_frames
    return 8.0


def _cost(stages: Sequence[StageSection], recipe: Recipe) -> float:
    def one(stage: StageSection) -> float:
        steps = stage.steps or 100 * (stage.epochs or 1)
        return (
            steps
            * stage.batch
            * (2.0 + frames_guess(stage.frames) * (0.3 if stage.objective == "align" else 1.0))
        )

    return math.fsum(one(stage) for stage in stages) + 1.0


def eval_points(recipe: Recipe, steps: int) -> list[int]:
    """Steps at which an arm of ``steps`` steps is evaluated, the last one included."""
    return sorted({max(1, round(share * steps)) for share in recipe.evaluation.at} | {steps})
