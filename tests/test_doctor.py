"""The doctor reports this machine truly, and says what to type where something is missing."""

from __future__ import annotations

import argparse
import importlib.metadata as metadata
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from workbench import doctor
from workbench.cli import doctor as command
from workbench.doctor import Check, diagnose, healthy, table


@pytest.fixture(scope="module")
def checks() -> dict[str, Check]:
    return {check.name: check for check in diagnose()}


def test_this_machine_can_run_the_study(checks: dict[str, Check]) -> None:
    assert healthy(list(checks.values()))
    for name in ("python", "torch", "transformers", "accelerate", "plotly", "video"):
        assert checks[name].state == "ok" and checks[name].required
    assert checks["torch"].found == metadata.version("torch")
    assert checks["video: pyav"].state == "ok"
    assert "pyav" in checks["video"].found  # what the reader will take


def test_every_problem_comes_with_its_remedy(checks: dict[str, Check]) -> None:
    for check in checks.values():
        assert check.state in ("ok", "missing", "broken", "note") and check.found
        if check.state in ("missing", "broken"):
            assert check.fix, check.name
    text = table(list(checks.values()))
    for check in checks.values():
        assert any(line.startswith(check.name) and check.found in line for line in text.splitlines())
        assert check.fix in text
    assert "Ready" in text


def test_only_what_is_required_decides() -> None:
    assert healthy([Check("a", "missing", "no", "get it"), Check("b", "note", "odd", required=True)])
    assert not healthy([Check("a", "broken", "no", "mend it", required=True)])
    assert "Not ready: a." in table([Check("a", "broken", "no", "mend it", required=True)])


def install(folder: Path, name: str, version: str, body: str | None = None) -> None:
    """A distribution as an installer leaves it: metadata, and perhaps a module."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    if body is not None:
        (folder / f"{name.replace('-', '_')}.py").write_text(body)


def group_elsewhere(group: str, extra: Path) -> dict[str, dict]:
    """Run one group of checks in a fresh interpreter that also sees the distributions of ``extra``."""
    script = f"""
import json
from workbench import doctor
print(json.dumps(doctor.as_rows(list(doctor.{group}()))))
"""
    environment = {**os.environ, "PYTHONPATH": str(extra)}
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
        timeout=200,
    )
    return {row["name"]: row for row in json.loads(done.stdout)}


def test_old_decord_beside_decord2_is_found(tmp_path: Path) -> None:
    install(tmp_path, "decord", "0.6.0")
    rows = group_elsewhere("_video", tmp_path)
    assert rows["video: decord"]["state"] == "broken"
    assert (
        "decord 0.6.0" in rows["video: decord"]["found"] and "same module" in rows["video: decord"]["found"]
    )
    assert "pip uninstall -y decord decord2" in rows["video: decord"]["fix"]
    assert rows["video"]["state"] == "ok"


def test_a_backend_that_is_installed_and_does_not_load_is_broken(tmp_path: Path) -> None:
    """Metadata says it is there; the probe says it is not."""
    install(tmp_path, "torchcodec", "0.13.0", "raise RuntimeError('Could not load libtorchcodec')")
    row = group_elsewhere("_video", tmp_path)["video: torchcodec"]
    assert row["state"] == "broken" and "Could not load libtorchcodec" in row["found"] and row["fix"]


def test_a_library_that_does_not_load_is_broken(tmp_path: Path) -> None:
    install(tmp_path, "anywidget", "99", "raise ImportError('undefined symbol')")
    row = group_elsewhere("_notebook", tmp_path)["anywidget"]
    assert row["state"] == "broken" and "undefined symbol" in row["found"]
    assert row["fix"] == "pip install -e '.[notebook]'"


def test_a_library_that_is_absent_is_missing() -> None:
    found = doctor._library("surely_not_here", "surely-not-here", "pip install it", required=True)
    assert found == Check("surely-not-here", "missing", "not installed", "pip install it", True)


def test_ports_that_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0)), second.bind(("127.0.0.1", 0))
        first.listen(), second.listen()
        taken = [first.getsockname()[1], second.getsockname()[1]]
        monkeypatch.setattr(doctor, "LAB_PORTS", taken)
        (check,) = doctor._ports()
        assert check.state == "missing" and check.fix
        second.close()
        (check,) = doctor._ports()
        assert check.state == "note" and str(taken[1]) in check.fix
    (check,) = doctor._ports()
    assert check.state == "ok" and not check.fix


def test_the_command_prints_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    parser = argparse.ArgumentParser()
    command.register(parser.add_subparsers())
    bad = [Check("torch", "missing", "not installed", "pip install torch", required=True)]
    monkeypatch.setattr(doctor, "diagnose", lambda: bad)
    arguments = parser.parse_args(["doctor", "--json"])
    assert arguments.func(arguments) == 1
    assert json.loads(capsys.readouterr().out)[0]["fix"] == "pip install torch"
    arguments = parser.parse_args(["doctor"])
    assert arguments.func(arguments) == 1
    assert "-> pip install torch" in capsys.readouterr().out
