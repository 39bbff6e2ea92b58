"""Attention rows of many samples in packed batches, and of tokens while they are generated."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from workbench.captures import Capture, capture_to
from workbench.captures.rows import chosen_store
from workbench.probes.attention import (
    Heads,
    Look,
    RowWriter,
    collect,
    head_count,
    head_list,
    inputs_of,
    looking,
    token_texts,
)
from workbench.probes.attention_keeping import CHECK_UNIT, look_meta, put, refuse_if_too_large
from workbench.probes.attention_math import BLOCK, check
from workbench.probes.attention_size import kept_bytes
from workbench.probes.attention_tap import AttentionTap, Call, attention_modules
from workbench.probes.pictures import add_pictures
from workbench.samples.sample import Clip, Sample


def attention_rows_packed(
    model: Any,
    processor: Any,
    samples: Sequence[tuple[Sample, Clip | None]],
    queries: str = "answer",
    look: Look | None = None,
    *,
    tokens_per_row: int = 2048,
    rows_per_micro_batch: int = 4,
    paths: Sequence[str | Path] | None = None,
) -> list[Capture]:
    """``attention_rows`` of many samples, several to a forward pass; one capture each, in the order given.

    Rows equal those of each sample alone: keys of other conversations are not visible and not stored.

    Args:
        paths: a file for each sample, or None for memory.

    Raises:
        ProbeError: see ``attention_rows``.
    """
    from workbench.training.packing import pack

    look = look or Look()
    prepared = [processor.prepare(sample, clip, turns=(look.turn,)) for sample, clip in samples]
    device = next(model.parameters()).device
    found: dict[int, Capture] = {}
    numbers = {id(item): i for i, item in enumerate(prepared)}
    for batch in pack(prepared, tokens_per_row, rows_per_micro_batch, processor.pad_token_id):
        with contextlib.ExitStack() as stack:
            writers: list[tuple[RowWriter, int, int, int]] = []
            laid = 0
            for index, row, start in batch.starts():
                item = prepared[index]
                path = None if paths is None else paths[numbers[id(item)]]
                writer = RowWriter(model, processor, *samples[index], item, queries, look, path)
                writers.append((stack.enter_context(writer), row, start, laid))
                laid += len(item)

            def see(call: Call, writers: list[tuple[RowWriter, int, int, int]] = writers) -> None:
                end_to_end = call.options.get("packing") is not None or "cu_seq_lens_q" in call.options
                for writer, row, start, laid in writers:
                    writer.see(call, *((0, laid) if end_to_end else (row, start)))

            inputs = {k: v for k, v in batch.model_inputs(device).items() if k != "labels"}
            with looking(model), AttentionTap(model, see, "llm", writers[0][0].layers):
                model(**inputs, return_logits=False)
            for (index, _, _), (writer, *_) in zip(batch.starts(), writers, strict=True):
                found[index] = writer.finish()
    return [found[i] for i in range(len(samples))]


def generation_rows(
    model: Any,
    processor: Any,
    sample: Sample,
    clip: Clip | None,
    max_new_tokens: int = 16,
    layers: Sequence[int] | None = None,
    heads: Heads = None,
    *,
    look: Look | None = None,
    path: str | Path | None = None,
) -> Capture:
    """Where the model looks while it answers: greedy generation, one row for each token it produced.

    Query t is the position whose output became generated token t (t = 0: the last of the prompt), so it sees
    N_prompt + t keys; those behind are not visible. Rows come from the generation itself, key/value cache included.

    Returns:
        A capture ``generation_rows``: ``rows`` [step, layer, head, key], ``generated`` ids [step], ``self_check``
        [step, layer]; ``text`` in the metadata. Its token map describes the prompt; generated tokens follow it.

    Raises:
        ProbeError: see ``attention_rows``.
    """
    look = look or Look(layers, heads)
    prepared = processor.prepare(sample, clip, turns=(look.turn,), with_answers=False)
    chosen, modules = attention_modules(model, "llm", look.layers)
    n_heads = head_count(modules[0])
    listed, mean = head_list(look.heads, n_heads)
    n, width = len(prepared), len(prepared) + max_new_tokens
    size = (len(chosen), 1 if mean else len(listed), max_new_tokens, width)
    store = chosen_store(look.store, size[0] * size[1] * size[2], width)
    held = kept_bytes(*size, "float32")  # all rows until the last token is there
    kept = kept_bytes(*size, store)
    refuse_if_too_large(f"take rows while answering {sample.id}", kept, held + 12 * BLOCK, path)
    steps: list[list[np.ndarray]] = []
    errors: list[list[float]] = []

    def see(call: Call) -> None:
        if call.layer == chosen[0]:
            steps.append([])
            errors.append([])
        last = torch.tensor([call.query.shape[2] - 1])
        weights, error, largest = collect(call, last, None if mean else listed)
        check(call.layer, "llm", error, largest, call.output.dtype)
        total = n + len(steps) - 1
        row = np.full((len(weights), width), np.nan, dtype=np.float32)
        row[:, total - weights.shape[-1] : total] = weights[:, 0]  # a sliding cache holds the last keys only
        steps[-1].append(row.mean(0, keepdims=True) if mean else row)
        errors[-1].append(error)

    with looking(model), AttentionTap(model, see, "llm", chosen):
        ids = model.generate(**inputs_of(prepared, model), max_new_tokens=max_new_tokens, do_sample=False)
    generated = (
        ids[0, n:] if ids.shape[1] >= n + 1 and torch.equal(ids[0, :n].cpu(), prepared.input_ids) else ids[0]
    )
    count = min(len(generated), len(steps))
    meta = look_meta(
        model, look, sample, clip, prepared,
        layers=chosen,
        heads="mean" if mean else listed,
        heads_of_model=n_heads,
        arrays={
            "generated": (("step",), "id in the model's vocabulary"),
            "self_check": (("step", "layer"), f"max |A V - O|, {CHECK_UNIT}"),
            "token_ids": (("prompt",), "id in the model's vocabulary"),
        },
        store=store,
        tokens=token_texts(processor, prepared),
        text=processor.decode(generated),
    )  # fmt: skip
    keys = n + count - 1 if count else n
    with capture_to(path, "generation_rows", meta) as writer:
        writer.add("generated", generated[:count].cpu().numpy())
        writer.add("token_ids", prepared.input_ids.numpy())
        add_pictures(writer, clip, look.pictures)
        writer.add("self_check", np.array(errors[:count]))
        for step in steps[:count]:
            rows = np.stack(step)[..., :keys]
            put(writer, "rows", rows, store, "attention probability", ("step", "layer", "head", "key"))
        return writer.finish()
