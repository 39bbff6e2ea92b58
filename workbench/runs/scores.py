"""``scores/<name>.parquet``: one row a question, each table written whole or not at all."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.runs.files import check_name, read_table, write_atomic

if TYPE_CHECKING:
    import pandas as pd

DIRECTORY = "scores"


def write(directory: Path, name: str, table: pd.DataFrame) -> Path:
    """Write one table, replacing one of that name. Raises ``DiskFullError`` (the old one then stays)."""
    check_name("score table", name)
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    path = directory / DIRECTORY / f"{name}.parquet"
    write_atomic(path, buffer.getvalue())
    return path


def read_scores(directory: str | Path) -> pd.DataFrame:
    """Every score table of a run below one another, with its name in the column ``table``.

    Returns:
        One row a question (columns: ``docs/formats.md``); an empty frame with the column ``table`` when
        there are none.
    """
    import pandas as pd

    paths = sorted((Path(directory) / DIRECTORY).glob("*.parquet"))
    frames = [read_table(path).assign(table=path.stem) for path in paths]
    frames = [frame for frame in frames if len(frame)]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame({"table": pd.Series(dtype="str")})
