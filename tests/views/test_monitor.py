"""RunMonitor: what it shows is what the files say, read once; it follows, asks, ends, and bears what is wrong."""

from __future__ import annotations

import gc
import json
import threading
import time
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.machines.conftest import home  # noqa: F401
from tests.machines.toys import local, start_toy, step_of, until
from tests.views.runs_made import made_run, made_study, scored, steps
from tests.views.transport import assert_text_only
from workbench.errors import WorkbenchError
from workbench.machines.address import Address
from workbench.machines.attached import Attached
from workbench.machines.base import Unreachable
from workbench.runs import Run, read_metrics
from workbench.runs.metrics import ROW, table_of
from workbench.views import monitor as module
from workbench.views.monitor import RunMonitor
from workbench.views.monitor_records import RunRecord
from workbench.views.monitor_source import open_source

pytestmark = pytest.mark.timeout(120)


def by_key(view: RunMonitor) -> dict[tuple[str, str], object]:
    return {(curve.panel, curve.key): curve for curve in view.curves()}


@pytest.fixture
def run(tmp_path):
    return made_run(tmp_path / "base-s0")


# -- reading ---------------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(0, 8), st.booleans()), max_size=6),
    st.lists(st.integers(0, 9), max_size=8),
    st.booleans(),
)
def test_rows_and_marks_give_what_read_metrics_gives_however_they_come(sessions, pieces, ahead):
    """Sessions that resume anywhere, read in pieces of any size; the oracle is the table of all rows at once."""
    rows, marks, step = [], [], 0
    for length, back, again in sessions:
        if rows:
            step = max(0, step - back)
            marks.append((len(rows), step))
            step -= again and step > 0  # a session may write the checkpoint's own step once more
        for _ in range(length):
            step += 1
            rows.append({ROW: len(rows), "step": step, "loss": float(len(rows))})
    record, at, marked = RunRecord("r"), 0, 0
    for more in [*pieces, len(rows)]:
        # a mark is written before the rows behind it, and may be read long before them
        known = [mark for mark in marks[marked:] if ahead or mark[0] <= at + more]
        record.drops([{"row": row, "step": last} for row, last in known])
        record.rows(rows[at : at + more])
        at, marked = at + more, marked + len(known)
    expected = table_of(rows, marks)
    assert record.columns["step"] == expected["step"].tolist()
    assert record.columns.get("loss", []) == (expected["loss"].tolist() if len(expected) else [])


def test_the_curves_are_the_files_numbers(run, tmp_path):
    steps(run, range(1, 41))
    scored(run, 40, {"image": [True, True, True, False], "video": [True, False, False, False]})
    view = RunMonitor(run.directory)
    table, found = read_metrics(run.directory), by_key(view)
    loss = found["loss", "base-s0"]
    assert loss.x[:-1] == table["step"].tolist() and loss.y[-1] is None
    slow = [np.mean(table["loss"][max(0, i - 5) : i + 6]) for i in range(40)]
    np.testing.assert_allclose(loss.y[:-1], slow, atol=1e-4)
    assert found["rates", "lr_llm"].y == pytest.approx(table["lr_llm"].tolist())
    middle = found["speed", "speed"].y[19]  # steps 15 to 25: 120 tokens of 0.5 s on average
    assert middle == pytest.approx((100 + 20) / 0.5, rel=1e-3)
    assert found["padding", "padding"].y[19] == pytest.approx(100 * 25 / (100 + 20 + 25), rel=1e-3)
    assert (found["frames", "base"].x, found["frames", "base"].y) == (["2", "8"], [75.0, 25.0])
    image = found["scores", "base image"]
    assert (image.x, image.y, image.n) == ([40], [75.0], [4])  # ocr 2 of 2, count 1 of 2
    assert image.low[0] < 75 < image.high[0]
    assert set(view.data()["panel"]) == {"loss", "scores", "frames", "rates", "speed", "padding"}


