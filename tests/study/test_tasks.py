"""A recipe becomes tasks in an order that can run; wishes that cannot be met are one clear error."""

from __future__ import annotations

import pytest

from workbench.errors import RecipeError
from workbench.recipe import recipe_hash
from workbench.recipe.schema import Recipe
from workbench.study.run import shortened
from workbench.study.tasks import arm_needs, eval_points, make_tasks

STAGE = {"name": "s", "train": {"llm": 1e-3}, "data": {"d": 1}, "steps": 10, "batch": 4}


def recipe(arms: dict, **more) -> Recipe:
    data = {"root": "r", "sources": {"d": {"path": "d.jsonl"}}}
    return Recipe.model_validate(
        {"name": "t", "model": {"preset": "tiny"}, "data": data, "stages": [STAGE], "arms": arms, **more}
    )


def arm(frames: dict | None = None, **more) -> dict:
    return {"stages": [{**STAGE, "frames": frames or {"policy": "fixed", "frames": 2}}], **more}


ARMS = {
    "matched": arm({"policy": "random_matched", "like": "hybrid"}),
    "hybrid": arm({"policy": "classifier", "choices": [2, 8], "pilot": "pilot"}),
    "pilot": arm(first_seed_only=True, measure={"source": "d", "frames": [2, 8]}, shown=False),
    "plain": arm(),
}


def test_every_task_comes_after_what_it_needs():
    tasks = make_tasks(recipe(ARMS, seeds=[3, 5]))
    place = {task.id: i for i, task in enumerate(tasks)}
    assert set(place) == {
        *("base-s3", "base-s5", "pilot-s3", "hybrid-s3", "hybrid-s5"),
        *("matched-s3", "matched-s5", "plain-s3", "plain-s5"),
    }
    for task in tasks:
        assert all(place[need] < place[task.id] for need in task.needs), task
    needs = {task.id: set(task.needs) for task in tasks}
    assert needs["hybrid-s5"] == {"base-s5", "pilot-s3"}  # the pilot of the first seed serves all
    assert needs["matched-s5"] == {"base-s5", "hybrid-s5"} and needs["base-s5"] == set()
    assert arm_needs(recipe(ARMS), "matched") == ("hybrid",)


def test_a_choice_of_arms_and_seeds_keeps_what_it_needs():
    made = recipe(ARMS, seeds=[3, 5])
    assert [t.id for t in make_tasks(made, seeds=[5], arms=["matched"])] == [
        *("base-s5", "pilot-s5", "hybrid-s5", "matched-s5")
    ]
    assert [t.id for t in make_tasks(made, arms=[])] == ["base-s3", "base-s5"]
    assert [t.id for t in make_tasks(recipe({}, seed=9))] == ["base-s9"]


def test_an_unknown_arm_and_a_circle_are_named():
    with pytest.raises(RecipeError, match=r"'hybird'.*matched, hybrid, pilot, plain"):
        make_tasks(recipe(ARMS), arms=["hybird"])
    circle = {"a": arm(needs=["b"]), "b": arm(needs=["c"]), "c": arm(needs=["a"])}
    with pytest.raises(RecipeError, match="a -> b -> c -> a"):
        make_tasks(recipe(circle))


def test_longer_arms_cost_more():
    cost = {
        t.arm: t.cost
        for t in make_tasks(recipe({"two": arm(), "many": arm({"policy": "fixed", "frames": 16})}))
    }
    assert cost["many"] > cost["two"] > 0


def test_evaluation_points_end_with_the_last_step():
    made = recipe({}, evaluation={"at": [0.001, 0.25, 0.5]})
    assert eval_points(made, 240) == [1, 60, 120, 240] and eval_points(made, 1) == [1]


def test_a_quick_study_trains_its_share_of_the_steps_and_never_none():
    epochs = {k: v for k, v in STAGE.items() if k != "steps"} | {"epochs": 2}
    made = recipe({"plain": arm(), "long": {"stages": [epochs]}}, quick={"arms": ["plain"], "steps": 0.6})
    short = shortened(made, made.quick.steps)
    assert [s.steps for s in short.stages] == [6] and short.arms["plain"].stages[0].steps == 6
    assert (short.arms["long"].stages[0].steps, short.arms["long"].stages[0].epochs) == (None, 2)
    assert shortened(made, 0.01).stages[0].steps == 1 and shortened(made, 1.0) == made
    assert recipe_hash(short) != recipe_hash(made)  # so a full study never goes on with a quick one's runs
