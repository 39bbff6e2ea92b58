"""Weights & Biases: project = job, run = run, events in the Logs tab; offline with ``WANDB_MODE=offline``.

Login, host and mode are wandb's own settings. ``OUT/JOB/RUN.json`` notes how far a run is. wandb writes behind
our back: after a session that was killed, its last second may be there a second time, at the same steps; wandb's
server keeps the first.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench.sinks.base import load_position, need, said, save_position


class WandbSink:
    """One run.

    Args:
        folder: where wandb puts its files, and we our note.
        identity: wandb's id of the run; the same one goes on with it.
    """

    def __init__(self, folder: Path, project: str, run: str, identity: str) -> None:
        wandb = need("wandb", "wandb")
        folder.mkdir(parents=True, exist_ok=True)
        self._note = folder / f"{run}.json"
        self.position, _ = load_position(self._note)
        settings = wandb.Settings(console="wrap", silent=True, x_disable_stats=True, save_code=False)
        self._run = wandb.init(
            project=project, name=run, id=identity, dir=str(folder), resume="allow", reinit="create_new",
            settings=settings,
        )  # fmt: skip

    def row(self, number: int, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def event(self, event: Mapping[str, Any], step: int) -> None:
        self._run.write_logs(said(event))

    def flush(self) -> None:
        save_position(self._note, self.position)

    def close(self) -> None:
        self._run.finish()
