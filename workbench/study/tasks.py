"""A study as a task graph: one task trains one model. ``base-s0`` runs the recipe's stages; ``fixed-16-s0``
goes on from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workbench.errors import RecipeError
from workbench.recipe.schema import Recipe
from workbench.study.cost import Work, steps_of, task_work

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
    tasks = [Task(task_id(BASE, s), BASE, s, (), work(recipe, BASE).total) for s in bases]
    for name in wanted:
        arm = recipe.arms[name]
        for seed in seeds[:1] if arm.first_seed_only else seeds:
            needs = [task_id(BASE, base_seed(recipe, seed))]
            for other in arm_needs(recipe, name):
                needs.append(task_id(other, seeds[0] if recipe.arms[other].first_seed_only else seed))
            tasks.append(Task(task_id(name, seed), name, seed, tuple(needs), work(recipe, name).total))
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


def eval_points(recipe: Recipe, steps: int) -> list[int]:
    """Steps at which an arm of ``steps`` steps is evaluated, the last one included."""
    return sorted({max(1, round(share * steps)) for share in recipe.evaluation.at} | {steps})


def work(recipe: Recipe, arm: str) -> Work:
    """What a task has to do, in the units of ``Task.cost``; ``BASE``: the recipe's own stages."""
    stages = recipe.stages if arm == BASE else recipe.arms[arm].stages
    steps = sum(map(steps_of, stages))
    if arm == BASE:
        return task_work(recipe, None, [steps])
    return task_work(recipe, arm, eval_points(recipe, steps))
