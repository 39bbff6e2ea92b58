"""Real servers on loopback for the tests: Jupyter Server, Kernel Gateway, sshd, and a proxy that misbehaves."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

ROOT = Path(__file__).parents[2]
OPENSSL, SSHD = (
    shutil.which("openssl"),
    shutil.which("sshd") or ("/usr/sbin/sshd" if os.access("/usr/sbin/sshd", os.X_OK) else None),
)
needs_openssl = pytest.mark.skipif(
    OPENSSL is None, reason="openssl is not installed: no certificates can be made"
)
needs_sshd = pytest.mark.skipif(SSHD is None, reason="sshd is not installed (apt install openssh-server)")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(condition, what: str, seconds: float = 30.0):
    """The first true value of ``condition()``."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if value := condition():
            return value
        time.sleep(0.01)
    raise AssertionError(f"{what}: not within {seconds:.0f} s")


class JupyterServer:
    """A token-protected server in a process group of its own. The token is given by the environment."""

    def __init__(
        self,
        folder: Path,
        *,
        gateway: bool = False,
        certificate: Path | None = None,
        port: int = 0,
        token: str = "",
        debug: bool = False,
        through: JupyterServer | None = None,
    ) -> None:
        """``through``: its kernels run at that gateway, as with ``jupyter lab --gateway-url``."""
        self.folder, self.gateway, self.certificate, self.through = folder, gateway, certificate, through
        folder.mkdir(parents=True, exist_ok=True)
        self.port, self.token = port or free_port(), token or secrets.token_hex(24)
        self.log, self.debug = folder / "server.log", debug
        self.process: subprocess.Popen | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"{'https' if self.certificate else 'http'}://127.0.0.1:{self.port}"

    def start(self) -> None:
        app, prefix = (
            ("jupyter_server", "ServerApp") if not self.gateway else ("kernel_gateway", "KernelGatewayApp")
        )
        argv = [sys.executable, "-m", app, f"--{prefix}.port={self.port}", f"--{prefix}.ip=127.0.0.1"]
        argv += [f"--{prefix}.port_retries=0"]
        if not self.gateway:
            argv += ["--no-browser", "--allow-root", f"--ServerApp.root_dir={self.folder}"]
            argv += ["--ServerApp.jpserver_extensions={}"]
        argv += ["--debug"] if self.debug else []
        argv += [f"--gateway-url={self.through.url}"] if self.through is not None else []
        if self.certificate is not None:
            argv += [f"--{prefix}.certfile={self.certificate}/server.pem"]
            argv += [f"--{prefix}.keyfile={self.certificate}/server.key"]
        environment = {**os.environ, "JUPYTER_TOKEN": self.token, "KG_AUTH_TOKEN": self.token}
        environment |= {
            f"JUPYTER_{kind}_DIR": str(self.folder / kind.lower()) for kind in ("CONFIG", "RUNTIME")
        }
        environment |= {"IPYTHONDIR": str(self.folder / "ipython"), "PYTHONPATH": str(ROOT)}
        if self.through is not None:
            environment["JUPYTER_GATEWAY_AUTH_TOKEN"] = self.through.token
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                argv, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
                start_new_session=True,
            )  # fmt: skip
        wait_for(self.answers, f"server on port {self.port}:\n{self.log.read_text()}")

    def answers(self) -> bool:
        assert self.process is not None and self.process.poll() is None, self.log.read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def kernels(self) -> dict[str, int]:
        """Kernel ids and the pids of their processes, from the connection files on their command lines."""
        import psutil

        found = {}
        assert self.process is not None
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                for word in child.cmdline():
                    if "kernel-" in word and word.endswith(".json"):
                        found[Path(word).stem.removeprefix("kernel-")] = child.pid
        return found

    def rest(self, path: str, method: str = "GET") -> object:
        headers = {"Authorization": f"token {self.token}"}
        request = urllib.request.Request(f"{self.url}/{path}", headers=headers, method=method)
        with urllib.request.urlopen(request) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def kill(self) -> None:
        """``kill -9`` of the server; its kernels notice and end by themselves."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        assert self.process is not None
        for pid in self.kernels().values() if self.process.poll() is None else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def certificates(folder: Path) -> Path:
    """A CA (``ca.pem``) and a certificate for 127.0.0.1 and ``gpu.test`` that it signed."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:gpu.test\n")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    for words in (
        ["req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test CA", "-days", "2"],
        ["req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=gpu.test"],
        ["x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
         "-out", "server.pem", "-days", "2", "-extfile", "names"],
    ):  # fmt: skip
        subprocess.run([OPENSSL, *words], cwd=folder, check=True, capture_output=True)
    return folder