def test_only_what_is_new_is_read_and_only_what_changed_is_sent(run, monkeypatch):
    steps(run, range(1, 21))
    scored(run, 10, {"image": [True, False]})
    view = RunMonitor(run.directory)
    view.widget  # noqa: B018
    asked = []
    from workbench.views import monitor_source

    real = monitor_source.rows_from
    monkeypatch.setattr(
        monitor_source, "rows_from", lambda path, start: asked.append(start) or real(path, start)
    )
    drawn = view.shown.curves
    before = [trace.to_plotly_json() for trace in drawn.figure.data]
    assert drawn.update(view.curves(), {}, "base-s0") == 0, "nothing new, and something was sent"
    steps(run, [21])
    view.refresh()
    assert asked[0] == 20 and view.source.runs["base-s0"].columns["step"][-1] == 21
    changed = [i for i, t in enumerate(drawn.figure.data) if t.to_plotly_json() != before[i]]
    panels = {key[0] for key, i in drawn._traces.items() if i in changed}
    assert panels == {"loss", "rates", "speed", "padding"}, "scores and frames had not changed"
    view.close()


def test_a_study_shows_arms_and_is_weighted_by_cost(tmp_path):
    study = made_study(tmp_path / "made", {"base-s0": 30.0, "a-s0": 10.0})
    with made_run(study / "runs" / "base-s0") as base:
        steps(base, range(1, 41))
        scored(base, 40, {"image": [True] * 6})
        base.finish("finished")
    view = RunMonitor(study)
    assert view.source.state == "running" and view.source.runs["a-s0"].state == "waiting"
    assert view._state(live=False)["share"] == pytest.approx(0.75)
    arm = made_run(study / "runs" / "a-s0", "a")
    steps(arm, range(1, 11), "sft", 20)
    scored(arm, 10, {"image": [True] * 3 + [False] * 3}, "a")
    view.refresh()
    found = by_key(view)
    assert found["loss", "a-s0"].x[0] == 41, "an arm's loss goes on behind its base's"
    assert found["scores", "base image"].x == [0] and found["scores", "a image"].x == [10]

    def half() -> bool:  # a heartbeat is written once a second
        arm.beat(10, 20)
        view.refresh()
        return view._state(live=False)["share"] == pytest.approx(0.75 + 0.25 * 0.5)

    until(half, 20)
    assert view.source.eta_s is not None and "arm a" in view.words()
    view.choose("base-s0")
    assert {key for panel, key in by_key(view) if panel == "loss"} == {"base-s0"}


# -- what is wrong ---------------------------------------------------------------------------------------------


def test_a_run_that_is_still_empty_shows_its_state_and_then_its_curves(tmp_path):
    run = made_run(tmp_path / "r")
    view = RunMonitor(run.directory)
    assert view.source.state == "running" and not [c for c in view.curves() if c.panel == "loss"]
    view.save(tmp_path / "empty.svg")
    assert "nothing yet" in (tmp_path / "empty.svg").read_text()
    steps(run, [1])
    view.refresh()
    assert by_key(view)["loss", "r"].x == [1, 1]


def test_failed_lost_and_newer_runs_say_so(tmp_path):
    failed = made_run(tmp_path / "failed")
    steps(failed, range(1, 8))
    failed.finish("failed", "ValueError: the seventh step went wrong")
    view = RunMonitor(failed.directory)
    assert view.source.ended and "the seventh step" in view.words()
    newer = made_run(tmp_path / "newer")
    newer.finish("finished")
    meta = json.loads((newer.directory / "run.json").read_text())
    (newer.directory / "run.json").write_text(json.dumps(meta | {"format": 99}))
    view = RunMonitor(newer.directory)
    assert view.source.state == "unreadable" and "format 99" in view.source.error
    lost = made_run(tmp_path / "lost")
    lost.close()
    beat = json.loads((lost.directory / "heartbeat").read_text())
    (lost.directory / "heartbeat").write_text(json.dumps(beat | {"pid": 2**22 - 1}))
    assert RunMonitor(lost.directory).source.state == "lost"


