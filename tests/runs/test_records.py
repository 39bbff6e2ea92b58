"""Events, metrics and scores of a run: what was written is what is read, and damage is named."""

from __future__ import annotations

import threading

import numpy as np
import pandas as pd
import pytest

from tests.runs.made import META, RECIPE
from workbench.runs import Run, RunError, read_events, read_metrics, read_scores


def test_events_are_numbered_without_gaps_from_several_threads(run):
    def work(name: int) -> None:
        for i in range(100):
            run.event("note", name=name, i=i)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events = read_events(run.directory)
    assert [event["seq"] for event in events] == list(range(401))
    for name in range(4):
        assert [event["i"] for event in events if event.get("name") == name] == list(range(100))
    assert read_events(run.directory, 399) == events[399:] and read_events(run.directory, 9999) == []
    times = [event["time"] for event in events]
    assert times == sorted(times) and times[0].endswith("+00:00")


def test_reserved_keys_and_damaged_logs_are_refused(run):
    with pytest.raises(ValueError, match="seq"):
        run.event("note", seq=3)
    run.event("note")
    path = run.directory / "events.jsonl"
    lines = path.read_text().splitlines()
    path.write_text(lines[1] + "\n")
    with pytest.raises(RunError, match="seq 1 where 0") as caught:
        read_events(run.directory)
    assert caught.value.where == f"{path}:1"
    path.write_text("not json\n" + lines[1] + "\n")
    with pytest.raises(RunError, match="not an event"):
        read_events(run.directory)


def test_metrics_come_back_over_parts_and_tail(run):
    rows = [{"step": i, "stage": "a" if i < 1500 else "b", "loss": 1 / i} for i in range(1, 2301)]
    for row in rows:
        run.metric(**row, **({"extra": row["step"]} if row["step"] > 2000 else {}))
    assert len(list((run.directory / "metrics").glob("part-*.parquet"))) == 2
    table = read_metrics(run.directory)
    assert table["step"].tolist() == list(range(1, 2301)) and list(table.columns) == [
        "step",
        "stage",
        "loss",
        "extra",
    ]
    assert np.allclose(table["loss"], [row["loss"] for row in rows]) and table["extra"].notna().sum() == 300
    run.finish("finished")
    pd.testing.assert_frame_equal(read_metrics(run.directory), table, check_dtype=False)
    assert (run.directory / "metrics" / "tail.jsonl").read_bytes() == b""


def test_non_finite_metrics_stay_what_they_are(run):
    values = [1.0, float("nan"), float("inf"), float("-inf")]
    for step, value in enumerate(values):
        run.metric(step, loss=value)
    assert np.array_equal(read_metrics(run.directory)["loss"], values, equal_nan=True)
    run.beat(4, 4)
    assert run.status().loss == float("-inf")
    run.finish("finished")
    assert np.array_equal(read_metrics(run.directory)["loss"], values, equal_nan=True)


def test_an_empty_run_reads_as_empty_tables(run):
    assert len(read_metrics(run.directory)) == 0 and "step" in read_metrics(run.directory)
    assert len(read_scores(run.directory)) == 0


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("sealed", [False, True])
def test_after_a_resume_no_step_is_read_twice(run, first, sealed):
    """Loops count steps from ``first`` = 0 or 1; the checkpoint says how many are done."""
    for step in range(first, 10 + first):
        run.metric(step, session=1)
    if sealed:
        run.finish("interrupted")
    again = Run.create(run.directory, RECIPE, META)
    done = 6
    again.drop_after(done)
    assert read_metrics(run.directory)["step"].max() == done
    for step in range(done + first, 12 + first):
        again.metric(step, session=2)
    again.finish("interrupted")
    third = Run.open(run.directory)
    third.drop_after(11 + first)
    third.metric(12 + first, session=3)
    table = read_metrics(run.directory)
    assert table["step"].tolist() == list(range(first, 13 + first))
    assert table["session"].tolist() == [1] * done + [2] * 6 + [3]


def test_scores_are_tables_by_name(run):
    one = pd.DataFrame({"sample_id": ["a", "b"], "correct": [True, False]})
    run.write_scores("image-000010-own", one)
    run.write_scores("image-000020-own", one.iloc[:1])
    run.write_scores("image-000020-own", one.iloc[1:])
    table = read_scores(run.directory)
    assert table["table"].tolist() == ["image-000010-own"] * 2 + ["image-000020-own"]
    assert table["sample_id"].tolist() == ["a", "b", "b"]
    with pytest.raises(RunError):
        run.write_scores("../x", one)


def test_files_changed_from_outside_are_named(run):
    for step in range(3):
        run.metric(step)
    run.write_scores("suite", pd.DataFrame({"value": [1]}))
    run.finish("interrupted")
    part = next((run.directory / "metrics").glob("part-*"))
    table = run.directory / "scores" / "suite.parquet"
    for path, read in ((part, read_metrics), (table, read_scores)):
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(RunError, match="Parquet") as caught:
            read(run.directory)
        assert caught.value.where == str(path)
        path.unlink()
    (run.directory / "metrics" / "drops.jsonl").write_text("{}\n")
    with pytest.raises(RunError, match="resume"):
        read_metrics(run.directory)
    (run.directory / "metrics" / "tail.jsonl").write_text("[1]\n")
    (run.directory / "metrics" / "drops.jsonl").unlink()
    with pytest.raises(RunError, match="metrics row") as caught:
        read_metrics(run.directory)
    assert caught.value.where.endswith("tail.jsonl:1")
    (run.directory / "environment.json").unlink()
    (run.directory / "metrics" / "tail.jsonl").unlink()
    run.event("note")
    (run.directory / "recipe.yaml").unlink()
    with pytest.raises(RunError, match="another recipe"):
        Run.create(run.directory, RECIPE)
