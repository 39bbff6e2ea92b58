"""Validation: each mistake is one error with its line, what belongs there and the nearest valid key."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.recipe.recipes import VALID, line_of, refused, write
from workbench.errors import RecipeError
from workbench.frames.factory import PARAMETERS
from workbench.recipe import load_recipe
from workbench.recipe.checks import FRAME_PARAMETERS


def change(old: str, new: str) -> str:
    assert VALID.count(old) == 1, old
    return VALID.replace(old, new)


FRAMES = "          policy: fixed\n          frames: 4\n"


def frames(**settings) -> str:
    return change(FRAMES, "".join(f"          {key}: {value}\n" for key, value in settings.items()))


@pytest.mark.parametrize(
    ("text", "at", "says"),
    [
        # the schema
        (
            change("preset: tiny", "presets: tiny"),
            "presets",
            "'presets' is unknown. The nearest valid one is 'preset'",
        ),
        (change("name: small", "nmae: small"), "nmae", "The nearest valid one is 'name'"),
        (change("encoder: 1.0e-3", "encodr: 1.0e-3"), "encodr", "'encoder', 'fusion', 'merger' or 'llm'"),
        (change("steps: 10", "steps: ten"), "ten", "`stages.0.steps` is 'ten'. Write a whole number"),
        (change("steps: 10", "steps: 0"), "steps: 0", "more than 0"),
        (change("steps: 10", "steps: 1.5"), "1.5", "whole number"),
        (change("steps: 10", "steps: [10]"), "[10]", "whole number"),
        (change("llm: 1e-3", "llm: -1"), "llm: -1", "more than 0"),
        (change("name: small", "name: 7"), "name: 7", "text (put numbers in quotes)"),
        (
            change("steps: 10", "steps: 10\n    objective: aline"),
            "aline",
            "'sft' or 'align' (nearest: align)",
        ),
        (change("model:\n  preset: tiny", "model: tiny"), "model: tiny", "mapping"),
        (change("suites: {image: images}", "at: 0.5"), "at: 0.5", "a list"),
        (change("suites: {image: images}", "copies: perhaps"), "perhaps", "true or false"),
        (change("policy: fixed\n", "policy: fixd\n"), "fixd", "(nearest: fixed)"),
        (change("    steps: 10\n", "    steps: 10\n    optimizer: {betas: [0.9]}\n"), "betas", "is missing"),
        # names that must exist
        (
            change("data: {images: 1}", "data: {imges: 1}"),
            "imges",
            "no source 'imges' in `data.sources`. The nearest valid one is 'images'",
        ),
        (change("{image: images}", "{image: zzz}"), "zzz", "Valid here: images, videos"),
        (change("  plain:\n", "  plain:\n    needs: [plan]\n"), "needs", "no arm 'plan'"),
        (change("  plain:\n", "  plain:\n    needs: [plain]\n"), "plain:", "wait for each other"),
        (change("  plain:\n", "  plain:\n    measure: {source: vdeos, frames: [2]}\n"), "vdeos", "'videos'"),
        (VALID + "quick: {arms: [plane]}\n", "plane", "'plain'"),
        # keys that exclude or need each other
        (change("steps: 10", "epochs: 1\n    steps: 10"), "epochs", "both `steps` and `epochs`"),
        (change("    steps: 10\n", ""), "- name: first", "neither `steps` nor `epochs`"),
        (
            change("preset: tiny", "preset: tiny\n  checkpoint: x"),
            "checkpoint",
            "both `preset` and `checkpoint`",
        ),
        (change("preset: tiny", "preset: null"), "model:", "neither `preset` nor `checkpoint`"),
        (
            change("preset: tiny", "checkpoint: x\n  llm_weights: y"),
            "llm_weights",
            "nothing without `preset`",
        ),
        (
            change("train: {encoder: 1.0e-3, llm: 1e-3}", "train: {}"),
            "{}",
            "`train` of stage 'first' is empty",
        ),
        (change("data: {images: 1}", "data: {}"), "{}", "`data` of stage 'first' is empty"),
        (
            change(
                "steps: 10", "steps: 10\n    optimizer: {schedule: trapezoid, warmup: 0.4, cooldown: 0.7}"
            ),
            "optimizer",
            "together are 1.1",
        ),
        (change("steps: 10", "steps: 10\n    optimizer: {betas: [0.9, 1.5]}"), "betas", "outside [0, 1)"),
        (change("name: small", "name: ../small"), "../small", "names no file"),
        (change("  plain:\n", "  a/b:\n"), "a/b", "names no file"),
        (change("  plain:\n", "  base:\n"), "base:", "cannot be called 'base'"),
        (VALID + "seeds: [1, 2, 1]\n", "seeds", "[1] stands twice"),
        (change("  plain:\n", "  plain:\n    model: {imges: bypass}\n"), "imges", "'images'"),
        (change("  plain:\n", "  plain:\n    model: {images: bypas}\n"), "bypas", "(nearest: bypass)"),
        (
            change("  plain:\n", "  plain:\n    model: {preset: full}\n"),
            "full",
            "all arms start from the same model",
        ),
        # frame policies
        (frames(policy="fixed"), "frames:", "'fixed' lacks `frames`"),
        (frames(policy="fps", rate=1), "frames:", "lacks `max_frames`"),
        (frames(policy="fps", rate=1, max_frames=4, min_frames=8), "min_frames", "above max_frames"),
        (frames(policy="fps", rate=0, max_frames=4), "rate", "more than 0"),
        (frames(policy="keywords"), "frames:", "lacks `rules`"),
        (frames(policy="keywords", rules='{" ": 2}'), "rules", "no word"),
        (frames(policy="keywords", rules="{on: 2}"), "rules", "not text"),
        (frames(policy="uniform_choice", choices="[]"), "frames:", "lacks `choices`"),
        (frames(policy="random_matched"), "frames:", "lacks `like`"),
        (frames(policy="random_matched", like="plan"), "like", "'plain'"),
        (frames(policy="random_matched", like="plain"), "plain:", "wait for each other"),
        (frames(policy="oracle", choices="[2]", pilot="plain", epsilon=0), "pilot", "measures nothing"),
        (frames(policy="column", frames=3), "frames: 3", "means nothing to the frame policy 'column'"),
        (frames(policy="fixed", frames=3, like="plain"), "like", "means nothing to the frame policy 'fixed'"),
    ],
)
def test_each_mistake_is_one_error_with_its_line(tmp_path, text, at, says):
    path = write(tmp_path, "r.yaml", text)
    error = refused(path)
    lines = [i for i, line in enumerate(path.read_text().splitlines(), 1) if at in line]
    if at == "frames:":  # the section of the arm, not the number below it
        lines = lines[:1]
    assert error.where in [f"{path}:{line}" for line in lines[:1]], (str(error), lines)
    assert says in str(error)


@pytest.mark.parametrize(
    "settings",
    [
        {"policy": "fps", "rate": 1, "max_frames": 64, "min_frames": 2},
        {"policy": "column"},
        {"policy": "keywords", "rules": "{count: 8, order: 4}"},
        {"policy": "keywords", "rules": "{count: 8}", "frames": 2},
        {"policy": "uniform_choice", "choices": "[2, 4]"},
    ],
)
def test_policies_with_their_parameters_load(tmp_path, settings):
    recipe = load_recipe(write(tmp_path, "r.yaml", frames(**settings)))
    assert recipe.arms["plain"].stages[0].frames.policy == settings["policy"]


def test_policies_that_lean_on_arms_load(tmp_path):
    text = VALID + "\n"
    arm = "  pilot:\n    measure: {source: videos, frames: [2, 4]}\n    stages: [*sft]\n"
    text = text.replace("- name: sft", "- &sft\n        name: sft")
    matched = (
        "  matched:\n    stages:\n      - <<: *sft\n        frames: {policy: random_matched, like: hybrid}\n"
    )
    chosen = "{policy: classifier, choices: [2], pilot: pilot}"
    hybrid = f"  hybrid:\n    stages:\n      - <<: *sft\n        frames: {chosen}\n"
    text = text.replace("evaluation:", arm + matched + hybrid + "evaluation:")
    recipe = load_recipe(write(tmp_path, "r.yaml", text))
    assert recipe.arms["hybrid"].stages[0].frames.pilot == "pilot"
    path = write(tmp_path, "s.yaml", text.replace("  pilot:\n", "  pilot:\n    needs: [matched]\n"))
    error = refused(path)
    assert "wait for each other: pilot, matched, hybrid" in error.found and error.where == line_of(
        path, "  pilot:"
    )


def test_two_mistakes_are_one_error_that_counts_the_other(tmp_path):
    error = refused(
        write(tmp_path, "r.yaml", change("preset: tiny", "presett: tiny").replace("steps: 10", "steps: x"))
    )
    assert "presett" in error.found and "(1 more after this one)" in error.todo


def test_the_table_of_policies_agrees_with_the_policies_themselves():
    """The recipe room may not import frames, so it has its own table; it may only be stricter."""
    assert FRAME_PARAMETERS.keys() == PARAMETERS.keys()
    for policy, (needed, optional) in PARAMETERS.items():
        ours, also = FRAME_PARAMETERS[policy]
        assert set(needed) <= set(ours), policy
        assert set(needed + optional) == set(ours + also), policy


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(0, len(VALID)),
    st.integers(0, 12),
    st.text(st.sampled_from("abc:-[]{}&*!|>'\"#%@`,?\n \t1.0\x07é"), max_size=8),
)
def test_no_edit_of_a_recipe_gives_anything_but_a_recipe_or_the_one_error(tmp_path, at, length, text):
    path = tmp_path / "r.yaml"
    path.write_text(VALID[:at] + text + VALID[at + length :], encoding="utf-8")
    try:
        load_recipe(path)
    except RecipeError as error:
        file, _, line = str(error.where).rpartition(":")
        assert file == str(path) and 1 <= int(line) <= len(path.read_text().split("\n")) + 1
        assert "\n" not in str(error)
