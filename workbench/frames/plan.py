"""``FramePlan``: one row a sample, how many frames it gets and why. Training, evaluation and views read the
same object.

Columns: ``sample_id`` (str), ``requested``, ``available``, ``used`` (int64), ``policy``, ``reason`` (str).
``used = min(requested, available)``: a short clip is never repeated to fill a count. Reserved reasons:
``image``, ``text``, ``copies`` (the copies probe) and ``failed: KIND`` (the file cannot be read; 0 frames,
never replaced).
"""

from __future__ import annotations

import errno
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from workbench.errors import DataError, DiskFullError
from workbench.frames.sampling import midpoint_indices
from workbench.samples.sample import Sample

COLUMNS = ("sample_id", "requested", "available", "used", "policy", "reason")
SCHEMA = pa.schema(
    [(name, pa.int64() if name in ("requested", "available", "used") else pa.string()) for name in COLUMNS]
)
FORMAT = 1
METADATA_KEY = b"workbench.frame_plan"
REMAKE = "make the plan again with `workbench policy plan`"


class FramePlan:
    """How many frames every sample gets.

    Args:
        table: the six columns of this module, one row a sample, ids unique.
        metadata: policy name and parameters, seed and content hash (``make_plan`` fills them in); JSON values
        only.

    Raises:
        DataError: a column is missing, an id comes twice, or a row uses more frames than there are.
    """

    def __init__(self, table: pd.DataFrame, metadata: Mapping[str, Any] | None = None) -> None:
        missing = [name for name in COLUMNS if name not in table.columns]
        if missing:
            raise DataError("read a frame plan", f"no column {', '.join(missing)}", REMAKE)
        table = table.loc[:, list(COLUMNS)].reset_index(drop=True)
        for name in ("requested", "available", "used"):
            table[name] = table[name].astype(np.int64)
        self.metadata: dict[str, Any] = dict(metadata or {})
        self._table = table
        self._available: list[int] = table["available"].tolist()
        self._used: list[int] = table["used"].tolist()
        self._row: dict[str, int] = {name: row for row, name in enumerate(table["sample_id"])}
        if len(self._row) != len(table):
            twice = table["sample_id"][table["sample_id"].duplicated()].iloc[0]
            raise DataError(
                "plan frames", f"two samples have the id {twice!r}", "give every sample its own id"
            )
        wrong = (table["used"] < 0) | (
            (table["used"] > table["available"]) & ~table["reason"].isin(["copies"])
        )
        if wrong.any():
            row = table[wrong].iloc[0]
            raise DataError(
                f"plan {row['used']} frames for {row['sample_id']!r}",
                f"its clip has {row['available']}",
                "plan at most as many frames as there are",
            )

    # -- one sample --------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._table)

    def __contains__(self, sample_id: object) -> bool:
        return sample_id in self._row

    def __repr__(self) -> str:
        return f"FramePlan({len(self)} samples, {self.histogram()})"

    def _find(self, sample_id: str) -> int:
        row = self._row.get(sample_id)
        if row is None:
            raise DataError(
                f"look up the frames of sample {sample_id!r}",
                f"the plan holds {len(self)} other samples",
                "make the plan over the samples that are read",
            )
        return row

    def indices(self, sample_id: str) -> tuple[int, ...]:
        """Frame numbers to read, sorted (midpoint sampling); ``()`` for text and for files that cannot be
        read. O(1).
        """
        row = self._find(sample_id)
        return midpoint_indices(self._available[row], self._used[row])

    def used(self, sample_id: str) -> int:
        """Number of frames of one sample: ``len(plan.indices(sample_id))``. O(1)."""
        return self._used[self._find(sample_id)]

    # -- the whole ---------------------------------------------------------------------------------

    @property
    def table(self) -> pd.DataFrame:
        """A copy of the rows, in the order of the samples."""
        return self._table.copy()

    def videos(self) -> pd.DataFrame:
        """The rows of videos that can be read."""
        reason = self._table["reason"]
        return self._table[
            ~reason.isin(["image", "text", "copies"]) & ~reason.str.startswith("failed: ")
        ].copy()

    def histogram(self) -> dict[int, int]:
        """Videos that can be read, by frames used: ``{2: 100, 16: 40}``, smallest count first."""
        return dict(sorted(Counter(self.videos()["used"].tolist()).items()))

    def mean_frames(self) -> float:
        """Mean frames used over the videos that can be read; 0.0 without any."""
        used = self.videos()["used"]
        return float(used.mean()) if len(used) else 0.0

    def by_skill(self, samples: Sequence[Sample]) -> dict[str, float]:
        """Mean frames used by skill, videos only; a conversation counts once for every turn's skill."""
        videos = set(self.videos()["sample_id"])
        rows = [(turn.skill, self.used(s.id)) for s in samples if s.id in videos for turn in s.turns]
        means = pd.DataFrame(rows, columns=["skill", "used"]).groupby("skill")["used"].mean()
        return {str(skill): float(mean) for skill, mean in means.items()}

    def failures(self) -> dict[str, int]:
        """Samples whose file cannot be read, by kind of error: ``{"truncated": 2}``."""
        failed = self._table["reason"][self._table["reason"].str.startswith("failed: ")]
        return dict(Counter(failed.str.removeprefix("failed: ")))

    def reasons(self) -> dict[str, int]:
        """How many samples each reason decided, most frequent first."""
        return {str(k): int(v) for k, v in self._table["reason"].value_counts().items()}

    def with_copies(self, counts: Mapping[str, int]) -> FramePlan:
        """The same plan, but the images named in ``counts`` are shown as so many copies (indices ``(0,) *
        k``).

        This is the copies probe: an image repeated is a clip without motion at a video's frame budget.

        Raises:
            DataError: an id is not an image of this plan, or a count is below 1.
        """
        table = self.table
        rows = [self._find(sample_id) for sample_id in counts]
        for row, (sample_id, count) in zip(rows, counts.items(), strict=True):
            if self._table["reason"].iat[row] not in ("image", "copies") or count < 1:
                raise DataError(
                    f"show {sample_id!r} as {count} copies",
                    f"its row says {self._table['reason'].iat[row]!r}",
                    "name images that can be read, and at least one copy",
                )
        values = [int(count) for count in counts.values()]
        table.loc[rows, "requested"] = table.loc[rows, "used"] = values
        table.loc[rows, "reason"] = "copies"
        return FramePlan(table, {**self.metadata, "copies": True})

    # -- files -------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Write Parquet, metadata in the file's schema; the file appears whole or not at all.

        Raises:
            DiskFullError: no space left.
        """
        path = Path(path)
        head = json.dumps({"format": FORMAT, **self.metadata}, sort_keys=True).encode()
        arrow = pa.Table.from_pandas(self._table, schema=SCHEMA, preserve_index=False)
        arrow = arrow.replace_schema_metadata({METADATA_KEY: head})
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(arrow, partial)
            os.replace(partial, path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            if error.errno == errno.ENOSPC:
                raise DiskFullError(
                    "save a frame plan", "the disk is full", "free some space", str(path)
                ) from error
            raise DataError(
                "save a frame plan", str(error.strerror or error), "choose another path", str(path)
            ) from error
        return path

    @classmethod
    def load(cls, path: str | Path) -> FramePlan:
        """Read what ``save`` wrote.

        Raises:
            DataError: no such file, not Parquet (cut, for example), or Parquet that is not a frame plan.
        """
        path = Path(path)
        if not path.is_file():
            raise DataError("read a frame plan", "no such file", REMAKE, str(path))
        try:
            arrow = pq.read_table(path)
        except (OSError, pa.ArrowException) as error:
            found = f"not a whole Parquet file ({str(error).splitlines()[0]})"
            raise DataError("read a frame plan", found, REMAKE, str(path)) from error
        head = (arrow.schema.metadata or {}).get(METADATA_KEY)
        if head is None:
            raise DataError("read a frame plan", "Parquet without a plan's metadata", REMAKE, str(path))
        metadata = json.loads(head)
        if metadata.pop("format", None) != FORMAT:
            raise DataError("read a frame plan", f"not of format {FORMAT}", REMAKE, str(path))
        return cls(arrow.to_pandas(), metadata)
