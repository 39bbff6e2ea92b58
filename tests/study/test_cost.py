"""The work guessed from a recipe against seconds measured with it, and the progress that follows from it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.recipe.schema import FramesSection, Recipe
from workbench.study.cost import Work, frames_guess
from workbench.study.tasks import make_tasks, work

MEASURED = Path(__file__).with_name("measured_seconds.csv")
SEEDS = 5


def stage(name: str, steps: int, batch: int, frames: dict, **more) -> dict:
    return {
        "name": name,
        "train": {"llm": 1.0e-3},
        "data": {"d": 1},
        "steps": steps,
        "batch": batch,
        "frames": frames,
        **more,
    }


def fixed(count: int) -> dict:
    return {"policy": "fixed", "frames": count}


def measured_recipe() -> Recipe:
    """Of the recipe that was measured, what its work depends on."""

    def arm(frames: dict, **more) -> dict:
        return {"stages": [stage("video-sft", 160, 32, frames)], **more}

    choices = {"choices": [2, 4, 8, 16]}
    return Recipe.model_validate(
        {
            "name": "trap",
            "model": {"preset": "tiny"},
            "data": {"root": "r", "sources": {"d": {"path": "d.jsonl"}}},
            "stages": [
                stage("align", 500, 64, fixed(1), objective="align"),
                stage("caption", 250, 32, fixed(1)),
                stage("instruct", 600, 32, fixed(1), turns=4),
            ],
            "arms": {
                "pilot": arm(
                    {"policy": "uniform_choice", **choices},
                    first_seed_only=True,
                    measure={"source": "d", "frames": [2, 4, 8, 16]},
                ),
                "fixed-2": arm(fixed(2)),
                "fixed-16": arm(fixed(16)),
                "hybrid": arm({"policy": "classifier", "pilot": "pilot", **choices}),
                "random-matched": arm({"policy": "random_matched", "like": "hybrid"}),
            },
            "seeds": list(range(SEEDS)),
            "base_seed": 0,
            "evaluation": {
                "suites": {"image": "d", "video": "d"},
                "at": [0.25, 0.5, 1.0],
                "limit": 200,
                "common_frames": 16,
                "copies": True,
            },
        }
    )


def measured(processor: bool = False) -> pd.DataFrame:
    table = pd.read_csv(MEASURED, comment="#")
    return table[(table["part"] == "processor") == processor]


@pytest.mark.parametrize(
    ("arms", "processor"),
    [(None, False), (("fixed-2", "fixed-16"), False), (("fixed-2", "fixed-16", "hybrid"), True)],
    ids=["study", "quick", "processor"],
)
def test_shares_of_a_study_are_within_a_quarter_of_the_measured_ones(arms, processor):
    tasks = make_tasks(measured_recipe(), arms=arms, seeds=None if arms is None else (0,))
    seconds = measured(processor).groupby("arm")["seconds"].sum()
    truth = sum(seconds[task.arm] for task in tasks)
    guess = sum(task.cost for task in tasks)
    for task in tasks:
        assert task.cost / guess == pytest.approx(seconds[task.arm] / truth, rel=0.25), task.id


def test_progress_inside_a_task_follows_the_measured_seconds():
    """Steps of the base's stages differ eightfold: half of them are a quarter of the time."""
    base = measured().query("arm == 'base'").set_index("part")
    total, behind, step = base["seconds"].sum(), base.loc["start", "seconds"], 0
    guess = work(measured_recipe(), "base")
    for part in ("align", "caption", "instruct"):
        step += int(base.loc[part, "steps"])
        behind += base.loc[part, "seconds"]
        assert guess.done(step) == pytest.approx(behind / total, abs=0.08), part
    assert guess.done(675) < 0.35 < 675 / step


def test_what_more_work_costs_more():
    recipe = measured_recipe()
    total = {arm: work(recipe, arm).total for arm in ("base", *recipe.arms)}
    assert total["fixed-2"] < total["hybrid"] < total["fixed-16"]
    assert total["random-matched"] == total["hybrid"]  # the same histogram, dealt at random
    assert total["pilot"] > total["hybrid"]  # it measures afterwards
    plain = recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"copies": False})})
    assert work(plain, "fixed-16").total < total["fixed-16"]
    assert work(plain, "base").total == total["base"]


@pytest.mark.parametrize(
    ("section", "mean"),
    [
        ({"policy": "fixed", "frames": 4}, 4),
        ({"policy": "keywords", "frames": 2, "rules": {"a": 4, "b": 4, "c": 16}}, 22 / 3),
        ({"policy": "uniform_choice", "choices": [2, 4, 8, 16]}, 7.5),
        ({"policy": "fps", "rate": 1.0, "max_frames": 64}, 64),
        ({"policy": "column"}, 8),
    ],
)
def test_frames_that_a_policy_is_likely_to_use(section, mean):
    assert frames_guess(FramesSection(**section)) == pytest.approx(mean)


@settings(deadline=None)
@given(
    st.floats(0, 100),
    st.lists(st.tuples(st.integers(1, 50), st.floats(0.1, 10)), min_size=1, max_size=4),
    st.lists(st.floats(0, 50), min_size=1, max_size=4),
)
def test_the_share_done_rises_from_nothing_to_what_the_last_evaluation_leaves(start, stages, evaluations):
    steps = sum(count for count, _ in stages)
    points = tuple((max(1, steps * (i + 1) // len(evaluations)), w) for i, w in enumerate(evaluations))
    made = Work(start, tuple(stages), points)
    shares = [made.done(step) for step in range(steps + 1)]
    assert shares[0] == 0.0 and shares == sorted(shares)
    last = sum(w for at, w in points if at == steps)
    assert shares[-1] == pytest.approx(1 - last / made.total)
    assert [made.done(2 * step, 2 * steps) for step in range(steps + 1)] == pytest.approx(shares)
