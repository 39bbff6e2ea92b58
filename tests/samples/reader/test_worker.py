"""The decode worker can be stopped, dies alone, and leaves nobody behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from media_files import noise, write_video

from workbench.errors import MediaError, WorkbenchError
from workbench.samples.reader import FrameReader
from workbench.samples.sample import ImageRef, VideoRef


@pytest.fixture(scope="module")
def clip(media: Path) -> VideoRef:
    return VideoRef(write_video(media / "worker.mkv", noise(20)))


def worker_of(reader: FrameReader) -> psutil.Process:
    assert reader._process is not None
    return psutil.Process(reader._process.process.pid)


def test_no_worker_until_a_video_is_read(clip: VideoRef, tmp_path: Path) -> None:
    reader = FrameReader()
    with pytest.raises(MediaError):
        reader.read(ImageRef(tmp_path / "nowhere.png"), (0,))
    assert reader._process is None
    reader.read(clip, (0,))
    assert reader._process is not None
    reader.close()


def test_a_decoder_that_hangs_is_killed_at_the_deadline(clip: VideoRef) -> None:
    """A worker that is stopped answers as little as one that spins."""
    with FrameReader(deadline_s=1.0) as reader:
        reader.info(clip)
        worker = worker_of(reader)
        worker.suspend()
        started = time.monotonic()
        with pytest.raises(MediaError) as caught:
            reader.read(clip, (3,))
        assert 0.9 < time.monotonic() - started < 6
        assert caught.value.kind == "timeout" and str(clip.path) in str(caught.value)
        assert not worker.is_running()
        assert reader.failures["timeout"] == 1
        assert np.array_equal(reader.read(clip, (3,)).frames, noise(20)[[3]])  # a fresh worker


def test_a_read_that_is_too_long_is_a_timeout(media: Path) -> None:
    path = write_video(media / "large.mkv", np.repeat(noise(2, 360, 640), 8, axis=0))
    with FrameReader(deadline_s=0.01) as reader, pytest.raises(MediaError) as caught:
        reader.read(VideoRef(path), tuple(range(16)))
    assert caught.value.kind == "timeout"


def test_a_decoder_that_crashes_is_a_broken_file(clip: VideoRef) -> None:
    with FrameReader() as reader:
        reader.info(clip)
        worker = worker_of(reader)
        worker.suspend()
        stop = threading.Timer(0.3, lambda: os.kill(worker.pid, signal.SIGSEGV))
        wake = threading.Timer(0.4, lambda: os.kill(worker.pid, signal.SIGCONT))
        stop.start(), wake.start()
        with pytest.raises(MediaError) as caught:
            reader.read(clip, (3,))
        stop.join(), wake.join()
        assert caught.value.kind == "broken" and "signal 11" in str(caught.value)
        assert reader.read(clip, (3,)).indices == (3,)


def test_a_worker_killed_between_reads_is_not_the_fault_of_the_next_file(clip: VideoRef) -> None:
    with FrameReader() as reader:
        reader.info(clip)
        worker_of(reader).kill()
        worker_of(reader).wait(5)
        assert reader.read(clip, (3,)).indices == (3,)
        assert not reader.failures


@pytest.mark.parametrize("end", ["", "os.kill(os.getpid(), signal.SIGKILL)", "raise SystemExit(3)"])
def test_no_orphans(clip: VideoRef, end: str) -> None:
    script = f"""
import os, signal
from pathlib import Path
from workbench.samples.reader import FrameReader
from workbench.samples.sample import VideoRef
reader = FrameReader()
reader.read(VideoRef(Path({str(clip.path)!r})), (0,))
print(reader._process.process.pid, flush=True)
{end}
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    worker = int(done.stdout)
    until = time.monotonic() + 10
    while psutil.pid_exists(worker) and psutil.Process(worker).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until, "the worker outlives its parent"
        time.sleep(0.05)


def test_the_worker_ends_itself_when_its_decoder_hangs_and_the_parent_is_gone() -> None:
    """The alarm is the kernel's: it needs neither the interpreter nor the parent."""
    script = (
        "import ctypes, io, json, workbench.samples.reader.worker as w\n"
        "class Hangs:\n"
        "    def index(self, path): ctypes.PyDLL(None).sleep(60)\n"  # holds the interpreter lock
        "w.ALARM_MARGIN_S = 0.5\n"
        "request = json.dumps({'op': 'index', 'path': '', 'limit_s': 0.2}).encode()\n"
        "w.serve(Hangs(), io.BytesIO(request), io.BytesIO(), 0)"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], timeout=40)
    assert done.returncode == -signal.SIGALRM and time.monotonic() - started < 20


def test_threads_share_a_reader(clip: VideoRef) -> None:
    frames, failures = noise(20), []
    with FrameReader() as reader:

        def read(i: int) -> None:
            for j in range(10):
                index = (i * 7 + j) % 20
                if not np.array_equal(reader.read(clip, (index,)).frames[0], frames[index]):
                    failures.append(index)

        threads = [threading.Thread(target=read, args=(i,)) for i in range(4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    assert not failures


def test_a_forked_child_gets_its_own_worker(clip: VideoRef) -> None:
    script = f"""
import os
from pathlib import Path
from workbench.samples.reader import FrameReader
from workbench.samples.sample import VideoRef
ref, reader = VideoRef(Path({str(clip.path)!r})), FrameReader()
reader.read(ref, (0,))
first = reader._process.process.pid
child = os.fork()
if child == 0:
    reader.read(ref, (1,))
    own = reader._process.process.pid
    reader.close()
    os._exit(0 if own != first else 1)
assert os.waitpid(child, 0)[1] == 0
reader.read(ref, (2,))
assert reader._process.process.pid == first
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_errors_of_use() -> None:
    with pytest.raises(WorkbenchError, match="no such backend"):
        FrameReader("quicktime")
    with pytest.raises(WorkbenchError, match="deadline_s"):
        FrameReader(deadline_s=0)


def test_a_backend_that_is_not_installed_says_how_to_install_it(clip: VideoRef) -> None:
    reader = FrameReader("torchcodec")
    try:
        assert reader.read(clip, (1,)).backend == "torchcodec"
    except WorkbenchError as error:
        assert "pip install" in str(error) or "torchcodec" in str(error)
    finally:
        reader.close()


def test_reading_needs_no_torch(clip: VideoRef) -> None:
    script = f"""
import sys
from pathlib import Path
from workbench.samples.reader import FrameReader
from workbench.samples.sample import VideoRef
FrameReader().read(VideoRef(Path({str(clip.path)!r})), (0,))
sys.exit("torch" in sys.modules or "transformers" in sys.modules or "av" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
