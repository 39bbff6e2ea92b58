"""Several arms that choose frames, each with its own random-matched control: every pair is compared, none mixed up."""

from __future__ import annotations

from tests.study.studies import loaded
from tests.study.synthetic import ArmTruth, write_study
from workbench.report.build import render
from workbench.study.conclusions import conclude
from workbench.study.contrasts import MEASURES, analyse, controls, planned_pairs
from workbench.study.results import load_results
from workbench.views.charts import study as figures

PAIRS = {("hybrid", "random-matched"), ("keywords", "random-keywords")}


def test_a_control_is_compared_with_the_arm_it_is_like():
    results = loaded("pairs")
    names = [arm.name for arm in results.arms]
    assert {(n, c.name) for n in names for c in controls(results, n)} == PAIRS
    planned = planned_pairs(results, names)
    matched = {"random-matched", "random-keywords"}
    assert {pair for pair in planned if pair[1] in matched} == PAIRS and len(planned) == len(set(planned))
    assert ("keywords", "fixed-16") in planned and ("hybrid", "keywords") not in planned
    analysis = analyse(results)
    for arm, control in PAIRS:
        found = [c for c in analysis.contrasts if (c.arm, c.reference) == (arm, control)]
        assert [c.measure for c in found] == [*MEASURES, "video_common"]
    sizes = {c.family_size for c in analysis.contrasts if c.family == "design"}
    assert sizes == {len(MEASURES) * (len(planned) - len(names))}  # Holm counts all pairs of arms


def test_each_pair_gets_its_own_sentence():
    said = [c.text for c in conclude(analyse(loaded("pairs"))) if c.kind == "hybrid"]
    first = next(t for t in said if "its random-matched control “Random, matched”" in t)
    second = next(t for t in said if "its random-matched control “Random as keywords”" in t)
    assert first.startswith("“Hybrid-Frame” against") and "buys video" in first
    assert second.startswith("“Keywords” against") and "shows no effect" in second
    claims = [c for c in conclude(analyse(loaded("pairs"))) if "Hybrid-Frame" in c.claim]
    assert len(claims) == 2
    for claim, title in zip(claims, ("Random, matched", "Random as keywords"), strict=True):
        assert f"control “{title}”" in claim.text


def test_the_forest_and_the_page_show_every_pair():
    results = loaded("pairs")
    figure = figures.forest(results)
    assert {f"{a} − {b}" for a, b in PAIRS} <= set(figure.layout.yaxis.categoryarray)
    drawn = [y for trace in figure.data for y in trace.y]
    assert all(drawn.count(f"{a} − {b}") == len(MEASURES) for a, b in PAIRS)
    page = render(results)
    assert "“Keywords” against its random-matched control “Random as keywords”" in page


def test_a_control_of_an_arm_that_does_not_read_the_question_is_compared_too(tmp_path):
    arms = {
        "rate": ArmTruth(4, title="One a second", policy={"policy": "fps", "rate": 1.0, "max_frames": 8}),
        "dealt": ArmTruth(4, title="Dealt", policy={"policy": "random_matched", "like": "rate"}),
    }
    results = load_results(write_study(tmp_path / "s", arms, seeds=(0,), images=4, videos=10))
    assert [(arm.name, arm.role) for arm in results.arms] == [("rate", "other"), ("dealt", "matched")]
    assert ("rate", "dealt") in planned_pairs(results, ["rate", "dealt"])
    said = [c.text for c in conclude(analyse(results)) if c.kind == "hybrid"]
    assert len(said) == 1 and said[0].startswith("“One a second” against its random-matched control “Dealt”")
    assert "by the question" not in said[0]
