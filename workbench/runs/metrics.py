"""``metrics/``: one row a training step, sealed into Parquet parts; the newest rows wait in ``tail.jsonl``.

Rows are numbered from 0 in the order written. ``part-000000000-000001000.parquet`` holds rows 0..999;
``tail.jsonl`` holds the rows not sealed yet, each with its number, so a crash between "part renamed" and
"tail emptied" repeats nothing: numbers that a part already covers are skipped. Sealed parts are never
rewritten. Resuming appends a mark to ``drops.jsonl`` ("of rows below number R, those after step S do not
count"), which readers apply.

Readers take the marks and the tail first and the parts after: rows that are sealed in between are then seen
in both and counted once, never in neither.
"""

from __future__ import annotations

import functools
import io
import json
import math
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.runs.files import LineFile, RunError, plain, read_lines, read_table, write_atomic

if TYPE_CHECKING:
    import pandas as pd

DIRECTORY = "metrics"
TAIL = "tail.jsonl"
DROPS = "drops.jsonl"
PART = re.compile(r"part-(\d+)-(\d+)\.parquet")
NONFINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
ROW = "_row"  # the row's number, kept out of what readers return


def _parts(directory: Path) -> list[tuple[int, int, Path]]:
    found = []
    for path in directory.glob("part-*.parquet"):
        match = PART.fullmatch(path.name)
        if match:
            found.append((int(match[1]), int(match[2]), path))
    return sorted(found)


def _tail_rows(directory: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(read_lines(directory / TAIL), 1):
        try:
            row = json.loads(line)
            row[ROW] = int(row[ROW])
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(
                "read the metrics of a run",
                "the line is not a metrics row",
                "The file was changed from outside: delete this line",
                f"{directory / TAIL}:{number}",
            ) from error
        rows.append({k: NONFINITE.get(v, v) if isinstance(v, str) else v for k, v in row.items()})
    return rows


def _drop_marks(directory: Path) -> list[tuple[int, int]]:
    try:
        return [(mark["row"], mark["step"]) for mark in map(json.loads, read_lines(directory / DROPS))]
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(
            "read the metrics of a run",
            "a line does not say what a resume dropped",
            "The file was changed from outside: restore it",
            str(directory / DROPS),
        ) from error


def apply_drops(table: pd.DataFrame, marks: list[tuple[int, int]]) -> pd.DataFrame:
    """The rows that count: of those below number R, a mark (R, S) drops the ones of later steps than S."""
    for row, step in marks:
        older = table[ROW] < row
        again = bool((table.loc[~older, "step"] == step).any())
        table = table[~(older & ((table["step"] > step) | ((table["step"] == step) & again)))]
    return table


def read_metrics(directory: str | Path) -> pd.DataFrame:
    """All metric rows of a run that count, in the order written; works on a run that is being written.

    Returns:
        One row a step with the columns that were written (missing values are NaN); an empty frame with the
        column ``step`` for a run without metrics. After a resume no step appears twice.
    """
    import pandas as pd

    folder = Path(directory) / DIRECTORY
    marks, tail, parts = _drop_marks(folder), _tail_rows(folder), _parts(folder)
    frames, end = [], 0
    for _, stop, path in parts:
        frames.append(read_table(path))
        end = max(end, stop)
    fresh = [row for row in tail if row[ROW] >= end]
    if fresh:
        frames.append(pd.DataFrame(fresh))
    if not frames:
        return pd.DataFrame({"step": pd.Series(dtype="int64")})
    table = frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)
    return apply_drops(table, marks).drop(columns=ROW).reset_index(drop=True)


def rows_from(directory: str | Path, start: int) -> list[tuple[int, dict[str, Any]]]:
    """Metric rows numbered ``start`` and up with their numbers, in order, those that were dropped included.

    The rows are JSON values as written (non-finite numbers by name). Parts are opened only for rows that the
    tail no longer has, so following a run that is being written reads one small file.
    """
    folder = Path(directory) / DIRECTORY
    tail = [(int(row[ROW]), row) for row in map(json.loads, read_lines(folder / TAIL))]
    first = tail[0][0] if tail else None
    found: dict[int, dict[str, Any]] = {}
    if first is None or start < first:
        for begin, stop, path in _parts(folder):
            if stop > start and (first is None or begin < first):
                about = path.stat()
                found |= _part_rows(path, about.st_ino, about.st_mtime_ns)
    found |= dict(tail)
    return [(number, found[number]) for number in sorted(found) if number >= start]


