"""FramePlanView: counts against loops, plans of every kind, and what is left when a study keeps no plan."""

from __future__ import annotations

import shutil
from collections import Counter

import pandas as pd
import pytest

from tests.browser import chromium, needs_browser
from tests.study.studies import study
from tests.training.studies import world
from tests.views.axe import needs_axe, violations
from tests.views.pages import opened
from tests.views.small_study import small_study
from tests.views.transport import assert_text_only
from workbench.errors import WorkbenchError
from workbench.frames import FramePlan
from workbench.runs import Run
from workbench.samples.source import load_source
from workbench.views.frameplan import EXAMPLES, FramePlanView
from workbench.views.frameplan_charts import bins, colours, shares
from workbench.views.frameplan_data import ALL

COLUMNS = ["sample_id", "requested", "available", "used", "policy", "reason"]


def plan_of(rows):
    return FramePlan(pd.DataFrame(rows, columns=COLUMNS), {"policy": "keywords", "seed": 0})


@pytest.fixture(scope="module")
def samples():
    return [*load_source(world() / "test/videos.jsonl"), *load_source(world() / "test/images.jsonl")]


@pytest.fixture(scope="module")
def mixed(samples):
    """2 and 16 frames in turn, some clips too short for 16, two files that cannot be read, and the images."""
    rows = []
    for i, sample in enumerate(samples):
        if not sample.is_video:
            rows.append((sample.id, 1, 1, 1, "keywords", "image"))
        elif i < 2:
            rows.append((sample.id, 0, 0, 0, "keywords", "failed: truncated"))
        else:
            asked, there = (2, 16)[i % 2], (32, 32, 32, 5)[i % 4]
            rows.append((sample.id, asked, there, min(asked, there), "keywords", f"rule {sample.skill}"))
    return plan_of(rows)


def test_counts_by_skill_and_differences_are_those_counted_by_hand(mixed, samples):
    view = FramePlanView(mixed, samples)
    (planned,) = view.plans.plans
    by_skill, fewer, asked, needs = Counter(), 0, [], []
    for sample in samples[2:]:
        if sample.is_video:
            used = mixed.used(sample.id)
            by_skill[sample.skill, used] += 1
            row = mixed.table.set_index("sample_id").loc[sample.id]
            fewer += row["used"] < row["requested"]
            asked.append(row["requested"])
            needs.append(used >= sample.min_frames)
    table = planned.by_skill()
    assert {(s, n): int(table.loc[s, n]) for s, n in by_skill} == dict(by_skill)
    assert table.loc[ALL].sum() == sum(by_skill.values()) == planned.videos
    assert planned.fewer == fewer > 0 and planned.failures == {"truncated": 2}
    assert planned.regret.enough == pytest.approx(sum(needs) / len(needs))
    words = view.words()
    assert (
        f"{fewer} clips are shorter than what was asked for" in words
        and "2 samples could not be read" in words
    )
    (totals,) = next(p for p in view.pieces() if p.name == "totals").data["rows"]
    assert totals["asked"] == f"{sum(asked) / len(asked):.1f}" and totals["failed"] == "2 truncated"
    share = shares(planned, bins([2, 5, 16]))
    assert (share[["2", "5", "16"]].sum(axis=1).round(6) == 100).all() and share.loc[
        ALL, "n"
    ] == planned.videos


def test_examples_are_different_questions_of_every_skill_and_count_with_their_reason(mixed, samples):
    data = next(p for p in FramePlanView(mixed, samples).pieces() if p.name == "examples").data
    seen = Counter((row["skill"], row["used"]) for row in data["rows"])
    asked = {(s.skill, mixed.used(s.id)) for s in samples[2:] if s.is_video}
    assert set(seen) == asked and max(seen.values()) <= EXAMPLES
    assert len({(row["skill"], row["used"], row["question"]) for row in data["rows"]}) == len(data["rows"])
    assert all(row["reason"] == f"rule {row['skill']}" and row["needed"] >= 1 for row in data["rows"])


def test_a_plan_without_samples_images_alone_one_frame_and_256_counts(mixed, samples, tmp_path):
    bare = FramePlanView(mixed)
    assert list(bare.plans.plans[0].by_skill().index) == [ALL] and "not known" not in bare.words()
    images = FramePlanView(plan_of([("i", 1, 1, 1, "fixed", "image")]))
    assert images.words().endswith("This plan holds no video that can be read.")
    assert [piece.name for piece in images.pieces()] == ["totals", "examples"]
    one = FramePlanView(plan_of([("v", 1, 1, 1, "fixed", "fixed")]))
    assert "1 clip, mean 1.0 frames (100% get 1)" in one.words()
    many = FramePlanView(plan_of([(f"v{n}", n, 300, n, "fps", "1 fps") for n in range(1, 257)]))
    (figure,) = [piece.figure for piece in many.pieces() if piece.name == "histogram"]
    shown = [t.name.split()[0] for t in figure.data]
    assert shown == ["1", "2", "3–4", "5–8", "9–16", "17–32", "33–64", "65–128", "129–256"]
    assert sum(t.x[0] for t in figure.data) == pytest.approx(100) and "from 1 to 256" in many.words()
    for view in (bare, images, one, many):
        assert view.save(tmp_path / "still.png").read_bytes().startswith(b"\x89PNG")
        assert view.to_html(tmp_path / "page.html").stat().st_size > 10_000 and len(view.data())


