"""The command line as people use it: real processes, exit codes, one line an error."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.recipe.recipes import VALID
from workbench import __version__
from workbench.cli import main
from workbench.cli.main import GROUPS
from workbench.cli.runs import duration, find_runs
from workbench.recipe import load_recipe, recipe_hash
from workbench.runs import Run

PROGRAM = [sys.executable, "-c", "import sys; from workbench.cli import main; sys.exit(main())"]


def workbench(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
    command = [*PROGRAM, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


@pytest.fixture
def recipe(tmp_path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(VALID)
    return path


def test_help_lists_every_command_quickly():
    script = Path(sys.executable).with_name("workbench")
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        done = subprocess.run([script, "--help"], capture_output=True, text=True)
        seconds.append(time.perf_counter() - began)
    assert done.returncode == 0
    for command in (
        "study",
        "train",
        "data",
        "recipe",
        "runs",
        "status",
        "report",
        "model",
        "evaluate",
        "doctor",
    ):
        assert f"\n    {command} " in done.stdout, command
    assert min(seconds) < 0.3


def test_every_file_of_the_command_line_is_known():
    files = {path.stem for path in Path(main.__code__.co_filename).parent.glob("*.py")}
    probes = {name for name in files if name.startswith("probe_")}  # one a verb of `workbench probe`
    assert files - {"__init__", "__main__", "main"} - probes == set(GROUPS)
    from workbench.cli.probe import PROBES

    assert {name.removeprefix("probe_") for name in probes} <= set(PROBES)


def test_version_and_no_command():
    assert workbench("--version").stdout == f"workbench {__version__}\n"
    done = workbench()
    assert done.returncode == 2 and "COMMAND" in done.stderr
    assert workbench("dance").returncode == 2


def test_recipe_check_show_and_diff(recipe, capsys):
    assert main(["recipe", "check", str(recipe)]) == 0
    said = capsys.readouterr().out
    assert "valid" in said and recipe_hash(load_recipe(recipe)) in said and "first (10 steps)" in said
    assert main(["recipe", "show", str(recipe), "--set", "stages.0.steps=3", "seed=4"]) == 0
    shown = recipe.with_name("shown.yaml")
    shown.write_text(capsys.readouterr().out)
    assert load_recipe(shown) == load_recipe(recipe, {"stages.0.steps": 3, "seed": 4})
    assert main(["recipe", "diff", str(recipe), str(recipe)]) == 0
    assert capsys.readouterr().out == "no difference\n"
    assert main(["recipe", "diff", str(recipe), str(shown)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [["seed", "0", "->", "4"], ["stages.0.steps", "10", "->", "3"]]


def test_a_users_mistake_is_one_line_without_traceback(recipe):
    recipe.write_text(VALID.replace("preset: tiny", "presett: tiny"))
    done = workbench("recipe", "check", recipe)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and done.stderr.startswith(f"workbench: {recipe}:3: ")
    assert "'preset'" in done.stderr
    for place in (["--debug", "recipe", "check", recipe], ["recipe", "check", recipe, "--debug"]):
        done = workbench(*place)
        assert (
            done.returncode == 2
            and "Traceback" in done.stderr
            and done.stderr.splitlines()[-1].startswith("workbench:")
        )
    done = workbench("recipe", "check", recipe, "--set", "machine.workers")
    assert done.returncode == 2 and "--set machine.workers" in done.stderr


def test_an_unforeseen_error_is_one_line_that_says_how_to_see_more(tmp_path):
    run = Run.create(tmp_path / "run", "name: x\n")
    run.finish("finished")
    (run.directory / "heartbeat").unlink()
    (run.directory / "heartbeat").mkdir()  # nobody foresaw that
    done = workbench("status", run.directory)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("workbench: IsADirectoryError") and "--debug" in done.stderr
    assert "Traceback" in workbench("--debug", "status", run.directory).stderr


def test_ctrl_c_is_one_line_and_130(tmp_path):
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)  # reading it waits for ever
    process = subprocess.Popen([*PROGRAM, "recipe", "check", str(pipe)], stderr=subprocess.PIPE, text=True)
    with pipe.open("w"):  # opens when the command has opened its end
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130 and said == "workbench: interrupted\n"


def test_a_closed_pipe_is_quiet(recipe):
    process = subprocess.Popen(
        [*PROGRAM, "recipe", "show", str(recipe)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()  # what `| head -0` does
    assert process.stderr.read() == "" and process.wait(30) == 141


def test_runs_and_status(tmp_path, capsys):
    assert main(["runs", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"no runs below {tmp_path}\n"
    done = Run.create(
        tmp_path / "trap" / "runs" / "base-s0", "name: x\n", {"arm": "base", "seed": 0, "study": "trap"}
    )
    done.metric(9, loss=0.25)
    done.beat(9, 9)
    done.finish("finished")
    failed = Run.create(tmp_path / "other", "name: x\n")
    with failed.checkpoint_dir("step-000001") as path:
        (path / "w").write_text("w")
    failed.finish("failed", "the disk is full")
    going = Run.create(tmp_path / "trap" / "runs" / "live", "name: x\n")
    broken = tmp_path / "trap" / "runs" / "torn"
    broken.mkdir()
    (broken / "run.json").write_text("{")
    assert find_runs(tmp_path) == [failed.directory, done.directory, going.directory, broken]
    assert main(["runs", str(tmp_path)]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert rows[0][1] == "failed" and rows[1][1:4] == ["finished", "9/9", "0.2500"]
    assert rows[2][1] == "running" and rows[3][1] == "damaged"
    assert main(["status", str(failed.directory)]) == 0
    said = capsys.readouterr().out
    assert "failed" in said and "the disk is full" in said and "step-000001" in said and "To go on" in said
    assert main(["status", str(going.directory)]) == 0
    assert f"touch {going.directory / 'control' / 'stop'}" in capsys.readouterr().out
    assert main(["status", str(done.directory)]) == 0
    assert "base" in capsys.readouterr().out
    assert main(["status", str(tmp_path)]) == 2 and main(["runs", str(tmp_path / "none")]) == 2
    going.close()


def test_durations():
    assert [duration(s) for s in (0, 59.9, 60, 3599, 3600, 90061)] == [
        "0s",
        "59s",
        "1m 00s",
        "59m 59s",
        "1h 00m",
        "25h 01m",
    ]
