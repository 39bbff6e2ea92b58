"""The Jupyter transport against real servers: reuse of kernels, their loss, and one clear message a mistake."""

from __future__ import annotations

import http.server
import json
import os
import signal
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.machines.servers import JupyterServer, certificates, free_port, needs_openssl, running, wait_for
from workbench.errors import WorkbenchError
from workbench.machines.base import Machine
from workbench.machines.config import JupyterEntry
from workbench.machines.jupyter import JupyterTransport
from workbench.machines.jupyter_api import Cut, Server, Token
from workbench.machines.kernel_call import KernelConnection

VARIABLE = "WB_TEST_TOKEN"


@contextmanager
def connected(server, monkeypatch, root, **options):
    """A machine on ``server``, and what the user was told about it."""
    monkeypatch.setenv(VARIABLE, options.pop("token", server.token))
    entry = JupyterEntry(**{"kind": "jupyter", "url": server.url, "token_env": VARIABLE, **options})
    told: list[str] = []
    with Machine("gpu", JupyterTransport("gpu", entry, told.append), str(root)) as machine:
        yield machine, told


def error_of(server, monkeypatch, home, **options) -> str:
    with (
        connected(server, monkeypatch, home, **options) as (machine, _),
        pytest.raises(WorkbenchError) as error,
    ):
        machine.hello()
    text = str(error.value)
    assert server.token not in text and "\n" not in text
    return text


# -- kernels -------------------------------------------------------------------------------------------------


def test_one_kernel_for_all_processes_and_it_stays(server, home, monkeypatch):
    before = set(server.kernels())
    with connected(server, monkeypatch, home) as (machine, told):
        assert machine.hello()["protocol"] == 1
        (kernel,) = set(server.kernels()) - before
        start = time.perf_counter()
        for _ in range(10):
            machine.hello()
        assert (time.perf_counter() - start) / 10 < 0.2
    with connected(server, monkeypatch, home) as (machine, _):
        machine.hello()
    assert set(server.kernels()) - before == {kernel} and not told
    state = json.loads((home / "state" / "workbench" / "machines" / "gpu.json").read_text())
    assert state["kernels"] == {"calls": kernel}


def test_a_request_sent_twice_is_done_once(server, home, monkeypatch):
    with connected(server, monkeypatch, home) as (machine, _):
        request = {"verb": "hello", "protocol": 1, "workbench": "0.1.0", "root": "~"}
        times = [machine.transport.call({**request, "id": key})["time"] for key in ("a", "a", "b")]
    assert times[0] == times[1] < times[2]


def test_agents_errors_come_back_as_what_they_were(server, home, monkeypatch):
    with connected(server, monkeypatch, home) as (machine, _):
        with pytest.raises(WorkbenchError, match="nosuch"):
            machine.status("nosuch")
        assert machine.hello()["protocol"] == 1


def test_killed_and_culled_kernels_are_replaced_with_a_notice(server, home, monkeypatch):
    with connected(server, monkeypatch, home) as (machine, told):
        machine.hello()
        kernel = json.loads((home / "state/workbench/machines/gpu.json").read_text())["kernels"]["calls"]
        os.kill(server.kernels()[kernel], signal.SIGKILL)
        assert machine.hello()["protocol"] == 1
        assert told.pop().startswith(f"the kernel {kernel} on gpu died")
        server.rest(f"api/kernels/{kernel}", "DELETE")
        assert machine.hello()["protocol"] == 1
        assert f"the kernel {kernel} on gpu is gone" in told.pop() and not told
    assert kernel not in server.kernels()


def test_killed_and_culled_while_nobody_is_connected(server, home, monkeypatch):
    with connected(server, monkeypatch, home) as (machine, _):
        machine.hello()
    kernel = json.loads((home / "state/workbench/machines/gpu.json").read_text())["kernels"]["calls"]
    os.kill(pid := server.kernels()[kernel], signal.SIGKILL)
    wait_for(lambda: server.kernels().get(kernel, pid) != pid, "the server starts it again")
    with connected(server, monkeypatch, home) as (machine, told):
        assert machine.hello()["protocol"] == 1 and not told  # the same id, a fresh process
    server.rest(f"api/kernels/{kernel}", "DELETE")
    with connected(server, monkeypatch, home) as (machine, told):
        assert machine.hello()["protocol"] == 1 and kernel in told[0]


