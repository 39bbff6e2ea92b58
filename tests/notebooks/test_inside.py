"""Notebooks 02, 03 and 04, executed without a browser on small studies, and the report's section on what they leave."""

from __future__ import annotations

import copy
import json
import re
import shlex
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.browser import chromium, needs_browser, shot
from tests.notebooks.jupyterlab import lab, note, run_all
from tests.notebooks.small import ROOT, WORLD, quick_set
from workbench.report.build import build_report
from workbench.study.results import load_results

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]
PLOTLY = "application/vnd.plotly.v1+json"
SMALLER = {  # what a reader would change in the notebook's own cell of numbers
    "04_gradients": ("(2, 8, 16), 8, 16", "(2, 4), 3, 4"),
    "02_attention": ("(2, 8, 16), 16, 64, 5", "(2, 4), 3, 6, 1"),
    "03_fusion": ("(2, 4, 8, 16), 16, 48", "(2, 4), 3, 4"),
}
FIGURES = {"02_attention": 3, "03_fusion": 2, "04_gradients": 2}


def four_stages_set(world: Path) -> str:
    """The four stages, a dozen steps each."""
    values: dict[str, object] = {"data.root": str(world), "data.make": WORLD, "evaluation.limit": 20}
    values |= {f"stages.{i}.steps": 12 for i in range(5)}
    return shlex.join(f"{key}={json.dumps(value)}" for key, value in values.items())


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("inside")


@pytest.fixture(scope="module")
def executed(runs):
    """Every notebook after its cells ran, by name; each finds or makes its own study."""
    books = {}
    for name in ("04_gradients", "02_attention", "03_fusion"):
        book = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
        old, new = SMALLER[name]
        cell = next(c for c in book.cells if old in c.source)
        cell.source = cell.source.replace(old, new)
        values = (four_stages_set if name == "03_fusion" else quick_set)(runs / "world")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("WORKBENCH_RUNS", str(runs))
            patch.setenv("WORKBENCH_QUICK_SET", values)
            resources = {"metadata": {"path": str(ROOT / "notebooks")}}
            NotebookClient(book, timeout=600, resources=resources).execute()
        books[name] = book
    return books


def outputs(book, kind):
    return [
        o.data[kind]
        for c in book.cells
        if c.cell_type == "code"
        for o in c.outputs
        if kind in o.get("data", {})
    ]


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_every_cell_runs_and_says_nothing_on_stderr(executed, name):
    code = [c for c in executed[name].cells if c.cell_type == "code"]
    assert all(c.execution_count for c in code)
    told = [o for c in code for o in c.outputs if o.output_type == "stream" and o.name == "stderr"]
    assert not [o.text for o in told] and not [o for c in code for o in c.outputs if o.output_type == "error"]


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_figures_name_their_units_and_sizes(executed, name):
    own = [f for f in outputs(executed[name], PLOTLY) if "% right" not in json.dumps(f["layout"])]
    assert len(own) == FIGURES[name]
    for figure in own:
        axes = [v for k, v in figure["layout"].items() if re.fullmatch(r"[xy]axis\d*", k)]
        titled = [a["title"]["text"] for a in axes if a.get("title", {}).get("text")]
        assert titled and any(a in " ".join(titled) for a in ("frames", "time", "share", "minus", "cosine"))
        assert figure["layout"]["paper_bgcolor"] == "rgba(0,0,0,0)"
        text = json.dumps(figure["layout"])
        n = ("pairs", "clips", "questions", "images", "Where it looks", "equal")
        assert any(word in text for word in n), text[:300]
    markers = {
        t["marker"].get("symbol")
        for t in own[0]["data"]
        if isinstance(t.get("marker", {}).get("symbol"), str)
    }
    assert len(markers) == len({t["name"] for t in own[0]["data"]}), "colour is not the only difference"


def test_one_clip_in_full_before_and_after(executed):
    """Atlas, attention rows and knockouts of one clip: widget, still and words, of both checkpoints."""
    widget = "application/vnd.jupyter.widget-view+json"
    shown = [
        o.data
        for c in executed["02_attention"].cells
        if c.cell_type == "code"
        for o in c.outputs
        if widget in o.get("data", {})
    ]
    assert len(shown) == 3 and all("image/png" in data for data in shown)
    atlas, rows, effect = (data["text/plain"] for data in shown)
    assert atlas.startswith("Temporal atlas") and "Before (stage-instruct" in atlas and "After" in atlas
    assert rows.startswith("Attention") and "Before (stage-instruct" in rows
    assert effect.startswith("Effect of frames") and "windows" in effect and "keeps no pictures" not in effect


