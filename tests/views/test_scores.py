"""ScoreView: on studies in every state, in a notebook, and on an exported page used in Chromium."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.browser import chromium, needs_browser
from tests.study.studies import loaded, study
from tests.study.synthetic import DEFAULT_ARMS, write_study
from tests.views.axe import needs_axe, violations
from tests.views.pages import opened
from tests.views.small_study import small_study
from tests.views.transport import assert_text_only
from workbench.errors import WorkbenchError
from workbench.study.contrasts import analyse
from workbench.study.results import StudyError, load_results
from workbench.views.export import render
from workbench.views.flips import LOST, WON
from workbench.views.payload import jsonable, size_of
from workbench.views.pieces import Module, Plot
from workbench.views.scores import ScoreView

ROOT = Path(__file__).parents[2]
NASTY = "</script><img src=x onerror=alert(1)>"


def named(view):
    return {piece.name: piece for piece in view.pieces()}


@pytest.fixture(scope="module")
def view():
    return ScoreView(loaded("effect"))


def test_every_mark_that_can_be_clicked_is_a_point_with_flips(view):
    pieces = named(view)
    points = {point["key"] for point in pieces["flips"].data["points"]}
    marks = [
        mark
        for name in ("plane", "skills")
        for trace in pieces[name].figure.data
        for mark in (trace.customdata if trace.customdata is not None else ())
        if isinstance(mark, dict)
    ]
    assert {mark["point"] for mark in marks} == points
    groups = {f"{g['kind']}:{g['skill']}" for p in pieces["flips"].data["points"] for g in p["groups"]}
    assert {mark["skill"] for mark in marks if "skill" in mark} == groups
    links = {(link.source, link.key, link.target, link.to) for link in view.links()}
    assert ("plane", "point", "flips", "point") in links and ("skills", "skill", "flips", "skill") in links
    assert ("flips", "look", "attention", "sample") in links


def test_the_plane_has_a_panel_a_video_measure_and_names_units_and_n(view):
    figure = named(view)["plane"].figure
    titles = [figure.layout[axis].title.text for axis in ("yaxis", "yaxis2")]
    assert "Video, % right" in titles[0] and "5 skills; 120 questions" in titles[0]
    assert "Temporal video skills" in titles[1] and "4 skills; 96 questions" in titles[1]
    analysis = analyse(view.results)
    ends = [t for t in figure.data if t.name == "Fixed 16"]
    assert [t.y[0] for t in ends] == [
        analysis.levels["fixed-16", m].value for m in ("video", "video_temporal")
    ]
    change = analysis.find("fixed-16", "base", "video_temporal").estimate
    assert ends[1].error_y.arrayminus[0] == pytest.approx(change.value - change.low)


def test_its_table_has_every_number_shown(view):
    table, analysis = view.data(), analyse(view.results)
    ends = table[table["table"] == "change at the end"].set_index(["arm", "measure"])
    for c in (*analysis.contrasts, *analysis.skills):
        if c.reference == "base":
            row = ends.loc[(c.arm, c.measure)]
            assert (row["value"], row["low"], row["high"]) == (
                c.estimate.value,
                c.estimate.low,
                c.estimate.high,
            )
    lost = table[
        (table["table"] == "flips, right → wrong") & (table["arm"] == "hybrid") & (table["step"] == 240)
    ]
    assert lost["value"].sum() == view.flips("hybrid").counts()[LOST]
    won = table[
        (table["table"] == "flipped, wrong → right") & (table["arm"] == "hybrid") & (table["step"] == 240)
    ]
    assert won["value"].sum() == view.flips("hybrid").counts()[WON]
    assert set(won["sample_id"]) == set(view.flipped("hybrid", direction="won")["sample_id"])
    published = table[table["table"] == "published change"]
    assert len(published) == 5 and published["source"].notna().all() and published["low"].isna().all()
    assert "published" not in {p.name for p in ScoreView(view.results, with_published=False).pieces()}
    with pytest.raises(WorkbenchError, match="lost and won"):
        view.flipped("hybrid", direction="up")


def test_words_and_caption_tell_changes_flips_and_where_they_come_from(view):
    words = view.words()
    assert "Flips of Fixed 16 at its end: " in words and view.flips("fixed-16").sentence("video") in words
    assert "× 5 seeds" in words and "against the base" in words
    caption = view.caption()
    assert "seeds 0, 1, 2, 3, 4" in caption and "0f0f0f0f" in caption and "120 image, 120 video" in caption


def test_a_study_without_flips_one_that_runs_and_a_base_alone_stay_usable(tmp_path):
    none = ScoreView(loaded("null"))
    counts = [g for p in named(none)["flips"].data["points"] for g in p["groups"]]
    assert all(g[LOST] == g[WON] == 0 for g in counts) and "0 right → wrong, 0 wrong → right" in none.words()
    running = ScoreView(loaded("unfinished"))
    assert "The study is not complete" in running.words()
    paths = [t for t in named(running)["plane"].figure.data if t.mode == "lines+markers"]
    assert any(t.name == "Hybrid-Frame" and len(t.x) == 2 for t in paths)  # the base and its first step
    quick = ScoreView(loaded("quick"))
    assert "One seed" in named(quick)["flips"].data["points"][0]["note"] and "(quick)" in quick.caption()
    directory = write_study(
        tmp_path / "base", {"fixed-2": DEFAULT_ARMS["fixed-2"]}, (0,), 4, 10, absent=["fixed-2-s0"]
    )
    base = ScoreView(directory)
    assert [type(p) for p in base.pieces()] == [Plot, Module, Module] and len(base.links()) == 1
    assert "Only the base has been scored so far" in base.words()
    for one in (none, running, quick, base):
        assert one.save(tmp_path / "still.svg").stat().st_size > 5000
        assert len(one.data()) > 0
    assert "Only the base has been scored so far" in render(base)
    shutil.rmtree(directory / "runs" / "base-s0" / "scores")
    with pytest.raises(StudyError, match="no run in it has any scores"):
        ScoreView(directory)
    with pytest.raises(StudyError, match="no such folder"):
        ScoreView(tmp_path / "nothing")


def test_showing_scores_and_exporting_them_never_loads_torch(tmp_path):
    code = (
        "import sys; from workbench.views.scores import ScoreView; v = ScoreView(sys.argv[1]); v.shown; "
        "v.to_html(sys.argv[2]); v.save(sys.argv[2] + '.png'); print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    arguments = [str(study("quick")), str(tmp_path / "page.html")]
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"], done.stderr


def test_in_a_notebook_only_text_travels_and_a_click_opens_the_samples(view):
    assert_text_only(view.widget)
    widgets = view.shown.widgets
    for name in ("flips", "attention", "published"):
        assert size_of(jsonable(widgets[name].data)) < 200_000
    widgets["skills"].pick(point="random-matched@240", skill="image:ocr")
    assert (
        widgets["flips"].picks["point"] == "random-matched@240"
        and widgets["flips"].picks["skill"] == "image:ocr"
    )
    widgets["plane"].pick(point="hybrid@60")
    assert widgets["flips"].picks["point"] == "hybrid@60"


def settled(flips, look, seconds=120.0):
    began = time.monotonic()
    while (status := flips.picks.get("status") or {}).get("look") != look or status["busy"]:
        assert time.monotonic() - began < seconds, status
        time.sleep(0.05)
    return status["words"]


def test_choosing_a_flip_shows_what_both_models_attend_to_and_says_why_where_it_cannot():
    directory = small_study()
    view = ScoreView(directory)
    widgets = view.shown.widgets
    flips, attention = widgets["flips"], widgets["attention"]
    listed = view._flips.rows("fixed-2@4")["rows"]
    row = next(r for r in listed if r["kind"] == "video")
    flips.pick(look=row["look"])
    assert settled(flips, row["look"]).startswith("Below")
    (shown,) = attention.data["choices"].values()
    assert attention.picks["sample"] == row["look"] and list(attention.data["choices"]) == [row["look"]]
    assert {side["key"] for side in shown["sides"]} == {"before", "after"}
    assert shown["strip"]["frames"] == row["frames"] == 2
    answer = view.attention.answer({"sample": row["look"], "query": attention.picks["query"]})
    assert {"before", "after"} <= set(answer)
    assert (directory / "runs/base-s0/captures").is_dir() and (
        directory / "runs/fixed-2-s0/captures"
    ).is_dir()
    early = view._flips.rows("fixed-2@2")["rows"][0]
    flips.pick(look=early["look"])
    assert "weights are kept at the end of a run only" in settled(flips, early["look"])
    assert list(attention.data["choices"]) == [row["look"]], "what is shown stays"
    with pytest.raises(WorkbenchError, match="another one is shown"):
        view.attention.answer({"sample": early["look"], "query": 0})
    picture = view._flips.answer({"picture": ["video", row["sample"], row["frames"]]})
    assert picture["source"].startswith("data:image/") and picture["words"].startswith("2 of ")
    with pytest.raises(WorkbenchError, match="flipped at the end of no arm"):
        view.to_html(directory / "page.html", attention=["nobody"])


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """The small study's page, with the attention of two samples and a question that tries to be markup."""
    view = ScoreView(load_results(small_study()))
    scores = view.results.scores
    scores["question"] = scores["question"].where(scores["kind"] != "image", scores["question"] + NASTY)
    return view, view.to_html(tmp_path_factory.mktemp("scores") / "page.html", attention=2)


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_is_used_offline_from_point_to_attention(page_file, scheme):
    view, path = page_file
    assert path.stat().st_size < 12_000_000  # 5 of them are plotly
    with chromium() as browser:
        page, problems = opened(browser, path, scheme=scheme)
        page.wait_for_selector("#piece-flips tbody")
        mark = page.evaluate(
            """() => { const plot = document.querySelector("#piece-plane .js-plotly-plot");
            const { data, _fullLayout: { xaxis, yaxis } } = plot, box = plot.getBoundingClientRect();
            const end = data.find((trace) => trace.name === "hybrid: frames from the question" && trace.x.length === 1);
            return [box.left + xaxis._offset + xaxis.d2p(end.x[0]), box.top + yaxis._offset + yaxis.d2p(end.y[0])]; }"""
        )
        page.mouse.click(*mark)
        point = page.locator("#piece-flips select").first
        assert point.input_value() in ("hybrid@4", "random-matched@4")  # the two may lie on one another
        point.select_option("fixed-2@4")
        counts = view.flips("fixed-2").counts()
        said = page.inner_text("#piece-flips")
        assert (
            f"{counts[LOST]} right → wrong, {counts[WON]} wrong → right of {counts['questions']} questions"
            in said
        )
        page.locator("#piece-flips select").nth(2).select_option("won")
        won = view.flipped("fixed-2", direction="won")
        assert page.locator("#piece-flips tbody tr").count() == len(won)
        kinds = page.locator("#piece-flips select").nth(1)
        kinds.select_option("image")
        assert page.locator("#piece-flips tbody tr").count() == (won["kind"] == "image").sum()
        kinds.select_option("")
        carried = page.locator("#piece-flips tbody tr", has_text="on this page").locator("button").first
        carried.focus()
        page.keyboard.press("Enter")
        page.wait_for_selector("#piece-attention canvas")
        assert page.locator("#piece-flips img").evaluate("image => image.naturalWidth") >= 32
        other = page.locator("#piece-flips tbody tr:not(:has-text('on this page')) button").first
        other.click()
        assert "export the page again with to_html(path, attention=8)" in page.inner_text("#piece-flips")
        assert page.locator("img[src=x]").count() == 0, "a question became markup"
        assert page.evaluate("document.documentElement.scrollWidth") <= 1100
    assert not problems


@needs_axe
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_has_no_serious_barrier(page_file, scheme):
    with chromium() as browser:
        assert violations(browser, page_file[1], scheme) == []


def test_a_page_carries_what_was_asked_for_and_the_view_stays_as_it_was(page_file):
    view, _ = page_file
    assert not view.attention.views and view._page is False
    sample = view.flipped("fixed-2").iloc[0]["sample_id"]
    looks = view.attention._chosen([sample])
    assert {look.sample for look in looks} == {sample} and all(
        view._flips.is_end(f"{k.arm}@{k.step}") for k in looks
    )
    ways = [look.arm for look in view.attention._chosen(3)]
    assert len(ways) == 3 and ways[0] == "fixed-2"
