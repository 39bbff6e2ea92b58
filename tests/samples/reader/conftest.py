from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from media_files import DEADLINE_S

from workbench.errors import WorkbenchError
from workbench.samples.reader import FrameReader
from workbench.samples.reader.backends import PREFERENCE


@pytest.fixture(scope="session", params=PREFERENCE)
def reader(request: pytest.FixtureRequest) -> Iterator[FrameReader]:
    """A reader of every backend that works here."""
    with FrameReader(request.param, deadline_s=DEADLINE_S) as made:
        try:
            _ = made.backend
        except WorkbenchError as error:
            pytest.skip(str(error))
        yield made


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("media")
