"""The toy under a launcher: rank 0 is the toy, the others come to it after every step, over gloo."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import torch.distributed

from tests.machines.toy import PAUSE_S
from workbench.runs import Run
from workbench.runs.supervised import reporting


@reporting()
def train(study: Path, steps: int) -> None:
    torch.distributed.init_process_group("gloo")
    run = Run.create(study / "runs" / "base-s0", "name: toy", {}) if os.environ["RANK"] == "0" else None
    for step in range(1, steps + 1):
        time.sleep(PAUSE_S)
        torch.distributed.all_reduce(torch.ones(1))
        if run is not None:
            run.metric(step, loss=1 / step)
            run.beat(step, steps)


if __name__ == "__main__":
    train(Path(sys.argv[1]), int(sys.argv[3]))
