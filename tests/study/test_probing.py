"""Probes that a recipe asks for: made during and after a real training, which they do not change; asked for again on a
machine; errors at load.
"""

from __future__ import annotations

import pandas as pd
import pytest
import yaml

from tests.machines.servers import JupyterServer, running
from tests.machines.test_jupyter import connected
from tests.machines.toys import end_all, local
from tests.training.processes import run as train
from tests.training.studies import RECIPE, recipe, rows
from workbench.captures import Capture
from workbench.errors import RecipeError, WorkbenchError
from workbench.recipe import load_recipe, recipe_hash
from workbench.runs import Run
from workbench.runs.captures import complete

STAGES = [{**stage, "steps": 4, "checkpoint_every": None} for stage in RECIPE["stages"]]
SUITES = {"suites": {"image": "image_test", "video": "video_test"}, "limit": 4}
PROBES = {
    "conflict": {
        "probe": "gradients", "at": [0.75, 1.0], "frames": [2], "pairs": 2, "batch": 2, "subspace": 0,
        "static": False, "counterfactuals": ["frozen"], "map_conflicts": False, "adam": True,
    },
    "spread": {"probe": "scatter", "at": [0.25, 1.0], "suite": "image", "limit": 3},
    "frames": {"probe": "atlas", "suite": "video", "limit": 1, "frames": [2, 4], "queries": "predict"},
    "lens": {"probe": "fusion", "frames": [2], "videos": 2, "images": 2},
    "rows": {
        "probe": "attention", "at": [0.5, 1.0], "suite": "video", "limit": 1, "frames": [2], "store": "topk",
    },
    "cut": {"probe": "knockout", "suite": "video", "limit": 1, "frames": [2], "windows": "all"},
    "parts": {
        "probe": "attribution", "suite": "video", "limit": 1, "frames": [2], "rankings": ["attention", "knockout"],
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def probed(tmp_path_factory):
    """A finished job whose recipe has probes."""
    folder = tmp_path_factory.mktemp("probed")
    machine = local(folder / "root")
    job = machine.submit(recipe(folder, stages=STAGES, evaluation=SUITES, probes=PROBES))
    assert job is not None
    from workbench.machines import attach

    ended = attach("tiny", machine).wait(240)
    assert ended["reason"] == "finished", ended
    yield machine, folder / "root" / "tiny"
    end_all(folder)


def test_captures_are_made_on_the_way_and_at_the_end(probed):
    _, study = probed
    run = study / "runs" / "base-s0"
    names = {path.stem for path in complete(run)}
    assert {
        "conflict-step-000006",
        "conflict-stage-sft",
        "spread-step-000002-image",
        "spread-stage-sft-image",
    } <= names
    assert "lens-stage-sft" in names and sum(name.startswith("frames-stage-sft-f") for name in names) == 2
    captures = {path.stem: Capture.load(path) for path in complete(run)}
    kinds = {}
    for name, capture in captures.items():
        kinds.setdefault(name.split("-")[0], []).append((capture.kind, capture.meta["checkpoint"]["name"]))
        assert capture.meta["asked"]["probe"] == PROBES[name.split("-")[0]]["probe"]
    assert sorted(kinds["rows"]) == [("attention_rows", "stage-sft"), ("attention_rows", "step-000004")]
    assert kinds["cut"] == [("knockout", "stage-sft")] and kinds["parts"] == [("attribution", "stage-sft")]
    early, late = captures["conflict-step-000006"].meta, captures["conflict-stage-sft"].meta
    assert early["checkpoint"]["sha256"] is None and early["checkpoint"]["step"] == 6
    assert len(late["checkpoint"]["sha256"]) == 64 and late["metrics"] == ["plain", "adam"]
    assert late["asked"]["pairs"] == 2 and late["recipe_hash"] == Run.open(run).meta["recipe_hash"]
    told = [event for event in Run.open(run).events() if event["kind"] == "probed"]
    assert sorted(e["name"] for e in told) == sorted(
        ["conflict", "conflict", "spread", "spread", "frames", "lens", "rows", "rows", "cut", "parts"]
    )


def test_looking_changes_nothing_in_the_training(probed, tmp_path):
    _, study = probed
    plain = recipe(tmp_path, stages=STAGES, evaluation=SUITES)
    assert train(plain, tmp_path / "out") == 0
    straight = rows(tmp_path / "out" / "runs" / "base-s0")
    pd.testing.assert_frame_equal(rows(study / "runs" / "base-s0"), straight, check_exact=True)
    assert recipe_hash(load_recipe(plain)) == Run.open(study / "runs" / "base-s0").meta["recipe_hash"]


def test_a_machine_looks_when_asked_and_takes_what_is_there(probed, tmp_path):
    machine, study = probed
    told: list[dict] = []
    what = {"probe": "fusion", "frames": [2], "videos": 2, "images": 2, "name": "asked"}
    found = machine.probe("tiny", "base-s0", told.append, **what)
    (row,) = found["captures"]
    assert row["kind"] == "fusion" and (study / row["path"]).stat().st_size == row["bytes"]
    assert any("Still images move by" in sentence for sentence in found["words"])
    assert told[0]["doing"] == "loading" and told[-1]["done"] == told[-1]["total"] == 1
    assert "rows" not in str(found) and len(str(found)) < 20_000, "arrays do not travel by message"
    written = (study / row["path"]).stat().st_mtime_ns
    assert machine.probe("tiny", "base-s0", **what)["captures"] == [row]
    assert (study / row["path"]).stat().st_mtime_ns == written
    copy = machine.fetch("tiny", tmp_path / "here")
    assert Capture.load(copy / row["path"]).kind == "fusion"


def test_the_same_through_a_remote_kernel(probed, tmp_path, monkeypatch):
    """A real token-protected server on loopback: progress streams, arrays come by ``fetch``."""
    _, study = probed
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    what = {"probe": "fusion", "frames": [2], "videos": 2, "images": 2, "name": "far"}
    told: list[dict] = []
    with (
        running(JupyterServer(tmp_path / "server")) as server,
        connected(server, monkeypatch, study.parent) as (machine, _),
    ):
        found = machine.probe("tiny", "base-s0", told.append, **what)
        (row,) = found["captures"]
        copy = machine.fetch("tiny", tmp_path / "here")
    assert told[0]["doing"] == "loading" and told[-1]["done"] == told[-1]["total"]
    assert any("Still images move by" in sentence for sentence in found["words"])
    assert (copy / row["path"]).read_bytes() == (study / row["path"]).read_bytes()


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ({"probe": "fusion", "videso": 2}, "'videso' is unknown. The nearest valid one is 'videos'"),
        ({"probe": "fusion", "pairs": 2}, "`pairs` means nothing to the probe 'fusion'"),
        ({"probe": "scatter", "suite": "imge"}, "The nearest valid one is 'image'"),
        ({"probe": "atlas", "checkpoint": "none"}, "the checkpoint none: the run has stage-"),
        ({"probe": "atlas", "samples": ["x"]}, "look at sample x"),
    ],
)
def test_a_machine_says_what_is_wrong(probed, what, words):
    with pytest.raises(WorkbenchError) as error:
        probed[0].probe("tiny", "base-s0", **what)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("probe", "words"),
    [
        ({"probe": "gradient"}, "nearest: gradients"),
        ({"probe": "gradients", "pair": 3}, "The nearest valid one is 'pairs'"),
        ({"probe": "knockout", "images": 3}, "means nothing to the probe 'knockout'"),
        ({"probe": "gradients", "video_source": "vidos"}, "The nearest valid one is 'videos'"),
        ({"probe": "gradients", "arms": ["bas"]}, "The nearest valid one is 'base'"),
        ({"probe": "gradients", "at": [2]}, "Write at most 1"),
        ({"probe": "gradients", "at": []}, "the list of shares is empty"),
    ],
)
def test_errors_at_load_name_file_and_line(tmp_path, probe, words):
    path = recipe(tmp_path, evaluation=SUITES, probes={"one": probe})
    with pytest.raises(RecipeError) as error:
        load_recipe(path)
    place, _, rest = str(error.value).partition(": ")
    file, _, line = place.rpartition(":")
    assert file.endswith("recipe.yaml") and words in rest
    lines = path.read_text().splitlines()
    first = next(i for i, text in enumerate(lines, 1) if text.startswith("probes:"))
    assert first < int(line) <= len(lines) and yaml.safe_load(path.read_text())["probes"]["one"] == probe
