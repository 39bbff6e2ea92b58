"""Attention rows of one capture, read a query at a time from the file: maps over frames and numbers about them.

Axes: L layers, H heads of the capture, T visual tokens, F frames of the strip. ``heads`` axis of what is made here: the
mean over heads first, then the capture's own heads (a capture of ``heads="mean"`` has only the first). Statistics of the
mean are those of the mean map, not means of statistics. Definitions are those of ``workbench.probes.scatter`` and ``sinks``.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workbench.captures import Capture
from workbench.captures.rows import rows_of
from workbench.errors import WorkbenchError
from workbench.models.tokenmap import KINDS
from workbench.probes.boxes import Box, inside
from workbench.probes.sinks import FEW_QUERIES, Sinks, find_sinks
from workbench.views.film import Strip, strip_of

MEAN = "mean"


@dataclass(frozen=True, slots=True)
class Statistic:
    """One number of a map, 0 to 1: its key, its title, and what it is."""

    key: str
    title: str
    meaning: str


STATISTICS = (
    Statistic("visual_mass", "mass on the frames", "share of the row's attention that lies on visual tokens"),
    Statistic("entropy", "entropy / log n", "how evenly the visual part is spread over the n visible visual tokens; 1 is uniform"),
    Statistic("top1", "top 1 % of tokens", "share of the visual part on its largest ceil(n / 100) tokens"),
    Statistic("frame_peak", "fullest frame", "share of the visual part on the frame that has most of it"),
    Statistic("sink_mass", "mass on sinks", "share of the row's attention that lies on attention sinks among visual tokens"),
    Statistic("box_mass", "mass in the box", "share of the visual part inside the box"),
)  # fmt: skip
KEYS = tuple(statistic.key for statistic in STATISTICS)


@dataclass(frozen=True, eq=False)
class Query:
    """What one query looks at.

    Attributes:
        mean: float32 ``[L, T]``, the map averaged over heads; NaN where not visible.
        statistics: float32 ``[len(KEYS), L, 1 + H]``; NaN for one that there is not.
        frames: float32 ``[L, F]``, attention that each frame gets in the mean map.
        top: float32 ``[2, L, 1 + H]``, largest value of each map: of all tokens, and without sinks.
    """

    mean: np.ndarray
    statistics: np.ndarray
    frames: np.ndarray
    top: np.ndarray


class Reading:
    """An ``attention_rows`` capture, opened.

    Args:
        boxes: for ``box_mass``, in pixels of source frames.

    Raises:
        WorkbenchError: another kind of capture, or one that is not of the language model.
    """

    def __init__(self, capture: Capture, boxes: Sequence[Box] = ()) -> None:
        token_map = capture.token_map
        if capture.kind != "attention_rows" or token_map is None:
            raise WorkbenchError(
                "show attention",
                f"this is a capture of the kind {capture.kind!r}",
                "Make one with `workbench probe attention RUN --queries text`",
            )
        self.capture, self.token_map, self.boxes = capture, token_map, tuple(boxes)
        self.visual = token_map.visual
        self.strip: Strip | None = strip_of(token_map)
        self.positions = np.asarray(capture.arrays["queries"]).astype(int)
        self.layers: list[int] = list(capture.meta["layers"])
        heads = capture.meta["heads"]
        self.only_mean = heads == MEAN
        self.heads: list[int | str] = [MEAN] if self.only_mean else [MEAN, *heads]
        self.inside = (
            inside(token_map, self.visual, self.boxes) if self.boxes and self.strip is not None else None
        )

    @functools.cached_property
    def sinks(self) -> Sinks | None:
        """The capture's attention sinks; None where they cannot be told (``why_no_sinks``)."""
        if self.strip is None or len(self.positions) < FEW_QUERIES:
            return None
        return find_sinks(self.capture)

    @property
    def why_no_sinks(self) -> str:
        """In words, for a capture whose sinks cannot be told; "" otherwise."""
        if self.sinks is not None:
            return ""
        return (
            f"With {len(self.positions)} quer{'y' if len(self.positions) == 1 else 'ies'} sinks cannot be told from objects; "
            f"capture queries “text” (at least {FEW_QUERIES})."
        )

    @functools.cached_property
    def sink_tokens(self) -> np.ndarray:
        """bool ``[L, T]``."""
        if self.sinks is None:
            return np.zeros((len(self.layers), len(self.visual)), dtype=bool)
        return self.sinks.tokens[:, self.visual]

    def rows(self, query: int, layer: int, head: int | None = None) -> np.ndarray:
        """Rows over all keys, float32 with NaN: ``[H, N]``, or ``[N]`` of one of the capture's heads (by place)."""
        which = slice(None) if head is None else head
        return rows_of(self.capture.arrays, (layer, which, query))

    def map(self, query: int, layer: int, head: int) -> np.ndarray:
        """float32 ``[T]`` of one place on the heads axis (0 is the mean)."""
        if head == 0:
            return self.rows(query, layer)[:, self.visual].mean(0)
        return self.rows(query, layer, head - 1)[self.visual]

    @functools.lru_cache(maxsize=32)  # noqa: B019  a reading lives as long as its view
    def query(self, query: int) -> Query:
        """Everything about one query but its single heads' maps; its rows are read once, a layer at a time."""
        layers, heads, tokens = len(self.layers), len(self.heads), len(self.visual)
        frames = 0 if self.strip is None else len(self.strip.spans)
        mean = np.full((layers, tokens), np.nan, np.float32)
        statistics = np.full((len(KEYS), layers, heads), np.nan, np.float32)
        mass = np.zeros((layers, frames), np.float32)
        top = np.zeros((2, layers, heads), np.float32)
        for layer in range(layers if tokens else 0):
            maps = self.maps(query, layer)
            sinks = self.sink_tokens[layer]
            mean[layer] = maps[0]
            seen = ~np.isnan(maps)
            w = np.where(seen, maps, np.float32(0))
            top[0, layer] = w.max(-1)
            top[1, layer] = w[:, ~sinks].max(-1, initial=0.0) if sinks.any() else top[0, layer]
            sums = self.frame_mass(w)
            mass[layer] = sums[0]
            statistics[:, layer] = self.statistics(w, seen, sums, sinks)
        return Query(mean, statistics, mass, top)

    def maps(self, query: int, layer: int) -> np.ndarray:
        """All maps of a layer, the mean over heads first: float32 ``[1 + H, T]`` with NaN where not visible."""
        rows = self.rows(query, layer)[:, self.visual]
        return rows if self.only_mean else np.concatenate([rows.mean(0, keepdims=True), rows])

    def frame_mass(self, values: np.ndarray) -> np.ndarray:
        """Sums of a map ``[..., T]`` over each frame, ``[..., F]``."""
        assert self.strip is not None
        return self.strip.sums(values)

    def statistics(self, w: np.ndarray, seen: np.ndarray, sums: np.ndarray, sinks: np.ndarray) -> np.ndarray:
        """float32 ``[len(KEYS), n]`` of maps.

        Args:
            w: float32 ``[n, T]`` over the visual tokens, 0 where ``seen`` is False.
            sums: over frames, ``[n, F]``.
            sinks: bool ``[T]``.
        """
        mass, n = w.sum(-1), seen.sum(-1)
        most = max(1, -(-w.shape[-1] // 100))  # at most so many tokens count; fewer where fewer are visible
        largest = -np.sort(-np.partition(w, w.shape[-1] - most, axis=-1)[:, -most:], axis=-1)
        counted = np.arange(most) < np.ceil(n / 100)[:, None]
        none = np.full(len(w), np.nan, np.float32)
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.log(w, out=np.zeros_like(w), where=w > 0)
            nats = np.log(mass) - np.einsum("nt,nt->n", w, logs) / mass
            out = {
                "visual_mass": np.where(n > 0, mass, np.nan),
                "entropy": np.where(n > 1, nats / np.log(np.maximum(n, 2)), np.nan),
                "top1": (largest * counted).sum(-1) / mass,
                "frame_peak": sums.max(-1) / mass,
                "sink_mass": none if self.sinks is None else w[:, sinks].sum(-1),
                "box_mass": none if self.inside is None else w @ self.inside.astype(np.float32) / mass,
            }
        return np.stack([np.where(np.isfinite(out[key]), out[key], np.nan) for key in KEYS]).astype(
            np.float32
        )

    def box_mass(self, query: int, boxes: Sequence[Box]) -> np.ndarray:
        """Share of the visual part inside other boxes, float32 ``[L, 1 + H]``. Raises ProbeError for a bad box."""
        within = inside(self.token_map, self.visual, boxes)
        out = np.full((len(self.layers), len(self.heads)), np.nan, np.float32)
        for layer in range(len(self.layers)):
            w = np.nan_to_num(self.maps(query, layer))
            mass = w.sum(-1)
            out[layer] = np.divide(w @ within, mass, out=np.full(len(w), np.nan), where=mass > 0)
        return out

    def chance(self, within: np.ndarray, query: int) -> float:
        """The boxes' share of the area that the query sees: what even attention would give them."""
        seen = ~np.isnan(self.query(query).mean[0])
        area = self.areas * seen
        return float((within * area).sum() / area.sum()) if area.any() else float("nan")

    @functools.cached_property
    def areas(self) -> np.ndarray:
        """Pixels of each visual token, float64 ``[T]``."""
        box = self.token_map.boxes[self.visual].astype(np.float64)
        return (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])

    def shown_tokens(self) -> list[tuple[int, int | None]]:
        """(position, place among the queries or None) of the text worth listing: question, answer, and other queries."""
        place = {int(position): i for i, position in enumerate(self.positions)}
        kinds = [KINDS[k] for k in self.token_map.kind]
        return [
            (at, place.get(at))
            for at, kind in enumerate(kinds)
            if kind in ("question", "answer") or (at in place and kind not in ("visual", "newline"))
        ]

    def start(self) -> int:
        """The query to begin with: whose output predicts the answer, else the answer's first token, else the last."""
        answer = self.token_map.where("answer")
        place = {int(position): i for i, position in enumerate(self.positions)}
        for wanted in (answer[0] - 1, answer[0]) if len(answer) else ():
            if int(wanted) in place:
                return place[int(wanted)]
        return len(self.positions) - 1
