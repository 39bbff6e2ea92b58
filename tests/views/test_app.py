"""Workbench(): what the browser lists is what is there, each tab is made once and when opened, what is missing is said."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import workbench
from tests.machines.conftest import home  # noqa: F401
from tests.machines.toys import ROOT, end_of, start_toy
from tests.study.studies import study
from tests.views.effect_worlds import atlas
from tests.views.runs_made import made_run, made_study, scored, steps
from tests.views.transport import assert_text_only
from workbench.errors import WorkbenchError
from workbench.runs import Run
from workbench.views.app import LAUNCH, MONITOR, Workbench
from workbench.views.app_tabs import TABS, captures_of
from workbench.views.browser import RunBrowser

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def root(tmp_path):
    """A finished study, a run on its own that has failed, and a run of a newer version."""
    folder = tmp_path / "runs"
    made = made_study(folder / "made", {"base-s0": 1.0, "a-s0": 1.0})
    for name, arm in (("base-s0", "base"), ("a-s0", "a")):
        with made_run(made / "runs" / name, arm) as run:
            steps(run, range(1, 41))
            scored(run, 10, {"image": [False] * 4}, arm)
            scored(run, 40, {"image": [True, True, True, False], "video": [True, False]}, arm)
            run.finish("finished")
    alone = made_run(folder / "alone")
    alone.finish("failed", "ValueError: <b>broken</b>")
    newer = made_run(folder / "newer")
    newer.finish("finished")
    path = newer.directory / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    return folder


# -- the browser -----------------------------------------------------------------------------------------------


def test_everything_below_the_folder_is_listed_with_state_steps_and_last_scores(root):
    rows = {row["name"]: row for row in RunBrowser(root).data().to_dict("records")}
    assert list(rows) == ["alone", "made", "made/a-s0", "made/base-s0", "newer"]
    assert rows["made"]["state"] == "finished" and rows["made"]["step"] == "2 of 2 runs"
    assert (
        rows["made/a-s0"]["scores"] == "image 75.0%, video 50.0%" and rows["made/a-s0"]["step"] == "40 of 40"
    )
    assert rows["alone"]["state"] == "failed: ValueError: <b>broken</b>"
    assert "format 99" in rows["newer"]["state"]


def test_filter_refresh_and_what_is_not_there(root, tmp_path):
    browser = RunBrowser(root)
    browser.filter = "MADE finished run"
    assert [row["name"] for row in browser.table()["rows"]] == ["made", "made/a-s0", "made/base-s0"]
    browser.filter = "nothing like this"
    assert browser.table()["empty"] == "Nothing matches the filter."
    browser.filter = ""
    made_run(root / "later")
    browser.refresh()
    assert browser.find("later").state == "running"
    empty = RunBrowser(tmp_path / "nowhere")
    assert "no folder" in empty.table()["empty"] and empty.words().startswith("0 entries")
    assert len(browser.save(tmp_path / "runs.svg").read_text()) > 1000
    assert "&lt;b&gt;" not in browser.to_html(tmp_path / "runs.html").read_text()


def test_jobs_of_a_machine_are_listed_and_one_that_does_not_answer_is_said(home, root, monkeypatch):  # noqa: F811
    monkeypatch.setenv("WORKBENCH_RUNS", str(home / "jobs"))
    end_of(start_toy(home / "jobs", steps=3, name="toy"))
    browser = RunBrowser(root, machine="local")
    assert browser.find("made") and browser.find("toy/base-s0").state == "finished"
    browser.machine = "gpu"
    browser.refresh()
    assert "'gpu'" in browser.problem and browser.find("made")


# -- the app ---------------------------------------------------------------------------------------------------


@pytest.fixture
def app(root):
    return Workbench(root, ROOT / "recipes")


def opened(app, title):
    index = app.titles.index(title)
    app.shown.tabs.selected_index = index
    return app.shown.panels[index].box.children


def test_tabs_are_made_when_they_are_opened_and_once(app):
    assert app.titles == [LAUNCH, MONITOR, *(tab.title for tab in TABS)]
    shown = app.shown
    made = [bool(panel.box.children) for panel in shown.panels]
    assert made == [True] + [False] * (len(app.titles) - 1)
    app.chosen = app.browser.find("made")
    first = opened(app, MONITOR)
    assert opened(app, LAUNCH) and opened(app, MONITOR) == first
    assert app.current() is app.views[MONITOR]
    assert_text_only(app.widget)


def test_choosing_another_run_shows_that_one_everywhere_but_keeps_what_was_typed(app):
    app.shown.panels[0].box  # noqa: B018
    opened(app, LAUNCH)
    app.launcher().shown.name.value = "typed"
    opened(app, MONITOR)
    before = app.views[MONITOR]
    app.shown.runs.picks = {"run": "made/a-s0"}
    assert app.chosen.name == "made/a-s0" and app.views[MONITOR] is not before
    assert app.views[MONITOR].source.address == "a-s0" and before._closed.is_set()
    opened(app, LAUNCH)
    assert app.launcher().name == "typed"
    app.shown.runs.picks = {"run": "newer"}
    (note,) = [w for w in opened(app, "Attention") if hasattr(w, "value")]
    assert "no captures for this tab" in note.value
    opened(app, MONITOR)
    assert app.views[MONITOR].source.state == "unreadable"


@pytest.mark.parametrize("tab", [tab for tab in TABS if tab.of_captures], ids=lambda tab: tab.title)
def test_a_tab_without_captures_names_the_command_that_makes_them(app, tab):
    app.chosen = app.browser.find("made")
    (note,) = opened(app, tab.title)
    command = tab.probe.replace("RUN", str(app.browser.find("made/a-s0").path))
    assert command in note.value.replace("&#x27;", "'")
    words = command.split(",")[0].split(";")[0].split()
    done = subprocess.run(
        [sys.executable, "-m", *words[:3], "--help"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0 and "RUN" in done.stdout, "the command does not exist"


def test_every_view_that_a_tab_names_is_there():
    for tab in TABS:
        for shows in tab.kinds.values():
            assert issubclass(shows.load(), workbench.views.base.View)
    for name in (
        "Workbench",
        "Launcher",
        "RunMonitor",
        "RunBrowser",
        "ScoreView",
        "AttentionView",
        "FusionView",
    ):
        assert getattr(workbench, name).__name__ == name
    with pytest.raises(AttributeError, match="NoSuchView"):
        workbench.NoSuchView  # noqa: B018


def test_scores_and_frames_of_a_study_are_shown():
    folder = study("quick")
    app = Workbench(folder, ROOT / "recipes")
    assert app.chosen.kind == "study" and app.chosen.name == folder.name
    opened(app, "Scores")
    assert app.current() is app.views["Scores"] and app.title.startswith("Scores")
    opened(app, "Frames")
    assert (
        "Frames" in app.views or "alert" in app.shown.panels[app.titles.index("Frames")].box.children[0].value
    )


def test_no_recipes_and_no_runs_are_said_and_the_app_stays(tmp_path):
    app = Workbench(tmp_path / "none", tmp_path / "recipes")
    assert "holds none" in opened(app, LAUNCH)[0].value
    assert "no run is chosen" in opened(app, MONITOR)[0].value
    with made_run(tmp_path / "none" / "first") as run:
        steps(run, [1])
    app.shown.refresh.click()
    assert app.chosen.name == "first" and MONITOR in app.views
    app.views[MONITOR].close()


def test_captures_are_chosen_by_sample_and_compared_with_the_same_one(root):
    for run, name in (("base-s0", "x"), ("base-s0", "y"), ("a-s0", "x")):
        directory = root / "made" / "runs" / run
        path = Run.open(directory).capture_path(f"atlas-{name}")
        path.parent.mkdir(exist_ok=True)
        capture = atlas(name=f"end-{run}")
        capture.meta["sample"]["id"] = f"sample-{name}"
        capture.save(path)
    torn = root / "made" / "runs" / "base-s0" / "captures" / "torn.safetensors"
    torn.write_bytes(b"\x08")
    app = Workbench(root, ROOT / "recipes")
    app.chosen = app.browser.find("made/a-s0")
    tab = next(tab for tab in TABS if tab.title == "Effects")
    found, problems = captures_of(app.chosen, tab.kinds)
    assert [(f.run, f.sample) for f in found] == [
        ("a-s0", "sample-x"),
        ("base-s0", "sample-x"),
        ("base-s0", "sample-y"),
    ]
    assert len(problems) == 1 and "torn" in problems[0]
    opened(app, "Effects")
    panel = app.shown.panels[app.titles.index("Effects")]
    assert panel.sample.options == ("all samples", "sample-x", "sample-y")
    assert [label for label, _ in panel.before.options][1:] == [found[1].label]
    panel.before.value = found[1]
    assert app.views["Effects"].before is not None
    panel.sample.value = "sample-y"
    assert panel.capture.value.sample == "sample-y" and panel.before.disabled
    assert app.views["Effects"].capture.meta["sample"]["id"] == "sample-y"


def test_a_run_elsewhere_says_how_to_fetch_it(app):
    from workbench.views.browser import Entry

    app.chosen = Entry("gpu:trap", "job", "running")
    with pytest.raises(WorkbenchError, match="workbench fetch gpu:trap"):
        app.show(TABS[0])
    with pytest.raises(WorkbenchError, match="workbench fetch gpu:trap"):
        app.show(TABS[1])
