"""The app in real JupyterLabs and in Voila, in Chromium: pressed, reloaded, through a gateway, nothing binary on the wire."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from tests.browser import chromium, needs_browser, shot
from tests.machines.servers import JupyterServer, running
from tests.machines.toys import ROOT, end_all, start_toy, step_of, until
from tests.notebooks.jupyterlab import PANEL, lab, ready, run_all
from tests.views.runs_made import made_run, made_study, scored, steps
from tests.views.wire import Wire, buffers
from workbench.cli.lab import NOTEBOOK, free_port, write_notebook
from workbench.machines.job import job_status
from workbench.runs import Run
from workbench.views.app import LAUNCH, MONITOR
from workbench.views.app_tabs import TABS

pytestmark = [pytest.mark.timeout(400), pytest.mark.slow]
POINTS = """() => Math.max(0, ...[...document.querySelectorAll('.js-plotly-plot')].flatMap(
    plot => plot.data.filter(t => (t.hovertemplate ?? '').includes('nats')).map(t => t.x.at(-1))))"""

RAW = """
import ipywidgets, traitlets
class Raw(ipywidgets.Widget):
    value = traitlets.Bytes(b'abc').tag(sync=True)
raw = Raw()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: browsers and kernels put sockets below it, whose paths may have 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="wb-")).resolve()
    yield path
    end_all(path)
    shutil.rmtree(path, ignore_errors=True)


def notebook(path: Path, *sources: str) -> Path:
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    book = nbformat.v4.new_notebook(cells=cells)
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(book, path)
    return path


def a_study(folder: Path) -> Path:
    study = made_study(folder / "made", {"base-s0": 1.0, "a-s0": 1.0})
    for name, arm in (("base-s0", "base"), ("a-s0", "a")):
        with made_run(study / "runs" / name, arm) as run:
            steps(run, range(1, 41))
            scored(run, 40, {"image": [True, True, True, False], "video": [True, False]}, arm)
            run.finish("finished")
    return folder


@pytest.mark.browser
@needs_browser
def test_a_monitor_of_a_running_job_is_reloaded_and_its_buttons_are_pressed(folder):
    study = start_toy(folder / "jobs", steps=1_000_000)
    until(lambda: step_of(study) > 0)
    book = notebook(
        folder / "monitor.ipynb",
        f"import workbench\nmonitor = workbench.RunMonitor({str(study)!r})\nmonitor",
    )
    with lab(folder / "lab", book) as address, chromium() as browser:
        page = browser.new_page(viewport={"width": 1100, "height": 1400})
        wire = Wire(page)
        run_all(page, address)
        page.wait_for_function(f"({POINTS})() > 0", timeout=60_000)
        first = page.evaluate(POINTS)
        panels = "() => document.querySelector('.js-plotly-plot')._fullLayout._subplots.cartesian.length"
        assert page.evaluate(panels) == 6, "panels that are still empty are not drawn"
        page.wait_for_function(f"({POINTS})() > {first} + 20", timeout=60_000)
        wide = "[...document.querySelectorAll('.js-plotly-plot')].every(p => Math.abs(p.clientWidth - p._fullLayout.width) < 2)"
        page.wait_for_function(wide, timeout=20_000)

        page.get_by_role("button", name="Checkpoint now").focus()
        page.keyboard.press("Enter")
        page.get_by_text("wrote the checkpoint").wait_for(timeout=30_000)
        shot(page, "monitor")

        page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
        before = page.evaluate(POINTS)
        page.reload()
        ready(page)
        page.wait_for_function(f"({POINTS})() > {before} + 20", timeout=60_000)  # curves of before, and more

        page.get_by_role("button", name="Stop …").click()
        page.get_by_role("button", name="No, let it go on").click()
        assert job_status(study)["state"] == "running"
        page.get_by_role("button", name="Stop …").focus()
        page.keyboard.press("Space")
        page.get_by_role("button", name="Yes, stop it").click()
        page.locator(".wb-badge", has_text="stopped").first.wait_for(timeout=60_000)
        assert page.get_by_role("button", name="Checkpoint now").is_disabled()
        assert wire.comms > 20 and wire.binary == []
        shot(page, "monitor-stopped")

        # and the wire's check sees a binary message when there is one
        page.evaluate(f"code => {PANEL}.sessionContext.session.kernel.requestExecute({{code}}).done", RAW)
        until(lambda: page.wait_for_timeout(100) or wire.binary, 20)
    assert job_status(study)["state"] == "stopped"
    assert Run.open(study / "runs" / "base-s0").latest_checkpoint() is not None


