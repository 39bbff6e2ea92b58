"""A new run for each test."""

from __future__ import annotations

import pytest

from tests.runs.made import META, RECIPE
from workbench.runs import Run


@pytest.fixture
def run(tmp_path) -> Run:
    return Run.create(tmp_path / "run", RECIPE, META)
