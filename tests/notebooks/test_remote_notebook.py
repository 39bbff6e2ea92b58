"""The notebook of remote machines: executed headless with the server it starts, and in a real JupyterLab."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import tempfile
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from nbclient import NotebookClient

from tests.browser import chromium, needs_browser, shot
from tests.notebooks.jupyterlab import PANEL, lab, note
from tests.notebooks.small import ROOT

NOTEBOOK = ROOT / "notebooks" / "06_remote_gpu.ipynb"
PLOTLY = "application/vnd.plotly.v1+json"
pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]


@pytest.fixture
def home(monkeypatch):
    """Nothing of the real user's machines; the notebook's folder is below this one.

    Its path is short, unlike ``tmp_path``: browsers and kernels put sockets below it, whose paths may have 107 bytes.
    """
    tmp_path = Path(tempfile.mkdtemp(prefix="wb-")).resolve()
    for name in ("STATE", "CONFIG"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    monkeypatch.delenv("WORKBENCH_MACHINES", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    yield tmp_path
    left = remaining(tmp_path)
    until = time.monotonic() + 15  # a server that was told to end takes its kernels down first
    while left and time.monotonic() < until:
        time.sleep(0.2)
        left = remaining(tmp_path)
    for process in left:
        process.kill()
    shutil.rmtree(tmp_path, ignore_errors=True)
    assert not left, "processes of the notebook are left"


def remaining(folder: Path) -> list[psutil.Process]:
    """Processes that work in ``folder``, by their command lines; a zombie has none."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if process.pid != os.getpid() and any(str(folder) in word for word in process.info["cmdline"] or ()):
            found.append(process)
    return found


def printed(cell) -> str:
    return "".join(o.text for o in cell.outputs if o.output_type == "stream" and o.name == "stdout")


def test_both_ways_of_working_end_to_end(home):
    book, messages = nbformat.read(NOTEBOOK, as_version=4), []

    class Listening(NotebookClient):
        def process_message(self, message, cell, cell_index):
            messages.append(message)
            return super().process_message(message, cell, cell_index)

    began = time.monotonic()
    Listening(book, timeout=600, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    assert time.monotonic() - began < 600
    code = {words: cell for cell in book.cells if cell.cell_type == "code" for words in [cell.source]}

    def cell(words: str):
        return next(cell for source, cell in code.items() if words in source)

    # the curves were rebuilt while the training went on, and are kept as plain pictures
    updates = [m["content"]["data"] for m in messages if m["msg_type"] == "display_data"]
    lines = [data["text/plain"] for data in updates if PLOTLY not in data and "text/plain" in data]
    shown = [int(found[1]) for line in lines if (found := re.search(r"step (\d+) of 20120", line))]
    assert len(set(shown)) > 3 and all(a <= b for a, b in itertools.pairwise(shown))
    assert not [m for m in messages if m.get("buffers")], "a binary message breaks notebooks behind a gateway"
    (figure,) = [o.data[PLOTLY] for o in cell("until_step=180").outputs if PLOTLY in o.get("data", {})]
    assert [trace["name"] for trace in figure["data"]][:2] == ["base-s0, align", "base-s0, caption"]

    # the kernel was lost, said so once, and nothing was lost with it
    words = [
        o.text for c in code.values() for o in c.outputs if o.output_type == "stream" and o.name == "stderr"
    ]
    assert "".join(words).count("starting another one. Jobs are not affected") == 1 and len(words) == 1
    assert "no gap, nothing twice" in printed(cell("a step is missing"))
    assert re.search(r"\d+% of 40 questions right", printed(cell("run.evaluate")))
    fetched = printed(cell("job.fetch"))
    assert fetched.startswith("stopped") and "events.jsonl" in fetched and "safetensors" not in fetched
    assert job_of(printed(cell("connection.evaluate"))) == "stopped"
    assert printed(cell("server.terminate")).strip() == "done"
    token_free(book)
    assert not list(home.glob("workbench-*")), "the temporary folder is left"


def job_of(text: str) -> str:
    return re.search(r"\('first-light-\d+', '(\w+)', \d+\)", text)[1]


def token_free(book) -> None:
    """The token is 48 hexadecimal digits: nothing like that is in any output."""
    outputs = json.dumps([c.get("outputs", []) for c in book.cells])
    assert not re.search(r"(?<![0-9a-f])[0-9a-f]{48}(?![0-9a-f])", outputs)


def test_it_is_committed_without_outputs_and_names_no_machine():
    book = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(book)
    assert not any(c.outputs or c.execution_count for c in book.cells if c.cell_type == "code")
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert not any(f"{own}/" in text for own in (Path.home(), ROOT, "/home", "/tmp"))
    assert "".join(book.cells[-1].source).count("\n1. ") == 1 and "\n3. " in book.cells[-1].source


@pytest.mark.browser
@needs_browser
def test_a_real_jupyterlab_follows_the_curves(home):
    with lab(home, NOTEBOOK) as address, chromium() as browser:
        page = browser.new_page(viewport={"width": 1100, "height": 9000})
        outside: list[str] = []
        page.on("request", lambda request: note(request.url, outside))
        page.goto(address)
        page.wait_for_function(f"window.jupyterapp && {PANEL} && {PANEL}.sessionContext", timeout=60_000)
        page.evaluate(
            f"async () => {{ const s = {PANEL}.sessionContext; await s.ready; await s.session.kernel.info }}"
        )
        page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
        page.get_by_text("done", exact=True).wait_for(timeout=600_000)
        assert page.locator(".js-plotly-plot").count() == 2
        for figure in page.query_selector_all(".js-plotly-plot"):
            assert len(figure.query_selector_all(".scatterlayer .js-line")) == 3, (
                "the last picture is the one shown"
            )
        assert page.locator(".js-plotly-plot").first.bounding_box()["width"] > 600  # beside the file browser
        assert page.get_by_text("Traceback").count() == 0 and outside == []
        shot(page, "lab")
