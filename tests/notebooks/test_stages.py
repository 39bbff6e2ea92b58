"""Notebook 01: the four stages, a dozen steps each; what each trains, and what is asked after each."""

from __future__ import annotations

import json
import math
import re
import shlex

import pandas as pd
import pytest

from tests.notebooks.executed import (
    NOTEBOOKS,
    PLOTLY,
    assert_clean,
    assert_stored_clean,
    assert_text_only,
    cell,
    execute,
    intervals,
    outputs,
    printed,
)  # fmt: skip
from tests.notebooks.small import ROOT, WORLD
from workbench.errors import WorkbenchError
from workbench.recipe import load_recipe
from workbench.runs import read_scores
from workbench.study.inside import trained
from workbench.study.intervals import level
from workbench.study.stages import (
    BYPASS,
    THROUGH,
    UNTRAINED,
    guessing,
    losses_of,
    parameters_of,
    part,
    scores_after_stages,
    stages_of,
)  # fmt: skip
from workbench.views.charts.stages import stage_table, words

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]
NOTEBOOK = NOTEBOOKS / "01_four_stages.ipynb"
STAGES = [
    "stage-1-caption",
    "stage-2-image-instruction",
    "stage-3-temporal-fusion",
    "stage-4-video-instruction",
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("stages")


@pytest.fixture(scope="module")
def environment(runs):
    values: dict[str, object] = {"data.root": str(runs / "world"), "data.make": WORLD}
    values |= {f"stages.{i}.steps": 12 for i in range(5)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_RUNS", str(runs))
        patch.setenv("WORKBENCH_QUICK_SET", shlex.join(f"{k}={json.dumps(v)}" for k, v in values.items()))
        yield


@pytest.fixture(scope="module")
def executed(environment):
    return execute(NOTEBOOK, ("limit = 200", "limit = 24"))


@pytest.fixture(scope="module")
def study(executed):
    return trained("recipes/laptop/four-stages.yaml")


def test_every_cell_runs_and_sends_no_bytes(executed):
    book, messages = executed
    assert_clean(book)
    assert_text_only(messages)


def test_the_tables_say_what_recipes_train(executed):
    tables = [t for t in outputs(executed[0], "text/markdown") if t.lstrip("*").find("| stage |") >= 0]
    assert len(tables) == 3
    (own, paper, release) = (
        [row.split(" | ") for row in t.splitlines() if row.startswith("| stage-")] for t in tables
    )
    for rows in (own, paper, release):
        assert len(rows) == 4 and [sum("frozen" in c for c in row) for row in rows][2:] == [2, 0]
    assert paper[0][1:5] == ["5e-5", "frozen", "1e-3", "frozen"], "[P]: encoder and merger"
    assert release[0][1:5] == ["frozen", "frozen", "1e-3", "frozen"], "[R]: the merger alone"
    assert paper[2][1:5] == ["frozen", "5e-4", "1e-5", "frozen"]
    described = printed(cell(executed[0], "main(["))
    assert re.search(r"fusion +85,003,788 ", described) and "4,553,158,908" in described
    assert "85\u00a0M" in tables[1], "the table has the numbers that the command prints"


def test_stages_of_reads_the_recipe():
    recipe = load_recipe(ROOT / "recipes/tempflex/paper-qwen3-4b.yaml")
    table = stages_of(recipe).set_index("stage")
    for stage in recipe.stages:
        row = table.loc[stage.name]
        for group in ("encoder", "fusion", "merger", "llm"):
            rate = stage.train.get(group)
            assert (math.isnan(row[group]) and rate is None) or row[group] == rate
    assert table.loc["stage-4-video-instruction", "length"] == "2 epochs"
    assert table.loc["stage-3-temporal-fusion", "frames"] == "1 a second, 1 to 64"
    parameters = parameters_of("tempflex-qwen3-4b", variant="paper")
    share = sum(parameters[g] for g in ("fusion", "merger")) / sum(parameters.values())
    assert f"| {share:.0%} | video captions" in stage_table(recipe, parameters)


def test_losses_are_those_of_the_run(study):
    table = losses_of(study)
    counts = table.groupby("stage", sort=False)["step"].agg(["min", "max", "size"])
    assert (
        list(counts.index) == ["align", *STAGES]
        and (counts["min"] == 1).all()
        and (counts["size"] == 12).all()
    )
    assert table["loss"].notna().all()


def test_only_what_can_be_asked_is_asked(executed, study):
    scores = scores_after_stages(study, ways=(THROUGH, BYPASS, UNTRAINED), limit=24)
    asked = set(scores[["stage", "way"]].itertuples(index=False, name=None))
    assert asked == {(s, THROUGH) for s in STAGES} | {
        (STAGES[1], UNTRAINED),
        (STAGES[2], BYPASS),
        (STAGES[3], BYPASS),
    }
    assert scores.groupby(["stage", "way", "kind"]).size().eq(24).all()
    # what goes around the layer is the images alone: every video row is the same
    columns = ["sample_id", "prediction", "log_probability"]
    for stage in STAGES[2:]:
        a, b = (
            part(scores, stage, "video", way)[columns].reset_index(drop=True) for way in (THROUGH, BYPASS)
        )
        pd.testing.assert_frame_equal(a, b)
        a, b = (part(scores, stage, "image", way)["log_probability"].to_numpy() for way in (THROUGH, BYPASS))
        assert abs(a - b).max() > 1e-4, "a still image passes the layer"
    a, b = (
        part(scores, STAGES[1], "image", way)["log_probability"].to_numpy() for way in (THROUGH, UNTRAINED)
    )
    assert abs(a - b).max() > 1e-4


def test_the_last_stage_is_scored_as_the_study_scored_it(executed, study):
    """Against the rows that the training itself wrote at its end, the same questions."""
    ours = scores_after_stages(study, limit=24)
    ours = ours[ours["stage"] == STAGES[-1]].set_index("sample_id")["log_probability"]
    run = read_scores(study.directory / "runs" / "base-s0")
    theirs = run[run["condition"] == "own"].set_index("sample_id")["log_probability"]
    assert len(ours) == 48
    pd.testing.assert_series_equal(ours, theirs.reindex(ours.index), check_exact=False, atol=1e-4, rtol=1e-4)


def test_answers_are_kept_by_weights(executed, study):
    kept = sorted((study.directory / "cache" / "stages").glob("*.parquet"))
    times = [p.stat().st_mtime_ns for p in kept]
    told: list[str] = []
    scores_after_stages(study, ways=(THROUGH, BYPASS, UNTRAINED), limit=24, tell=told.append)
    assert len(kept) == 7 and not told and [p.stat().st_mtime_ns for p in kept] == times
    with pytest.raises(WorkbenchError, match="no checkpoint of"):
        renamed = study.recipe.model_copy(
            update={"stages": (*study.recipe.stages, _another(study.recipe.stages[-1]))}
        )
        scores_after_stages(type(study)(renamed, study.directory, study.root, (), []))


def _another(stage):
    return stage.model_copy(update={"name": "stage-5"})


def test_guessing_is_the_mean_over_skills_of_one_in_so_many(study):
    files = {"image": "test/images.jsonl", "video": "test/videos.jsonl"}
    for kind, name in files.items():
        by: dict[str, list[float]] = {}
        for line in (study.data / name).read_text().splitlines():
            row = json.loads(line)
            skills, choices = row["skill"], row["choices"]
            first = isinstance(skills, list)
            skill, options = (skills[0], choices[0]) if first else (skills, choices)
            by.setdefault(skill, []).append(1 / len(options))
        if kind == "image":
            by = {k: v for k, v in by.items() if k in ("ocr", "colour", "where", "count")}
        expected = 100 * sum(sum(v) / len(v) for v in by.values()) / len(by)
        assert guessing(study)[kind] == pytest.approx(expected)


def test_words_claim_what_intervals_exclude(executed, study):
    (text,) = [t for t in outputs(executed[0], "text/markdown") if "From stage" in t]
    lines = text.splitlines()
    assert len(lines) == 3 * 2 + 1 + 2 and intervals(text) == 10 and "nan" not in text
    for line in lines:
        for low, high, _ in re.findall(r"\[([\u2212\d.]+), ([\u2212\d.]+)(\])", line):
            ends = [float(x.replace("\u2212", "-")) for x in (low, high)]
            if "no difference shown" not in line:
                assert ends[0] >= 0, "a stated direction has an interval on one side of zero"
    scores = scores_after_stages(study, ways=(THROUGH, BYPASS, UNTRAINED), limit=24)
    same = scores.assign(correct=True)
    assert all("no difference shown" in sentence for sentence in words(same))
    figure = next(f for f in outputs(executed[0], PLOTLY) if "after stage" in json.dumps(f["layout"]))
    drawn = next(t for t in figure["data"] if t["name"] == "as trained")["y"]
    assert drawn == pytest.approx([level(part(scores, s, "image")).value for s in STAGES])


def test_it_is_stored_clean():
    assert_stored_clean(NOTEBOOK)
