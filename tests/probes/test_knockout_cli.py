"""`workbench probe knockout|attribution` on a real run."""

from __future__ import annotations

import pytest

from tests.probes.run_worlds import small_run
from workbench.captures import Capture
from workbench.cli import main


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with a checkpoint, four clips, and a question without pictures."""
    return small_run(tmp_path_factory.mktemp("data"), 4)


def probe(*words: object) -> int:
    return main(["probe", *map(str, words)])


def test_knockout_of_a_run(run, capsys):
    assert probe("knockout", run.directory, "--sample", "v2", "--windows", "single,all", "--checks", 2) == 0
    out = capsys.readouterr().out
    path = run.capture_path("knockout-end-v2")
    assert str(path) in out and "suffix replay" in out and "2 cells by whole forward passes" in out
    capture = Capture.load(path)
    assert capture.arrays["deltas"].shape == (4, 4) and capture.meta["recipe_hash"] == "abc"
    assert f"{capture.arrays['deltas'][-1, 0]:+9.4f}" in out
    assert capture.meta["checkpoint"]["name"] == "end" and len(capture.meta["checkpoint"]["sha256"]) == 64
    words = (
        "--edges",
        "all",
        "--recompute",
        "--grid",
        "1x2",
        "--windows",
        "0-1",
        "--frames",
        2,
        "--name",
        "cut",
    )
    assert probe("knockout", run.directory, *words) == 0
    cut = Capture.load(run.capture_path("cut"))
    assert cut.arrays["deltas"].shape == (1, 4) and cut.meta["method"] == "full recomputation"


def test_attribution_of_a_sample_and_over_samples(run, capsys):
    assert probe("attribution", run.directory, "--curves", "--steps", 16) == 0
    out = capsys.readouterr().out
    assert "completeness error of integrated gradients" in out and "rank correlation attention ~ ig" in out
    capture = Capture.load(run.capture_path("attribution-end-v0"))
    assert capture.arrays["scores"].shape == (4, 4) and capture.meta["curve_names"][-1] == "random"
    words = ("--limit", 9, "--curves", "--rankings", "attention,knockout,ig")
    assert probe("attribution", run.directory, *words) == 0
    out = capsys.readouterr().out
    many = Capture.load(run.capture_path("attribution-agreement-end"))
    assert many.meta["samples"] == ["v0", "v1", "v2", "v3"] and "silent: no image or video" in out
    assert many.meta["pairs"][0] == ["attention", "knockout"] and "attention ~ knockout" in out
    mean, low, high, n = many.arrays["agreement"][0]
    assert mean == pytest.approx(many.arrays["spearman"][:, 0].mean()) and low < mean < high and n == 4
    gain = many.arrays["auc"][:, 1, 1] - many.arrays["auc"][:, -1, 1]
    assert many.arrays["auc_gain"][1, 1, 0] == pytest.approx(gain.mean())
    assert (many.arrays["completeness"] < 0.05).all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["knockout", "--windows", "wide"], "Write single, all, a width, or first-last"),
        (["knockout", "--windows", "2-7"], "the model has the layers 0 to 2"),
        (["knockout", "--edges", "all"], "(--recompute)"),
        (["knockout", "--sample", "silent"], "the conversation has no image or video"),
        (["attribution", "--sample", "silent"], "the conversation has no image or video"),
        (["attribution", "--turn", "4"], "it has the questions 0 to 0"),
        (["attribution", "--steps", "1"], "a line needs 2 or more"),
    ],
)
def test_mistakes_are_one_line(run, capsys, words, message):
    assert probe(words[0], run.directory, *words[1:]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_words_that_do_not_parse(run, capsys):
    for words in (["knockout", "--grid", "2"], ["attribution", "--rankings", "love"]):
        with pytest.raises(SystemExit):
            probe(words[0], run.directory, *words[1:])
    assert "is not one of attention, knockout" in capsys.readouterr().err
