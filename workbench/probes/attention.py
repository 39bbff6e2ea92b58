"""Attention rows: what chosen queries look at, exactly, in chosen layers and heads, at any length.

Axes of the capture ``attention_rows``: layer, head, query, key.

1. the sample is prepared as for training and run once through the model, with its own fast kernel;
2. the tap (``attention_tap.py``) shows q, k, v and the output of every layer; rows are computed from them in float32
   (``attention_math.py``), O(heads x queries x N) a layer, and written at once, so that no two layers are in memory;
3. |A V - O| of the same rows is checked in every layer and stored: rows that do not explain the output are refused.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbench.captures import Capture, capture_to
from workbench.captures.rows import Choice, chosen_store
from workbench.models.videolm import Prepared
from workbench.probes.attention_keeping import CHECK_UNIT, describe, look_meta, put, refuse_if_too_large
from workbench.probes.attention_math import BLOCK, check, exact_rows, value_norms
from workbench.probes.attention_queries import query_positions
from workbench.probes.attention_size import kept_bytes
from workbench.probes.attention_tap import AttentionTap, Call, attention_modules
from workbench.probes.common import Checkpoint, ProbeError
from workbench.probes.pictures import add_pictures
from workbench.samples.sample import Clip, Sample

KIND = "attention_rows"
Heads = Sequence[int] | str | None


@dataclass(frozen=True)
class Look:
    """How rows are taken and kept; see ``attention_rows``."""

    layers: Sequence[int] | None = None
    heads: Heads = None
    store: Choice = "auto"
    norms: bool = False
    turn: int = 0
    checkpoint: Checkpoint | None = None
    recipe_hash: str | None = None
    pictures: bool = True
    own: Mapping[str, Any] | None = None


def attention_rows(
    model: Any,
    processor: Any,
    sample: Sample,
    clip: Clip | None,
    queries: str | Sequence[int] | None = None,
    layers: Sequence[int] | None = None,
    heads: Heads = None,
    where: str = "llm",
    *,
    store: Choice = "auto",
    norms: bool = False,
    turn: int = 0,
    path: str | Path | None = None,
    checkpoint: Checkpoint | None = None,
    recipe_hash: str | None = None,
    pictures: bool = True,
    own: Mapping[str, Any] | None = None,
) -> Capture:
    """What the queries of one sample look at.

    Args:
        model: a ``VideoLM``; used as it is, in eval mode and without gradients.
        processor: what prepares its inputs.
        queries: see ``query_positions`` (default "answer"); for ``where="encoder"`` patches by number, or "mean" (default
            there), see ``encoder_rows``.
        layers: indices, None for all; negative ones count from the end.
        heads: indices, None for all, or ``"mean"`` for the average over all heads.
        where: "llm" or "encoder".
        store: "float32" (exact), "float16", "uint8" or "topk" (half a byte a key, the largest exactly; the capture states
            the error). "auto": float32 as long as that takes at most 100 MB, topk beyond.
        norms: also |v W_O| of every key (``value_norms``), for norm-weighted maps.
        turn: which question of the sample.
        path: stream the capture to this file, a layer at a time; None keeps it in memory.
        pictures: keep the frames too, small (``pictures.py``).
        own: further keys of the capture's metadata.

    Returns:
        ``rows`` [layer, head, query, key] (read them with ``captures.rows.rows_of`` whatever the store), ``queries``
        positions, ``token_ids`` of all positions, ``self_check`` [layer] = max |A V - O|, and with ``norms``
        ``value_norms`` [layer, head, key] (with heads="mean": ``norm_weighted`` [layer, head, query, key]).

    Raises:
        ProbeError: layers, heads or queries that are not there, an architecture that cannot be read, rows that fail
            their check, or a size that does not fit (naming it).
    """
    look = Look(layers, heads, store, norms, turn, checkpoint, recipe_hash, pictures, own)
    if where == "encoder":
        from workbench.probes.attention_encoder import encoder_rows

        return encoder_rows(
            model, processor, sample, clip, "mean" if queries is None else queries, look, path
        )
    prepared = processor.prepare(sample, clip, turns=(turn,))
    asked = "answer" if queries is None else queries
    with RowWriter(model, processor, sample, clip, prepared, asked, look, path) as rows:
        with looking(model), AttentionTap(model, rows.see, where, rows.layers):
            model(**inputs_of(prepared, model), use_cache=False, return_logits=False)
        return rows.finish()


class RowWriter:
    """The capture of one conversation: takes the layers' calls in turn, keeps the rows asked for.

    Args:
        queries: see ``query_positions``.
        path: file to stream to, or None.
        own: further keys of the metadata.

    Raises:
        ProbeError: see ``attention_rows``.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        sample: Sample,
        clip: Clip | None,
        prepared: Prepared,
        queries: str | Sequence[int],
        look: Look,
        path: str | Path | None = None,
        **own: Any,
    ) -> None:
        self.look, n = look, len(prepared)
        self.positions = query_positions(prepared.token_map, queries)
        self.layers, modules = attention_modules(model, "llm", look.layers)
        n_heads = head_count(modules[0])
        listed, self.mean = head_list(look.heads, n_heads)
        self.heads = None if self.mean else listed
        kept_heads = 1 if self.mean else len(listed)
        arrays = 1 + (self.mean and look.norms)
        size = (len(self.layers), kept_heads, len(self.positions), n)
        self.store = chosen_store(look.store, arrays * size[0] * size[1] * size[2], n)
        a_layer = 4 * len(listed) * len(self.positions) * n
        refuse_if_too_large(
            f"take {len(self.positions)} rows of {sample.id}",
            arrays * kept_bytes(*size, self.store),
            3 * a_layer + 12 * BLOCK,
            path,
            arrays * kept_bytes(*size, "topk"),
        )
        meta = look_meta(
            model, look, sample, clip, prepared,
            layers=self.layers,
            heads="mean" if self.mean else listed,
            heads_of_model=n_heads,
            arrays={
                "queries": (("query",), "position"),
                "token_ids": (("key",), "id in the model's vocabulary"),
                "self_check": (("layer",), f"max |A V - O| of these rows, {CHECK_UNIT}"),
            },
            queries=queries if isinstance(queries, str) else "positions",
            store=self.store,
            tokens=token_texts(processor, prepared),
            **own,
        )  # fmt: skip
        self.writer = capture_to(path, KIND, meta)
        self._keys = slice(0, n)
        self._places = torch.from_numpy(self.positions)
        self.writer.add("queries", self.positions)
        self.writer.add("token_ids", prepared.input_ids.numpy())
        add_pictures(self.writer, clip, look.pictures)

    def see(self, call: Call, row: int = 0, start: int = 0) -> None:
        """One layer's call, in which the conversation begins at place ``start`` of batch row ``row``.

        Raises ProbeError when the rows do not explain the layer's output.
        """
        keys = slice(start, start + self._keys.stop)
        weights, error, largest = collect(call, self._places + start, self.heads, row, keys)
        check(call.layer, "llm", error, largest, call.output.dtype)
        if self.look.norms:
            norm = value_norms(call, row, self.heads, keys).cpu().numpy()
            if self.mean:
                weighted = (weights * norm[:, None]).mean(0, keepdims=True)
                put(self.writer, "norm_weighted", weighted, self.store, "attention x |v W_O|")
            else:
                self.writer.append("value_norms", norm)
                describe(self.writer.meta, "value_norms", ("layer", "head", "key"), "|v W_O|")
        weights = weights.mean(0, keepdims=True) if self.mean else weights
        put(self.writer, "rows", weights, self.store, "attention probability")
        self.writer.append("self_check", np.asarray(error))

    def finish(self) -> Capture:
        """The capture, all layers seen."""
        return self.writer.finish()

    def __enter__(self) -> RowWriter:
        self.writer.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.writer.__exit__(*error)


