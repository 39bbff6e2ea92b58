"""Published results as tables with their source: read from ``data/published/`` and checked, never drawn on a study's axes."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import pandas as pd

from workbench.errors import DataError

TEXT = ("source", "model", "benchmark", "kind", "metric", "reference", "setting")
LEVELS = ("reference_value", "value", "change")
SPREAD = ("n", "seeds", "low", "high")
COLUMNS = (*TEXT, *LEVELS, *SPREAD, "note")
KINDS = ("image", "video")
ROUNDED = 0.051  # a difference of two rounded levels may be off by their rounding


def default_folder() -> Path:
    """``data/published`` of this project."""
    return Path(__file__).resolve().parents[2] / "data" / "published"


def load(folder: str | Path | None = None) -> pd.DataFrame:
    """All published results, one row a comparison, columns ``COLUMNS``; empty cells are NaN.

    Args:
        folder: of CSV files; default ``data/published`` of this project.

    Raises:
        DataError: no such folder or no table in it, unknown or missing columns, a row without a source, a number that
            is none, or numbers that contradict one another; named as ``file:line``.
    """
    folder = default_folder() if folder is None else Path(folder)
    files = sorted(folder.glob("*.csv"))
    if not files:
        found = "there is no CSV file in it" if folder.is_dir() else "there is no such folder"
        raise DataError(
            "read published results", found, "Give the folder `data/published` of the project", str(folder)
        )
    rows = [row for file in files for row in _read(file)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _read(file: Path) -> list[dict[str, Any]]:
    with file.open(encoding="utf-8", newline="") as lines:
        reader = csv.DictReader(lines)
        named = tuple(reader.fieldnames or ())
        if set(named) != set(COLUMNS) or len(named) != len(COLUMNS):
            wrong = sorted(set(named) ^ set(COLUMNS)) or sorted(n for n in named if named.count(n) > 1)
            raise _bad(
                file, 1, f"its columns differ in {', '.join(map(str, wrong))}", f"Use {', '.join(COLUMNS)}"
            )
        return [_row(file, reader.line_num, row) for row in reader]


def _row(file: Path, line: int, row: dict[Any, Any]) -> dict[str, Any]:
    if None in row or None in row.values():
        raise _bad(file, line, "it has more or fewer cells than the header", "Quote cells that hold a comma")
    for name in TEXT:
        if not row[name].strip():
            raise _bad(file, line, f"{name!r} is empty", "Say it: a number without its source is not shown")
    if row["kind"] not in KINDS:
        raise _bad(file, line, f"kind is {row['kind']!r}", f"Use {' or '.join(KINDS)}")
    numbers = {name: _number(file, line, name, row[name]) for name in (*LEVELS, *SPREAD)}
    before, after, change = (numbers[name] for name in LEVELS)
    if math.isnan(change):
        raise _bad(file, line, "'change' is empty", "Give the difference that is shown")
    if not math.isnan(before + after) and abs(after - before - change) > ROUNDED:
        raise _bad(file, line, f"change {change:g} is not {after:g} - {before:g}", "Correct one of them")
    low, high = numbers["low"], numbers["high"]
    if math.isnan(low) != math.isnan(high) or low > high or low > change or high < change:
        raise _bad(file, line, "low and high are no interval around change", "Give both or neither")
    return {**row, **numbers}


def _number(file: Path, line: int, name: str, text: str) -> float:
    if not text.strip():
        return float("nan")
    try:
        value = float(text)
    except ValueError:
        value = float("inf")
    if not math.isfinite(value):
        raise _bad(file, line, f"{name!r} is {text!r}", "Give a number, or nothing where the source has none")
    return value


def _bad(file: Path, line: int, found: str, todo: str) -> DataError:
    return DataError("read published results", found, todo, f"{file}:{line}")


def table_data(folder: str | Path | None = None) -> dict[str, Any]:
    """The published changes as data of the front-end module ``table``.

    Raises:
        DataError: as ``load``.
    """
    table = load(folder)
    rows = [
        {
            "what": f"{row['setting']}, against {row['reference']}",
            "where": f"{row['model']} on {row['benchmark']} ({row['kind']})",
            "levels": "not stated"
            if math.isnan(row["value"])
            else f"{row['reference_value']:.4g} → {row['value']:.4g}",
            "change": f"{row['change']:+.4g}".replace("-", "−"),
            "interval": "none given" if math.isnan(row["low"]) else f"[{row['low']:g}, {row['high']:g}]",
            "source": f"{row['source']}: {row['note']}",
        }
        for row in table.to_dict("records")
    ]
    titles = {
        "what": "Published comparison",
        "where": "Model and benchmark",
        "levels": "Levels",
        "change": "Change, points",
        "interval": "95% interval",
        "source": "Source and note",
    }
    return {
        "caption": "Published, of other models on other benchmarks: not comparable in level with anything above. "
        "All {n} are papers' numbers, none is ours.",
        "columns": [
            {"key": k, "title": t, "numeric": k in ("change", "levels", "interval")}
            for k, t in titles.items()
        ],
        "rows": rows,
        "empty": "No published results.",
    }