def test_a_kernel_the_user_named_is_used_and_never_replaced(server, home, monkeypatch):
    before = set(server.kernels())
    unknown = "00000000-1111-2222-3333-444444444444"
    text = error_of(server, monkeypatch, home, kernel_id=unknown)
    assert f"no living kernel {unknown}" in text and "kernel_id" in text
    assert set(server.kernels()) == before
    if not before:
        with connected(server, monkeypatch, home) as (machine, _):
            machine.hello()
    named = next(iter(server.kernels()))
    count = len(server.kernels())
    with connected(server, monkeypatch, home, kernel_id=named) as (machine, _):
        assert machine.hello()["protocol"] == 1
    assert len(server.kernels()) == count


AGENT = """#!{python}
import json, sys, threading, time
for line in sys.stdin:
    request = json.loads(line)
    if request["verb"] == "hello":
        answer = {{"protocol": {protocol}, "workbench": "{version}", "python": "3", "host": "x",
                  "time": time.time() + {ahead}, "root": "/"}}
    else:
        for i in range(1000):
            print(json.dumps({{"progress": {{"i": i}}}}), flush=True)
            time.sleep(0.02)
        answer = {{}}
    print(json.dumps({{"result": answer}}), flush=True)
"""


def agent(home, protocol=1, version="0.1.0", ahead=0) -> str:
    """A program that answers as another installation would."""
    path = home / f"agent-{protocol}-{version}-{ahead}"
    path.write_text(AGENT.format(python=sys.executable, protocol=protocol, version=version, ahead=ahead))
    path.chmod(0o755)
    return str(path)


def test_another_interpreter_version_protocol_and_clock(server, home, monkeypatch):
    with connected(server, monkeypatch, home, python=agent(home)) as (machine, told):
        assert machine.hello()["python"] == "3" and not told
    with connected(server, monkeypatch, home, python=agent(home, version="0.0.1", ahead=3600)) as (
        machine,
        told,
    ):
        machine.hello()
        assert "gpu has workbench 0.0.1, here it is 0.1.0" in told[0]
        assert "clock of gpu is 3600 s ahead" in told[1] and len(told) == 2
    assert "protocol 7" in error_of(server, monkeypatch, home, python=agent(home, protocol=7))
    assert "/nowhere/python has no usable workbench" in error_of(
        server, monkeypatch, home, python="/nowhere/python"
    )


def test_long_work_streams_does_not_block_and_is_interrupted(server, home, monkeypatch):
    seen: list[dict] = []
    with connected(server, monkeypatch, home, python=agent(home)) as (machine, _):
        machine.hello()

        def while_it_works() -> None:
            wait_for(lambda: len(seen) > 5, "progress")
            start = time.perf_counter()
            machine.hello()
            times.append(time.perf_counter() - start)
            signal.raise_signal(signal.SIGINT)

        times: list[float] = []
        other = threading.Thread(target=while_it_works)
        other.start()
        with pytest.raises(KeyboardInterrupt):
            machine.call("evaluate", seen.append)
        other.join()
        assert times[0] < 2.0
        assert [told["i"] for told in seen] == list(range(len(seen))) and len(seen) < 500
        work = json.loads((home / "state/workbench/machines/gpu.json").read_text())["kernels"]["work"]
        wait_for(
            lambda: server.rest(f"api/kernels/{work}")["execution_state"] == "idle", "the work to end", 5
        )
    wait_for(lambda: work not in server.kernels(), "the work kernel, with its GPU memory, to be gone", 10)


def test_kernel_gateway(home, monkeypatch):
    """It wants ``token X``, lists its kernels to nobody, and knows an unknown id from a known one."""
    with running(JupyterServer(home / "gateway", gateway=True)) as server:
        with connected(server, monkeypatch, home) as (machine, told):
            assert machine.hello()["protocol"] == 1
            (pid,) = server.kernels().values()
            os.kill(pid, signal.SIGKILL)
            assert machine.hello()["protocol"] == 1 and len(told) == 1
        assert "no living kernel nosuch" in error_of(server, monkeypatch, home, kernel_id="nosuch")
        assert "refuses the token" in error_of(server, monkeypatch, home, token="wrong")
        assert len(server.kernels()) == 1


def test_gateway_url(home, monkeypatch):
    """Notebook server here, its kernels on the other machine: we reach it through both, and `local` is there."""
    with (
        running(JupyterServer(home / "gpu", gateway=True)) as gpu,
        running(JupyterServer(home / "laptop", through=gpu)) as laptop,
        connected(laptop, monkeypatch, home) as (machine, told),
    ):
        assert machine.hello()["protocol"] == 1 and not told and not laptop.kernels()
        ((kernel, pid),) = gpu.kernels().items()
        entry = JupyterEntry(kind="jupyter", url=laptop.url, token_env=VARIABLE)
        server = Server("laptop", entry, Token(laptop.token), None)
        connection = KernelConnection(server, kernel, "reader")
        code = "import os, json, workbench\nfound = workbench.machine('local').hello()"
        said = connection.evaluate(code, "json.dumps([os.getpid(), found['protocol'], found['root']])")
        connection.close()
        where, protocol, root = json.loads(said)
        assert (where, protocol) == (pid, 1) and Path(root).is_absolute()


