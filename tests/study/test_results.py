"""Reading study directories, and the numbers against loops."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from tests.study.studies import loaded, study
from tests.study.synthetic import DEFAULT_ARMS, IMAGE_SKILLS, write_study
from workbench.runs import Run
from workbench.study.arms import describe_arms, extremes, ladders
from workbench.study.contrasts import analyse, planned_pairs
from workbench.study.curves import curve_table
from workbench.study.intervals import paired
from workbench.study.results import StudyError, load_results
from workbench.study.table import WIDTH, render_table


def test_base_is_step_zero_of_every_arm():
    results = loaded("effect")
    assert results.complete and results.seeds == (0, 1, 2, 3, 4)
    assert set(results.scores.loc[results.scores["arm"] == "base", "step"]) == {0}
    assert results.steps("fixed-16") == [0, 60, 120, 240]
    assert dict(results.final_steps) == {"base": 0, **dict.fromkeys(DEFAULT_ARMS, 240)}
    assert set(results.select("base", "image")["skill"]) == set(IMAGE_SKILLS)
    assert results.counting_skills() == {"count"}
    assert len(results.select("hybrid", "image", "copies")) == 5 * 24 * 5
    assert results.costs.groupby("arm")["mean_frames"].mean()["fixed-16"] == 16.0


def test_macro_averages_and_differences_equal_loops():
    results = loaded("effect")
    analysis = analyse(results)
    rows = results.scores
    right: dict[tuple[str, int, str, str], float] = {}
    final = rows[((rows["step"] == 240) | (rows["arm"] == "base")) & (rows["condition"] == "own")]
    for row in final.itertuples():
        right[row.arm, row.seed, row.skill, row.sample_id] = float(row.correct)
    samples = sorted({key[3] for key in right if key[3].startswith("i-")})

    def macro(arm: str, skills: tuple[str, ...]) -> float:
        seeds = []
        for seed in range(5):
            skill_means = []
            for skill in skills:
                skill_means.append(sum(right[arm, seed, skill, s] for s in samples) / len(samples))
            seeds.append(sum(skill_means) / len(skill_means))
        return 100 * sum(seeds) / len(seeds)

    without = tuple(s for s in IMAGE_SKILLS if s != "count")
    for measure, skills in (("image", IMAGE_SKILLS), ("image_no_count", without), ("image:ocr", ("ocr",))):
        expected = macro("fixed-16", skills)
        assert analysis.levels["fixed-16", measure].value == pytest.approx(expected, abs=1e-9)
    contrast = analysis.find("hybrid", "fixed-16", "image")
    assert contrast is not None
    assert contrast.estimate.value == pytest.approx(
        macro("hybrid", IMAGE_SKILLS) - macro("fixed-16", IMAGE_SKILLS), abs=1e-9
    )
    assert (contrast.estimate.questions, contrast.estimate.seeds) == (24 * 5, 5)


def test_copies_split_adds_up_and_finds_the_truth():
    analysis = analyse(loaded("effect"))
    for split in analysis.copies:
        parts = split.recovered.estimate.value + split.remaining.estimate.value
        assert parts == pytest.approx(split.loss.estimate.value, abs=1e-9)
    split = analysis.split("fixed-16")
    assert split is not None and split.copies == 16
    # truth: counting is a fifth of the average, 45 of its points come back
    assert split.recovered.estimate.low < 45 / 5 < split.recovered.estimate.high
    rest = analysis.split("fixed-16", "image_no_count")
    assert rest is not None and rest.recovered.estimate.value == 0


def test_planned_pairs_follow_the_roles():
    results = loaded("effect")
    names = [arm.name for arm in results.arms]
    pairs = planned_pairs(results, names)
    assert [(name, "base") for name in names] == pairs[:4]
    assert set(pairs[4:]) == {
        ("fixed-16", "fixed-2"),
        ("hybrid", "fixed-16"),
        ("hybrid", "fixed-2"),
        ("hybrid", "random-matched"),
    }


def test_roles_of_an_extended_study():
    def arm(**frames: object) -> dict:
        return {"stages": [{"frames": frames}]}

    fixed16 = arm(policy="fixed", frames=16)
    recipe = {
        "arms": {
            "fixed-2": arm(policy="fixed", frames=2),
            "fixed-16": fixed16,
            "fixed-16-replay": fixed16,
            "tff-off": arm(policy="fixed", frames=8),
            "tff-paper": arm(policy="fixed", frames=8),
            "narrow-2": arm(policy="fixed", frames=2),
            "narrow-16": fixed16,
            "oracle": arm(policy="oracle", choices=[2, 16]),
            "shuffled": arm(policy="random_matched", like="oracle"),
        }
    }
    arms = {a.name: a for a in describe_arms({"base": "base", **dict.fromkeys(recipe["arms"])}, recipe)}
    assert "base" not in arms
    assert (arms["fixed-16"].role, arms["fixed-16"].frames) == ("fixed", 16)
    assert (arms["fixed-16-replay"].role, arms["fixed-16-replay"].reference) == ("variant", "fixed-16")
    assert (arms["tff-paper"].role, arms["tff-paper"].reference) == ("variant", "tff-off")
    assert arms["oracle"].role == "aware"
    assert (arms["shuffled"].role, arms["shuffled"].reference) == ("matched", "oracle")
    assert (arms["narrow-16"].role, arms["narrow-16"].reference) == ("variant", "fixed-16")
    assert [(a.name, b.name) for a, b in ladders(list(arms.values()))] == [("narrow-16", "narrow-2")]
    assert [a.name for a in extremes(list(arms.values())) or ()] == ["fixed-2", "fixed-16"]


def test_hidden_arms_stay_out(tmp_path):
    directory = write_study(tmp_path / "s", seeds=(0,), images=4, videos=10)
    state = json.loads((directory / "study.json").read_text())
    (directory / "study.json").write_text(json.dumps({**state, "hidden": ["hybrid"]}))
    results = load_results(directory)
    assert "hybrid" not in {arm.name for arm in results.arms}
    assert "hybrid" not in set(results.scores["arm"]) and results.complete


def test_unfinished_study_says_what_is_missing_and_uses_finished_runs_only():
    results = loaded("unfinished")
    text = "\n".join(results.missing)
    assert "fixed-16: not finished for seed 1 (scored up to step 60)." in text
    assert "hybrid: not started for seed 1." in text
    assert "hybrid: not finished for seed 0" in text
    analysis = analyse(results)
    assert analysis.find("hybrid", "base", "image") is None
    pair = analysis.find("fixed-16", "fixed-2", "image")
    assert pair is not None and pair.estimate.seeds == 1
    assert set(curve_table(results)["arm"]) == set(DEFAULT_ARMS)
    assert "missing: hybrid: not started" in render_table(results)


def test_scores_shared_by_two_conditions_count_for_both(tmp_path):
    directory = write_study(tmp_path / "s", seeds=(0,), images=4, videos=10, common=False)
    run = Run.open(directory / "runs" / "fixed-16-s0")
    run.event("scores_shared", suite="video", own="common", step=240)
    run.close()
    results = load_results(directory)
    own, common = (results.select("fixed-16", "video", c) for c in ("own", "common"))
    assert len(common) == 10 and (own["correct"].to_numpy() == common["correct"].to_numpy()).all()
    assert not len(results.select("fixed-2", "video", "common"))


def test_curves_use_the_questions_asked_at_every_step(tmp_path):
    directory = write_study(tmp_path / "s", seeds=(0, 1), images=10, videos=20)
    for seed in (0, 1):  # the intermediate point asks half the images
        file = directory / "runs" / f"fixed-2-s{seed}" / "scores" / "image-000060-own.parquet"
        table = pd.read_parquet(file)
        table[table["sample_id"] < "i-00005"].to_parquet(file, index=False)
    results = load_results(directory)
    line = curve_table(results).query("arm == 'fixed-2' and measure == 'image'")
    assert set(line["questions"]) == {25} and list(line["step"]) == [0, 60, 120, 240]
    rows = results.scores.query("arm == 'base' and kind == 'image' and sample_id < 'i-00005'")
    means = [rows[rows["seed"] == seed].groupby("skill")["correct"].mean().mean() for seed in (0, 1)]
    assert line["mean"].iloc[0] == pytest.approx(100 * np.mean(means))


def test_no_common_questions_is_no_difference():
    rows = loaded("effect").select("fixed-2", "image")
    assert paired(rows, rows.assign(seed=99)) is None
    assert paired(rows.iloc[:0], rows) is None


def test_seeds_that_agree_by_chance_do_not_make_an_interval_of_no_width():
    rng = np.random.default_rng(3)
    table = {"suite": "image", "skill": "ocr", "question": "?", "sample_id": [f"i{i}" for i in range(40)]}
    reference = pd.concat([pd.DataFrame({**table, "seed": s, "correct": 0.0}) for s in (0, 1)])
    right = [rng.permutation(np.repeat([1.0, 0.0], [6, 34])) for _ in range(2)]  # other questions, same mean
    rows = reference.assign(correct=np.concatenate(right))
    both, one = paired(rows, reference), paired(rows[rows["seed"] == 0], reference)
    assert both is not None and one is not None
    assert both.value == pytest.approx(15) and both.high - both.low > 0.5 * (one.high - one.low)


@pytest.mark.parametrize("damage", ["no folder", "no study.json", "broken", "list", "no scores", "columns"])
def test_directories_that_cannot_be_read(tmp_path, damage):
    directory = tmp_path / "s"
    if damage != "no folder":
        write_study(directory, seeds=(0,), images=2, videos=5)
    if damage == "no study.json":
        (directory / "study.json").unlink()
    elif damage in ("broken", "list"):
        (directory / "study.json").write_text("{" if damage == "broken" else "[]")
    elif damage == "no scores":
        for file in directory.glob("runs/*/scores/*.parquet"):
            file.unlink()
    elif damage == "columns":
        for file in directory.glob("runs/*/scores/*.parquet"):
            pd.read_parquet(file).drop(columns="skill").to_parquet(file)
    with pytest.raises(StudyError) as caught:
        load_results(directory)
    assert caught.value.todo


@pytest.mark.parametrize("kind", ["effect", "quick", "unfinished"])
def test_table_is_aligned_and_narrow(kind):
    lines = render_table(loaded(kind)).splitlines()
    assert max(map(len, lines)) <= WIDTH
    head, rule = lines[0], lines[1]
    body = lines[2 : lines.index("")]
    assert body[0].startswith("base")
    edge = rule.rindex("  ")
    assert head[edge - 1] != " " and all(len(line) <= len(rule) for line in body)
    assert ("One seed" in "\n".join(lines)) == (kind == "quick")


def test_reading_needs_no_torch():
    code = (
        "import sys; from workbench.study.results import load_results; import workbench.report;"
        f"from workbench.study.table import render_table as t; t(load_results({str(study('quick'))!r}));"
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
