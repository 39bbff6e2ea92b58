"""A process that writes a run for the crash tests: ``python -m tests.runs.writer DIRECTORY SEED [STEPS]``.

After each operation that returned it prints what is safe from now on, one JSON object a line. Metrics are
sealed every 7 rows, so that a kill also lands in the middle of sealing.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pandas as pd

from workbench.runs import Run
from workbench.runs import metrics as metrics_module


def main(directory: Path, seed: int, steps: int = 10**9) -> None:
    metrics_module.MetricsWriter.__init__.__defaults__ = (7, 60.0)
    rng = random.Random(seed)
    run = Run.create(directory, "name: crash\n", {"arm": "a", "seed": seed})
    latest = run.latest_checkpoint()
    step = int((latest / "step").read_text()) if latest is not None else 0
    run.drop_after(step)
    say(resumed=step)
    while step < steps:
        step += 1
        run.metric(step, loss=1 / step, text="x" * rng.randrange(50))
        say(step=step)
        if rng.random() < 0.5:
            say(seq=run.event("note", step=step, text="y" * rng.randrange(200)))
        if rng.random() < 0.1:
            table = pd.DataFrame({"step": [step] * 5, "value": range(5)})
            run.write_scores(f"suite-{step % 3}", table)
            say(scores=f"suite-{step % 3}", at=step)
        if rng.random() < 0.1:
            with run.checkpoint_dir(f"step-{step:06d}") as path:
                (path / "weights").write_bytes(bytes([step % 256]) * rng.randrange(1, 100_000))
                (path / "step").write_text(str(step))
            run.prune_checkpoints(keep=f"step-{step:06d}", prefix="step-")
            say(checkpoint=step)
        run.beat(step, 10**6)
    run.finish("finished")
    say(finished=True)


def say(**fact: object) -> None:
    print(json.dumps(fact), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *map(int, sys.argv[3:]))
