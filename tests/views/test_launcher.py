"""The launcher: its form is the schema, its errors stand where they belong, what it submits is what it showed."""

from __future__ import annotations

import html
import json
import subprocess
import sys
from typing import get_args

import pytest
import yaml

from tests.machines.conftest import home  # noqa: F401
from tests.machines.toys import ROOT, until
from tests.training.studies import RECIPE
from tests.training.studies import recipe as make_recipe
from tests.views.transport import assert_text_only
from workbench.errors import RecipeError, WorkbenchError
from workbench.recipe import load_recipe, recipe_hash
from workbench.recipe.checks import FRAME_PARAMETERS
from workbench.recipe.schema import FramesSection, MachineSection
from workbench.study.estimate import estimate, measured
from workbench.views.launcher import Launcher
from workbench.views.launcher_fields import field_of, frames_of, shown, typed, value_at

pytestmark = pytest.mark.timeout(240)
TRAP = ROOT / "recipes" / "laptop" / "trap.yaml"
STAGE = "arms.fixed-2.stages.0"
STAGES = [{**RECIPE["stages"][1], "steps": 6}]


@pytest.fixture
def trap():
    return Launcher(TRAP, recipes=ROOT / "recipes")


@pytest.fixture
def form(trap):
    return trap.shown


# -- the schema ------------------------------------------------------------------------------------------------


def test_fields_know_types_choices_bounds_and_the_schemas_comments():
    precision = field_of("machine.precision")
    assert precision.kind == "choice"
    assert precision.choices == get_args(MachineSection.model_fields["precision"].annotation)
    batch = field_of(f"{STAGE}.batch")
    assert (batch.kind, batch.whole, batch.note) == ("number", True, "more than 0")
    rate = field_of(f"{STAGE}.train.llm")
    assert (rate.kind, rate.whole) == ("number", False) and "more than 0" in rate.note
    assert field_of("evaluation.copies").kind == "switch"
    base = field_of("base_seed")
    assert base.kind == "text" and "may be left empty" in base.note and "a base a seed" in base.note
    assert "packing: length of a packed row" in field_of(f"{STAGE}.tokens_per_row").note
    with pytest.raises(KeyError):
        field_of(f"{STAGE}.stepz")


@pytest.mark.parametrize("value", [None, 3, 0.5, "a b", [0, 1], {"when": 4}, True, "null", "1"])
def test_what_is_shown_reads_back_as_what_it_was(value):
    assert typed(shown(value)) == value and "\n" not in shown(value)


def test_every_policy_can_be_chosen_and_offers_its_own_parameters_only(form, trap):
    control = form.controls[f"{STAGE}.frames.policy"]
    assert control.options == get_args(FramesSection.model_fields["policy"].annotation)
    for policy in control.options:
        form.controls[f"{STAGE}.frames.policy"].value = policy
        names = {key.rpartition(".")[2] for key in form.controls if ".frames." in key} - {"policy"}
        needed, optional = FRAME_PARAMETERS[policy]
        assert names == {*needed, *optional}
        assert frames_of(value_at(trap.values(), f"{STAGE}.frames"))["policy"] == policy


def test_every_recipe_of_the_project_can_be_opened(form, trap):
    assert set(form.recipe.options) >= {
        str(path.relative_to(ROOT)) for path in ROOT.glob("recipes/**/*.yaml")
    }
    for path in trap.recipes:
        form.recipe.value = path
        assert form.problem.value == "" and not form.submit.disabled
        assert form.controls and trap.differences() == []


# -- changing --------------------------------------------------------------------------------------------------


def test_what_differs_is_shown_and_what_is_taken_back_is_no_change(form, trap):
    form.controls[f"{STAGE}.batch"].value = 16
    form.controls["seeds"].value = "[0, 1]"
    form.extra.value = "evaluation.common_frames=8\n\nstages.0.steps=10"
    rows = {row["key"]: (row["in the file"], row["now"]) for row in form.changes.data["rows"]}
    assert rows == {
        f"{STAGE}.batch": ("32", "16"), "seeds": ("[0, 1, 2, 3, 4]", "[0, 1]"),
        "evaluation.common_frames": ("16", "8"), "stages.0.steps": ("400", "10"),
    }  # fmt: skip
    form.controls[f"{STAGE}.batch"].value = 32
    form.controls["seeds"].value = "[0, 1, 2, 3, 4]"
    form.extra.value = ""
    assert form.changes.data["rows"] == [] and trap.overrides == {}


