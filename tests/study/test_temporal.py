"""The video average without the questions that one frame answers: which skills it holds, and its numbers."""

from __future__ import annotations

import json
import shutil

import pandas as pd
import pytest

from tests.study.studies import loaded, study
from tests.study.synthetic import MIN_FRAMES, VIDEO_SKILLS, write_study
from workbench.study.conclusions import conclude
from workbench.study.contrasts import analyse, measure_skills
from workbench.study.results import load_results
from workbench.study.table import render_table
from workbench.study.temporal import temporal_skills

TEMPORAL = frozenset(MIN_FRAMES)


def rows(skill: str, *needs: float | None) -> pd.DataFrame:
    table = {"suite": "video", "kind": "video", "skill": skill, "min_frames": needs}
    return pd.DataFrame({**table, "sample_id": [f"{skill}-{i}" for i in range(len(needs))]})


def test_a_skill_is_temporal_when_no_question_of_it_has_an_answer_in_one_frame():
    parts = [rows("order", 4, 2), rows("ocr", 1, 1), rows("mixed", 4, 1), rows("partly", 4, None)]
    assert temporal_skills(pd.concat(parts), {}) == {"order"}
    assert temporal_skills(rows("ocr", 1), {}) == frozenset()
    assert temporal_skills(rows("order", None), {}) is None  # nothing known is not "none"
    assert temporal_skills(rows("order", 4).drop(columns="min_frames"), {}) is None
    images = rows("order", 4).assign(kind="image")
    assert temporal_skills(pd.concat([images, rows("ocr", 1)]), {}) == frozenset()


def test_a_table_scored_before_and_one_scored_after_agree():
    new, old = rows("order", 4, 8), rows("order", None, None)
    assert temporal_skills(pd.concat([old, new, old]), {}) == {"order"}


def test_levels_and_contrasts_equal_loops():
    results = loaded("pairs")
    assert results.temporal == TEMPORAL
    analysis, right = analyse(results), {}
    final = results.scores[results.scores["condition"] == "own"]
    final = final[(final["step"] == 240) | (final["arm"] == "base")]
    for row in final[final["kind"] == "video"].itertuples():
        right.setdefault((row.arm, row.seed, row.skill), []).append(float(row.correct))

    def macro(arm: str) -> float:
        seeds = []
        for seed in results.seeds:
            skills = [right[arm, seed, skill] for skill in sorted(TEMPORAL)]
            seeds.append(sum(sum(found) / len(found) for found in skills) / len(skills))
        return 100 * sum(seeds) / len(seeds)

    for arm, reference in (("hybrid", "base"), ("hybrid", "random-matched"), ("fixed-16", "fixed-2")):
        assert analysis.levels[arm, "video_temporal"].value == pytest.approx(macro(arm), abs=1e-9)
        contrast = analysis.find(arm, reference, "video_temporal")
        assert contrast is not None and contrast.adjusted_p is not None
        assert contrast.estimate.value == pytest.approx(macro(arm) - macro(reference), abs=1e-9)
        assert contrast.estimate.questions == 120 * len(TEMPORAL) // len(VIDEO_SKILLS)
        assert contrast.family == ("effect" if reference == "base" else "design")
    gain = analysis.find("hybrid", "random-matched", "video_temporal").estimate  # truth: 20 points
    assert gain.low < 20 < gain.high and gain.low > 0


def test_table_and_words_tell_it():
    results = loaded("pairs")
    table = render_table(results)
    assert "temporal = the video skills that no single frame answers: brief, change, flash, order." in table
    value = analyse(results).levels["fixed-16", "video_temporal"].value
    line = next(line for line in table.splitlines() if line.startswith("fixed-16"))
    assert f"{value:.1f} ± " in line
    said = [c.text for c in conclude(analyse(results))]
    assert "On temporal skills alone (brief, change, flash and order) the video change is" in said[0]
    claim = next(c for c in conclude(analyse(results)) if c.claim.startswith("Video-SFT reliably"))
    assert " On temporal skills alone: fixed-2 " in claim.text


def old_study(folder, world) -> None:
    """A study scored by a version that did not record ``min_frames``."""
    shutil.copytree(study("quick"), folder)
    for file in folder.glob("runs/*/scores/*.parquet"):
        pd.read_parquet(file).drop(columns="min_frames").to_parquet(file, index=False)
    recipe = (folder / "recipe.yaml").read_text()
    source = "{path: videos.jsonl}"
    (folder / "recipe.yaml").write_text(
        f"{recipe}data:\n  root: {world}\n  sources:\n    video-eval: {source}\n"
    )


def test_old_scores_are_completed_from_the_test_data_where_these_are_there(tmp_path):
    old_study(tmp_path / "s", tmp_path / "world")
    results = load_results(tmp_path / "s")
    assert results.temporal is None and measure_skills(results, "video_temporal") == []
    assert "mix temporal and static questions" in " ".join(c.text for c in conclude(analyse(results)))
    assert "temporal =" not in render_table(results)

    world = tmp_path / "world"
    (world / "clips").mkdir(parents=True)
    asked = results.select("base", "video")[["sample_id", "skill"]].drop_duplicates()
    with (world / "videos.jsonl").open("w") as out:
        for sample, skill in asked.itertuples(index=False):
            (world / "clips" / f"{sample}.mov").touch()
            turns = [{"from": "human", "value": f"<video>\n{skill}?"}, {"from": "gpt", "value": "a"}]
            row = {"id": sample, "video": f"clips/{sample}.mov", "min_frames": MIN_FRAMES.get(skill, 1)}
            out.write(json.dumps({**row, "conversations": turns}) + "\n")
    again = load_results(tmp_path / "s")
    assert again.temporal == TEMPORAL
    new = analyse(loaded("quick")).find("fixed-16", "base", "video_temporal")
    found = analyse(again).find("fixed-16", "base", "video_temporal")
    assert new is not None and found is not None and found.estimate == new.estimate


def test_there_is_no_second_average_when_every_video_skill_is_temporal(tmp_path):
    directory = write_study(tmp_path / "s", seeds=(0,), images=4, videos=10)
    for file in directory.glob("runs/*/scores/video-*.parquet"):
        table = pd.read_parquet(file)
        table.assign(min_frames=2).to_parquet(file, index=False)
    results = load_results(directory)
    assert results.temporal == frozenset(VIDEO_SKILLS)
    assert ("hybrid", "video_temporal") not in analyse(results).levels
    assert "cannot be read" not in " ".join(c.text for c in conclude(analyse(results)))
