"""Every mistake a user can make, through the command line as a real process: one clear message, an exit code,
nothing lost.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.training.processes import run
from tests.training.studies import (
    PROGRAM,
    RECIPE,
    environment,
    one_line,
    recipe,
    rows,
    train,
    workbench,
    world,
)
from workbench.runs import Run

STAGE = {**RECIPE["stages"][1], "train": {"llm": 1.0e-3}, "steps": 3, "batch": 2, "checkpoint_every": 1}
PLAIN = {"model": {"preset": "tiny", "fusion_layers": 0}, "stages": [STAGE]}


# -- recipes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("objective: align", "objektive: align", ("'objektive'", "'objective'")),
        ("steps: 8", "steps: eight", ("steps", "eight")),
        ("path: train/images.jsonl", "path: train/imagse.jsonl", ("imagse.jsonl",)),
        ("policy: fixed", "policy: fixt", ("fixt", "fixed")),
        ("images: 0.5", "pictures: 0.5", ("pictures", "images")),
    ],
)
def test_recipe_mistakes_name_file_line_and_the_nearest_key(tmp_path, old, new, words):
    path = recipe(tmp_path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    line = text[: text.index(old)].count("\n") + 1
    done = train(path, tmp_path / "out")
    said = one_line(done)
    assert done.returncode == 2 and all(word in said for word in words), said
    assert f"{path}:{line}: " in said or "imagse" in said, said
    assert not (tmp_path / "out" / "tiny" / "runs").exists()


def test_a_recipe_that_is_not_there(tmp_path):
    assert "none.yaml" in one_line(train(tmp_path / "none.yaml", tmp_path / "out"))


# -- data rows ---------------------------------------------------------------------------------------------


def spoil(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    """A change of one parsed row, as a change of its bytes."""

    def spoiled(line: bytes) -> bytes:
        row = json.loads(line)
        change(row)
        return json.dumps(row).encode()

    return spoiled


def _two_marks(row: dict[str, Any]) -> None:
    row["conversations"][0]["value"] += " <image>"


ROWS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "missing file": (
        spoil(lambda row: row.update(image="images/none.png")),
        "images/none.png does not exist",
    ),
    "no answer": (spoil(lambda row: row["conversations"].pop()), "no answer"),
    "unknown skill": (spoil(lambda row: row.update(skill="telepathy")), "telepathy"),
    "marks": (spoil(_two_marks), "2 <image> marks for 1 image"),
    "not utf-8": (lambda line: line[:20] + b"\xff\xfe" + line[20:], "UTF-8"),
    "not json": (lambda line: line[: len(line) // 2], "JSON"),
}


@pytest.mark.parametrize("kind", ROWS)
def test_a_bad_row_is_named_with_its_line(tmp_path, kind):
    change, words = ROWS[kind]
    root = tmp_path / "world"
    (root / "train").mkdir(parents=True)
    shutil.copy(world() / "world.json", root)
    (root / "train" / "images").symlink_to(world() / "train" / "images")
    lines = (world() / "train" / "images.jsonl").read_bytes().splitlines()
    lines[4] = change(lines[4])
    (root / "train" / "images.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    sources = {"root": str(root), "sources": {"images": {"path": "train/images.jsonl"}}}
    path = recipe(tmp_path, root, data=sources, **{**PLAIN, "stages": [{**STAGE, "data": {"images": 1}}]})
    done = train(path, tmp_path / "out")
    said = one_line(done)
    assert done.returncode == 2 and f"{root / 'train' / 'images.jsonl'}:5" in said and words in said, said


def test_missing_data_without_a_way_to_make_it(tmp_path):
    said = one_line(train(recipe(tmp_path, tmp_path / "nowhere"), tmp_path / "out"))
    assert "nowhere" in said and "data.root" in said


# -- checkpoints -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A finished small training: its newest checkpoint has a paper fusion."""
    folder = tmp_path_factory.mktemp("trained")
    path = recipe(folder, **{**PLAIN, "model": {"preset": "tiny", "fusion_layers": 1}})
    assert run(path, folder / "out") == 0
    return folder / "out" / "runs" / "base-s0" / "checkpoints" / "stage-sft"


def copied(checkpoint: Path, to: Path) -> Path:
    shutil.copytree(checkpoint, to)
    return to


def from_checkpoint(folder: Path, model: Path | str, arm: dict[str, Any] | None = None) -> Path:
    """A recipe of arms alone, from saved weights."""
    arms = {"arm": {"stages": [STAGE], "model": arm or {}}}
    return recipe(folder, model={"checkpoint": str(model)}, stages=[], arms=arms, seeds=[0])


