"""Synthetic studies shared by the tests of a session, each written once."""

from __future__ import annotations

import tempfile
from functools import cache, lru_cache
from pathlib import Path

from tests.study.synthetic import DEFAULT_ARMS, null_arms, reversed_arms, two_pair_arms, write_study
from workbench.study.results import StudyResults, load_results

SMALL = {"images": 24, "videos": 120}


@lru_cache(maxsize=1)
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="studies-")


@cache
def study(kind: str) -> Path:
    """``effect`` | ``null`` | ``reversed`` | ``pairs`` (two aware arms with a control each) | ``quick`` (one seed, two
    arms) | ``unfinished``; read only.
    """
    directory = Path(_folder().name) / kind
    two = {name: DEFAULT_ARMS[name] for name in ("fixed-2", "fixed-16")}
    if kind == "effect":
        return write_study(directory, **SMALL)
    if kind == "null":
        return write_study(directory, null_arms(), seeds=(0, 1), seed_noise=0.0, **SMALL)
    if kind == "pairs":
        return write_study(directory, two_pair_arms(), seeds=(0, 1, 2), **SMALL)
    if kind == "reversed":
        return write_study(directory, reversed_arms(), base_image=0.45, base_video=0.7, **SMALL)
    if kind == "quick":
        return write_study(directory, two, seeds=(0,), quick=True, **SMALL)
    if kind == "unfinished":
        return write_study(
            directory, seeds=(0, 1), unfinished=("fixed-16-s1", "hybrid-s0"), absent=("hybrid-s1",), **SMALL
        )
    raise ValueError(kind)


@cache
def loaded(kind: str) -> StudyResults:
    """The study read once, so that its analysis is shared too."""
    return load_results(study(kind))