@pytest.mark.browser
@needs_browser
def test_a_slider_dragged_in_a_real_jupyterlab_changes_the_picture(executed, runs, tmp_path, monkeypatch):
    """Notebook 02 by its reader: all cells run, the layer's slider is dragged from one end to the other."""
    book = copy.deepcopy(executed["02_attention"])
    for cell in (c for c in book.cells if c.cell_type == "code"):
        cell.outputs, cell.execution_count = [], None
    nbformat.write(book, tmp_path / "02_attention.ipynb")
    monkeypatch.setenv("WORKBENCH_RUNS", str(runs))
    monkeypatch.setenv("WORKBENCH_QUICK_SET", quick_set(runs / "world"))
    with lab(tmp_path / "lab", tmp_path / "02_attention.ipynb") as address, chromium() as browser:
        page = browser.new_page(viewport={"width": 1400, "height": 9000})  # no cell is out of sight
        outside: list[str] = []
        page.on("request", lambda request: note(request.url, outside))
        run_all(page, address)
        heading = page.locator(".wb-heading", has_text="mean over heads").first
        heading.wait_for(timeout=180_000)
        slider, strip = page.get_by_role("slider", name="Layer").first, page.locator(".wb-strip").first
        box, seen = slider.bounding_box(), []
        for end in (0.02, 0.98):
            page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
            page.mouse.down()
            page.mouse.move(box["x"] + box["width"] * end, box["y"] + box["height"] / 2, steps=8)
            page.mouse.up()
            page.wait_for_timeout(300)
            seen.append((heading.inner_text(), strip.screenshot()))
        assert seen[0][0].startswith("Layer 0") and not seen[1][0].startswith("Layer 0")
        assert seen[0][1] != seen[1][1], "the picture did not follow the slider"
        shot(page, "lab")
        assert page.get_by_text("Traceback").count() == 0
        assert outside == []


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_conclusions_hold_intervals(executed, name):
    texts = "\n".join(outputs(executed[name], "text/markdown"))
    assert len(re.findall(r"\[[+\u2212\d.]+, [+\u2212\d.]+\]", texts)) >= 3
    assert "nan" not in texts


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_it_is_committed_without_outputs_and_says_whose_claims_are_whose(name):
    book = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    nbformat.validate(book)
    code = [c for c in book.cells if c.cell_type == "code"]
    assert not any(c.outputs or c.execution_count for c in code)
    assert "Whose claim is whose" in book.cells[0].source and "ours" in book.cells[0].source
    assert book.cells[-1].cell_type == "markdown" and book.cells[-1].source.count("\n1. ") == 1
    assert len(re.findall(r"^\d\. .*\?", book.cells[-1].source, flags=re.M)) == 3


def test_the_report_shows_what_the_notebooks_left(executed, runs, tmp_path):
    page = build_report(runs / "trap-quick", tmp_path / "trap.html").read_text(encoding="utf-8")
    assert (
        'id="inside"' in page and 'data-plot="plot-gradients"' in page and 'data-plot="plot-scatter"' in page
    )
    assert 'data-plot="plot-fusion"' not in page
    page = build_report(runs / "four-stages", tmp_path / "stages.html").read_text(encoding="utf-8")
    assert 'data-plot="plot-fusion"' in page and "Still images move by" in page


def test_a_study_without_captures_shows_nothing_new(executed, runs, tmp_path):
    results = load_results(runs / "trap-quick")
    hidden = []
    for folder in results.directory.glob("runs/*/captures"):
        hidden.append((folder, folder.rename(folder.with_name("hidden"))))
    try:
        page = build_report(results, tmp_path / "bare.html").read_text(encoding="utf-8")
        assert "Inside the model" not in page
    finally:
        for folder, moved in hidden:
            moved.rename(folder)


def test_a_cut_capture_is_named_and_the_rest_is_shown(executed, runs, tmp_path):
    results = load_results(runs / "trap-quick")
    path = next(results.directory.glob("runs/base-s0/captures/atlas*.safetensors"))
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[: len(whole) // 2])
        page = build_report(results, tmp_path / "cut.html").read_text(encoding="utf-8")
        assert "Not shown: base-s0/atlas" in page and 'data-plot="plot-gradients"' in page
    finally:
        path.write_bytes(whole)
