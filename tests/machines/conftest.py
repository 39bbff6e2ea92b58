"""Servers that several test files share, and a home of its own for every test."""

from __future__ import annotations

import pytest

from tests.machines.servers import SSHD, JupyterServer, Sshd, running
from tests.machines.toys import end_all


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A token-protected Jupyter Server that tests must leave running."""
    with running(JupyterServer(tmp_path_factory.mktemp("jupyter"))) as started:
        yield started


@pytest.fixture(scope="session")
def sshd(tmp_path_factory):
    if SSHD is None:
        pytest.skip("sshd is not installed (apt install openssh-server)")
    with running(Sshd(tmp_path_factory.mktemp("ssh") / "d")) as started:
        yield started


@pytest.fixture
def home(tmp_path, monkeypatch):
    """State and configuration of this test alone; nothing of the real user's is read or written."""
    for name in ("STATE", "CONFIG"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    monkeypatch.delenv("WORKBENCH_MACHINES", raising=False)
    yield tmp_path
    end_all(tmp_path)  # what a failed test left training