class Proxy:
    """A TCP proxy to ``target`` that cuts, stalls and resets on demand."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.pairs: list[tuple[socket.socket, socket.socket]] = []
        self.flowing = threading.Event()
        self.flowing.set()
        self.closed = False
        self.connections = self.carried = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while not self.closed:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self.target), timeout=5)
            except OSError:
                near.close()
                continue
            self.connections += 1
            pair = (near, far)
            self.pairs.append(pair)
            for source, sink in (pair, pair[::-1]):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self.flowing.wait()
                sink.sendall(data)
                self.carried += len(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """Both ends see an orderly end."""
        for pair in self._take():
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def reset(self) -> None:
        """Both ends see 'connection reset by peer'."""
        for pair in self._take():
            for end in pair:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
                    end.shutdown(socket.SHUT_RD)  # says nothing, and lets go the thread that reads
                    end.close()

    def _take(self) -> list[tuple[socket.socket, socket.socket]]:
        pairs, self.pairs = self.pairs, []
        return pairs

    def misbehave(self, random: Random, after: int = 0) -> str:
        """One cut, reset or stall (short enough to recover from, or until the client gives up), at a random
        place of what is being said (``after`` so many bytes at least), and never while nothing is.
        """
        place = self.carried + after + random.randrange(4000)
        wait_for(lambda: self.pairs and self.carried > place, "traffic", 60)
        what = random.choice(("cut", "reset", "stall"))
        if what == "stall":
            self.flowing.clear()
            time.sleep(random.uniform(0.02, 0.4))
            if random.random() < 0.5:
                self.reset()
            self.flowing.set()
        else:
            getattr(self, what)()
        return what

    def close(self) -> None:
        self.closed = True
        self.listener.close()
        self.flowing.set()
        self.cut()


class Sshd:
    """A real sshd on loopback with keys made for the test; ``config`` is an ssh_config that reaches it as ``box``."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        folder.chmod(0o700)
        self.folder, self.port = folder, free_port()
        for name in ("host", "user", "other"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True
            )
        (folder / "authorized").write_text((folder / "user.pub").read_text())
        kind, key, *_ = (folder / "host.pub").read_text().split()
        (folder / "known").write_text(f"[127.0.0.1]:{self.port} {kind} {key}\n")
        (folder / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile {folder}/pid\n"
            f"AuthorizedKeysFile {folder}/authorized\nPasswordAuthentication no\nUsePAM no\nStrictModes no\n"
            "KbdInteractiveAuthentication no\nPermitRootLogin yes\nAllowTcpForwarding yes\nMaxStartups 100\n"
        )
        self.config = self.write_config("config")
        Path("/run/sshd").mkdir(exist_ok=True) if os.getuid() == 0 else None
        self.process: subprocess.Popen | None = None
        self.start()

    def write_config(self, name: str, *, port: int = 0, key: str = "user", known: str = "known") -> Path:
        path = self.folder / name
        path.write_text(
            f"Host box\n  HostName 127.0.0.1\n  Port {port or self.port}\n  IdentityFile {self.folder}/{key}\n"
            f"  IdentitiesOnly yes\n  UserKnownHostsFile {self.folder}/{known}\n  GlobalKnownHostsFile /dev/null\n"
            f"  HostKeyAlias [127.0.0.1]:{self.port}\n"
        )
        return path

    def start(self) -> None:
        argv = [SSHD, "-D", "-e", "-f", str(self.folder / "sshd_config")]
        with (self.folder / "sshd.log").open("ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)

        def listens() -> bool:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
            return False

        wait_for(listens, f"sshd: {(self.folder / 'sshd.log').read_text()}")

    def stop(self) -> None:
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextlib.contextmanager
def running(server: JupyterServer | Sshd) -> Iterator:
    try:
        yield server
    finally:
        server.stop()
