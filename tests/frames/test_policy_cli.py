"""`workbench policy` on a real dataset folder and recipe."""

import argparse
import json

import pytest

from tests.frames.worlds import measured, write_clip
from workbench.cli import policy as command
from workbench.errors import DataError, RecipeError
from workbench.frames import FramePlan

RECIPE = """
name: small
model: {{preset: tiny}}
data:
  root: {root}
  sources:
    videos: {{path: videos.jsonl}}
arms:
  pilot:
    measure: {{source: videos, frames: [2, 4, 8, 16]}}
    stages:
      - &stage
        name: sft
        train: {{llm: 1.0e-3}}
        data: {{videos: 1}}
        steps: 1
        frames: {{policy: uniform_choice, choices: [2, 4]}}
  words:
    stages:
      - <<: *stage
        frames: {{policy: keywords, rules: {{flash: 16, what: 2}}}}
  matched:
    stages:
      - <<: *stage
        frames: {{policy: random_matched, like: words}}
  hybrid:
    stages:
      - <<: *stage
        frames: {{policy: classifier, choices: [2, 4, 8, 16], pilot: pilot}}
"""


def workbench(*arguments):
    parser = argparse.ArgumentParser()
    command.register(parser.add_subparsers())
    parsed = parser.parse_args(["policy", *map(str, arguments)])
    return parsed.func(parsed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    rows = []
    for i in range(6):
        write_clip(root / "clips" / f"{i}.mkv", 20)
        question = "how often does the light flash?" if i < 2 else "what digit is red?"
        turns = [{"from": "human", "value": f"<video>\n{question}"}, {"from": "gpt", "value": "two"}]
        rows.append(
            {
                "id": f"v{i}",
                "video": f"clips/{i}.mkv",
                "skill": "flash" if i < 2 else "ocr",
                "conversations": turns,
            }
        )
    (root / "clips" / "5.mkv").write_bytes(b"")
    (root / "videos.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (root / "recipe.yaml").write_text(RECIPE.format(root=root))
    measured(200, 0, "normal")[0].to_parquet(root / "losses.parquet")
    return root


def test_plan_prints_a_histogram_by_skill_and_saves(folder, tmp_path, capsys):
    assert workbench("plan", folder / "recipe.yaml", "words", "--out", tmp_path / "plan.parquet") == 0
    text = capsys.readouterr().out
    lines = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line}
    assert lines["skill"] == ["2", "16", "mean"]
    assert lines["flash"] == ["0", "2", "16.00"] and lines["ocr"] == ["3", "0", "2.00"]
    assert "5 readable videos, 7.60 frames" in text and "empty (1)" in text
    assert FramePlan.load(tmp_path / "plan.parquet").histogram() == {2: 3, 16: 2}
    assert workbench("show", tmp_path / "plan.parquet") == 0
    shown = capsys.readouterr().out
    assert "all videos" in shown and "7.60" in shown and "policy keywords" in shown


def test_plan_follows_other_arms_and_measured_losses(folder, tmp_path, capsys):
    out = tmp_path / "plan.parquet"
    workbench("plan", folder / "recipe.yaml", "matched", "--out", out, "--seed", 4)
    assert FramePlan.load(out).histogram() == {2: 3, 16: 2}
    workbench("plan", folder / "recipe.yaml", "hybrid", "--losses", folder / "losses.parquet", "--out", out)
    assert FramePlan.load(out).used("v0") == 16 and FramePlan.load(out).used("v3") == 2
    assert "predicted (5)" in capsys.readouterr().out


def test_what_is_wrong_is_named(folder, tmp_path):
    with pytest.raises(RecipeError, match="pilot, words, matched, hybrid"):
        workbench("plan", folder / "recipe.yaml", "hybird")
    with pytest.raises(RecipeError, match=r"--losses.*'pilot'"):
        workbench("plan", folder / "recipe.yaml", "hybrid")
    with pytest.raises(DataError, match="no such file"):
        workbench("plan", folder / "recipe.yaml", "hybrid", "--losses", tmp_path / "none")
    with pytest.raises(DataError, match="no such file"):
        workbench("show", tmp_path / "none")