def study(path: Path, out: Path) -> str:
    done = workbench("study", path, "--out", out, "--no-report")
    said = one_line(done)
    assert done.returncode == 2
    return said


def test_a_cut_checkpoint_is_refused(tmp_path, trained):
    cut = copied(trained, tmp_path / "cut")
    weights = cut / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    done = workbench("evaluate", cut, world() / "test" / "images.jsonl")
    assert "model.safetensors is cut short or damaged" in one_line(done) and done.returncode == 2


def test_a_cut_checkpoint_of_the_run_itself_says_how_to_go_on(tmp_path):
    path = recipe(tmp_path, **{**PLAIN, "stages": [STAGE, {**STAGE, "name": "more"}]})
    study_dir = tmp_path / "out" / "tiny"
    assert run(path, study_dir) == 0
    base = study_dir / "runs" / "base-s0"
    expected = rows(base)
    # as if it had been cut off in the second stage, and the newest checkpoint with it
    events = base / "events.jsonl"
    events.write_text("".join(x for x in events.read_text().splitlines(True) if '"finish"' not in x))
    newest = base / "checkpoints" / "stage-more" / "model" / "model.safetensors"
    newest.write_bytes(newest.read_bytes()[:1000])
    said = one_line(train(path, tmp_path / "out"))
    assert "stage-more" in said and "1000 bytes" in said and "delete its directory" in said
    shutil.rmtree(base / "checkpoints" / "stage-more")
    assert run(path, study_dir) == 0
    assert rows(base).equals(expected)


def test_a_checkpoint_of_another_variant(tmp_path, trained):
    said = study(from_checkpoint(tmp_path, trained / "model", {"variant": "release"}), tmp_path / "out")
    assert "fusion_variant='paper', not 'release'" in said and "arm-s0" in said


def test_a_checkpoint_that_is_not_there(tmp_path):
    said = study(from_checkpoint(tmp_path, tmp_path / "gone"), tmp_path / "out")
    assert str(tmp_path / "gone") in said and "no such folder" in said


# -- disks and media ---------------------------------------------------------------------------------------


def test_a_full_disk_while_training_loses_nothing(tmp_path):
    """A file-size limit below a checkpoint's size stands for the full disk: writes fail alike."""
    path, out = recipe(tmp_path, **PLAIN), tmp_path / "out"

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))

    done = subprocess.run(
        [*PROGRAM, "train", str(path), "--out", str(out), "--no-report"],
        env=environment(),
        preexec_fn=limit,
        capture_output=True,
        text=True,
        timeout=120,
    )
    said = one_line(done)
    assert "no space is left" in said and "resume" in said, said
    record = Run.open(out / "tiny" / "runs" / "base-s0")
    assert record.status().state == "failed" and record.checkpoints() == []
    assert run(path, out / "tiny") == 0
    assert rows(record.directory)["step"].tolist() == [1, 2, 3] and record.status().state == "finished"


@pytest.mark.skipif(os.getuid() != 0, reason="mounting a small disk needs root")
def test_a_really_full_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("no small disk can be mounted here")
    try:
        said = one_line(train(recipe(tmp_path, **PLAIN), disk / "out"))
        assert "no space is left" in said, said
        record = Run.open(disk / "out" / "tiny" / "runs" / "base-s0")
        assert record.status().state == "failed" and len(record.metrics()) >= 1
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_truncated_training_video_is_counted_and_training_goes_on(tmp_path):
    root = tmp_path / "world"
    shutil.copytree(world(), root)
    for clip in sorted((root / "train" / "clips").iterdir())[::2]:
        clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    stage = {**STAGE, "data": {"videos": 1}, "steps": 6, "batch": 4}
    path = recipe(tmp_path, root, **{**PLAIN, "stages": [stage]})
    assert run(path, tmp_path / "out") == 0
    record = Run.open(tmp_path / "out" / "runs" / "base-s0")
    events = record.events()
    skipped = [e for e in events if e["kind"] == "skipped"]
    (end,) = [e for e in events if e["kind"] == "stage_end"]
    (frames,) = [e for e in events if e["kind"] == "frames"]
    assert 0 < len(skipped) == end["skipped"] < 24 and len(record.metrics()) == 6
    assert all(
        e["sample"] and str(root / "train" / "clips") in e["error"] and 1 <= e["step"] <= 6 for e in skipped
    )
    assert sum(frames["failures"].values()) > 0
