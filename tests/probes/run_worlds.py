"""A small finished run on disk with folders of frames as clips, for tests of `workbench probe` and of probe sections."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.models import worlds
from workbench.models.tempflex import save_tempflex
from workbench.runs import Run

RECIPE = """
name: small
model: {{preset: tiny, fusion_layers: 1}}
data:
  root: {root}
  sources: {{test: {{path: rows.jsonl}}}}
stages: [{{name: one, train: {{llm: 0.001}}, data: {{test: 1}}, steps: 1}}]
evaluation: {{suites: {{clips: test}}, common_frames: 4}}
"""


def small_run(
    root: Path,
    clips: int,
    frames: int = 6,
    checkpoints: tuple[str, ...] = ("end",),
    boxes: bool = False,
    **row: Any,
) -> Run:
    """Clips ``v0``, ``v1`` ... of 32 x 32 pixels, the question ``silent`` without any, and a model a checkpoint.

    Args:
        boxes: also ``objects.jsonl``, a digit in the middle of every clip.
        row: further keys of the clips' rows.
    """
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    objects = []
    for i in range(clips):
        name = f"clip{i}"
        (root / name).mkdir()
        for f in range(frames):
            pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{f:03d}.png")
        said = _said("<video>\nwhat colour comes first ?", "red")
        rows.append({"id": f"v{i}", "video": name, "conversations": said, **row})
        found = [{"kind": "digit", "digit": "one", "colour": "red", "box": [8, 8, 24, 16]}]
        objects.append({"media": name, "width": 32, "height": 32, "frames": frames, "objects": found})
    rows.append({"id": "silent", "conversations": _said("left or right ?", "left")})
    _write(root / "rows.jsonl", rows)
    if boxes:
        _write(root / "objects.jsonl", objects)
    run = Run.create(root / "run", RECIPE.format(root=root), {"recipe_hash": "abc"})
    for seed, name in enumerate(checkpoints):
        with run.checkpoint_dir(name) as path:
            save_tempflex(*worlds.model("tiny", seed), path / "model")
    run.finish("finished")
    return run


def _said(question: str, answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
