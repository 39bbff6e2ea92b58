"""The decode worker: ``python -m workbench.samples.reader.worker BACKEND DESCRIPTOR``.

It answers one request a line on stdin with one JSON line on stdout; the pixels lie in the memory file
DESCRIPTOR, which it shares with the parent (through a pipe they would take as long as decoding on a busy
machine). It holds every library that can crash or spin, so that the caller can kill it. It ends itself at
the end of its input (the parent is gone) and, should a decoder hang while the parent is gone, by an alarm
that needs no interpreter to act.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections import OrderedDict
from fractions import Fraction
from typing import Any, BinaryIO

import numpy as np

from workbench.errors import MediaError
from workbench.samples.reader.decoders import DECODERS, Decoder
from workbench.samples.reader.faults import media_error, stat_media
from workbench.samples.reader.table import StreamTable, read_table

ALARM_MARGIN_S = 2.0
TABLES_KEPT = 64


class Service:
    """Answers requests; keeps the tables of the last files, so that a second read of a long file does not
    scan it."""

    def __init__(self, backend: str) -> None:
        self.decoder: Decoder = DECODERS[backend]()
        self._tables: OrderedDict[tuple[str, int, int], StreamTable] = OrderedDict()

    def table(self, path: str) -> StreamTable:
        found = stat_media(path)
        key = (path, found.st_size, found.st_mtime_ns)
        if key not in self._tables:
            self._tables[key] = read_table(path)
            if len(self._tables) > TABLES_KEPT:
                self._tables.popitem(last=False)
        self._tables.move_to_end(key)
        return self._tables[key]

    def index(self, path: str) -> tuple[dict[str, Any], np.ndarray]:
        table = self.table(path)
        info = table.info
        answer = {"info": [info.frames, info.fps, info.duration_s, info.width, info.height]}
        return answer, np.ascontiguousarray(table.timestamps_s)

    def read(self, path: str, wanted: list[int]) -> tuple[dict[str, Any], np.ndarray]:
        table = self.table(path)
        frames = self.decoder.frames(path, table, wanted)
        if frames.shape != (len(wanted), table.info.height, table.info.width, 3):
            raise media_error(
                "broken", path, f"its frames come out as {frames.shape}, not as its header says"
            )
        return {"backend": self.decoder.name}, np.ascontiguousarray(frames)

    def probe(self) -> tuple[dict[str, Any], np.ndarray]:
        """Make a tiny clip, decode it, and compare every pixel: importing a backend proves nothing."""
        expected = np.zeros((6, 48, 64, 3), dtype=np.uint8)
        for i in range(6):
            expected[i, 6 * i : 6 * i + 9, :, i % 3] = 40 * i + 55
        with tempfile.TemporaryDirectory(prefix="workbench-probe-") as folder:
            path = os.path.join(folder, "probe.mkv")
            write_probe_clip(path, expected)
            wanted = [0, 1, 3, 5]
            frames = self.decoder.frames(path, read_table(path), wanted)
        if not np.array_equal(frames, expected[wanted]):
            raise RuntimeError("it decodes the probe clip to wrong pixels")
        return {"version": self.decoder.version}, np.zeros(0, dtype=np.uint8)


def write_probe_clip(path: str, frames: np.ndarray) -> None:
    """A lossless clip of ``frames`` with uneven gaps between them."""
    import av

    with av.open(path, "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "bgr0"
        stream.codec_context.time_base = Fraction(1, 1000)
        for i, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="bgr0")
            frame.pts, frame.time_base = 40 * i + 10 * (i % 2), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def serve(service: Service, requests: BinaryIO, answers: BinaryIO, memory: int) -> None:
    """Answer until the input ends. A ``MediaError`` is an answer; anything else ends the process."""
    for line in requests:
        request = json.loads(line)
        if hasattr(
            signal, "setitimer"
        ):  # default action of SIGALRM: the kernel ends us, whoever holds the interpreter
            signal.setitimer(signal.ITIMER_REAL, request["limit_s"] + ALARM_MARGIN_S)
        try:
            if request["op"] == "index":
                header, payload = service.index(request["path"])
            elif request["op"] == "read":
                header, payload = service.read(request["path"], request["wanted"])
            else:
                header, payload = service.probe()
            header |= {"shape": payload.shape, "dtype": payload.dtype.str}
        except MediaError as error:
            header, payload = {"kind": error.kind, "found": error.found}, np.zeros(0, dtype=np.uint8)
        except MemoryError:
            header, payload = (
                {"kind": "broken", "found": "its frames do not fit in memory"},
                np.zeros(0, np.uint8),
            )
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
        if payload.size:
            pixels, done = payload.data.cast("B"), 0
            while done < len(pixels):
                done += os.pwrite(memory, pixels[done:], done)
        answers.write(json.dumps(header).encode() + b"\n")
        answers.flush()


def main(arguments: list[str]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then closes our input
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # libraries that print must not write into the answers
    service = Service(arguments[0])
    try:
        serve(service, sys.stdin.buffer, answers, int(arguments[1]))
    except BrokenPipeError:  # the parent went away while being answered
        os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
