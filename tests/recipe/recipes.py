"""A small valid recipe, and a way to write files and read the one error."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from workbench.errors import RecipeError
from workbench.recipe import load_recipe

VALID = dedent(
    """\
    name: small
    model:
      preset: tiny
    data:
      root: data/small
      sources:
        images: {path: images.jsonl}
        videos: {path: videos.jsonl}
    stages:
      - name: first
        train: {encoder: 1.0e-3, llm: 1e-3}
        data: {images: 1}
        steps: 10
    arms:
      plain:
        stages:
          - name: sft
            train: {llm: 1.0e-3}
            data: {videos: 1}
            frames:
              policy: fixed
              frames: 4
            steps: 20
    evaluation:
      suites: {image: images}
    """
)


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(text), encoding="utf-8")
    return path


def refused(path: Path, overrides=None) -> RecipeError:
    """The error of loading ``path``; the load must fail."""
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    return caught.value


def line_of(path: Path, part: str) -> str:
    """``file:line`` of the only line that contains ``part``."""
    lines = [i for i, line in enumerate(path.read_text().splitlines(), 1) if part in line]
    assert len(lines) == 1, lines
    return f"{path}:{lines[0]}"
