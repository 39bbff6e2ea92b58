"""`workbench probe attention|atlas|scatter` on a real run: files in, captures out, one line for every mistake."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from tests.probes.run_worlds import small_run
from workbench.captures import Capture
from workbench.cli import main
from workbench.runs import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with two checkpoints and a data set of clips with boxes."""
    root = tmp_path_factory.mktemp("data")
    row = {"choices": ["red", "blue"], "skill": "order"}
    return small_run(root, 8, checkpoints=("before", "after"), boxes=True, **row)


def probe(*words: object) -> int:
    return main(["probe", *map(str, words)])


def test_attention_of_a_run(run, capsys):
    assert probe("attention", run.directory, "--sample", "v3", "--queries", "text", "--store", "uint8") == 0
    path = run.capture_path("attention-after-v3")
    assert str(path) in capsys.readouterr().out
    capture = Capture.load(path)
    assert capture.meta["checkpoint"]["name"] == "after" and len(capture.meta["checkpoint"]["sha256"]) == 64
    assert capture.meta["recipe_hash"] == "abc" and capture.meta["sample"]["id"] == "v3"
    assert capture.meta["frames"]["indices"] == [0, 2, 3, 5] and capture.arrays["rows"].dtype == np.uint8
    assert str(run.directory) not in json.dumps(capture.meta)
    assert (
        probe("attention", run.directory, "--checkpoint", "before", "--queries=-1,0", "--name", "mine") == 0
    )
    assert Capture.load(run.capture_path("mine")).arrays["rows"].shape[2] == 2
    assert main(["status", str(run.directory)]) == 0
    assert "attention-after-v3, mine" in capsys.readouterr().out


def test_encoder_generation_and_atlas(run, capsys):
    assert probe("attention", run.directory, "--where", "encoder", "--heads", "mean") == 0
    assert Capture.load(run.capture_path("encoder-after-v0")).kind == "encoder_mean"
    assert probe("attention", run.directory, "--where", "generation", "--tokens", 3) == 0
    assert Capture.load(run.capture_path("generation-after-v0")).arrays["rows"].shape[0] <= 3
    capsys.readouterr()
    assert probe("atlas", run.directory, "--frames", 2, "--queries", "answer") == 0
    out = capsys.readouterr().out
    assert "frame 1 " in out and "frame 2 " not in out and "question" in out
    assert Capture.load(run.capture_path("atlas-after-v0")).meta["frames"]["indices"] == [1, 4]


def test_scatter_before_and_after(run, capsys):
    words = (
        "scatter",
        run.directory,
        "--against",
        run.directory,
        "--against-checkpoint",
        "before",
        "--threads",
        1,
    )
    assert probe(*words) == 0
    out = capsys.readouterr().out
    assert "8 clusters by sample_id" in out and "chance for box_mass" in out and "0.1250" in out
    capture = Capture.load(run.capture_path("scatter-after"))
    assert capture.arrays["after"].shape == capture.arrays["before"].shape == (8, 7)
    change = dict(zip(capture.meta["statistics"], capture.arrays["change"].T, strict=True))
    np.testing.assert_allclose(change["after"], capture.arrays["after"].mean(0))
    np.testing.assert_allclose(change["difference"], change["after"] - change["before"])
    assert (change["low"] <= change["difference"]).all() and capture.meta["before"]["name"] == "before"
    assert probe("scatter", run.directory, "--boxes", "none", "--limit", 3, "--name", "few") == 0
    assert Capture.load(run.capture_path("few")).arrays["after"].shape == (3, 6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--checkpoint", "none"], "the run has before, after. Choose one of those"),
        (["--suite", "videos"], "its recipe has clips"),
        (["--sample", "v99"], "has no sample of that id among its 9. Its first is v0"),
        (["--layers", "12"], "it has the layers 0 to 2"),
        (["--queries", "4711"], "look from position 4711"),
        (["--name", "../up"], "it is not a plain file name"),
    ],
)
def test_mistakes_are_one_line(run, capsys, words, message):
    assert probe("attention", run.directory, *words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_other_checkpoints_and_folders(run, tmp_path, capsys):
    assert probe("attention", tmp_path) == 2
    assert "give --data and --out" in capsys.readouterr().err
    model = run.checkpoints()[0] / "model"
    out = tmp_path / "a.safetensors"
    data = run.directory.parent / "rows.jsonl"
    assert probe("attention", model, "--data", data, "--out", out, "--sample", "silent") == 0
    assert Capture.load(out).meta["checkpoint"]["name"] == "before"
    shards = tmp_path / "run"
    shutil.copytree(run.directory, shards)
    opened = Run.open(shards)
    with opened.checkpoint_dir("zero") as path:
        (path / "zero_pp_rank_0_optim_states.pt").write_bytes(b"x")
    opened.close()
    assert probe("attention", shards) == 2
    assert "holds ZeRO shards, not a model" in capsys.readouterr().err