def test_one_newer_run_does_not_hide_the_others(tmp_path):
    study = made_study(tmp_path / "made", {"base-s0": 1.0, "a-s0": 1.0})
    for name, arm in (("base-s0", "base"), ("a-s0", "a")):
        with made_run(study / "runs" / name, arm) as run:
            steps(run, range(1, 4))
            run.finish("finished")
    path = study / "runs" / "a-s0" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    view = RunMonitor(study)
    assert view.source.runs["base-s0"].state == "finished" and "a-s0" in view.source.error
    assert ("loss", "base-s0") in by_key(view)


@pytest.mark.parametrize(
    ("where", "said"), [("nowhere/at/all", "no such folder"), (".", "neither run.json nor")]
)
def test_what_is_nothing_is_named(tmp_path, monkeypatch, where, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WorkbenchError, match=said):
        open_source(where)


def test_numbers_that_are_not_finite_are_shown_as_gaps(run):
    run.metric(1, stage="one", loss=float("nan"), lr_llm=0.1, tokens=1, padding=0, seconds=0.0)
    run.metric(2, stage="one", loss=float("inf"), lr_llm=0.1, tokens=1, padding=0, seconds=0.1)
    run.metric(3, stage="one", loss=2.0, lr_llm=0.1, tokens=1, padding=0, seconds=0.1)
    view = RunMonitor(run.directory)
    assert by_key(view)["loss", "base-s0"].y == [None, None, 2.0, None]
    assert_text_only(view.widget)
    view.close()


# -- following -------------------------------------------------------------------------------------------------


def test_it_follows_until_the_end_and_its_thread_ends(run):
    steps(run, range(1, 6))
    view = RunMonitor(run.directory, every_s=0)
    assert view.every_s == 0.25, "no more than four updates a second"
    assert assert_text_only(view.widget) and view.following
    steps(run, range(6, 11))
    plot = view.shown.curves.figure
    until(lambda: any(10 in (trace.x or ()) for trace in plot.data), 20)
    run.finish("finished")
    until(lambda: not view.following, 20)
    assert view.shown.state.data["state"] == "finished" and view.shown.stop.disabled
    assert not any(thread is view._follower for thread in threading.enumerate())
    view.close()


def test_it_stops_when_nobody_looks_and_goes_on_when_somebody_does(run, monkeypatch):
    monkeypatch.setattr(module, "UNSEEN_S", 0.4)
    view = RunMonitor(run.directory)
    view.widget  # noqa: B018
    until(lambda: not view.following, 20)
    steps(run, range(1, 4))
    view.shown.state._asked(
        view.shown.state, {"asks": "1", "question": {"seen": True}}, []
    )  # as a page says it
    assert view.following
    until(lambda: any(3 in (trace.x or ()) for trace in view.shown.curves.figure.data), 20)
    view.close()
    assert not view.following


def test_a_monitor_that_is_gone_leaves_no_thread(run):
    view = RunMonitor(run.directory)
    view.follow()
    thread, gone = view._follower, weakref.ref(view)
    del view
    gc.collect()
    until(lambda: not thread.is_alive(), 20)
    assert gone() is None


def test_a_page_that_is_loaded_again_gets_the_curves_of_now(run):
    """What JupyterLab asks of a kernel after a reload is the widgets' state."""
    view = RunMonitor(run.directory)
    view.widget  # noqa: B018
    steps(run, range(1, 31))
    view.refresh()
    state = view.shown.plot.widget.get_state()
    assert any(30 in (trace.get("x") or ()) for trace in state["_widget_data"])
    view.close()


# -- jobs ------------------------------------------------------------------------------------------------------


