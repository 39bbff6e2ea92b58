"""What every position of a prepared conversation stands for: text of which turn, or which pixels of which
frames.

N positions, F frames of the clip. Views, captures and exports read this table; nothing parses token strings.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

KINDS = ("system", "question", "answer", "visual", "newline", "template")
SYSTEM, QUESTION, ANSWER, VISUAL, NEWLINE, TEMPLATE = range(len(KINDS))
COLUMNS = {
    "kind": np.uint8,
    "turn": np.int16,
    "frame_span": np.int32,
    "patches": np.int32,
    "boxes": np.float32,
}


@dataclass(frozen=True, eq=False)
class TokenMap:
    """Plain numpy columns, one row a position; -1 where a column does not apply.

    Attributes:
        kind: uint8 ``[N]``, an index into ``KINDS``.
        turn: int16 ``[N]``, index of the turn in its sample; -1 for visual positions and what precedes turns.
        frame_span: int32 ``[N, 2]``, half-open range of *clip* frames a visual or newline position covers
            (several frames after averaging over time).
        patches: int32 ``[N, 4]``, raster indices (row * cols + col) of the merged patches, in the order they
            are merged; fewer than four are filled up with -1.
        boxes: float32 ``[N, 4]``, box (x0, y0, x1, y1) in pixels of the source frame around those patches. A
            strip that wraps to the next row has the box of both parts: use ``patches`` where it matters.
        frame_indices, timestamps_s: of the clip, length F (indices in the source file; seconds).
        grid: (F, rows, cols) in patches before merging, or None without media.
        frame_size: (width, height) of the source frames in pixels, or None.
    """

    kind: np.ndarray
    turn: np.ndarray
    frame_span: np.ndarray
    patches: np.ndarray
    boxes: np.ndarray
    frame_indices: tuple[int, ...] = ()
    timestamps_s: tuple[float, ...] = ()
    grid: tuple[int, int, int] | None = None
    frame_size: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.kind)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TokenMap) and self.to_json() == other.to_json()

    __hash__ = None  # type: ignore[assignment]  # arrays inside

    def where(self, kind: str) -> np.ndarray:
        """Positions of one kind, int64, ascending. Raises ValueError for an unknown kind."""
        if kind not in KINDS:
            raise ValueError(f"there is no kind {kind!r} of position; kinds are {', '.join(KINDS)}")
        return np.flatnonzero(self.kind == KINDS.index(kind))

    @property
    def visual(self) -> np.ndarray:
        """Positions that carry pixels (newlines excluded)."""
        return self.where("visual")

    def frames(self, position: int) -> tuple[int, ...]:
        """Source frame indices a position covers; empty for text."""
        start, stop = self.frame_span[position]
        return () if start < 0 else self.frame_indices[start:stop]

    def time_span(self, position: int) -> tuple[float, float] | None:
        """Timestamps (s) of the first and last frame a position covers; None for text."""
        start, stop = self.frame_span[position]
        return None if start < 0 else (self.timestamps_s[start], self.timestamps_s[stop - 1])

    def rows_cols(self, position: int) -> list[tuple[int, int]]:
        """(row, col) of every patch merged into a position; empty for text and newlines."""
        if self.grid is None or self.patches[position, 0] < 0:
            return []
        return [(int(p) // self.grid[2], int(p) % self.grid[2]) for p in self.patches[position] if p >= 0]

    def to_json(self) -> str:
        """Everything as JSON text (columns as nested lists; floats keep float32 precision)."""
        data: dict[str, Any] = {
            "frame_indices": list(self.frame_indices),
            "timestamps_s": list(self.timestamps_s),
            "grid": self.grid,
            "frame_size": self.frame_size,
        }
        columns = ",".join(f'"{name}":{_column_json(getattr(self, name))}' for name in COLUMNS)
        return f"{{{columns},{json.dumps(data, separators=(',', ':'))[1:]}"

    @classmethod
    def from_json(cls, text: str) -> TokenMap:
        """The inverse of ``to_json``."""
        data = json.loads(text)
        n = len(data["kind"])
        columns = {
            name: np.array(data[name], dtype=dtype).reshape(n, *_WIDTH.get(name, ()))
            for name, dtype in COLUMNS.items()
        }
        for name in ("frame_indices", "timestamps_s"):
            data[name] = tuple(data[name])
        for name in ("grid", "frame_size"):
            data[name] = tuple(data[name]) if data[name] is not None else None
        return cls(**{**data, **columns})


def _column_json(column: np.ndarray) -> str:
    """A column as JSON; rows that occur again (text, and the places of every frame) are put into words once.

    Five times faster than ``json.dumps`` on a text or a clip, and the same letter by letter.
    """
    column = np.ascontiguousarray(column)
    if column.ndim == 1:
        return json.dumps(column.tolist(), separators=(",", ":"))
    rows = column.view(f"V{column.dtype.itemsize * column.shape[1]}").ravel().tolist()
    first = {row: i for i, row in enumerate(rows)}
    words = {row: json.dumps(column[i].tolist(), separators=(",", ":")) for row, i in first.items()}
    return f"[{','.join(map(words.__getitem__, rows))}]"


_WIDTH = {"frame_span": (2,), "patches": (4,), "boxes": (4,)}
