"""``Run``: one directory, the only truth about one training or evaluation (``docs/formats.md``).

Opening reads; the first write takes the writer's lock, cuts off torn tails and cleans up what a crash left.
So a finished run opens at once, from any number of processes, and a crashed one is repaired by whoever
resumes it.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from workbench import __version__
from workbench.errors import DiskFullError, Interrupted
from workbench.runs import captures, checkpoints, control, lock, scores
from workbench.runs.environment import differences, environment, recorded
from workbench.runs.events import EventLog, last_event, read_events, utc_now
from workbench.runs.files import RunError, is_disk_full, pretty_json, write_atomic
from workbench.runs.metrics import MetricsWriter, read_metrics
from workbench.runs.status import LOST_AFTER_S, Heart, RunStatus, run_status

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1
META, RECIPE, ENVIRONMENT, RESERVE = "run.json", "recipe.yaml", "environment.json", "reserve"
FOLDERS = ("metrics", "scores", "checkpoints", "control")
RESERVE_BYTES = 16384  # given back when the disk is full, so that the reason of the end can still be written
Reason = Literal["finished", "interrupted", "failed"]

_writers: weakref.WeakValueDictionary[Path, Run] = weakref.WeakValueDictionary()


class Run:
    """A run directory. Use ``Run.create`` or ``Run.open``; all methods are safe to call from several threads.

    Attributes:
        directory: where it lives.
        meta: the contents of ``run.json`` (``format``, ``created``, ``workbench`` and what the creator gave).
    """

    def __init__(self, directory: Path, meta: dict[str, Any]) -> None:
        self.directory, self.meta = directory, meta
        self._guard = threading.RLock()
        self._opened = time.time()
        self._events: EventLog | None = None
        self._metrics: MetricsWriter | None = None
        self._heart: Heart | None = None

    # -- opening -------------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        directory: str | Path,
        recipe_yaml: str,
        meta: Mapping[str, Any] | None = None,
        resume: bool = True,
    ) -> Run:
        """Make a run, or open the one that is there.

        Args:
            directory: made with its parents when missing.
            recipe_yaml: the resolved recipe, stored as ``recipe.yaml``.
            meta: JSON values for ``run.json``. Two ``recipe_hash`` decide whether a run that is there was
                made with the same recipe; without them the text does.
            resume: open an existing run; False refuses it.

        Raises:
            RunError: another recipe's run, a foreign directory, or a run that exists and ``resume=False``.
            DiskFullError: no room.
        """
        directory, meta = Path(directory), dict(meta or {})
        if (directory / META).exists():
            if not resume:
                raise RunError(
                    "create a run",
                    "there is one already",
                    "Choose another directory, or resume it",
                    str(directory),
                )
            run = cls.open(directory)
            run._check_recipe(recipe_yaml, meta)
            return run
        ours = {RECIPE, ENVIRONMENT, RESERVE, lock.FILE, *FOLDERS}  # left by a crash during creation
        if directory.exists() and (
            not directory.is_dir() or not {p.name for p in directory.iterdir()} <= ours
        ):
            raise RunError(
                "create a run here",
                "there are other files",
                "Choose an empty or new directory",
                str(directory),
            )
        try:
            directory.mkdir(parents=True, exist_ok=True)
            lock.acquire(directory)
            for folder in FOLDERS:
                (directory / folder).mkdir(exist_ok=True)
        except OSError as error:
            if is_disk_full(error):
                raise DiskFullError(
                    "create a run", "no space is left", "Free some space and try again", str(directory)
                ) from error
            raise RunError(
                "create a run",
                str(error.strerror or error),
                "Choose a directory you may write to",
                str(directory),
            ) from error
        write_atomic(directory / RECIPE, recipe_yaml.encode())
        write_atomic(directory / ENVIRONMENT, pretty_json(environment()))
        write_atomic(directory / RESERVE, b"\0" * RESERVE_BYTES, sync=False)
        full = {"format": FORMAT, "created": utc_now(), "workbench": __version__, **meta}
        write_atomic(directory / META, pretty_json(full))  # last: from here on it is a run
        run = cls(directory, full)
        run._open_writers()
        run.event("start", pid=os.getpid())
        return run

    @classmethod
    def open(cls, directory: str | Path) -> Run:
        """Open an existing run for reading; writing begins with the first call that writes.

        Raises:
            RunError: no run there, or one written by a newer version.
        """
        directory = Path(directory)
        try:
            meta = json.loads((directory / META).read_bytes())
            version = int(meta["format"])
        except FileNotFoundError as error:
            raise RunError(
                "open a run",
                f"it has no {META}",
                "Name a run directory (`workbench runs` lists them)",
                str(directory),
            ) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(
                "open a run",
                f"its {META} is not readable ({error})",
                "Restore the file",
                str(directory / META),
            ) from error
        if version > FORMAT:
            raise RunError(
                "open a run",
                f"it has format {version}, this workbench knows up to {FORMAT}",
                "Update the workbench",
                str(directory / META),
            )
        return cls(directory, meta)

    def _check_recipe(self, recipe_yaml: str, meta: dict[str, Any]) -> None:
        before, now = self.meta.get("recipe_hash"), meta.get("recipe_hash")
        known = before is not None and now is not None
        if (before == now) if known else (self._recipe_text() == recipe_yaml):
            return
        raise RunError(
            "resume this run",
            "it was made with another recipe",
            f"See what differs: workbench recipe diff {self.directory / RECIPE} YOUR.yaml. Then use the old "
            "recipe, choose another output directory, or delete this one",
            str(self.directory),
        )

    def _recipe_text(self) -> str | None:
        try:
            return (self.directory / RECIPE).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return None

    # -- writing -------------------------------------------------------------------------------------------

    def _open_writers(self) -> None:
        key = self.directory.resolve()
        other = _writers.get(key)
        if other is not None and other is not self:
            other._close_files()  # its rows are in the tail file already, nothing is lost
        lock.acquire(self.directory)
        checkpoints.clean(self.directory)
        for leftover in self.directory.rglob("*.tmp"):
            leftover.unlink(missing_ok=True)
        for folder in FOLDERS:
            (self.directory / folder).mkdir(exist_ok=True)
        self._events = EventLog(self.directory)
        self._metrics = MetricsWriter(self.directory)
        self._heart = Heart(self.directory)
        _writers[key] = self

    def _log(self) -> EventLog:
        """The event log, opened for writing; a session that takes over an unfinished run says so first."""
        if self._events is None:
            self._open_writers()
            assert self._events is not None and self._heart is not None
            life = last_event(self.directory, ("start", "finish"))
            if (
                life is None or life.get("reason") != "finished"
            ):  # scores may be added to a finished run as it is
                control.forget_before(self.directory, self._opened)
                changed = differences(recorded(self.directory / ENVIRONMENT), environment())
                self._events.append("reopen", {"pid": os.getpid(), "environment_changed": changed})
                self._heart.write()
        return self._events

    def event(self, kind: str, **data: Any) -> int:
        """Append one event; its keys stand beside ``seq``, ``time`` and ``kind``. Returns its number.

        Raises:
            DiskFullError: no room; the log is as before.
            ValueError: a key called seq or time.
        """
        with self._guard:
            number = self._log().append(kind, data)
            if kind == "start" and self._heart is not None:
                self._heart.write()
            return number

    def metric(self, step: int, **row: Any) -> None:
        """Add one row for ``step`` (counted over the whole run, not a stage). It survives ``kill -9``.

        Raises:
            DiskFullError: no room; all rows before are safe.
        """
        with self._guard:
            self._log()
            assert self._metrics is not None and self._heart is not None
            self._metrics.append({"step": int(step), **row})
            if isinstance(row.get("loss"), int | float):
                self._heart.loss = float(row["loss"])

    def drop_after(self, step: int) -> None:
        """Resume at a checkpoint made after ``step`` steps: metric rows of later steps no longer count.

        A row of ``step`` itself stays, unless the resumed session writes that step again. So no step is
        read twice, whether steps are counted from 0 or from 1.
        """
        with self._guard:
            self._log()
            assert self._metrics is not None
            self._metrics.drop_after(step)

    def write_scores(self, name: str, table: pd.DataFrame) -> Path:
        """Write ``scores/<name>.parquet`` whole or not at all; a table of that name is replaced."""
        with self._guard:
            self._log()
            return scores.write(self.directory, name, table)

    @contextlib.contextmanager
    def checkpoint_dir(self, name: str) -> Iterator[Path]:
        """Yield a directory to fill: ``checkpoints/<name>`` when the block succeeds, gone when it fails.

        Raises:
            DiskFullError: no room, also when the library that writes says so only in words.
        """
        self._log()
        with checkpoints.writing(self.directory, name) as partial:
            yield partial
            with self._guard:
                # a run that goes on from here never writes the rows before it again
                if self._metrics is not None:
                    self._metrics.sync()
        self.event("checkpoint", name=name)

    def checkpoints(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        return checkpoints.complete(self.directory)

    def latest_checkpoint(self) -> Path | None:
        """The newest complete checkpoint or None. Raises ``CheckpointError`` when it was cut."""
        return checkpoints.latest(self.directory)

    def captures(self) -> list[Path]:
        """Files that probes wrote, by name (``workbench.captures.Capture.load`` opens them)."""
        return captures.complete(self.directory)

    def capture_path(self, name: str) -> Path:
        """Where the capture ``name`` lies or would lie; its folder appears with the first one.

        Raises:
            RunError: a name that is not a plain file name.
        """
        return captures.path_of(self.directory, name)

    def prune_checkpoints(self, keep: str, prefix: str = "") -> None:
        """Delete the complete checkpoints whose names begin with ``prefix``, all but ``keep``."""
        self._log()
        checkpoints.prune(self.directory, keep, prefix)

    def beat(self, step: int, total: int) -> None:
        """Say that ``step`` of ``total`` is done; cheap enough for every step (written once a second)."""
        with self._guard:
            self._log()
            assert self._heart is not None
            self._heart.beat(step, total)

    def finish(self, reason: Reason, error: str | None = None) -> None:
        """Seal everything, write why the run ended, let go of the directory.

        On a full disk the room reserved at creation is given back, so that the reason can still be written.
        """
        with self._guard:
            log = self._log()
            assert self._metrics is not None and self._heart is not None
            data: dict[str, Any] = {"reason": reason} | ({} if error is None else {"error": error})
            try:
                self._metrics.seal()
                self._heart.write()
                log.append("finish", data)
            except DiskFullError:
                (self.directory / RESERVE).unlink(missing_ok=True)
                log.append("finish", data)
            self._close_files()

    def close(self) -> None:
        """Seal the metrics and let go of the directory without an end (it then reads as lost)."""
        with self._guard:
            if self._metrics is not None:
                try:
                    self._metrics.seal()
                finally:
                    self._close_files()

    def _close_files(self) -> None:
        with self._guard:
            if self._events is not None and self._metrics is not None:
                self._events.close()
                self._metrics.close_files()
                lock.release(self.directory)
            self._events = self._metrics = self._heart = None
            _writers.pop(self.directory.resolve(), None)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """An exception ends the run as interrupted or failed; leaving without one only closes it."""
        if error is None or self._events is None:
            self.close()
        elif isinstance(error, KeyboardInterrupt | Interrupted):
            self.finish("interrupted")
        else:
            self.finish("failed", str(error) or type(error).__name__)

    # -- the drop box --------------------------------------------------------------------------------------

    def ask(self, request: Literal["stop", "checkpoint"]) -> None:
        """Ask the process that writes this run to stop (saving first) or to checkpoint at its next step."""
        control.ask(self.directory, request)

    def requests(self) -> frozenset[str]:
        """What was asked since the last call; each request is taken once."""
        return control.take(self.directory)

    # -- reading -------------------------------------------------------------------------------------------

    def status(self, lost_after_s: float = LOST_AFTER_S) -> RunStatus:
        """What the run is doing, from its files alone."""
        return run_status(self.directory, lost_after_s)

    def events(self, from_seq: int = 0) -> list[dict[str, Any]]:
        """See ``read_events``."""
        return read_events(self.directory, from_seq)

    def metrics(self) -> pd.DataFrame:
        """See ``read_metrics``."""
        return read_metrics(self.directory)

    def scores(self) -> pd.DataFrame:
        """See ``read_scores``."""
        return scores.read_scores(self.directory)