def test_a_job_is_followed_by_number_asked_for_a_checkpoint_and_stopped(home):  # noqa: F811
    study = start_toy(home / "jobs", steps=100_000, name="toy")
    there = local(home / "jobs")
    until(lambda: step_of(study) > 0, 60)
    view = RunMonitor(Attached(there, Address("local", "toy", "base-s0")))
    until(lambda: view.refresh() or len(view.source.runs.get("base-s0", ())) > 20, 60)
    seen: list[dict] = []
    call = there.transport.call
    there.transport.call = lambda request, progress=None: seen.append(request) or call(request, progress)
    view.checkpoint()
    until(lambda: view.refresh() or "wrote the checkpoint" in view._state(True)["note"] or view._notice(), 30)
    cursors = [r["cursors"]["base-s0#metrics"] for r in seen if r["verb"] == "tail"]
    assert cursors[0] > 20 and cursors == sorted(cursors), "rows were asked for again"
    view.stop()
    until(lambda: view.refresh() or view.source.ended, 60)
    assert view.source.state == "stopped" and view._state(True)["note"].endswith("saves and ends.")
    table = read_metrics(study / "runs" / "base-s0")
    assert view.source.runs["base-s0"].columns["step"] == table["step"].tolist()
    again = RunMonitor(study)  # a new kernel, from files alone
    assert [c.y for c in again.curves()] == [c.y for c in view.curves()]
    with pytest.raises(WorkbenchError, match="it has ended"):
        view.stop()


def test_a_line_that_is_cut_is_said_and_the_curves_stay(home):  # noqa: F811
    start_toy(home / "jobs", steps=30, name="toy")
    there = local(home / "jobs")
    view = RunMonitor(Attached(there, Address("local", "toy")))
    until(lambda: view.refresh() or view.source.ended, 60)
    view.source.state = "running"
    drawn = len(view.curves())
    view.widget  # noqa: B018
    call, cut = there.transport.call, threading.Event()
    cut.set()

    def cutting(request, progress=None):
        if cut.is_set():
            raise Unreachable("ask gpu", "no answer", "Wait")
        return call(request, progress)

    there.transport.call = cutting
    assert view._look() == module.AWAY_S
    assert view.shown.state.data["state"] == "away" and "no answer" in view.shown.state.data["error"]
    assert len(view.curves()) == drawn
    cut.clear()
    assert view._look() is None and view.shown.state.data["state"] == "finished"
    view.close()


def test_buttons_ask_first_and_say_what_went_wrong(run):
    steps(run, range(1, 4))
    view = RunMonitor(run.directory)
    view.widget  # noqa: B018
    shown = view.shown
    shown.stop.click()
    assert shown.question.layout.display is None and not run.requests()
    shown.go_on.click()
    assert shown.question.layout.display == "none" and not run.requests()
    shown.checkpoint.click()
    assert run.requests() == {"checkpoint"} and "follows the next step" in shown.state.data["note"]
    with run.checkpoint_dir("step-3") as folder:
        (folder / "w").write_text("w")
    until(lambda: "wrote the checkpoint step-3" in shown.state.data["note"], 20)
    shown.stop.click()
    shown.sure.click()
    assert run.requests() == {"stop"}
    view.close()
    Run.open(run.directory)
    run.finish("interrupted")
    other = RunMonitor(run.directory)
    other.widget  # noqa: B018
    other.shown.sure.disabled = False  # pressed in the moment of the end
    other.shown.sure.click()
    assert "interrupted" in other.shown.said.value and 'role="alert"' in other.shown.said.value
    other.close()


def test_a_look_at_a_long_run_is_cheap(run):
    """20,000 steps: a look that finds nothing new costs little beside the pause between two looks."""
    record = RunRecord("r")
    record.rows(
        [
            {ROW: i, "step": i + 1, "loss": 1.0, "tokens": 5, "padding": 1, "seconds": 0.1}
            for i in range(20_000)
        ]
    )
    view = RunMonitor(run.directory)
    view.source.runs = {"r": record}
    start = time.perf_counter()
    found = view.curves()
    assert time.perf_counter() - start < 0.25
    assert max(len(curve.x) for curve in found) <= 310
