"""Captures of attention rows with any number of frames, layers and heads, whose every number is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from workbench.captures import Capture
from workbench.captures.rows import Store, encode
from workbench.models.tokenmap import ANSWER, QUESTION, TEMPLATE, VISUAL, TokenMap

WORDS = ("which", "colour", "does", "the", "southeast", "digit", "become", "?")


def token_map(
    frames: int, rows: int = 4, cols: int = 4, side: int = 8, words: int = len(WORDS), pool: int = 1
) -> TokenMap:
    """``frames`` frames of rows x cols patches of ``side`` pixels, merged 2 x 2 (and ``pool`` frames), then ``words``
    question words, a template token, one answer token and a template token."""
    patches, spans, boxes = [], [], []
    for start in range(0, frames, pool):
        for row in range(0, rows, 2):
            for col in range(0, cols, 2):
                corner = row * cols + col
                patches.append([corner, corner + 1, corner + cols, corner + cols + 1])
                spans.append([start, min(start + pool, frames)])
                boxes.append([col * side, row * side, (col + 2) * side, (row + 2) * side])
    text = [*[QUESTION] * words, TEMPLATE, ANSWER, TEMPLATE]
    n = len(text)
    return TokenMap(
        kind=np.array([VISUAL] * len(patches) + text, np.uint8),
        turn=np.array([-1] * len(patches) + [0] * n, np.int16),
        frame_span=np.array(spans + [[-1, -1]] * n, np.int32).reshape(-1, 2),
        patches=np.array(patches + [[-1] * 4] * n, np.int32).reshape(-1, 4),
        boxes=np.array(boxes + [[-1] * 4] * n, np.float32).reshape(-1, 4),
        frame_indices=tuple(range(frames)),
        timestamps_s=tuple(0.5 * i for i in range(frames)),
        grid=(frames, rows, cols),
        frame_size=(cols * side, rows * side),
    )


def pictures(frames: int, height: int, width: int) -> np.ndarray:
    """A disc that crosses the frame: uint8 ``[F, y, x, 3]``."""
    y, x = np.mgrid[:height, :width]
    out = np.full((frames, height, width, 3), (200, 205, 215), np.uint8)
    for i in range(frames):
        at = (i + 0.5) / frames * width
        out[i, (x - at) ** 2 + (y - height / 2) ** 2 < (height / 5) ** 2] = (190, 60, 30)
    return out


def capture(
    frames: int = 4,
    layers: int = 3,
    heads: int = 4,
    *,
    seed: int = 0,
    store: Store = "float32",
    queries: str = "text",
    mean: bool = False,
    sink: int | None = None,
    tokens: list[str] | None = None,
    with_pictures: bool = True,
    name: str = "after",
    path: Path | None = None,
    **shape: Any,
) -> Capture:
    """Rows drawn from a Dirichlet distribution, causal; with ``sink`` that visual token draws half of every row."""
    places = token_map(frames, words=len(tokens) - 3 if tokens else len(WORDS), **shape)
    n, rng = len(places), np.random.default_rng(seed)
    text = np.flatnonzero(places.kind != VISUAL)
    asked = text if queries == "text" else places.where("answer")
    rows = rng.standard_gamma(0.3, (layers, heads, len(asked), n)).astype(np.float32) + np.float32(1e-6)
    hidden = np.arange(n) > asked[:, None]
    rows[:, :, hidden] = 0.0
    if sink is not None:
        rows[..., sink] = rows.sum(-1)
    rows /= rows.sum(-1, keepdims=True)
    rows[:, :, hidden] = np.nan
    rows = rows.mean(1, keepdims=True) if mean else rows
    axes = {"queries": ["query"], "token_ids": ["key"], "rows": ["layer", "head", "query", "key"]}
    arrays = {"queries": asked.astype(np.int64), "token_ids": np.arange(n)}
    stored = encode(rows, store)
    for ending, array in stored.items():
        arrays[f"rows{ending}"] = array = np.atleast_1d(array)  # the number of keys is no scalar in a file
        axes[f"rows{ending}"] = [*axes["rows"][:3], *(f"part{i}" for i in range(4))][: array.ndim]
    if with_pictures:
        arrays["pictures"] = pictures(frames, *places.frame_size[::-1])
        axes["pictures"] = ["clip_frame", "y", "x", "rgb"]
    texts = tokens or [*WORDS, "<ask>", "purple", "<end>"]
    meta = {
        "axes": axes,
        "units": dict.fromkeys(axes, "1"),
        "model": {"type": "made-up", "text": {"num_hidden_layers": layers}, "vision": {}},
        "checkpoint": {"name": name, "step": 120, "sha256": "ab" * 32},
        "sample": {"id": "clip-1", "question": " ".join(texts[:-3]), "answer": texts[-2], "turn": 0},
        "frames": {"indices": list(range(frames)), "timestamps": list(places.timestamps_s)},
        "token_map": places.to_json(),
        "layers": list(range(layers)),
        "store": store,
        "heads": "mean" if mean else list(range(heads)),
        "tokens": ["<visual>"] * (n - len(text)) + texts,
    }
    made = Capture("attention_rows", arrays, meta)
    return made.completed() if path is None else Capture.load(made.save(path))
