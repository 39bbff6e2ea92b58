"""``workbench machine list`` and ``check``: on a real server, and what it says when something is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.machines.servers import ROOT
from tests.training.studies import recipe
from workbench.machines import machine
from workbench.machines.check import check, smoke_step
from workbench.machines.checkup import compare
from workbench.machines.hello import clock_skew


def command(home, *words, **environment):
    done = subprocess.run(
        [sys.executable, "-m", "workbench", "machine", *map(str, words)],
        capture_output=True, text=True, cwd=home,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def machines(home, server):
    path = home / "config" / "workbench" / "machines.toml"
    path.parent.mkdir(parents=True)
    path.write_text(
        f'[gpu]\nkind = "jupyter"\nurl = "{server.url}"\ntoken_env = "GPU_TOKEN"\nroot = "{home}/jobs"\n'
        f'workdir = "{home}"\n[box]\nkind = "ssh"\nhost = "somewhere"\n'
    )
    return path


def test_list(home, machines, server):
    done = command(home, "list")
    assert done.returncode == 0
    local, gpu, box = done.stdout.splitlines()
    assert local.split()[:2] == ["local", "local"] and gpu.split()[:3] == ["gpu", "jupyter", server.url]
    assert box.split()[:3] == ["box", "ssh", "somewhere"]


def test_check_a_server(home, machines, server):
    """Everything at once, as a user would: the smoke step trains in the kernel there."""
    here = recipe(home / "recipes")
    done = command(home, "check", "gpu", "--json", "--recipe", here, GPU_TOKEN=server.token)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    rows = {row["what"]: row for row in report["rows"]}
    assert report["ready"] and all(rows[name]["ok"] for name in ("connection", "clock", "workbench", "root"))
    assert (
        rows["recipe tiny"]["ok"] and rows["torch"]["required"] and rows["deepspeed"] and rows["flash-attn"]
    )
    assert "GiB free" in rows["disk"]["found"] and rows["workdir"]["found"] == str(home)
    smoke = report["smoke"]
    assert smoke["steps"] >= 3 and 4.5 < smoke["seconds"] < 60 and smoke["last"] < smoke["first"]
    assert all(a == b for a, b in report["versions"].values()) and len(report["versions"]) > 10
    assert "training a tiny model" in done.stderr and server.token not in done.stdout + done.stderr


def test_check_says_what_to_mend(home, tmp_path):
    (tmp_path / "file").write_text("")
    gone = tmp_path / "gone"
    text = recipe(tmp_path / "r", root=gone).read_text()
    request = {
        "root": str(tmp_path / "file" / "x"),
        "workdir": str(gone),
        "recipe_yaml": text,
        "smoke": False,
    }
    answer = check(request, lambda data: None)
    rows = {row["what"]: row for row in answer["rows"]}
    for what in ("root", "workdir", "recipe tiny"):
        assert not rows[what]["ok"] and rows[what]["required"] and rows[what]["fix"]
    assert answer["smoke"] is None and "training step" not in rows


def test_check_of_this_machine_in_a_notebook(home, monkeypatch):
    monkeypatch.setenv("WORKBENCH_RUNS", str(home / "runs"))
    report = machine("local").check(smoke=False)
    assert report.ready and "local is ready" in repr(report)
    html = report._repr_html_()
    assert "<table>" in html and "connection" in html and "torch" in html


def test_wrong_machine_is_one_line(home, machines):
    done = command(home, "check", "nosuch")
    assert done.returncode == 2 and "local, gpu, box" in done.stderr and len(done.stderr.splitlines()) == 1
    done = command(home, "check", "gpu", GPU_TOKEN="")
    assert done.returncode == 2 and "GPU_TOKEN, which is empty" in done.stderr


def test_smoke_step_fails_where_training_does_not_work():
    """What torch raises depends on its build; ``check`` makes a row of any."""
    with pytest.raises((RuntimeError, AssertionError)):
        smoke_step(0.1, device="cuda:99")


def test_versions_side_by_side():
    here = {"python": "3.11", "workbench": "1", "packages": {"torch": "2.13", "av": "18"}}
    there = {"python": "3.12", "workbench": "1", "packages": {"torch": "2.12", "triton": "3"}}
    pairs = compare(here, there)
    assert (
        pairs["torch"] == ("2.13", "2.12") and pairs["av"] == ("18", None) and pairs["triton"] == (None, "3")
    )
    assert list(pairs)[:3] == ["python", "torch", "workbench"]


def test_skew_is_what_the_exchange_cannot_explain():
    assert clock_skew(100, 110, 105) == 0
    assert clock_skew(100, 110, 170) == 60
    assert clock_skew(100, 110, 40) == -60
