"""A program that trains nothing and behaves like one that does: a run with steps, checkpoints and a drop box.

Started by a real supervisor it shows in a second what a real training shows in ten. Its first argument says how
it behaves: ``train``, ``deaf`` (hears neither the drop box nor TERM, and has a child in a session of its own),
``crash`` and ``once`` (only at the first start), ``error`` (something the user can mend), ``memory``, ``segv``.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

from workbench.errors import Interrupted, WorkbenchError
from workbench.runs import Run
from workbench.runs.supervised import reporting
from workbench.training.stopping import SIGNALS, StopRequest

PAUSE_S = 0.02


@reporting()
def train(study: Path, mode: str, steps: int) -> None:
    if mode == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        subprocess.Popen(["sleep", "1000"], start_new_session=True)
    run = Run.create(study / "runs" / "base-s0", "name: toy", {"arm": "base", "seed": 0})
    latest = run.latest_checkpoint()
    done = int((latest / "step").read_text()) if latest else 0
    run.drop_after(done)
    with StopRequest(() if mode == "deaf" else SIGNALS) as stop:
        for step in range(done + 1, steps + 1):
            time.sleep(PAUSE_S)
            run.metric(step, loss=1 / step)
            run.beat(step, steps)
            wishes = frozenset() if mode == "deaf" else run.requests()
            leaving = "stop" in wishes or stop.asked
            if wishes or leaving or step % 5 == 0:
                with run.checkpoint_dir(f"step-{step:06d}") as folder:
                    (folder / "step").write_text(str(step))
            if leaving:
                run.finish("interrupted")
                raise Interrupted("go on", f"step {step} is saved", "Start it again")
            if step == 7:
                misbehave(mode)
    run.finish("finished")


def misbehave(mode: str) -> None:
    if mode == "crash" or (mode == "once" and os.environ["WORKBENCH_ATTEMPT"] == "0"):
        raise ValueError("the seventh step went wrong")
    if mode == "error":
        raise WorkbenchError("read the data", "a row is broken", "Mend the row")
    if mode == "memory":
        resource.setrlimit(resource.RLIMIT_AS, (1 << 28, resource.RLIM_INFINITY))
        bytearray(1 << 40)
    if mode == "segv":
        os.kill(os.getpid(), signal.SIGSEGV)


if __name__ == "__main__":
    try:
        train(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
    except WorkbenchError as error:
        print(f"workbench: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
