"""Notebook 05: frames chosen by the question, with both controls, on a small study that lacks the arms it needs."""

from __future__ import annotations

import itertools
import re

import pandas as pd
import pytest

from tests.notebooks.conftest import variables
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
from workbench.errors import WorkbenchError
from workbench.study.beside import beside, between, having
from workbench.study.contrasts import Contrast, rows
from workbench.study.inside import trained
from workbench.study.intervals import paired
from workbench.study.planned import pilot_losses, plan_of
from workbench.study.results import load_results
from workbench.views.charts.framing import confusion_table, least_share

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]
NOTEBOOK = NOTEBOOKS / "05_hybrid_frames.ipynb"


@pytest.fixture(scope="module")
def executed(small_trap):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables(small_trap).items():
            patch.setenv(name, value)
        yield execute(NOTEBOOK)


def test_every_cell_runs_and_sends_no_bytes(executed):
    book, messages = executed
    assert_clean(book)
    assert_text_only(messages)


def test_the_plans_differ_in_who_not_in_how_many(executed, in_small_trap):
    study = trained("recipes/laptop/trap.yaml")
    arms = having(study, ["hybrid", "random-matched"], "hybrid-quick")
    assert arms.finished and arms.directory != study.directory, (
        "the quick study has no such arms: they stand beside it"
    )
    (hybrid, samples), (control, _) = (plan_of(arms, arm) for arm in ("hybrid", "random-matched"))
    assert hybrid.histogram() == control.histogram() and len(samples) == len(hybrid)
    base = load_results(study.directory).select("base", "image").set_index("sample_id")["correct"]
    again = load_results(arms.directory).select("base", "image").set_index("sample_id")["correct"]
    pd.testing.assert_series_equal(base.sort_index(), again.sort_index())
    said = printed(cell(executed[0], "frames a clip in the mean"))
    assert f"{hybrid.mean_frames():.2f} frames" in said
    (same,) = (p for p in in_small_trap.iterdir() if p.name.startswith("same-mean-"))
    assert f"fixed-{round(hybrid.mean_frames())}" in load_results(same).final_steps


def test_what_the_pilot_measured_is_what_the_policy_may_see(executed, in_small_trap):
    arms = having(trained("recipes/laptop/trap.yaml"), ["hybrid", "random-matched"], "hybrid-quick")
    table = pilot_losses(arms)
    assert set(table["frames"]) == {2, 4, 8, 16} and table["skill"].notna().all()
    figures = outputs(executed[0], PLOTLY)
    pilot = next(f for f in figures if "nats" in str(f["layout"]))
    drawn = {t["name"].split(" (")[0]: t["y"] for t in pilot["data"]}
    assert set(drawn) == set(table["skill"]) and all(
        len(y) == 4 and abs(y[-1]) < 1e-9 for y in drawn.values()
    )
    heat = next(f for f in figures if f["data"][0]["type"] == "heatmap")
    n = sum(sum(row) for row in heat["data"][0]["text"])
    assert n == len(table.drop_duplicates(["sample_id", "question"]))


def test_contrasts_hold_intervals_and_name_their_size(executed):
    (text,) = [t for t in outputs(executed[0], "text/markdown") if "Hybrid against" in t]
    assert intervals(text) == 4 * 3 and text.count("n\u00a0=\u00a0") == 4
    assert "One seed" in text and "nan" not in text


def test_between_two_studies_is_the_paired_difference_of_one():
    """Against the same contrast computed inside one study, where both arms stand side by side."""
    from tests.study.studies import loaded

    results = loaded("effect")
    for measure in ("image", "video", "video_temporal"):
        inside = paired(rows(results, "hybrid", measure), rows(results, "fixed-16", measure))
        across = between(results, "hybrid", results, "fixed-16", measure)
        assert isinstance(across, Contrast) or inside is None
        if inside is not None:
            assert across.estimate.value == pytest.approx(inside.value)
            assert across.estimate.questions == inside.questions and across.estimate.seeds == inside.seeds
    assert between(results, "hybrid", results, "no such arm") is None


def test_a_study_beside_is_found_again_and_other_frames_are_another_one(executed, in_small_trap):
    study = trained("recipes/laptop/trap.yaml")
    before = {p.name for p in in_small_trap.iterdir()}
    (name,) = (n for n in before if n.startswith("same-mean-"))
    frames = int(re.search(r"fixed-(\d+)", " ".join(load_results(in_small_trap / name).final_steps))[1])
    again = beside(study, "same-mean", {f"fixed-{frames}": {"policy": "fixed", "frames": frames}})
    assert again.finished and not again.running and again.directory.name == name
    assert {p.name for p in in_small_trap.iterdir()} == before
    with pytest.raises(WorkbenchError, match="policy"):
        beside(study, "wrong", {"x": {"policy": "sometimes"}})
    with pytest.raises(WorkbenchError, match="no-such-arm"):
        beside(study, "wrong", {"no-such-arm": None})
    assert {p.name for p in in_small_trap.iterdir()} == before, "what does not validate leaves nothing behind"
    bare = study.recipe.model_copy(update={"arms": {}})
    with pytest.raises(WorkbenchError, match="no arm"):
        beside(type(study)(bare, study.directory, study.root, (), []), "wrong", {})


@pytest.mark.parametrize(
    ("mean", "choices"), [(11, (8, 16, 32, 64)), (9, (8, 16)), (20, (8, 16, 32)), (3, (2, 4, 8, 16))]
)
def test_the_least_share_is_what_no_histogram_can_go_below(mean, choices):
    """Against a search over all histograms in steps of 1/80."""
    steps = 80
    best = 1.0
    for shares in itertools.product(range(steps + 1), repeat=len(choices) - 1):
        rest = steps - sum(shares)
        if rest >= 0:
            counts = (rest, *shares)
            if abs(sum(c * n for c, n in zip(choices, counts, strict=True)) / steps - mean) < 1e-9:
                best = min(best, rest / steps)
    assert least_share(mean, choices) == pytest.approx(best, abs=1e-9)
    with pytest.raises(ValueError, match="cannot come from"):
        least_share(1, choices)


def test_confusions_count_every_question_once():
    table = confusion_table([2, 2, 4, 16], [2, 4, 4, 2])
    assert table.loc[2, 2] == 1 and table.loc[2, 4] == 1 and table.loc[4, 4] == 1 and table.loc[16, 2] == 1
    assert list(table.index) == list(table.columns) == [2, 4, 16] and table.to_numpy().sum() == 4


def test_it_is_stored_clean():
    assert_stored_clean(NOTEBOOK)
