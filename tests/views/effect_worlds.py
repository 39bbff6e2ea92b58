"""Atlas, knockout and attribution captures of any size, whose every number is known; they belong to ``attention_worlds``."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.views.attention_worlds import WORDS, pictures, token_map
from workbench.captures import Capture


def about(places: Any, texts: list[str], layers: int, heads: int, name: str) -> dict[str, Any]:
    """Metadata that all captures of one look share."""
    return {
        "model": {
            "type": "made-up",
            "text": {"num_hidden_layers": layers, "num_attention_heads": heads},
            "vision": {},
        },
        "checkpoint": {"name": name, "step": 120, "sha256": (name[:1] * 8) * 8},
        "sample": {"id": "clip-1", "question": " ".join(texts[:-3]), "answer": texts[-2], "turn": 0},
        "frames": {"indices": list(places.frame_indices), "timestamps": list(places.timestamps_s)},
        "token_map": places.to_json(),
        "tokens": ["<visual>"] * (len(places) - len(texts)) + texts,
        "heads_of_model": heads,
    }


def made(
    kind: str, arrays: dict[str, np.ndarray], axes: dict[str, list[str]], meta: dict[str, Any]
) -> Capture:
    return Capture(kind, arrays, meta | {"axes": axes, "units": dict.fromkeys(axes, "1")}).completed()


def atlas(
    frames: int = 5,
    layers: int = 3,
    heads: int = 4,
    *,
    seed: int = 0,
    name: str = "after",
    tokens: list[str] | None = None,
    with_pictures: bool = True,
    mean: bool = False,
    **shape: Any,
) -> Capture:
    """Masses drawn at random over segments, NaN for segments that lie wholly behind a query."""
    texts = tokens or [*WORDS, "<ask>", "purple", "<end>"]
    places = token_map(frames, words=len(texts) - 3, **shape)
    spans = np.unique(places.frame_span[places.visual], axis=0).tolist()
    segments = [{"kind": "frames", "span": span} for span in spans]
    segments += [{"kind": kind} for kind in ("question", "answer", "template") if len(places.where(kind))]
    of = np.full(len(places), -1)
    for s, segment in enumerate(segments):
        if segment["kind"] == "frames":
            of[(places.frame_span == segment["span"]).all(1)] = s
        else:
            of[places.where(segment["kind"])] = s
    rng = np.random.default_rng(seed)
    onehot = of[:, None] == np.arange(len(segments))
    seen = onehot.cumsum(0) > 0
    text = np.flatnonzero(places.kind != 3)

    def masses(visible: np.ndarray) -> np.ndarray:
        drawn = rng.standard_gamma(0.5, (layers, 1 if mean else heads, *visible.shape)) + 1e-6
        drawn = np.where(visible, drawn, 0)
        return np.where(visible, drawn / drawn.sum(-1, keepdims=True), np.nan).astype(np.float32)

    between = np.stack([seen[onehot[:, s]].any(0) for s in range(len(segments))])
    arrays = {
        "mass": masses(seen[text]),
        "segment_mass": masses(between),
        "queries": text.astype(np.int64),
        "sizes": onehot.sum(0),
    }
    axes = {
        "mass": ["layer", "head", "query", "segment"],
        "segment_mass": ["layer", "head", "from", "segment"],
        "queries": ["query"],
        "sizes": ["segment"],
    }
    if with_pictures:
        arrays["pictures"] = pictures(frames, *places.frame_size[::-1])
        axes["pictures"] = ["clip_frame", "y", "x", "rgb"]
    meta = about(places, texts, layers, heads, name) | {
        "layers": list(range(layers)),
        "heads": "mean" if mean else list(range(heads)),
        "queries": "text",
        "segments": segments,
    }
    return made("temporal_atlas", arrays, axes, meta)


def knockout(
    frames: int = 6,
    layers: int = 4,
    heads: int = 4,
    *,
    deltas: np.ndarray | None = None,
    grid: tuple[int, int] | None = None,
    seed: int = 0,
    name: str = "after",
    with_pictures: bool = True,
) -> Capture:
    """Every layer alone and all of them; deltas drawn at random unless given."""
    texts = [*WORDS, "<ask>", "purple", "<end>"]
    places = token_map(frames)
    blocks: list[dict[str, Any]] = []
    block_of = np.full(len(places), -1)
    for f in range(frames):
        for r, c in np.ndindex(grid or (1, 1)):
            if grid is None:
                mine = places.frame_span[:, 0] == f
            else:
                x0, y0 = places.boxes[:, 0] / places.frame_size[0], places.boxes[:, 1] / places.frame_size[1]
                mine = (
                    (places.frame_span[:, 0] == f)
                    & (np.floor(x0 * grid[1]) == c)
                    & (np.floor(y0 * grid[0]) == r)
                )
            block_of[mine] = len(blocks)
            blocks.append({"span": [f, f + 1]} | ({} if grid is None else {"row": r, "col": c}))
    windows = np.array([*((i, i + 1) for i in range(layers)), (0, layers)])
    rng = np.random.default_rng(seed)
    drawn = (
        rng.normal(size=(len(windows), len(blocks))) if deltas is None else np.asarray(deltas, dtype=float)
    )
    answer = places.where("answer")
    arrays = {
        "deltas": drawn,
        "windows": windows,
        "block_of": block_of,
        "answer": np.append(answer, answer[-1] + 1),
    }
    axes = {
        "deltas": ["window", "block"],
        "windows": ["window", "edge"],
        "block_of": ["key"],
        "answer": ["answer"],
    }
    if with_pictures:
        arrays["pictures"] = pictures(frames, *places.frame_size[::-1])
        axes["pictures"] = ["clip_frame", "y", "x", "rgb"]
    meta = about(places, texts, layers, heads, name) | {
        "blocks": blocks, "grid": grid, "layers": layers, "method": "suffix replay", "edges": "text -> block",
        "baseline_logprob": -1.5, "max_error": 1e-7, "replay_error": 1e-8, "seed": 3,
    }  # fmt: skip
    return made("knockout", arrays, axes, meta)


def attribution(
    of: Capture, scores: np.ndarray, relative: float | None = 0.01, curves: bool = True
) -> Capture:
    """Scores [4 rankings, block] beside a knockout."""
    arrays = {"scores": np.asarray(scores, dtype=float)}
    axes = {"scores": ["ranking", "block"]}
    names = ["attention", "knockout", "ablation", "ig"]
    if curves:
        fractions = np.linspace(0, 1, 5)
        lines = np.stack([np.stack([-fractions * (c + 1), -(1 - fractions) * (c + 1)]) for c in range(5)])
        arrays |= {
            "fractions": fractions,
            "curves": lines,
            "auc": np.ones((5, 2, 2)),
            "auc_random": np.ones((8, 2, 2)),
        }
        axes |= {"fractions": ["point"], "curves": ["curve", "mode", "point"], "auc": ["curve", "mode", "scale"],
                 "auc_random": ["draw", "mode", "scale"]}  # fmt: skip
    keep = ("model", "checkpoint", "sample", "frames", "token_map", "blocks", "grid")
    meta = {key: of.meta[key] for key in keep} | {
        "rankings": names, "curve_names": [*names, "random"] if curves else [], "modes": ["deletion", "insertion"],
        "scales": ["probability", "log_probability"], "baseline": "mean",
        "completeness": {"error": 0.02, "relative": relative, "difference": 2.0, "steps": 32},
    }  # fmt: skip
    return made("attribution", arrays, axes, meta)
