"""The agent: requests checked, files only of the job, a protocol of JSON lines over stdin and stdout."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import yaml

from tests.machines.toys import ROOT, local, make_toy
from tests.training.studies import RECIPE, recipe
from workbench import __version__
from workbench.errors import CheckpointError, DataError, DiskFullError, RecipeError, WorkbenchError
from workbench.machines import agent, submit
from workbench.machines.base import PROTOCOL, Unreachable, error_to_json, raise_error
from workbench.runs import Run
from workbench.runs.files import RunError


def ask(root: Path, verb: str, **data) -> dict:
    request = {"protocol": PROTOCOL, "workbench": __version__, "verb": verb, "root": str(root), **data}
    return agent.handle(request)


@pytest.fixture
def study(tmp_path) -> Path:
    """A job that was started by nobody, with a run of 300 steps and one checkpoint."""
    made = make_toy(tmp_path / "root")
    run = Run.create(made / "runs" / "base-s0", "name: toy", {"arm": "base", "seed": 0})
    for step in range(1, 301):
        run.metric(step, loss=1 / step)
    with run.checkpoint_dir("one") as folder:
        (folder / "weights").write_bytes(os.urandom(1 << 16))
    run.finish("finished")
    return made


# -- requests --------------------------------------------------------------------------------------------------


def test_hello(tmp_path):
    said = ask(Path("~/runs"), "hello")
    assert said["protocol"] == PROTOCOL and said["workbench"] == __version__ and said["host"]
    assert said["root"] == str(Path.home() / "runs")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"protocol": 2}, "speaks protocol 2"),
        ({"verb": "fly"}, "does not know it"),
        ({"verb": "submit", "workbench": "9.9.9"}, "workbench is 9.9.9 where you are"),
        ({"verb": "status"}, "has no 'job'"),
        ({"verb": "status", "job": "../elsewhere"}, "not a plain file name"),
        ({"verb": "status", "job": "none"}, "holds no none"),
    ],
)
def test_bad_requests_are_named(tmp_path, change, found):
    request = {"protocol": PROTOCOL, "workbench": __version__, "verb": "hello", "root": str(tmp_path)}
    with pytest.raises(WorkbenchError, match=found):
        agent.handle(request | change)


def test_it_answers_lines_of_json_and_nothing_else(tmp_path, study):
    """Two requests and a broken one through one process; what a library prints does not get in between."""
    request = {"protocol": PROTOCOL, "workbench": __version__, "root": str(study.parent)}
    lines = [
        json.dumps(request | {"verb": "jobs"}),
        "{broken",
        json.dumps(request | {"verb": "status", "job": "x"}),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "workbench.machines.agent"],
        input="\n".join(lines) + "\n",
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    first, second, third = map(json.loads, done.stdout.splitlines())
    assert [job["name"] for job in first["result"]["jobs"]] == ["toy"]
    assert "not JSON" in second["error"]["found"] and third["error"]["kind"] == "RunError"
    assert done.returncode == 0 and done.stderr == ""


def test_a_status_brings_nothing_heavy_along(study):
    code = (
        "import sys, workbench; from workbench.machines import agent\n"
        f"r = dict(protocol=1, workbench=workbench.__version__, root={str(study.parent)!r}, job='toy')\n"
        "for verb in ('status', 'jobs', 'tail', 'files'): agent.handle(r | {'verb': verb, 'cursors': {}})\n"
        "import workbench.machines.supervisor\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    # rows of a sealed part need pandas; nothing needs torch, and the supervisor not even pydantic
    assert not {"torch", "transformers", "accelerate", "sklearn", "pydantic", "plotly"} & set(
        done.stdout.split()
    )


def test_errors_cross_as_what_they_are():
    for error in (
        DataError("a", "b", "c", "f:1"),
        RunError("a", "b", "c"),
        Unreachable("a", "b", "c"),
        CheckpointError("a", "b", "c"),
    ):
        sent = json.loads(json.dumps(error_to_json(error)))
        with pytest.raises(type(error)) as caught:
            raise_error(sent)
        assert str(caught.value) == str(error)
    with pytest.raises(WorkbenchError, match="ZeroDivisionError: by zero"):
        raise_error(error_to_json(ZeroDivisionError("by zero")))


# -- files -----------------------------------------------------------------------------------------------------


def test_files_are_listed_with_their_checksums(study):
    (study / "cache").mkdir()
    (study / "cache" / "frames").write_text("x")
    (study / "runs" / "base-s0" / "scores" / "a.parquet.123.tmp").write_text("half")
    listed = {entry["path"]: entry for entry in ask(study.parent, "files", job="toy")["files"]}
    assert not any(
        "cache" in p or "checkpoints" in p or p.endswith((".tmp", ".lock", "reserve")) for p in listed
    )
    for path, entry in listed.items():
        data = (study / path).read_bytes()
        assert entry["size"] == len(data) and entry["sha256"] == hashlib.sha256(data).hexdigest()
    more = {entry["path"] for entry in ask(study.parent, "files", job="toy", checkpoints=True)["files"]}
    assert {p for p in more if "checkpoints" in p} == {
        "runs/base-s0/checkpoints/one/weights",
        "runs/base-s0/checkpoints/one/complete.json",
    }
    assert more > set(listed)


def test_a_file_is_read_in_pieces(study):
    path = "runs/base-s0/checkpoints/one/weights"
    data, pieces = (study / path).read_bytes(), []
    for offset in range(0, len(data), 10000):
        answer = ask(study.parent, "read", job="toy", path=path, offset=offset, length=10000)
        assert answer["size"] == len(data) and "sha256" not in answer
        pieces.append(zlib.decompress(base64.b64decode(answer["data"])))
    assert b"".join(pieces) == data
    whole = ask(study.parent, "read", job="toy", path=path)
    assert whole["sha256"] == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    "path", ["../other/secret", "/etc/passwd", "runs/../../other/secret", "link", "runs"]
)
def test_nothing_outside_a_job_is_read(study, path):
    (study.parent / "other").mkdir()
    (study.parent / "other" / "secret").write_text("secret")
    (study / "link").symlink_to(study.parent / "other" / "secret")
    with pytest.raises(RunError):
        ask(study.parent, "read", job="toy", path=path)


# -- submitting ------------------------------------------------------------------------------------------------


def test_what_a_recipe_needs_is_looked_for_there_before_anything_starts(tmp_path):
    machine, root = local(tmp_path / "root"), tmp_path / "root"

    def refused(kind: type[WorkbenchError], **changes) -> str:
        with pytest.raises(kind) as caught:
            machine.submit(recipe(tmp_path, **changes))
        assert not (root / "tiny").exists()
        return str(caught.value)

    assert "does not exist here" in refused(DataError, data={**RECIPE["data"], "root": "nowhere"})
    said = refused(DataError, data={"root": str(ROOT), "sources": RECIPE["data"]["sources"]})
    assert "data.sources." in said and "train/" in said
    said = refused(CheckpointError, model={"checkpoint": "/no/model"})
    assert said.startswith("model.checkpoint: ") and "does not exist here" in said
    assert "no config.json" in refused(CheckpointError, model={"checkpoint": str(tmp_path)})
    said = refused(CheckpointError, model={"preset": "tiny", "llm_weights": "./weights"})
    assert said.startswith("model.llm_weights: ")
    said = refused(WorkbenchError, machine={"launcher": "deepspeed", "processes": 2})
    assert "deepspeed is not installed" in said and "pip install 'deepspeed>=0.19,<0.20'" in said
    assert "same data-parallel training" in said
    said = refused(RecipeError, machine={"processes": 2})
    assert "`launcher: python` starts one process" in said and "torchrun" in said


def test_hub_names_and_data_to_be_made_are_notes(tmp_path, monkeypatch):
    from workbench.recipe import load_recipe

    monkeypatch.setenv("HF_HOME", str(tmp_path))
    made = recipe(tmp_path, model={"preset": "tiny", "llm_weights": "someone/model"})
    text = yaml.safe_load(made.read_text())
    text["data"] |= {"root": str(tmp_path / "new"), "make": "glyphworld --seed 1"}
    made.write_text(yaml.safe_dump(text))
    notes = submit.check_inputs(load_recipe(made), tmp_path)
    assert len(notes) == 2 and "workbench data make glyphworld" in notes[0] and "downloaded" in notes[1]
    text["model"] = {"checkpoint": "someone/model"}
    made.write_text(yaml.safe_dump(text))
    assert "downloaded" in submit.check_inputs(load_recipe(made), tmp_path)[1]


def test_a_checkpoint_of_a_run_starts_a_recipe(tmp_path):
    """By its own folder, which holds the model in ``model``, as the study's own check takes it."""
    from workbench.recipe import load_recipe

    (tmp_path / "step-1" / "model").mkdir(parents=True)
    (tmp_path / "step-1" / "model" / "config.json").write_text("{}")
    text = yaml.safe_load(recipe(tmp_path, model={"checkpoint": "step-1"}).read_text())
    text["data"] |= {"root": str(tmp_path / "new"), "make": "glyphworld --seed 1"}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(text))
    assert len(submit.check_inputs(load_recipe(tmp_path / "r.yaml"), tmp_path)) == 1


def test_a_taken_name_is_refused(tmp_path, study):
    machine = local(study.parent)
    with pytest.raises(RunError, match=r"a job of that name is there \(lost\).*workbench resume toy"):
        machine.submit(recipe(tmp_path), "toy")
    (study.parent / "folder").mkdir()
    with pytest.raises(RunError, match="is there already"):
        machine.submit(recipe(tmp_path), "folder")


def test_a_full_disk_is_said_before_the_start(tmp_path, monkeypatch):
    monkeypatch.setattr(submit, "ROOM", 1 << 60)
    with pytest.raises(DiskFullError, match="MiB are free"):
        local(tmp_path / "root").submit(recipe(tmp_path))
    assert not (tmp_path / "root" / "tiny").exists()
