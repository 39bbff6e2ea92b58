"""What a knockout map is made of: blocks of visual positions, windows of layers, and the text that may not look there.

N positions; a *cell* is one (window, block): text may not look at the block in the window's layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.models.tokenmap import NEWLINE, TEMPLATE, VISUAL, TokenMap
from workbench.probes.common import ProbeError
from workbench.samples.sample import Sample

Windows = str | int | Sequence[tuple[int, int]] | None


@dataclass(frozen=True, eq=False)
class Blocks:
    """``of [N]``: the block of each position, -1 for none; ``labels``: {"span": [first, last + 1] of clip frames} and,
    for parts of a frame, {"row", "col"}."""

    of: np.ndarray
    labels: list[dict[str, Any]]

    def __len__(self) -> int:
        return len(self.labels)

    def members(self, block: int) -> np.ndarray:
        """Positions of one block, ascending."""
        return np.flatnonzero(self.of == block)


def frame_blocks(token_map: TokenMap, grid: tuple[int, int] | None = None) -> Blocks:
    """One block a frame (or a group of frames merged into one), or ``grid`` = (rows, cols) blocks a frame.

    The newlines of a frame belong to it; with a grid they belong to no block. A visual token lies in the grid cell
    that holds the middle of its pixel box. Cells without a token are left out.

    Raises:
        ProbeError: there is nothing visual, or the grid is not of positive numbers.
    """
    if grid is not None and min(grid) < 1:
        raise ProbeError(
            f"cut frames into {grid[0]} x {grid[1]} blocks", "both must be 1 or more", "Give such"
        )
    visual = token_map.kind == VISUAL
    if not visual.any():
        raise ProbeError("block what is seen", "the conversation has no image or video", "Give such a sample")
    of = np.full(len(token_map), -1)
    labels: list[dict[str, Any]] = []
    for start, stop in np.unique(token_map.frame_span[visual], axis=0).tolist():
        mine = (token_map.frame_span == (start, stop)).all(1)
        label: dict[str, Any] = {"span": [start, stop]}
        if token_map.frame_indices:
            label["indices"] = list(token_map.frame_indices[start:stop])
            label["timestamps"] = list(token_map.timestamps_s[start:stop])
        if grid is None:
            of[mine & (visual | (token_map.kind == NEWLINE))] = len(labels)
            labels.append(label)
            continue
        row, col = _grid_places(token_map, grid)
        for r, c in np.ndindex(grid):
            here = mine & visual & (row == r) & (col == c)
            if here.any():
                of[here] = len(labels)
                labels.append(label | {"row": r, "col": c})
    return Blocks(of, labels)


def _grid_places(token_map: TokenMap, grid: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of every position in a grid over the frame, from the middle of its box."""
    if token_map.frame_size is None:
        raise ProbeError("cut frames into blocks", "the token map has no frame size", "Take whole frames")
    width, height = token_map.frame_size
    x = (token_map.boxes[:, 0] + token_map.boxes[:, 2]) / 2 / width
    y = (token_map.boxes[:, 1] + token_map.boxes[:, 3]) / 2 / height
    places = ((y, grid[0]), (x, grid[1]))
    row, col = (np.clip((share * n).astype(np.int64), 0, n - 1) for share, n in places)
    return row, col


def layer_windows(windows: Windows, layers: int) -> list[tuple[int, int]]:
    """Half-open windows of layers.

    Args:
        windows: "single" every layer alone; "all" one window of all; a number w: every run of w neighbouring layers;
            pairs (first, last + 1); words and numbers joined by commas; None: runs of a quarter of the layers, and all.
        layers: of the model.

    Raises:
        ProbeError: no such window.
    """
    if windows is None:
        return _unique([*layer_windows(max(1, round(layers / 4)), layers), (0, layers)])
    if isinstance(windows, str) and "," in windows:
        return _unique([pair for word in windows.split(",") for pair in layer_windows(word.strip(), layers)])
    if isinstance(windows, str) and windows in ("single", "all"):
        windows = 1 if windows == "single" else layers
    if isinstance(windows, str):
        windows = _window_of(windows)
    if isinstance(windows, int):
        windows = [(i, i + windows) for i in range(layers - windows + 1)] if windows > 0 else []
    found = [(int(first), int(stop)) for first, stop in windows]
    wrong = [pair for pair in found if not 0 <= pair[0] < pair[1] <= layers]
    if wrong or not found:
        raise ProbeError(
            f"block the layers {wrong[0][0]} to {wrong[0][1] - 1}" if wrong else "block layers",
            f"the model has the layers 0 to {layers - 1}",
            "Choose windows inside",
        )
    return _unique(found)


def _window_of(word: str) -> int | list[tuple[int, int]]:
    """A number, or ``first-last`` (both included)."""
    parts = word.split("-")
    if all(part.isdecimal() for part in parts) and len(parts) <= 2:
        return int(parts[0]) if len(parts) == 1 else [(int(parts[0]), int(parts[1]) + 1)]
    raise ProbeError(
        f"block the layers {word!r}", "that is no window", "Write single, all, a width, or first-last"
    )


def _unique(pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    return list(dict.fromkeys(pairs))


@dataclass(frozen=True, eq=False)
class Cut:
    """Whose looks are cut.

    Attributes:
        queries: bool ``[N]``, positions that may not look at a block; None: all others (video to video as well).
        prefix: positions before the first one behind the last medium; replay needs their keys and values.
        inside: template positions between visual ones (time stamps, line ends), which count as part of the medium.
        interleaved: queries that later visual positions see, so that blocking them changes what is kept.
    """

    queries: np.ndarray | None
    prefix: int
    inside: int
    interleaved: int


def cut_of(token_map: TokenMap, edges: str) -> Cut:
    """Text positions that may not look: those behind the media, and questions between visual positions if there are.

    Text before the medium cannot see it. Raises ProbeError for an unknown kind of edge or nothing visual.
    """
    if edges not in ("text", "all"):
        raise ProbeError(
            f"block the edges {edges!r}", "there are two kinds", "Use text (text to video) or all (video too)"
        )
    kind = token_map.kind
    media = (kind == VISUAL) | (kind == NEWLINE)
    places = np.flatnonzero(media)
    if not len(places):
        raise ProbeError("block what is seen", "the conversation has no image or video", "Give such a sample")
    at = np.arange(len(kind))
    between = ~media & (at > places[0]) & (at < places[-1])
    queries = (between & (kind != TEMPLATE)) | (at > places[-1])
    inside, interleaved = int((between & (kind == TEMPLATE)).sum()), int((between & queries).sum())
    return Cut(queries if edges == "text" else None, int(places[-1]) + 1, inside, interleaved)


def check_turn(sample: Sample, turn: int) -> None:
    """Raises ProbeError for a question that the sample does not have."""
    if not 0 <= turn < len(sample.turns):
        last = len(sample.turns) - 1
        raise ProbeError(
            f"ask question {turn} of {sample.id}", f"it has the questions 0 to {last}", "Choose one of those"
        )


def answer_places(labels: np.ndarray, sample: str) -> np.ndarray:
    """Positions that predict an answer token (its own, minus one); the answer ends with its end mark, as in scores.

    Raises:
        ProbeError: the sample has no answer.
    """
    found = np.flatnonzero(labels[1:] != -100)
    if not len(found):
        raise ProbeError(
            f"measure the answer of {sample}",
            "its conversation has no answer tokens",
            "Give one with an answer",
        )
    return found