@pytest.mark.browser
@needs_browser
def test_the_app_through_a_gateway_opens_every_tab_and_sends_only_text(folder):
    root = a_study(folder / "runs")
    source = f"import workbench\nworkbench.Workbench({str(root)!r}, {str(ROOT / 'recipes')!r})"
    book = notebook(folder / "app.ipynb", source)
    with (
        running(JupyterServer(folder / "kernels")) as kernels,
        lab(folder / "lab", book, (kernels.url, kernels.token)) as address,
        chromium() as browser,
    ):
        page = browser.new_page(viewport={"width": 1100, "height": 1600})
        wire, problems = Wire(page), []
        page.on("pageerror", lambda error: problems.append(str(error)))
        run_all(page, address)
        page.get_by_role("tab", name=LAUNCH, exact=True).wait_for(timeout=60_000)
        assert kernels.kernels(), "the kernel runs at the gateway"
        page.get_by_label("Recipe", exact=True).wait_for(timeout=30_000)
        shot(page, "app-launch")
        page.get_by_label("Filter:").fill("a-s0")
        page.locator("table.wb-table tbody tr").nth(0).wait_for()
        page.wait_for_function("document.querySelectorAll('table.wb-table tbody tr button').length == 1")
        page.get_by_role("button", name="made/a-s0").focus()
        page.keyboard.press("Enter")
        page.get_by_role("status").filter(has_text="Chosen: made/a-s0").wait_for(timeout=20_000)
        page.get_by_role("tab", name=MONITOR, exact=True).click()
        page.get_by_text("step 40 of 40").first.wait_for(timeout=30_000)
        page.wait_for_function(f"({POINTS})() == 40", timeout=30_000)
        shot(page, "app-monitor")
        page.get_by_role("tab", name="Scores", exact=True).focus()
        for tab in TABS:
            page.get_by_role("tab", name=tab.title, exact=True).click()
            panel = page.get_by_role("tabpanel").or_(
                page.locator(".widget-tab-contents > :not(.lm-mod-hidden)")
            )
            if tab.of_captures:
                page.get_by_text("has no captures for this tab").last.wait_for(
                    state="visible", timeout=30_000
                )
            else:
                page.wait_for_function(
                    "() => [...document.querySelectorAll('.js-plotly-plot, .wb-note')].some(e => e.offsetParent)",
                    timeout=60_000,
                )
            assert panel.count()
            shot(page, f"app-{tab.title.lower()}")
        assert wire.comms > 20 and wire.binary == [] and problems == []


@pytest.fixture(scope="module")
def command():
    return [sys.executable, "-m", "workbench", "lab", "--no-browser"]


def start(command: list[str], *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*command, *more], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip


def address_of(process: subprocess.Popen[str]) -> str:
    said = []
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line)
        if line.startswith("Workbench: http"):
            return line.split()[1]
    raise AssertionError("".join(said))


@pytest.mark.browser
@needs_browser
def test_voila_serves_the_app_alone(folder, command):
    pytest.importorskip("voila", reason="pip install -e '.[voila]'")
    root = a_study(folder / "runs")
    process = start(command, "--root", str(root), "--recipes", str(ROOT / "recipes"), "--voila")
    try:
        address = address_of(process)
        with pytest.raises(urllib.error.HTTPError) as refused:  # without the token
            urllib.request.urlopen(urllib.request.Request(address.partition("?")[0] + "voila/files/x"))
        assert refused.value.code in (401, 403, 404)
        with chromium() as browser:
            page = browser.new_page(viewport={"width": 1100, "height": 1400})
            wire = Wire(page)
            page.goto(address, timeout=90_000)
            page.get_by_role("tab", name=MONITOR, exact=True).wait_for(timeout=90_000)
            page.get_by_role("button", name="made/base-s0").click()
            page.get_by_role("tab", name=MONITOR, exact=True).click()
            page.wait_for_function(f"({POINTS})() == 40", timeout=60_000)
            shot(page, "voila")
            assert wire.binary == []
    finally:
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=60)[0]
    assert process.returncode == 0 and "The app is ended" in rest


def test_lab_starts_with_a_token_on_loopback_and_ctrl_c_ends_it(folder, command):
    port = free_port()
    process = start(
        command, "--root", str(folder / "runs"), "--recipes", str(ROOT / "recipes"), "--port", str(port)
    )
    try:
        address = address_of(process)
        assert address.startswith(f"http://127.0.0.1:{port}/lab/tree/{NOTEBOOK}?token=")
        token = address.partition("token=")[2]
        api = f"http://127.0.0.1:{port}/api/contents/{NOTEBOOK}"
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(api)
        with urllib.request.urlopen(f"{api}?token={token}") as answer:
            assert "workbench.Workbench(" in json.loads(answer.read())["content"]["cells"][0]["source"]
        taken = subprocess.run(
            [*command, "--port", str(port), "--root", str(folder)], capture_output=True, text=True, cwd=ROOT
        )
        assert taken.returncode == 2 and f"port {port}" in taken.stderr
        line = Path(f"/proc/{process.pid}/cmdline").read_text()
        assert token not in line
    finally:
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=60)[0]
    assert process.returncode == 0 and "The app is ended" in rest
    time.sleep(0.2)
    with pytest.raises(OSError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/api", timeout=2)


def test_the_notebook_is_written_once_and_then_the_readers(tmp_path):
    path = write_notebook(tmp_path / "runs", tmp_path / "it's")
    nbformat.validate(nbformat.read(path, as_version=4))
    compile(nbformat.read(path, as_version=4).cells[0].source, "cell", "exec")
    path.write_text("mine")
    assert write_notebook(tmp_path / "runs", tmp_path).read_text() == "mine"


def test_without_voila_the_line_that_installs_it_is_named(tmp_path):
    code = (
        "import importlib.util, sys; real = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *more: None if name == 'voila' else real(name, *more)\n"
        "from workbench.cli.main import main; sys.exit(main(['lab', '--voila', '--root', sys.argv[1]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 2 and "pip install -e '.[notebook,voila]'" in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_wire_check_reads_all_protocols():
    header = json.dumps({"msg_type": "comm_msg"}).encode()

    def v1(*parts: bytes) -> bytes:
        parts = (b"iopub", header, *parts)
        at, offsets = 8 * (len(parts) + 2), []
        for part in parts:
            offsets.append(at)
            at += len(part)
        return b"".join(n.to_bytes(8, "little") for n in (len(parts) + 1, *offsets, at)) + b"".join(parts)

    assert buffers(v1(b"{}", b"{}", b"{}")) == (0, "comm_msg")
    assert buffers(v1(b"{}", b"{}", b"{}", b"\0\1")) == (1, "comm_msg")
    assert buffers(json.dumps({"header": {"msg_type": "status"}, "buffers": []})) == (0, "status")
    assert buffers(b"\0\0\0\2\0\0\0\x0c\0\0\0\x10" + b"{}  " + b"\1")[0] == 1