def test_a_policy_replaces_its_section_and_goes_back(form, trap):
    form.controls[f"{STAGE}.frames.policy"].value = "fps"
    assert form.submit.disabled, "fps lacks its parameters"
    form.controls[f"{STAGE}.frames.rate"].value = "1.5"
    form.controls[f"{STAGE}.frames.max_frames"].value = "8"
    assert not form.submit.disabled
    frames = trap.resolved().arms["fixed-2"].stages[0].frames
    assert (frames.policy, frames.rate, frames.max_frames, frames.frames) == ("fps", 1.5, 8, None)
    form.controls[f"{STAGE}.frames.policy"].value = "fixed"
    form.controls[f"{STAGE}.frames.frames"].value = "2"
    assert trap.overrides == {} and trap.differences() == []


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        (f"{STAGE}.batch", -3, "Write more than 0"),
        ("seeds", "[0, x]", "Write a whole number"),
        ("seeds", "[0, 0]", "stands twice"),
        ("seeds", "[0, ", "Write a list"),
        (f"{STAGE}.frames.frames", "many", "Write a whole number"),
        (f"{STAGE}.frames.frames", "", "lacks `frames`"),
        ("evaluation.limit", "0", "Write more than 0"),
    ],
)
def test_what_is_wrong_is_said_below_its_control_and_nothing_is_lost(form, trap, key, value, said):
    form.controls["machine.workers"].value = 1
    form.controls[key].value = value
    wrong = {name for name, box in form.errors.items() if box.value}
    assert wrong == {key} and said in form.errors[key].value and form.problem.value == ""
    assert form.submit.disabled and form.estimate.disabled
    form.arm.value = "fixed-16"  # the form is built anew, and the mistake is still there and still said
    form.arm.value = "fixed-2"
    assert said in "".join(box.value for box in (*form.errors.values(), form.problem))
    assert form.controls["machine.workers"].value == 1
    before = load_recipe(TRAP).model_dump(mode="json")
    form.controls[key].value = type(form.controls[key].value)(
        value_at(before, key) if isinstance(value, int) else shown(value_at(before, key))
    )
    assert not form.submit.disabled and [row["key"] for row in form.changes.data["rows"]] == [
        "machine.workers"
    ]


def test_a_mistake_in_the_file_is_said_with_file_and_line(tmp_path):
    folder = tmp_path / "recipes"
    folder.mkdir()
    good = make_recipe(folder)
    text = yaml.safe_load(good.read_text())
    bad = folder / "bad.yaml"
    bad.write_text(yaml.safe_dump(text | {"seedz": [0]}, sort_keys=False))
    line = next(i for i, words in enumerate(bad.read_text().splitlines(), 1) if words.startswith("seedz"))
    view = Launcher(bad, recipes=folder)
    form = view.shown
    assert f"bad.yaml:{line}" in form.problem.value and "'seed'" in html.unescape(form.problem.value)
    assert form.submit.disabled
    (folder / "torn.yaml").write_text("name: [")
    again = Launcher(folder / "torn.yaml", recipes=folder)
    assert "torn.yaml:1" in again.shown.problem.value
    again.shown.recipe.value = good
    assert again.shown.problem.value == "" and not again.shown.submit.disabled
    with pytest.raises(RecipeError):
        Launcher(bad, recipes=folder).resolved()


def test_lines_of_further_changes_are_checked(form):
    form.extra.value = "machine.workerz=3"
    assert "workerz" in form.problem.value and "machine.workers" not in form.problem.value.split("workerz")[0]
    form.extra.value = "no equals sign"
    assert "not KEY=VALUE" in form.problem.value and form.submit.disabled


def test_what_is_nothing_is_named(tmp_path):
    with pytest.raises(WorkbenchError, match="no such file"):
        Launcher("nowhere.yaml", recipes=ROOT / "recipes")
    (tmp_path / "recipes").mkdir()
    with pytest.raises(WorkbenchError, match="holds none"):
        Launcher(recipes=tmp_path / "recipes")


def test_a_wrong_machines_file_leaves_this_machine(monkeypatch, tmp_path):
    file = tmp_path / "machines.toml"
    file.write_text('[gpu]\nkind = "jupiter"\n')
    monkeypatch.setenv("WORKBENCH_MACHINES", str(file))
    form = Launcher(TRAP, recipes=ROOT / "recipes").shown
    assert "machines.toml:2" in form.said.value and form.machine.value == "local"
    file.write_text('[gpu]\nkind = "ssh"\nhost = "box"\n')
    assert Launcher(TRAP, recipes=ROOT / "recipes").shown.machine.options == ("local", "gpu")


