"""The first notebook, executed without a browser as a reader would run it: from ``notebooks/``, all cells."""

from __future__ import annotations

import re
import time
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.browser import chromium, needs_browser, shot
from tests.notebooks.jupyterlab import PANEL, lab, note
from tests.notebooks.small import NOTEBOOK, quick_set
from workbench.study.live import launch
from workbench.study.results import load_results

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]
PLOTLY = "application/vnd.plotly.v1+json"
WIDGET = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def environment(runs):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_RUNS", str(runs))
        patch.setenv("WORKBENCH_QUICK_SET", quick_set(runs / "world"))
        yield


@pytest.fixture(scope="module")
def executed(runs, environment):
    """The notebook after its cells ran, and every message that its kernel sent while they did."""
    book = nbformat.read(NOTEBOOK, as_version=4)
    book.cells.append(nbformat.v4.new_code_cell("import sys; print('torch' in sys.modules)"))
    messages = []

    class Listening(NotebookClient):
        def process_message(self, message, cell, cell_index):
            messages.append(message)
            return super().process_message(message, cell, cell_index)

    Listening(book, timeout=600, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    return book, messages


def cell(book, words):
    return next(c for c in book.cells if c.cell_type == "code" and words in c.source)


def printed(of):
    return "".join(o.text for o in of.outputs if o.output_type == "stream" and o.name == "stdout")


def test_every_cell_runs_and_says_nothing_on_stderr(executed):
    book, _ = executed
    code = [c for c in book.cells if c.cell_type == "code"]
    assert all(c.execution_count for c in code)
    assert not [o for c in code for o in c.outputs if o.output_type == "error"]
    assert not [o.text for c in code for o in c.outputs if o.output_type == "stream" and o.name == "stderr"]


def test_the_curves_grew_while_the_study_ran(executed):
    _, messages = executed
    shown = [m["content"]["data"] for m in messages if m["msg_type"] == "display_data"]
    assert any(WIDGET in data for data in shown), "no live figure"
    lines = [
        m["content"]["data"]["text/plain"]
        for m in messages
        if m["msg_type"] == "update_display_data" and "text/html" in m["content"]["data"]
    ]
    shares = [int(found[1]) for line in lines if (found := re.match(r"(\d+)% ·", line))]
    assert shares == sorted(shares) and len(set(shares)) > 4
    assert any("left" in line for line in lines), "no remaining time was ever shown"
    assert lines[-1].startswith("finished: 3 runs")


def test_no_binary_message_was_sent(executed):
    """Behind a gateway one of them breaks the notebook (ipywidgets#3798)."""
    _, messages = executed
    assert sum(m["msg_type"] == "comm_msg" for m in messages) > 3
    assert not [m["msg_type"] for m in messages if m.get("buffers")]


def test_a_saved_notebook_keeps_the_curves(executed):
    book, _ = executed
    outputs = cell(book, "study.watch()").outputs
    assert not [o for o in outputs if WIDGET in o.get("data", {})], "the widget is left beside its picture"
    figures = [o.data[PLOTLY] for o in outputs if PLOTLY in o.get("data", {})]
    assert len(figures) == 1
    by_name = {}
    for trace in figures[0]["data"]:
        by_name.setdefault(trace.get("name"), []).append(trace)
    steps, scores = by_name["fixed 16 frames"][0]["x"], by_name["fixed 16 frames"][0]["y"]
    assert list(steps) == [0, 6, 12, 24] and all(0 <= score <= 100 for score in scores)
    losses = [t for t in by_name[None] if t["mode"] == "lines"]
    assert len(losses) == 3 and all(len(t["x"]) > 20 for t in losses)
    assert min(losses[1]["x"]) == 201, "an arm's loss goes on where the base's ends"


def test_conclusions_are_sentences_with_numbers(executed):
    book, _ = executed
    text = cell(book, "conclude(analyse").outputs[0].data["text/markdown"]
    assert re.search(
        r"Video-SFT at 16 frames .*\d.*\[.*\d.*\].*n\s=\s\d+ image and \d+ video questions × 1 seed", text
    )
    claims = cell(book, "claim of the paper").outputs[0].data["text/markdown"]
    assert "Video-SFT reliably raises video scores." in claims and "One seed" in claims


def test_table_figures_and_frames_are_there(executed):
    book, _ = executed
    assert "fixed-16" in printed(cell(book, "render_table"))
    assert cell(book, "figures.copies").outputs[0].data[PLOTLY]["data"]
    (view,) = cell(book, "ScoreView(results)").outputs
    assert {WIDGET, "image/png", "text/plain"} <= set(view.data), "a still and words beside the widget"
    assert re.search(r"fixed 16 frames ends at image .*%", view.data["text/plain"])
    frames = cell(book, "midpoint_indices")
    assert sum("image/png" in o.get("data", {}) for o in frames.outputs) == 5
    assert "2 of 32 frames" in printed(frames) and "16 of 32 frames" in printed(frames)
    assert "<table" in cell(book, "frames_used").outputs[0].data["text/html"]


def test_the_kernel_never_loads_torch(executed):
    book, _ = executed
    assert printed(book.cells[-1]).strip() == "False"


def test_a_finished_study_is_only_read(executed, runs):
    study = launch()
    before = study.log.stat().st_mtime_ns
    began = time.monotonic()
    assert study.finished and not study.running
    assert study.watch() == runs / "trap-quick"
    assert time.monotonic() - began < 10 and study.log.stat().st_mtime_ns == before
    assert load_results(study.directory).complete
    assert (study.directory / "report.html").is_file()


def test_it_is_committed_without_outputs_and_names_no_machine():
    book = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(book)
    code = [c for c in book.cells if c.cell_type == "code"]
    assert not any(c.outputs or c.execution_count for c in code)
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert not any(f"{own}/" in text for own in (Path.home(), NOTEBOOK.resolve().parents[2], "/home", "/tmp"))


@pytest.mark.browser
@needs_browser
def test_a_real_jupyterlab_draws_it_without_network(executed, runs, tmp_path):
    """All cells, the study being finished: curves, plane and copies are drawn; nothing is fetched."""
    with lab(tmp_path, NOTEBOOK) as address, chromium() as browser:
        page = browser.new_page(viewport={"width": 1400, "height": 9000})  # no cell is out of sight
        outside: list[str] = []
        page.on("request", lambda request: note(request.url, outside))
        page.goto(address)
        page.wait_for_function(f"window.jupyterapp && {PANEL} && {PANEL}.sessionContext", timeout=60_000)
        page.evaluate(
            f"async () => {{ const s = {PANEL}.sessionContext; await s.ready; await s.session.kernel.info }}"
        )
        page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
        page.wait_for_function("document.querySelectorAll('.js-plotly-plot').length == 4", timeout=60_000)
        curves, plane, _, _ = page.query_selector_all(".js-plotly-plot")
        assert len(curves.query_selector_all(".scatterlayer .js-line")) >= 7
        assert curves.bounding_box()["width"] > 900 and plane.bounding_box()["width"] > 900
        assert page.query_selector("progress").get_attribute("value") == "1.000"
        assert page.get_by_text("finished: 3 runs in trap-quick").count() == 1
        page.wait_for_function(
            "document.querySelectorAll('.jp-RenderedImage img').length == 5", timeout=30_000
        )
        _follow_two_flips(page)
        shot(page, "lab")
        assert page.get_by_text("Traceback").count() == 0
        assert outside == []


def _follow_two_flips(page):
    """Choose a flipped question, then another: the picture changes, and where both models looked appears."""
    table = page.locator("table", has_text="Probability of the right answer")
    questions = table.get_by_role("button")
    assert questions.count() > 1, "the small study flips some questions"
    sources = []
    for i in (0, 1):
        questions.nth(i).click()
        page.get_by_text("The sample", exact=True).wait_for(timeout=30_000)
        page.wait_for_function(
            "seen => { const i = document.querySelector('img.wb-picture'); return i && i.complete && i.src !== seen }",
            arg=sources[-1] if sources else "",
            timeout=60_000,
        )
        sources.append(page.query_selector("img.wb-picture").get_attribute("src"))
    assert sources[0] != sources[1] and all(s.startswith("data:image/png;base64,") for s in sources)
    page.get_by_text("This map in numbers").first.wait_for(timeout=120_000)