# -- mistakes --------------------------------------------------------------------------------------------------


def test_tokens(server, home, monkeypatch):
    text = error_of(server, monkeypatch, home, token="not-the-token")
    assert f"refuses the token of {VARIABLE} (HTTP 403)" in text and "not-the-token" not in text
    assert "wants a token" in error_of(server, monkeypatch, home, token_env=None)


def test_addresses_and_kernel_names(server, home, monkeypatch):
    assert "not as a Jupyter server does" in error_of(
        server, monkeypatch, home, url=server.url + "/elsewhere"
    )
    start = time.monotonic()
    text = error_of(server, monkeypatch, home, url=f"http://127.0.0.1:{free_port()}")
    assert "nothing answers" in text and "Connection refused" in text and time.monotonic() - start < 15
    text = error_of(server, monkeypatch, home, kernel_name="julia-9")
    assert "no kernel 'julia-9', it has python3" in text


def test_a_token_does_not_cross_the_network_in_the_clear(server, home, monkeypatch):
    assert "plain HTTP" in error_of(server, monkeypatch, home, url="http://192.0.2.1:8888")


@needs_openssl
def test_tls(server, home, monkeypatch):
    folder, other = certificates(home / "ca"), certificates(home / "other")
    with running(JupyterServer(home / "tls", certificate=folder)) as secure:
        with connected(secure, monkeypatch, home, ca=str(folder / "ca.pem")) as (machine, _):
            assert machine.hello()["protocol"] == 1
        assert "CA that this computer does not know" in error_of(secure, monkeypatch, home)
        text = error_of(secure, monkeypatch, home, ca=str(other / "ca.pem"))
        assert "not from the CA in" in text
        plain = error_of(secure, monkeypatch, home, url=secure.url.replace("https", "http"))
        assert "expects TLS" in plain and "https://" in plain
        text = error_of(
            secure, monkeypatch, home, url=f"https://localhost:{secure.port}", ca=str(folder / "ca.pem")
        )
        assert "not for the name localhost" in text
        _names_are_checked(secure, folder / "ca.pem")
    (home / "not.pem").write_text("hello")
    for path in (home / "not.pem", home / "missing.pem"):
        assert "cannot be used" in error_of(
            server, monkeypatch, home, url="https://127.0.0.1:1", ca=str(path)
        )
    text = error_of(
        server, monkeypatch, home, url=server.url.replace("http", "https"), ca=str(folder / "ca.pem")
    )
    assert "speaks plain HTTP" in text


def _names_are_checked(secure, ca):
    """On both ways in, also behind a tunnel, where the address is loopback and the certificate is not for it."""
    at, token = ("127.0.0.1", secure.port), Token(secure.token)
    for host, right in (("gpu.test", True), ("other.test", False)):
        entry = JupyterEntry(kind="jupyter", url=f"https://{host}:{secure.port}", ca=str(ca))
        server = Server("gpu", entry, token, at)
        if right:
            server.knock()
            server.websocket(server.start_kernel("names"), "session", 10).close()
        else:
            with pytest.raises(WorkbenchError, match="not for the name other"):
                server.knock()
            with pytest.raises(Cut, match="CERTIFICATE_VERIFY_FAILED"):
                server.websocket(next(iter(secure.kernels())), "session", 10)


OTHERS = {"/old/api": b'{"version": "1.24.0"}', "/page/api": b"<html>welcome</html>"}


class _Other(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/hub"):
            self.send_response(302)
            self.send_header("Location", "/hub/login?next=x")
            self.end_headers()
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(OTHERS.get(self.path, b""))

    def log_message(self, *args):
        return None


def test_other_servers(server, home, monkeypatch):
    other = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Other)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{other.server_address[1]}"
    try:
        assert "Jupyter 1.24.0, and 2.0 is the oldest" in error_of(
            server, monkeypatch, home, url=url + "/old"
        )
        assert "not as a Jupyter server does" in error_of(server, monkeypatch, home, url=url + "/page")
        assert "refuses the token" in error_of(server, monkeypatch, home, url=url + "/hub/user/me")
    finally:
        other.shutdown()