def collect(
    call: Call, places: Tensor, heads: Sequence[int] | None, row: int = 0, keys: slice = slice(None)
) -> tuple[np.ndarray, float, float]:
    """All asked rows of one call: float32 ``[heads, queries, keys]`` with NaN, max |A V - O|, max |V|."""
    parts, error, largest = [], 0.0, 0.0
    for block in exact_rows(call, places, row, heads, keys):
        parts.append(block.weights.cpu().numpy())
        error, largest = max(error, block.error), max(largest, block.largest)
        if np.isnan(block.error):
            error = float("nan")
            break
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1), error, largest


def head_count(module: Any) -> int:
    """Query heads of an attention module."""
    for name in ("num_heads", "heads"):
        if isinstance(found := getattr(module, name, None), int):
            return found
    config = module.config
    return int(getattr(config, "num_attention_heads", None) or config.num_heads)


def head_list(heads: Heads, n_heads: int) -> tuple[list[int], bool]:
    """Head indices, and whether their mean is asked for. Raises ProbeError."""
    if isinstance(heads, str):
        if heads != "mean":
            raise ProbeError(
                f"look at heads {heads!r}", "that is no choice of heads", "Give indices or 'mean'"
            )
        return list(range(n_heads)), True
    listed = list(range(n_heads)) if heads is None else [int(head) for head in heads]
    wrong = [head for head in listed if not -n_heads <= head < n_heads]
    if wrong or not listed:
        raise ProbeError(
            f"look at head {wrong[0] if wrong else '(none named)'}",
            f"there are heads 0 to {n_heads - 1}",
            "Choose others",
        )
    return sorted({head % n_heads for head in listed}), False


def inputs_of(prepared: Prepared, model: Any) -> dict[str, Any]:
    """Arguments of ``model.forward`` for one conversation, on the model's device."""
    inputs: dict[str, Any] = {"input_ids": prepared.input_ids[None]}
    if prepared.pixel_values is not None:
        inputs |= {"pixel_values": prepared.pixel_values, "grids": torch.tensor([prepared.grid])}
    device = next(model.parameters()).device
    return {name: value.to(device) for name, value in inputs.items()}


def token_texts(processor: Any, prepared: Prepared) -> list[str]:
    """The text of each position's token, for labels; empty without a tokenizer."""
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is None:
        return []
    ids, which = prepared.input_ids.unique(return_inverse=True)  # most positions are the same visual token
    texts = [str(text) for text in tokenizer.convert_ids_to_tokens(ids.tolist())]
    return [texts[i] for i in which.tolist()]


@contextlib.contextmanager
def looking(model: Any) -> Iterator[None]:
    """Eval mode without gradients; every module's mode comes back afterwards."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        with torch.inference_mode():
            yield
    finally:
        for module in training:
            module.training = True
