"""The rooms keep to their doors: statically (``.importlinter``) and in what an import really brings along."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "transformers", "accelerate", "deepspeed", "sklearn", "av", "cv2")


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)


def test_import_contracts_are_kept():
    done = python("import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("workbench.errors", (*HEAVY, "pandas", "pydantic", "yaml")),
        ("workbench.runs", (*HEAVY, "pandas", "pyarrow", "pydantic", "yaml")),
        ("workbench.captures", (*HEAVY, "pandas", "pyarrow", "pydantic", "yaml")),
        ("workbench.recipe", (*HEAVY, "pandas", "pyarrow")),
        ("workbench.cli", (*HEAVY, "pandas", "pyarrow", "pydantic", "plotly")),
        ("workbench.study.results", HEAVY[:4]),
        ("workbench.report", HEAVY[:4]),
        ("workbench.views", (*HEAVY[:4], "matplotlib", "anywidget")),
    ],
)
def test_light_rooms_bring_nothing_heavy_along(module, unwanted):
    code = "import importlib, sys; importlib.import_module(sys.argv[1]); print(*sys.modules, sep='\\n')"
    done = python(code, module)
    assert done.returncode == 0, done.stderr
    assert not set(unwanted) & set(done.stdout.split())


def test_building_the_whole_parser_brings_nothing_heavy_along():
    done = python(
        "import sys; from workbench.cli.main import build_parser; build_parser(); print(*sys.modules)"
    )
    assert done.returncode == 0, done.stderr
    assert not {*HEAVY, "pandas", "pyarrow", "pydantic", "plotly"} & set(done.stdout.split())


def test_reading_a_run_never_loads_torch(tmp_path):
    code = """
import sys
from workbench.runs import Run, read_metrics, read_scores
run = Run.create(sys.argv[1], "name: x")
run.metric(1, loss=1.0)
with run.checkpoint_dir("one") as path:
    (path / "w").write_text("w")
run.finish("finished")
assert run.status().state == "finished"
assert len(read_metrics(run.directory)) == 1 and len(read_scores(run.directory)) == 0
print("torch" in sys.modules, "transformers" in sys.modules)
"""
    done = python(code, str(tmp_path / "run"))
    assert done.stdout.split() == ["False", "False"], done.stderr
