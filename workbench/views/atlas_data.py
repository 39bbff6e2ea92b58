"""Numbers of a temporal atlas as the view shows them: rows, segments, averages, and what uniform attention would give.

Axes: L layers, H heads, R rows, S segments. Rows are first the S segments (means over the queries of each), then every
kept text query by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.captures import Capture
from workbench.errors import WorkbenchError
from workbench.views.attention_text import readable

KIND = "temporal_atlas"
MOST_TOKENS = 400  # text queries that are shown one by one
MEAN = "mean"


@dataclass(frozen=True, eq=False)
class Row:
    """Whose attention a row is: ``name`` in words, ``kind`` of segment, ``queries`` averaged, ``position`` of a token."""

    name: str
    kind: str
    queries: int
    position: int | None = None


@dataclass(frozen=True, eq=False)
class Atlas:
    """One capture, read.

    Attributes:
        values: float32 ``[L, H, R, S]``, NaN where nothing of a segment is visible.
        rows: R of them.
        segments: of the capture, each with a ``name``.
        uniform: float64 ``[R, S]``: the share of a segment among the positions a row's queries can see at most (itself and
            everything before), which uniform attention would give it; NaN as in ``values``.
        layers, heads: numbers in the model; heads is ``["mean"]`` for an average.
        left_out: text queries that were kept and are not shown.
    """

    values: np.ndarray
    rows: list[Row]
    segments: list[dict[str, Any]]
    uniform: np.ndarray
    layers: list[int]
    heads: list[Any]
    left_out: int

    @property
    def frames(self) -> list[int]:
        """Indices of the segments that are frames."""
        return [s for s, segment in enumerate(self.segments) if segment["kind"] == "frames"]

    def mean(self, layer: int | None = None, head: int | None = None) -> np.ndarray:
        """``[R, S]``: one layer and head by place in ``layers`` and ``heads``, or averaged over what is None."""
        part = self.values if layer is None else self.values[layer : layer + 1]
        part = part if head is None else part[:, head : head + 1]
        return average(part)


def average(values: np.ndarray) -> np.ndarray:
    """Mean over layers and heads, what is not visible left out, NaN where nothing is; a layer at a time in memory."""
    if values.shape[:2] == (1, 1):
        return np.asarray(values[0, 0], dtype=np.float32)
    total, count = np.zeros(values.shape[2:]), np.zeros(values.shape[2:])
    for layer in values:
        seen = ~np.isnan(layer)
        total += np.where(seen, layer, 0).sum(0, dtype=np.float64)
        count += seen.sum(0)
    with np.errstate(invalid="ignore"):
        return (total / count).astype(np.float32)


def read_atlas(capture: Capture) -> Atlas:
    """A ``temporal_atlas`` capture for the view.

    Raises:
        WorkbenchError: another kind of capture, or one without token map.
    """
    token_map = capture.token_map
    if capture.kind != KIND or token_map is None:
        found = (
            f"this is a {capture.kind} capture" if capture.kind != KIND else "the capture has no token map"
        )
        raise WorkbenchError(
            "show a temporal atlas", found, "Make one: workbench probe atlas RUN --sample ID"
        )
    meta, count = capture.meta, len(token_map)
    clip = len(token_map.frame_indices)
    segments = [dict(label, name=segment_name(label, clip)) for label in meta["segments"]]
    of = segment_of(token_map, segments)
    sizes = [int((of == s).sum()) for s in range(len(segments))]
    rows = [Row(_mean_name(segments[s], n), segments[s]["kind"], n) for s, n in enumerate(sizes)]
    queries = np.asarray(capture.arrays["queries"])
    text = [i for i, p in enumerate(queries.tolist()) if segments[of[p]]["kind"] != "frames"]
    texts = readable(meta.get("tokens") or [""] * count)
    shown = text[-MOST_TOKENS:]
    for i in shown:
        position = int(queries[i])
        kind = segments[of[position]]["kind"]
        rows.append(Row(_token_name(kind, texts[position], position), kind, 1, position))
    mass = np.asarray(capture.arrays["mass"])[:, :, shown]
    values = np.concatenate([np.asarray(capture.arrays["segment_mass"]), mass], axis=2)
    heads = ["mean"] if meta["heads"] == "mean" else list(meta["heads"])
    uniform = _uniform(of, len(segments), queries[shown])
    uniform[np.isnan(values).all((0, 1))] = np.nan
    return Atlas(values, rows, segments, uniform, list(meta["layers"]), heads, len(text) - len(shown))


def segment_of(token_map: Any, segments: list[dict[str, Any]]) -> np.ndarray:
    """Segment of every position, int64 ``[N]``: of a frame's visual tokens and line ends the frame, else the kind."""
    of = np.full(len(token_map), -1)
    framed = np.zeros(len(token_map), dtype=bool)
    framed[np.concatenate([token_map.where("visual"), token_map.where("newline")])] = True
    for s, segment in enumerate(segments):
        if segment["kind"] == "frames":
            of[framed & (token_map.frame_span == segment["span"]).all(1)] = s
    for s, segment in enumerate(segments):
        if segment["kind"] != "frames":
            mine = token_map.where(segment["kind"])
            of[mine[of[mine] < 0]] = s
    return of


def _uniform(of: np.ndarray, segments: int, shown: np.ndarray) -> np.ndarray:
    """float64 ``[segments + len(shown), segments]``: shares of what is seen under causal attention.

    A segment's row is the mean over those of its queries that see the other segment at all, as in ``segment_mass``.
    """
    onehot = of[:, None] == np.arange(segments)
    counts = onehot.cumsum(0)
    shares = counts / np.arange(1, len(of) + 1)[:, None]
    seen = counts > 0
    means = np.full((segments, segments), np.nan)
    for s in range(segments):
        mine = onehot[:, s]
        total = seen[mine].sum(0)
        with np.errstate(invalid="ignore"):
            means[s] = np.where(seen[mine], shares[mine], 0).sum(0) / total
    tokens = np.where(seen[shown], shares[shown], np.nan)
    return np.concatenate([means, tokens])


def segment_name(segment: dict[str, Any], frames: int) -> str:
    """A segment in words; frames count from 1."""
    if segment["kind"] != "frames":
        return str(segment["kind"])
    start, stop = segment["span"]
    which = f"frame {start + 1}" if stop == start + 1 else f"frames {start + 1} to {stop}"
    return f"{which} of {frames}"


def _mean_name(segment: dict[str, Any], queries: int) -> str:
    name = segment["name"].split(" of ")[0] if segment["kind"] == "frames" else segment["name"]
    return f"{name} (mean of {queries})" if queries != 1 else name


def _token_name(kind: str, text: str, position: int) -> str:
    return f"{kind}: {shown_text(text)}" if text else f"{kind}: position {position}"


def shown_text(token: str) -> str:
    """A readable token on one line, its spaces and line ends visible, long ones cut."""
    text = token.replace("\n", "↵").replace("\t", "⇥").replace("\r", "")
    text = "␣" * (len(text) - len(text.lstrip(" "))) + text.lstrip(" ")
    return text if len(text) <= 40 else text[:39] + "…"
