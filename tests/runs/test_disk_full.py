"""A full disk, for real: a small tmpfs where mounting is allowed, and a file-size limit everywhere."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from workbench.errors import DiskFullError
from workbench.runs import Run, read_events, read_metrics, read_scores


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 1 MiB that nothing else uses."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(place)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip(
            "mounting a tmpfs needs rights that this machine does not give; the size limit is tested below"
        )
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path, leave: int) -> None:
    """Leave ``leave`` bytes free."""
    stat = os.statvfs(place)
    with (place / "ballast").open("wb") as file:
        file.write(b"x" * max(0, stat.f_bavail * stat.f_frsize - leave))


def write_something(run: Run) -> None:
    run.metric(1, loss=1.0)
    run.event("note", text="safe")
    run.write_scores("suite", pd.DataFrame({"value": [1, 2]}))
    with run.checkpoint_dir("first") as path:
        (path / "weights").write_bytes(b"w" * 1000)


def unharmed(run: Run) -> None:
    """What ``write_something`` wrote is all there, and nothing half-written is."""
    assert "safe" in [event.get("text") for event in read_events(run.directory)]
    assert read_metrics(run.directory)["step"].tolist()[0] == 1
    assert read_scores(run.directory)["value"].tolist()[:2] == [1, 2]
    latest = run.latest_checkpoint()
    assert latest is not None and latest.name == "first"
    assert not list(run.directory.rglob("*.tmp")) and not list(run.directory.rglob("*.partial"))
    events = (run.directory / "events.jsonl").read_bytes()
    assert events.endswith(b"\n")


def until_full(step) -> DiskFullError:
    with pytest.raises(DiskFullError) as caught:
        for i in range(100_000):
            step(i)
    assert caught.value.where and "free" in caught.value.todo.lower()
    return caught.value


def checkpoint(run: Run, how) -> None:
    with run.checkpoint_dir("second") as path:
        how(path)


def with_safetensors(path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"w": torch.zeros(500_000)}, path / "model.safetensors")


def with_torch(path: Path) -> None:
    import torch

    torch.save({"w": torch.zeros(500_000)}, path / "optimizer.pt")


OPERATIONS = {
    "events": lambda run: lambda i: run.event("note", text="z" * 3000),
    "metrics": lambda run: lambda i: run.metric(i + 2, text="z" * 3000),
    "scores": lambda run: lambda i: run.write_scores("suite", pd.DataFrame({"value": [os.urandom(400_000)]})),
    "bytes": lambda run: lambda i: checkpoint(run, lambda path: (path / "w").write_bytes(b"w" * 2_000_000)),
    "safetensors": lambda run: lambda i: checkpoint(run, with_safetensors),
    "torch": lambda run: lambda i: checkpoint(run, with_torch),
}


@pytest.mark.parametrize("what", OPERATIONS)
def test_a_full_disk_is_one_error_and_harms_nothing(small_disk, what):
    run = Run.create(small_disk / "run", "name: x\n")
    write_something(run)
    fill(small_disk, leave=100_000)
    until_full(OPERATIONS[what](run))
    unharmed(run)
    run.finish("failed", "the disk is full")
    assert run.status().state == "failed" and run.status().error == "the disk is full"
    unharmed(run)
    before = read_metrics(run.directory)["step"].tolist()
    (small_disk / "ballast").unlink()
    again = Run.create(run.directory, "name: x\n")
    again.metric(99_999)
    again.finish("finished")
    assert read_metrics(run.directory)["step"].tolist() == [*before, 99_999]
    unharmed(again)


def test_the_reason_of_the_end_fits_even_when_no_block_is_left(small_disk):
    run = Run.create(small_disk / "run", "name: x\n")
    write_something(run)
    until_full(lambda i: run.event("note", text="z" * 5000))
    fill(small_disk, leave=0)
    until_full(lambda i: run.event("note", text="z" * 50))
    run.finish("failed", "e" * 5000)
    assert run.status().state == "failed"
    unharmed(run)


def test_no_room_for_a_new_run_is_one_error(small_disk):
    fill(small_disk, leave=2000)
    with pytest.raises(DiskFullError):
        Run.create(small_disk / "run", "name: x\n" + "# comment\n" * 5000)


LIMITED = """
import resource, signal, sys
from pathlib import Path
import pandas as pd
from workbench.errors import DiskFullError
from workbench.runs import Run
from tests.runs.test_disk_full import OPERATIONS, unharmed, until_full, write_something

run = Run.create(sys.argv[1], "name: x\\n")
write_something(run)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
until_full(OPERATIONS[sys.argv[2]](run))
unharmed(run)
print("one error")
"""


@pytest.mark.parametrize("what", ["events", "metrics", "scores", "bytes", "safetensors"])
def test_a_file_size_limit_is_treated_alike(tmp_path, what):
    """No rights needed: beyond the limit a write answers EFBIG, in the middle of a line or a table."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "run"), what]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.stdout == "one error\n", done.stderr
    run = Run.open(tmp_path / "run")
    unharmed(run)
    assert run.status().state == "lost"
    run.finish("interrupted")
    unharmed(run)
    assert (
        resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 100_000
        and signal.getsignal(signal.SIGXFSZ) is not None
    )
