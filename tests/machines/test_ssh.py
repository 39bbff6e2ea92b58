"""The ssh transport and the tunnel against a real sshd on loopback, with keys made for the test."""

from __future__ import annotations

import sys
import threading
import time
from random import Random

import pytest

from tests.machines.jobs import endless, lines, wait_until
from tests.machines.servers import ROOT, Proxy, needs_sshd
from tests.machines.test_jupyter import agent
from workbench.errors import WorkbenchError
from workbench.machines.attached import attach
from workbench.machines.base import Machine, Unreachable
from workbench.machines.config import JupyterEntry, SshEntry
from workbench.machines.jupyter import JupyterTransport
from workbench.machines.openssh import explain
from workbench.machines.ssh import SshTransport, quote_program

pytestmark = needs_sshd


@pytest.fixture
def python(tmp_path):
    """An interpreter with workbench at a path with a space; sshd gives a bare environment."""
    path = tmp_path / "with space" / "python"
    path.parent.mkdir()
    path.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" "$@"\n')
    path.chmod(0o755)
    return str(path)


def box(config, python, root, told=None, **options):
    entry = SshEntry(kind="ssh", host="box", python=python, ssh_config=str(config), root=str(root))
    notify = told.append if told is not None else lambda message: None
    return Machine("box", SshTransport("box", entry, notify, **options), str(root))


def error_of(config, python, root) -> WorkbenchError:
    with box(config, python, root) as machine, pytest.raises(WorkbenchError) as error:
        machine.hello()
    assert "\n" not in str(error.value)
    return error.value


def test_requests_reuse_one_line(sshd, python, tmp_path):
    told: list[str] = []
    with box(sshd.config, python, tmp_path, told) as machine:
        assert machine.hello()["root"] == str(tmp_path)
        start = time.perf_counter()
        for _ in range(20):
            machine.hello()
        assert (time.perf_counter() - start) / 20 < 0.1
        with pytest.raises(WorkbenchError, match="nosuch"):
            machine.status("nosuch")
    assert not told


def test_a_job_over_a_bad_line(sshd, python, home, monkeypatch):
    """Cut and reset again and again: events, and what was fetched, are those of the files there."""
    proxy, random = Proxy(sshd.port), Random(1)
    config = sshd.write_config("through-proxy", port=proxy.port)
    root = home / "jobs"
    try:
        with box(config, python, root) as machine:
            job = machine.submit(endless(home / "recipe"), "far")
            seen: dict[str, list[dict]] = {}
            watcher = box(config, python, root)

            def follow() -> None:
                for item in attach("box:far", watcher).follow(every_s=0.05):
                    seen.setdefault(item.stream, []).append(item.data)

            observer = threading.Thread(target=follow, daemon=True)
            observer.start()
            wait_until(lambda: seen, "the observer's first look")
            for _ in range(8):
                proxy.misbehave(random, after=12_000)  # beyond the greeting of ssh and agent, about 6 kB
            wait_until(lambda: any("#metrics" in stream for stream in seen), "the first step")
            machine.signal(job.name, "stop")
            observer.join(60)
            assert not observer.is_alive()
            copy = machine.fetch(job.name, home / "here")
            watcher.close()
    finally:
        proxy.close()
    assert seen[""] == lines(root / "far" / "job" / "events.jsonl")
    (run,) = (root / "far" / "runs").iterdir()
    assert seen[run.name] == lines(run / "events.jsonl")
    assert (copy / "runs" / run.name / "events.jsonl").read_bytes() == (run / "events.jsonl").read_bytes()
    assert not list(copy.rglob("*.safetensors")) and list(run.rglob("*.safetensors"))


def test_mistakes(sshd, python, tmp_path):
    assert "refuses the login" in str(error_of(sshd.write_config("c1", key="other"), python, tmp_path))
    unknown = error_of(sshd.write_config("c2", known="nobody"), python, tmp_path)
    assert "host key of box is not known here" in unknown.found and "ssh box true" in unknown.todo
    kind, key, *_ = (sshd.folder / "other.pub").read_text().split()
    (sshd.folder / "changed").write_text(f"[127.0.0.1]:{sshd.port} {kind} {key}\n")
    changed = error_of(sshd.write_config("c3", known="changed"), python, tmp_path)
    assert "not the one in known_hosts" in changed.found and "ssh-keygen -R" in changed.todo
    assert "box has no /nowhere/python" in error_of(sshd.config, "/nowhere/python", tmp_path).found
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n')
    bare.chmod(0o755)
    assert "no usable workbench" in error_of(sshd.config, str(bare), tmp_path).found
    with (
        box(sshd.write_config("c4", port=1), python, tmp_path) as machine,
        pytest.raises(Unreachable) as error,
    ):
        machine.hello()
    assert "Connection refused" in error.value.found


def test_versions_and_interrupt(sshd, tmp_path):
    told: list[str] = []
    with box(sshd.config, agent(tmp_path, version="0.0.1", ahead=-100), tmp_path, told) as machine:
        machine.hello()
        assert "has workbench 0.0.1" in told[0] and " s behind this one" in told[1]
    assert "protocol 3" in error_of(sshd.config, agent(tmp_path, protocol=3), tmp_path).found
    with box(sshd.config, agent(tmp_path), tmp_path) as machine:
        seen: list[dict] = []

        def stop_after_five(data: dict) -> None:
            seen.append(data)
            if len(seen) == 5:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            machine.call("evaluate", stop_after_five)
        assert machine.hello()["python"] == "3"


def test_through_a_tunnel(server, sshd, home, monkeypatch):
    monkeypatch.setenv("WB_TEST_TOKEN", server.token)
    entry = JupyterEntry(
        kind="jupyter", url=server.url, token_env="WB_TEST_TOKEN", tunnel="box", ssh_config=str(sshd.config)
    )
    transport = JupyterTransport("gpu", entry, lambda message: None)
    with Machine("gpu", transport) as machine:
        assert machine.hello()["protocol"] == 1
        assert transport._tunnel is not None
        transport._tunnel._process.kill()  # the line to the gate dies; the next call opens another
        assert machine.hello()["protocol"] == 1
        process = transport._tunnel._process
    assert process.poll() is not None
    entry = entry.model_copy(update={"ssh_config": str(sshd.write_config("c5", key="other"))})
    with (
        Machine("gpu", JupyterTransport("gpu", entry)) as machine,
        pytest.raises(WorkbenchError, match="refuses the login"),
    ):
        machine.hello()


def test_words_for_what_ssh_says():
    assert quote_program("~/my env/bin/python") == "~/'my env/bin/python'"
    found = explain(
        "x", "me@box", 255, "ssh: Could not resolve hostname box: Name or service not known"
    ).found
    assert found == "there is no host box"