@functools.lru_cache(maxsize=8)
def _part_rows(path: Path, inode: int, changed: int) -> dict[int, dict[str, Any]]:
    """The rows of a part by number; a part never changes, and who catches up asks for it again and again."""
    # a part has every column of its rows: what a row lacked reads as NaN, or None where it is not a number
    records = read_table(path).to_dict("records")
    return {int(row[ROW]): plain({k: v for k, v in row.items() if v is not None}) for row in records}


def table_of(rows: list[dict[str, Any]], marks: list[tuple[int, int]]) -> pd.DataFrame:
    """What ``read_metrics`` gives, from rows as ``rows_from`` gives them and the marks (row, step) of resumes."""
    import pandas as pd

    if not rows:
        return pd.DataFrame({"step": pd.Series(dtype="int64")})
    read = [{k: NONFINITE.get(v, v) if isinstance(v, str) else v for k, v in row.items()} for row in rows]
    return apply_drops(pd.DataFrame(read), marks).drop(columns=ROW).reset_index(drop=True)


class MetricsWriter:
    """The one writer of a run's metrics.

    Args:
        directory: the run directory.
        rows: seal a part after so many rows ...
        seconds: ... or when the oldest unsealed row is so old (checked when a row comes in).
    """

    def __init__(self, directory: Path, rows: int = 1000, seconds: float = 60.0) -> None:
        self._folder = directory / DIRECTORY
        self._folder.mkdir(exist_ok=True)
        self._limit, self._seconds = rows, seconds
        end = max((stop for _, stop, _ in _parts(self._folder)), default=0)
        self._tail = LineFile(self._folder / TAIL)
        self._rows = [row for row in _tail_rows(self._folder) if row[ROW] >= end]
        self._next = self._rows[-1][ROW] + 1 if self._rows else end
        self._oldest = time.monotonic()

    def append(self, row: dict[str, Any]) -> None:
        """Add one row (``step`` and scalar columns). Raises ``DiskFullError``; rows written before stay."""
        numbered = plain({ROW: self._next, **row})
        line = json.dumps(numbered, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
        self._tail.append(line)
        if not self._rows:
            self._oldest = time.monotonic()
        self._rows.append({k: NONFINITE.get(v, v) if isinstance(v, str) else v for k, v in numbered.items()})
        self._next += 1
        if len(self._rows) >= self._limit or time.monotonic() - self._oldest > self._seconds:
            self.seal()

    def seal(self) -> None:
        """Write the waiting rows as one Parquet part, then empty the tail.

        Raises:
            DiskFullError: no room; the rows stay in the tail, nothing is lost.
        """
        if not self._rows:
            return
        import pandas as pd

        buffer = io.BytesIO()
        pd.DataFrame(self._rows).to_parquet(buffer, index=False)
        name = f"part-{self._rows[0][ROW]:09d}-{self._next:09d}.parquet"
        write_atomic(self._folder / name, buffer.getvalue())
        self._rows = []
        # A new, empty file takes the tail's name: a reader that has the old one open still reads whole
        # lines. If this fails the old tail goes on; its sealed rows are skipped by their numbers.
        write_atomic(self._folder / TAIL, b"", sync=False)
        self._tail.close()
        self._tail = LineFile(self._folder / TAIL)

    def drop_after(self, step: int) -> None:
        """From now on rows of steps after ``step`` written so far do not count (see ``Run.drop_after``)."""
        drops = LineFile(self._folder / DROPS)
        try:
            drops.append(json.dumps({"row": self._next, "step": int(step)}).encode(), sync=True)
        finally:
            drops.close()

    def sync(self) -> None:
        """Make the rows written so far survive a power cut."""
        self._tail.sync()

    def close_files(self) -> None:
        """Let go of the tail without sealing; its rows are read and sealed by the next writer."""
        self._tail.close()
