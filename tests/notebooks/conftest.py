"""One small quick study of the trap for the notebooks that only read it; its arms take a few seconds each."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from tests.notebooks.small import overrides
from workbench.study.live import launch

MORE = {f"arms.{arm}.stages.0.steps": 40 for arm in ("pilot", "hybrid", "random-matched")}


@pytest.fixture(scope="session")
def small_trap(tmp_path_factory) -> Path:
    """The folder of runs; the study in it is ``trap-quick``."""
    runs = tmp_path_factory.mktemp("small")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables(runs).items():
            patch.setenv(name, value)
        launch("recipes/laptop/trap.yaml", quick=True).watch()
    return runs


def variables(runs: Path) -> dict[str, str]:
    """The environment in which a notebook finds that study."""
    values = overrides(runs / "world") | MORE
    pairs = shlex.join(f"{key}={json.dumps(value)}" for key, value in values.items())
    return {"WORKBENCH_RUNS": str(runs), "WORKBENCH_QUICK_SET": pairs}


@pytest.fixture
def in_small_trap(small_trap, monkeypatch) -> Path:
    """Set that environment for one test."""
    for name, value in variables(small_trap).items():
        monkeypatch.setenv(name, value)
    return small_trap
