"""The parent's end of the decode worker: start it, ask with a deadline, kill it."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np

MEMORY_KEPT = 64 << 20  # bytes of shared memory that stay allocated between reads
START_LIMIT_S = 120.0  # a cold import of torch for torchcodec on a busy machine


class WorkerDied(Exception):
    """The worker ended without an answer; the text says how."""


class WorkerTimeout(Exception):
    """The worker did not answer within the deadline and was killed."""


class DecodeProcess:
    """One running worker. Not thread-safe: ``FrameReader`` holds a lock around it."""

    def __init__(self, backend: str) -> None:
        root = str(Path(__file__).resolve().parents[3])
        environment = dict(os.environ)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH")]))
        self._memory = _shared_file()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self.process = subprocess.Popen(
            [sys.executable, "-m", "workbench.samples.reader.worker", backend, str(self._memory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=environment,
            bufsize=0,
            pass_fds=[self._memory],
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self._write_fd, self._read_fd = self.process.stdin.fileno(), self.process.stdout.fileno()
        os.set_blocking(self._read_fd, False)
        self._rest = b""
        self.owner = os.getpid()
        # Also runs at interpreter exit; holds no reference to self.
        self._finalizer = weakref.finalize(self, _end, self.process, self._memory, self.owner)
        answer, _ = self.ask({"op": "probe"}, START_LIMIT_S)
        if "kind" in answer:
            self.kill()
            raise WorkerDied(f"it cannot decode the probe clip: {answer['found']}")
        self.version: str = answer["version"]

    @property
    def alive(self) -> bool:
        return self.owner == os.getpid() and self.process.poll() is None

    def ask(self, request: dict[str, Any], limit_s: float) -> tuple[dict[str, Any], np.ndarray]:
        """Header and payload of the answer. After ``WorkerDied`` and ``WorkerTimeout`` it is gone."""
        until = time.monotonic() + limit_s
        try:
            message = json.dumps({**request, "limit_s": limit_s}).encode() + b"\n"
            while message:
                message = message[os.write(self._write_fd, message) :]
            header = json.loads(self._line(until))
            payload = np.empty(header.get("shape", (0,)), dtype=header.get("dtype", "|u1"))
            if payload.size:
                self._fill(payload.data.cast("B"))
            return header, payload
        except BrokenPipeError:
            raise WorkerDied(self._obituary()) from None
        except BaseException:  # a timeout, Ctrl-C: an answer half read would be taken for the next one
            self.kill()
            raise

    def kill(self) -> None:
        """SIGKILL: a decoder that spins in C listens to nothing else."""
        self._finalizer()
        self._stderr.close()

    def _line(self, until: float) -> bytes:
        while b"\n" not in self._rest:
            self._wait(until)
            self._rest += self._checked(os.read(self._read_fd, 65536))
        line, self._rest = self._rest.split(b"\n", 1)
        return line

    def _fill(self, target: memoryview) -> None:
        done = 0
        while done < len(target):
            count = os.preadv(self._memory, [target[done:]], done)
            if not count:
                raise WorkerDied("the decoder process answered with too few bytes")
            done += count
        if done > MEMORY_KEPT:
            os.ftruncate(self._memory, 0)

    def _wait(self, until: float) -> None:
        left = until - time.monotonic()
        if left <= 0 or not select.select([self._read_fd], [], [], left)[0]:
            raise WorkerTimeout

    def _checked(self, data: bytes) -> bytes:
        if not data:
            raise WorkerDied(self._obituary())
        return data

    def _obituary(self) -> str:
        """How it ended, with the last line it wrote."""
        try:
            code = self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            code = 0
        self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, self._stderr.tell() - 2000))
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        return f"the decoder process ended ({how}{': ' + lines[-1][:300] if lines else ''})"


def _shared_file() -> int:
    """Descriptor of a file without a name: it lives in memory and goes when both processes are gone."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("workbench-frames")
    with tempfile.TemporaryFile() as file:  # macOS
        return os.dup(file.fileno())


def _end(process: subprocess.Popen[bytes], memory: int, owner: int) -> None:
    if os.getpid() != owner:  # a forked child holds a copy of the handle, not the worker
        return
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    process.wait()
    os.close(memory)
