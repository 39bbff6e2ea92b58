"""Starting, finding, watching, stopping and failing: with real processes and the files they write."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import threading
import time

import pandas as pd
import pytest

from tests.notebooks.small import ROOT, overrides
from workbench.errors import Interrupted, RecipeError, WorkbenchError
from workbench.runs import read_events, read_metrics, run_status
from workbench.study.live import StoppedWatching, describe, launch, project_root
from workbench.study.snapshot import TaskNow, remaining_seconds
from workbench.study.tasks import Task
from workbench.views.charts.live import LiveFigure

pytestmark = pytest.mark.timeout(300)


def until(condition, seconds=90.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)


def now(name, cost, share=0.0, worked=0.0, needs=(), state=None):
    state = state or ("finished" if share == 1 else "running" if worked else "waiting")
    return TaskNow(Task(name, name, 0, tuple(needs), cost), state, share, worked, None, pd.DataFrame())


def test_remaining_time_by_hand():
    base = now("base", 100.0, 0.5, 20.0)
    two, sixteen = now("two", 50.0, needs=["base"]), now("sixteen", 200.0, needs=["base"])
    # 0.4 s a unit of cost: base 20 s more, then 20 s and 80 s
    assert remaining_seconds([base, two, sixteen], 2) == pytest.approx(20 + 80)
    assert remaining_seconds([base, two, sixteen], 1) == pytest.approx(20 + 20 + 80)
    assert remaining_seconds([now("base", 100.0)], 2) is None
    assert remaining_seconds([now("base", 100.0, 1.0, 40.0)], 2) == 0.0


def test_remaining_time_against_all_orders():
    """List scheduling is never better than the best order of starts, and never twice as long."""
    costs = (30.0, 25.0, 20.0, 15.0, 10.0)
    tasks = [now("base", 10.0, 1.0, 10.0), *(now(str(c), c, needs=["base"]) for c in costs)]
    best = min(_slow_makespan(order, 2) for order in itertools.permutations(costs))
    found = remaining_seconds(tasks, 2)
    assert best <= found + 1e-9 and found < 1.34 * best


def _slow_makespan(order, workers):
    ends = [0.0] * workers
    for seconds in order:
        ends[ends.index(min(ends))] += seconds
    return max(ends)


def test_the_root_is_found_from_below_and_its_absence_is_said(tmp_path):
    assert project_root(ROOT / "notebooks") == ROOT == project_root(ROOT)
    with pytest.raises(WorkbenchError, match="no `recipes` folder"):
        project_root(tmp_path)


def test_a_wrong_override_is_refused_before_anything_starts(tmp_path):
    with pytest.raises(RecipeError, match="stepz"):
        launch(out=tmp_path, overrides=["stages.0.stepz=3"])
    assert not list(tmp_path.iterdir())


def test_a_process_that_fails_is_shown_with_its_last_words(tmp_path):
    study = launch(out=tmp_path, overrides={"data.root": str(tmp_path / "nowhere"), "data.make": None})
    with pytest.raises(WorkbenchError) as error:
        study.watch(every_s=0.25)
    assert "its data folder" in str(error.value) and "nowhere" in str(error.value)
    assert error.value.where == str(study.log)


@pytest.mark.slow
def test_interrupt_watch_again_stop_and_go_on(tmp_path):
    values = overrides(tmp_path / "world") | {"stages.1.steps": 400, "stages.2.steps": 400}
    study = launch(out=tmp_path, overrides=values)
    run = study.directory / "runs" / "base-s0"
    try:
        until(lambda: (run / "run.json").is_file() and len(read_metrics(run)) > 62)
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        threading.Timer(1.0, signal.raise_signal, (signal.SIGINT,)).start()
        with pytest.raises(StoppedWatching, match="the training goes on"):
            study.watch(every_s=0.25)
        signal.signal(signal.SIGINT, before)
        assert study.running

        again = launch(out=tmp_path, overrides=values)  # as another kernel would find it
        pid = json.loads((study.directory / "process.json").read_text())["pid"]
        assert again.running and again._child is None and again._pid() == pid
        steps = len(read_metrics(run))
        until(lambda: len(read_metrics(run)) > steps)
        line, share = describe(again.snapshot())
        assert line.startswith(f"{share:.0%} · base-s0") and line.endswith("s left")

        study.stop()
        assert not study.running and not again.running
        assert run_status(run).state == "interrupted"
        with pytest.raises(Interrupted, match="goes on from the last checkpoint"):
            study.watch()
        stopped = len(read_metrics(run))

        resumed = launch(out=tmp_path, overrides=values)
        assert resumed.running and resumed._pid() != pid
        until(lambda: len(read_metrics(run)) > stopped + 2)
        table = read_metrics(run)
        assert table["step"].tolist() == list(range(1, len(table) + 1)), "no step lost or repeated"
        assert sum(event["kind"] == "reopen" for event in read_events(run)) == 1
        state = LiveFigure(resumed.snapshot(), widget=True).figure.get_state()
        assert not _binary(state), "bytes in a widget's state break Jupyter behind a gateway"
        resumed.stop()
    finally:
        study.stop()


def _binary(value):
    if isinstance(value, dict):
        return any(map(_binary, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_binary, value))
    return isinstance(value, bytes | bytearray | memoryview) or hasattr(value, "dtype")


def test_the_command_line_runs_as_a_module_and_watching_needs_no_torch():
    done = subprocess.run(
        [sys.executable, "-m", "workbench.cli", "--version"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0 and done.stdout.startswith("workbench ")
    code = "import sys, workbench.study.live, workbench.views.charts.live; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "False", done.stderr