def test_as_a_view_it_is_text_pages_and_stills(form, trap, tmp_path):
    form.controls[f"{STAGE}.batch"].value = 16
    assert assert_text_only(trap.widget)
    assert "32" in trap.words() and recipe_hash(trap.resolved())[:8] in trap.caption()
    assert "arms.fixed-2.stages.0.batch" in trap.to_html(tmp_path / "launcher.html").read_text()
    assert "batch" in trap.save(tmp_path / "launcher.svg").read_text()
    assert len(trap.data()) == 1


# -- estimates -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study that a real process trained: what it took is known."""
    folder = tmp_path_factory.mktemp("estimate")
    path = make_recipe(folder, stages=STAGES, evaluation={}, arms={}, probes={})
    command = [
        sys.executable,
        "-m",
        "workbench",
        "train",
        str(path),
        "--out",
        str(folder / "runs"),
        "--no-report",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return path, folder / "runs"


def test_tokens_are_those_that_finished_runs_of_the_same_data_used(finished):
    path, runs = finished
    recipe = load_recipe(path)
    run = next(runs.glob("*/runs/base-*"))
    ends = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    ends = [event for event in ends if event["kind"] == "stage_end"]
    found = estimate(recipe, runs=runs, root=ROOT)
    assert found.steps == sum(stage["steps"] for stage in STAGES)
    assert found.samples == sum(stage["steps"] * stage["batch"] for stage in STAGES)
    real = sum(event["real_tokens"] for event in ends)
    assert real / 2 < found.tokens < real * 2
    assert found.seconds > 0 and len(measured(runs, recipe).runs) == 1
    twice = recipe.model_copy(
        update={"stages": tuple(s.model_copy(update={"steps": s.steps * 2}) for s in recipe.stages)}
    )
    assert estimate(twice, runs=runs, root=ROOT).tokens == pytest.approx(2 * found.tokens)


def test_parameters_are_counted_without_weights_and_what_is_not_known_is_said(tmp_path):
    found = estimate(load_recipe(ROOT / "recipes/tempflex/paper-qwen3-4b.yaml"), runs=tmp_path, root=ROOT)
    assert 4.4e9 < sum(found.parameters.values()) < 4.7e9
    assert found.tokens is None and found.seconds is None
    assert found.memory > 4 * sum(found.parameters.values())
    text = " ".join(found.basis)
    assert "tokens: not known" in text and "time: not known" in text and "an epoch" in text
    tiny = estimate(load_recipe(TRAP), quick=True, runs=tmp_path, root=ROOT)
    assert tiny.tasks == 3 and "laptop" in " ".join(tiny.basis) and tiny.seconds > 0


def test_the_form_says_that_they_are_estimates_and_from_what(finished, form):
    form.quick.value = True
    form.estimate.click()
    text = form.estimates.value
    assert "Estimates: 3 trainings" in text and "GiB" in text and "Parameters of tiny" in text
    form.controls["machine.workers"].value = 1
    assert form.estimates.value == "", "an estimate of another recipe stays"


# -- submitting ------------------------------------------------------------------------------------------------


def test_a_submitted_recipe_is_what_was_shown_and_its_monitor_follows(home, monkeypatch):  # noqa: F811
    monkeypatch.setenv("WORKBENCH_RUNS", str(home / "jobs"))
    (home / "recipes").mkdir()
    path = make_recipe(home / "recipes", stages=[{**RECIPE["stages"][1], "steps": 4}])
    view = Launcher(path, recipes=home / "recipes")
    form = view.shown
    form.controls["stages.0.batch"].value = 2
    form.name.value = "mine"
    digest = recipe_hash(view.resolved())
    form.submit.click()
    assert "local:mine" in form.said.value and not form.submit.disabled
    assert json.loads((home / "jobs/mine/job/job.json").read_text())["recipe_hash"] == digest
    assert form.below.children == (view.monitor.widget,)
    monitor = view.monitor
    form.submit.click()
    assert "a job of that name is there" in form.said.value, "the name is taken"
    assert view.monitor is monitor and form.controls["stages.0.batch"].value == 2
    until(lambda: not monitor.following, 120)
    assert monitor.source.state == "finished"
    assert monitor.source.runs["base-s0"].columns["step"] == [1, 2, 3, 4]
    monitor.close()
