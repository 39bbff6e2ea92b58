"""Sentences follow intervals: effect present, absent, reversed; one seed; unfinished."""

from __future__ import annotations

import math

import pytest

from tests.study.studies import loaded
from workbench.study.conclusions import conclude, copies_sentence
from workbench.study.contrasts import Contrast, CopiesSplit, adjust, analyse
from workbench.study.intervals import Estimate
from workbench.study.wording import compared, interval, moved, number, points


def conclusions(kind: str):
    return conclude(analyse(loaded(kind)))


def texts(kind: str, of: str) -> list[str]:
    return [c.text for c in conclusions(kind) if c.kind == of]


def test_effect_present():
    first = texts("effect", "effect")[0]
    assert first.startswith("Video-SFT at 16 frames raised video by")
    assert "lowered image by" in first and "× 5 seeds)" in first
    assert "when the image is shown as 16 copies" in first and "frame budget" in first
    assert "worse on image" in texts("effect", "frames")[0]
    control = texts("effect", "hybrid")[-1]
    assert "buys video" in control and "on image it shows no effect" in control
    verdicts = [c.verdict for c in conclusions("effect") if c.kind == "published"]
    assert verdicts == ["agrees", "agrees", "agrees", "partly"]
    credit = next(c for c in conclusions("effect") if c.verdict == "partly")
    assert "choosing them cannot be credited" in credit.text and "Hybrid-Frame" in credit.claim


def test_effect_absent_claims_nothing():
    said = conclusions("null")
    for c in said:
        if c.kind != "caveat":
            for word in ("raised", "lowered", "better", "worse", "buys", "costs", "return ["):
                assert word not in c.text, c.text
    assert all("no difference shown" in t for t in texts("null", "effect") + texts("null", "frames"))
    assert "nothing for the copies probe to split" in texts("null", "effect")[0]
    assert {c.verdict for c in said if c.kind == "published"} == {"undecided"}
    assert "shows no effect" in texts("null", "hybrid")[-1]


def test_effect_reversed():
    first = texts("reversed", "effect")[0]
    assert "lowered video by" in first and "raised image by" in first
    assert "No image loss is shown" in first and "an image loses" in first
    verdicts = {c.claim.split(" ")[0]: c.verdict for c in conclusions("reversed") if c.kind == "published"}
    assert verdicts == dict.fromkeys(("Video-SFT", "Static-image", "More", "Choosing"), "disagrees")


def test_one_seed_is_said_and_controls_are_not_invented():
    caveats = " ".join(texts("quick", "caveat"))
    assert "One seed: differences between training runs are not measured" in caveats
    assert "× 1 seed)" in texts("quick", "effect")[0]
    assert not texts("quick", "hybrid")


def test_unfinished_study_is_told():
    caveats = texts("unfinished", "caveat")
    assert any(line.startswith("Missing: hybrid: not started") for line in caveats)
    assert not any("Hybrid" in line for line in texts("unfinished", "effect"))


@pytest.mark.parametrize("kind", ["effect", "null", "reversed"])
def test_every_direction_word_matches_its_interval(kind):
    analysis = analyse(loaded(kind))
    for c in (*analysis.contrasts, *analysis.skills):
        text, versus = moved(c, "x"), compared(c, "x")
        assert ("raised" in text, "better" in versus) == ((c.estimate.low > 0),) * 2
        assert ("lowered" in text, "worse" in versus) == ((c.estimate.high < 0),) * 2
        assert ("no difference shown" in text) == (not c.estimate.shown)
        assert ("Holm" in text) == (c.estimate.shown and not c.holds)


def contrast(value: float, low: float, high: float, p: float = 0.001) -> Contrast:
    return Contrast("a", "base", "image", "copies", Estimate(value, low, high, 100, 5, p))


@pytest.mark.parametrize(
    ("loss", "back", "left", "expected"),
    [
        ((13, 10, 16), (11, 9, 13), (2, -1, 5), "11 of the 13 points return [9, 13] when"),
        ((13, 10, 16), (11, 9, 13), (2, -1, 5), "no forgetting shown"),
        ((13, 10, 16), (8, 6, 10), (5, 3, 7), "5 points [3, 7] do not (forgetting)"),
        ((13, 10, 16), (15, 12, 18), (-2, -3, -1.96), "frame budget, not forgetting"),
        ((13, 10, 16), (0, -1, 1), (13, 10, 16), "stay lost: forgetting"),
        ((13, 10, 16), (-3, -5, -2), (16, 12, 20), "Copies make it worse by 3 points [2, 5]"),
        ((3, 1, 5), (1.5, -1, 4), (1.5, -1, 4), "is not decided"),
        ((1, -1, 3), (0, -1, 1), (1, -1, 3), "nothing for the copies probe to split"),
    ],
)
def test_copies_sentence_by_case(loss, back, left, expected):
    split = CopiesSplit("a", "image", 16.0, contrast(*loss), contrast(*back), contrast(*left))
    assert expected in copies_sentence(split)


def test_holm_is_said_only_where_it_changes_something():
    strong, weak = contrast(5, 4, 6, 0.0001), contrast(5, 1, 9, 0.04)
    done = adjust([strong, weak, contrast(0, -1, 1, 0.9)])
    assert [round(c.adjusted_p or math.nan, 4) for c in done] == [0.0003, 0.08, 0.9]
    assert "Holm" not in moved(done[0], "image")
    assert "(not after Holm adjustment for 3 comparisons)" in moved(done[1], "image")


@pytest.mark.parametrize(
    ("value", "text"), [(12.4, "12"), (-3.6, "−4"), (0.04, "0"), (-0.04, "0"), (1.24, "1.2"), (1.96, "2")]
)
def test_numbers_without_false_precision(value, text):
    assert number(value) == text


def test_points_and_intervals():
    assert points(1.0) == "1.0 point" and points(12) == "12 points"
    assert interval(Estimate(0, -2.2, 2.4, 1, 1)) == "[−2, 2]"
