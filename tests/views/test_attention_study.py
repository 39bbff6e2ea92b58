"""Attention of a study's sample, before and after, from a study that is really trained: made once, opened afterwards."""

from __future__ import annotations

import copy
import shutil
import subprocess
import sys

import pytest

from tests.training.studies import RECIPE, recipe, world
from workbench.errors import WorkbenchError
from workbench.recipe import load_recipe
from workbench.runs.captures import complete
from workbench.runs.scores import read_scores
from workbench.study.scheduler import open_study
from workbench.study.worker import run_task
from workbench.views.attention import AttentionView

STAGES = [{**copy.deepcopy(stage), "steps": 2, "checkpoint_every": None} for stage in RECIPE["stages"]]
ARM = {**copy.deepcopy(STAGES[1]), "name": "video-sft", "frames": {"policy": "fixed", "frames": 6}}
SUITES = {"suites": {"image": "image_test", "video": "video_test"}, "limit": 3, "common_frames": 3}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    made = recipe(folder, stages=STAGES, evaluation=SUITES, arms={"fixed-6": {"stages": [ARM]}}, seeds=[0])
    opened = open_study(load_recipe(made), folder / "tiny")
    for task in opened.tasks:
        run_task(folder / "tiny", task, "the same command")
    return folder / "tiny"


def _sample(study, suite):
    return read_scores(study / "runs" / "fixed-6-s0").query("suite == @suite")["sample_id"].iloc[0]


def test_a_video_is_shown_at_the_frames_that_its_score_was_made_with(study):
    sample = _sample(study, "video")
    view = AttentionView.of_sample(study, sample, "fixed-6", 0, "video")
    assert list(view.sides) == ["after", "before"] and not view.notes
    assert len(view.reading.strip.spans) == 6
    names = [view.sides[side].capture.meta["checkpoint"]["name"] for side in ("before", "after")]
    assert names == ["stage-sft", "stage-video-sft"]
    assert view.reading.boxes and view.reading.capture.meta["queries"] == "text"
    made = {run: len(complete(study / "runs" / run)) for run in ("base-s0", "fixed-6-s0")}
    again = AttentionView.of(study / "runs" / "fixed-6-s0", sample)
    assert again.words() == view.words() and again.caption() == view.caption()
    assert {run: len(complete(study / "runs" / run)) for run in made} == made, "what is there is only opened"
    fewer = AttentionView.of(study, sample, 2)
    assert len(fewer.reading.strip.spans) == 2
    base = AttentionView.of(study / "runs" / "base-s0", sample, 2)
    assert list(base.sides) == ["after"], "nothing comes before the base"


def test_an_image_has_one_frame_and_what_is_kept_opens_without_torch(study):
    sample = _sample(study, "image")
    view = AttentionView.of_sample(study, sample, "fixed-6", 0, "image")
    assert len(view.reading.strip.spans) == 1 and list(view.sides) == ["after", "before"]
    code = """
import sys
from workbench.views.attention import AttentionView
view = AttentionView.of_sample(sys.argv[1], sys.argv[2], "fixed-6", 0, "image")
print(len(view.sides), "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code, study, sample], capture_output=True, text=True)
    assert done.stdout.split() == ["2", "False"], done.stderr


def test_what_cannot_be_shown_is_said(study, tmp_path):
    sample = _sample(study, "video")
    for arguments, said in (
        (("no-such", "fixed-6", 0, "video"), "none of that id"),
        ((sample, "hybrid", 0, "video"), "Choose one of base-s0, fixed-6-s0"),
        ((sample, "fixed-6", 0, "films"), "image, video"),
    ):
        with pytest.raises(WorkbenchError, match=said):
            AttentionView.of_sample(study, *arguments)
    with pytest.raises(WorkbenchError, match="neither a study"):
        AttentionView.of(tmp_path, sample)


def test_without_checkpoints_what_was_kept_is_shown_and_the_rest_says_how_to_get_it(study, tmp_path):
    kept = _sample(study, "video")
    AttentionView.of_sample(study, kept, "fixed-6", 0, "video")
    copied = shutil.copytree(study, tmp_path / "tiny", symlinks=True)
    for run in ("base-s0", "fixed-6-s0"):
        shutil.rmtree(copied / "runs" / run / "checkpoints")
    assert len(AttentionView.of_sample(copied, kept, "fixed-6", 0, "video").sides) == 2
    other = read_scores(study / "runs" / "fixed-6-s0").query("suite == 'video'")["sample_id"].unique()[1]
    with pytest.raises(
        WorkbenchError, match=r"no capture of it is kept.*Train the run again.*probe attention"
    ):
        AttentionView.of_sample(copied, other, "fixed-6", 0, "video")


def test_data_that_are_gone_are_named(study, tmp_path):
    copied = shutil.copytree(study, tmp_path / "tiny", symlinks=True)
    run = copied / "runs" / "fixed-6-s0"
    text = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(text.replace(str(world()), str(tmp_path / "gone")))
    with pytest.raises(WorkbenchError, match="data are not there"):
        AttentionView.of_sample(copied, _sample(study, "video"), "fixed-6", 0, "video")
