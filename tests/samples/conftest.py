"""A small world, rendered once for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.samples.glyphworld import make_glyphworld

COUNTS = {
    "train_images": 60,
    "train_video_questions": 440,
    "calibration_questions": 44,
    "test_images": 40,
    "test_video_questions": 110,
}


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("glyphworld") / "small"
    assert make_glyphworld(out, 3, **COUNTS, progress=False).created
    return out