@pytest.mark.parametrize("counts", [[2, 4], list(range(1, 40)), [1, 3, 5, 7, 9, 11, 13, 15, 17]])
def test_every_count_is_in_exactly_one_group_and_groups_have_colours_of_their_own(counts):
    groups = bins(counts)
    assert [sum(count in span for _, span in groups) for count in counts] == [1] * len(counts)
    assert len(set(colours(len(groups)))) == len(groups)


def test_a_study_shows_the_arm_that_chooses_beside_its_controls():
    view = FramePlanView(small_study())
    hybrid, matched, fixed = view.plans.plans
    assert [p.name for p in view.plans.plans] == [
        "hybrid",
        "random-matched",
        "fixed-2",
    ]  # the pilot is hidden
    assert hybrid.counts == matched.counts and fixed.counts == {2: fixed.videos}
    for arm in view.plans.plans:  # what was really trained on, as the run's own event says
        events = [
            e for e in Run.open(small_study() / "runs" / f"{arm.name}-s0").events() if e["kind"] == "frames"
        ]
        assert {str(n): count for n, count in arm.counts.items()} == events[-1]["histogram"]
        assert dict(arm.means) == pytest.approx(events[-1]["by_skill"])
    pieces = {piece.name: piece for piece in view.pieces()}
    assert list(pieces) == ["histogram", "totals", "losses", "examples"]
    measured = view.plans.measured
    losses = view.data().query('table == "pilot\'s excess loss"')
    assert set(losses["frames"]) == {1, 2, 4} and losses["n"].groupby(losses["skill"]).first().sum() == len(
        measured.drop_duplicates(["sample_id", "question"])
    )
    assert (losses.loc[losses["frames"] == 4, "value"] == 0).all() and "0.1 nats" in view.caption()
    assert_text_only(view.widget)


def test_one_run_only_some_arms_and_names_that_are_not_there(tmp_path):
    run = FramePlanView(small_study() / "runs" / "fixed-2-s0")
    assert [p.name for p in run.plans.plans] == ["fixed-2"] and run.plans.measured is None
    base = FramePlanView(small_study(), arms=["base"]).plans.plans[0]
    assert base.counts == {4: base.videos}
    with pytest.raises(WorkbenchError, match="the study has fixed-2, pilot, hybrid"):
        FramePlanView(small_study(), arms=["hybird"])
    with pytest.raises(WorkbenchError, match="neither a study nor a run"):
        FramePlanView(tmp_path)


def test_a_study_that_keeps_no_plan_any_more_shows_its_events_and_says_so(tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(small_study(), copy, ignore=shutil.ignore_patterns("cache", "checkpoints", "metrics"))
    lost, kept = FramePlanView(copy), FramePlanView(small_study())
    for before, after in zip(kept.plans.plans, lost.plans.plans, strict=True):
        assert after.rows is None and after.counts == before.counts and after.mean == before.mean
        assert after.note == "Single clips are not shown: the study does not keep it any more."
    totals = next(p for p in lost.pieces() if p.name == "totals").data
    assert "Single clips are not shown" in totals["caption"] and totals["rows"][0]["asked"] == "not recorded"
    shutil.rmtree(copy / "runs" / "hybrid-s0")
    assert FramePlanView(copy).plans.plans[0].note == "No frames have been planned here yet."


def test_a_study_whose_recipe_is_not_one_is_refused_in_a_sentence():
    with pytest.raises(
        WorkbenchError, match="cannot load the recipe"
    ):  # the synthetic studies' recipe names no data
        FramePlanView(study("quick"))


@needs_browser
def test_on_a_page_examples_are_filtered_by_keyboard(mixed, samples, tmp_path):
    view = FramePlanView(mixed, samples)
    rows = next(p for p in view.pieces() if p.name == "examples").data["rows"]
    path = view.to_html(tmp_path / "page.html")
    with chromium() as browser:
        page, problems = opened(browser, path)
        page.wait_for_selector("#piece-examples tbody")
        assert page.locator("#piece-examples tbody tr").count() == len(rows)
        used = page.locator("#piece-examples select").nth(2)
        used.focus()
        page.keyboard.type("16")
        page.wait_for_function("document.querySelectorAll('#piece-examples select')[2].value === '16'")
        wanted = sum(row["used"] == 16 for row in rows)
        assert page.locator("#piece-examples tbody tr").count() == wanted > 0
        page.locator("#piece-examples select").nth(1).select_option("order")
        both = sum(row["used"] == 16 and row["skill"] == "order" for row in rows)
        assert page.locator("#piece-examples tbody tr").count() == both
        assert page.locator("#piece-histogram .bars path").count() > 10
    assert not problems


@needs_axe
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_has_no_serious_barrier(mixed, samples, tmp_path, scheme):
    path = FramePlanView(mixed, samples).to_html(tmp_path / "page.html")
    with chromium() as browser:
        assert violations(browser, path, scheme) == []
