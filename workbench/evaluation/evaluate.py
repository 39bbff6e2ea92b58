"""Ask a model every question of a suite; one row a question, with what it was really shown.

Multiple choice is scored by likelihood: the answer with the largest log-probability among the choices is the
prediction. Questions whose choices are single tokens cost one packed forward pass; longer choices are
appended in turn, each with the mark that ends an answer, so that a choice is not preferred for being the
beginning of another. A question without choices is answered by greedy generation and compared after
lower-casing and removing outer punctuation; its ``log_probability`` is that of the right answer with its end
mark.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from workbench.errors import MediaError
from workbench.frames import FramePlan
from workbench.models.videolm import Prepared
from workbench.samples.reader import FrameReader
from workbench.samples.reader.planned import clip_of
from workbench.samples.sample import Sample
from workbench.training.packing import PackedBatch, pack

COLUMNS = (
    *("sample_id", "skill", "question", "answer", "prediction", "correct", "probability"),
    *("log_probability", "frames_used", "visual_tokens", "min_frames", "error"),
)
GROUP = 64  # questions prepared and packed together


@dataclasses.dataclass(frozen=True)
class Packing:
    """How evaluation lays out its batches; only speed depends on it."""

    tokens_per_row: int = 512
    rows_per_micro_batch: int = 8


@torch.inference_mode()
def evaluate(
    model: Any,
    processor: Any,
    samples: Sequence[Sample],
    plan: FramePlan,
    reader: FrameReader,
    *,
    packing: Packing | None = None,
    max_new_tokens: int = 32,
    between: Callable[[], None] | None = None,
    **columns: Any,
) -> pd.DataFrame:
    """Answer the (first turn's) question of every sample.

    Args:
        plan: frames of every sample, images included (``plan.with_copies`` shows them several times).
        between: called before every group of 64 questions; what it raises ends the evaluation (a stop).
        columns: constants added to every row (suite, arm, seed, step, condition).

    Returns:
        The score table of docs/architecture.md. A sample whose media cannot be read is a row with ``correct``
        False, ``prediction`` None and the reason in ``error``; it is counted, never dropped.
    """
    packing = packing or Packing()
    was_training = model.training
    model.eval()
    rows: list[dict[str, Any]] = []
    # like lengths together: rows fill up evenly
    order = sorted(range(len(samples)), key=lambda i: (len(plan.indices(samples[i].id)), i))
    for at in range(0, len(order), GROUP):
        if between is not None:
            between()
        group = [samples[i] for i in order[at : at + GROUP]]
        rows.extend(_group(model, processor, group, plan, reader, packing, max_new_tokens))
    model.train(was_training)
    in_order = [row for _, row in sorted(zip(order, rows, strict=True), key=lambda pair: pair[0])]
    return pd.DataFrame(in_order, columns=list(COLUMNS)).assign(**columns)


def _group(
    model: Any,
    processor: Any,
    samples: list[Sample],
    plan: FramePlan,
    reader: FrameReader,
    packing: Packing,
    max_new_tokens: int,
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    prompts: list[tuple[int, Prepared]] = []
    for sample in samples:
        indices = plan.indices(sample.id)
        turn = sample.turns[0]
        row: dict[str, Any] = dict.fromkeys(COLUMNS) | {
            "sample_id": sample.id,
            "skill": turn.skill,
            "question": turn.question,
            "answer": turn.answer,
            "correct": False,
            "probability": math.nan,
            "log_probability": math.nan,
            "frames_used": len(indices),
            "visual_tokens": 0,
            # of a row with several turns it is what all of them need together: not this question's
            "min_frames": sample.min_frames if len(sample.turns) == 1 else None,
        }
        rows.append(row)
        try:
            clip = clip_of(sample, indices, reader)
        except MediaError as error:
            row["error"] = str(error)
            continue
        prepared = processor.prepare(sample, clip, turns=(0,), with_answers=False)
        row["visual_tokens"] = len(prepared.token_map.visual)
        prompts.append((len(rows) - 1, prepared))
    single, several, free = [], [], []
    candidates: dict[int, list[list[int]]] = {}
    for at, prepared in prompts:
        choices = samples[at].turns[0].choices
        candidates[at] = [processor.answer_ids(choice) for choice in choices]
        if not choices:
            candidates[at] = [processor.answer_ids(samples[at].turns[0].answer)]
            free.append((at, prepared))
        elif all(len(ids) == 1 for ids in candidates[at]):
            single.append((at, prepared))
        else:
            several.append((at, prepared))
    for at, scores in _score_single(model, processor, single, candidates, packing):
        _choose(rows[at], samples[at], scores)
    for at, scores in _score_several(model, processor, several, candidates, packing):
        _choose(rows[at], samples[at], scores)
    for at, scores in _score_several(model, processor, free, candidates, packing):
        rows[at]["log_probability"] = float(scores[0])
    for at, prepared in free:
        _generate(model, processor, rows[at], samples[at], prepared, max_new_tokens)
    return rows


def _choose(row: dict[str, Any], sample: Sample, scores: torch.Tensor) -> None:
    choices = sample.turns[0].choices
    answer = choices.index(sample.turns[0].answer)
    best = int(scores.argmax())
    row["prediction"] = choices[best]
    row["correct"] = best == answer
    row["probability"] = float(scores.double().softmax(0)[answer])
    row["log_probability"] = float(scores[answer])


def _score_single(model, processor, items, candidates, packing):
    """Log-probabilities of one-token choices from one forward pass over packed prompts."""
    for batch, members in _packed(items, processor, packing):
        logits = model.logits_at(**_inputs(batch, model), at=_last_positions(batch).to(model.device))
        logs = logits.float().log_softmax(-1).cpu()
        for (conversation, _, _), line in zip(batch.starts(), logs, strict=True):
            at = members[conversation][0]
            yield at, line[[ids[0] for ids in candidates[at]]]


def _score_several(model, processor, items, candidates, packing):
    """Summed log-probabilities of choices of any length, end mark included: one packed conversation a
    choice.
    """
    expanded: list[tuple[tuple[int, int], Prepared]] = []
    for at, prepared in items:
        for which, ids in enumerate(candidates[at]):
            answer = torch.tensor([*ids, processor.end_token_id], dtype=torch.long)
            labels = torch.cat([torch.full_like(prepared.input_ids, -100), answer])
            joined = dataclasses.replace(
                prepared, input_ids=torch.cat([prepared.input_ids, answer]), labels=labels
            )
            expanded.append(((at, which), joined))
    totals: dict[int, torch.Tensor] = {at: torch.zeros(len(candidates[at])) for at, _ in items}
    for batch, members in _packed(expanded, processor, packing):
        places = (batch.labels != -100).nonzero()
        before = places - torch.tensor([0, 1])
        logits = model.logits_at(**_inputs(batch, model), at=before.to(model.device))
        logs = logits.float().log_softmax(-1).cpu()
        gained = logs.gather(1, batch.labels[places[:, 0], places[:, 1]][:, None])[:, 0]
        owner = {}
        for conversation, row, _ in batch.starts():
            segment = int(batch.rows[row].index(conversation)) + 1
            owner[(row, segment)] = members[conversation][0]
        for (row, column), value in zip(places.tolist(), gained.tolist(), strict=True):
            at, which = owner[(row, int(batch.segment_ids[row, column]))]
            totals[at][which] += value
    yield from totals.items()


def _packed(items, processor, packing: Packing):
    """Micro-batches of (key, prepared) items, each with the items that its conversations index."""
    if not items:
        return
    for batch in pack(
        [prepared for _, prepared in items],
        packing.tokens_per_row,
        packing.rows_per_micro_batch,
        processor.pad_token_id,
    ):
        yield batch, items


def _inputs(batch: PackedBatch, model: Any) -> dict[str, Any]:
    inputs = batch.model_inputs(model.device)
    del inputs["labels"]
    return inputs


def _last_positions(batch: PackedBatch) -> torch.Tensor:
    """(row, column) of the last token of every conversation, in the order of ``batch.starts()``: [K, 2]."""
    places = []
    for conversation, row, _start in batch.starts():
        segment = batch.rows[row].index(conversation) + 1
        columns = (batch.segment_ids[row] == segment).nonzero().flatten()
        places.append((row, int(columns[-1])))
    return torch.tensor(places)


def _generate(
    model: Any, processor: Any, row: dict[str, Any], sample: Sample, prepared: Prepared, max_new_tokens: int
) -> None:
    inputs: dict[str, Any] = {"input_ids": prepared.input_ids[None].to(model.device)}
    if prepared.pixel_values is not None:
        inputs["pixel_values"] = prepared.pixel_values.to(model.device)
        inputs["grids"] = torch.tensor([prepared.grid]).to(model.device)
    out = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
    text = processor.decode(out[0, prepared.input_ids.shape[0] :])
    row["prediction"] = text
    row["correct"] = normalise(text) == normalise(sample.turns[0].answer)


def normalise(text: str) -> str:
    """Lower case, single spaces, no outer punctuation."""
    return " ".join(text.lower().split()).strip(" .,;:!?\"'")


def subset(samples: Sequence[Sample], limit: int | None) -> list[Sample]:
    """At most ``limit`` samples, the skills taken in turn so that the smaller suite keeps their balance."""
    if limit is None or len(samples) <= limit:
        return list(samples)
    queues: dict[str, list[int]] = {}
    for index, sample in enumerate(samples):
        queues.setdefault(sample.skill, []).append(index)
    ranked = sorted(
        (place, skill, index) for skill, queue in queues.items() for place, index in enumerate(queue)
    )
    return [samples[i] for i in sorted(index for _, _, index in ranked[:limit])]


def losses_by_frames(
    model: Any,
    processor: Any,
    samples: Sequence[Sample],
    plans: dict[int, FramePlan],
    reader: FrameReader,
    packing: Packing | None = None,
) -> pd.DataFrame:
    """The model's loss on every sample at several frame counts: what labels for a frame policy are measured
    from.

    Returns:
        Columns sample_id, question, frames (planned), loss (nats of the right answer among the vocabulary),
        correct.
    """
    parts = []
    for frames, plan in plans.items():
        table = evaluate(model, processor, samples, plan, reader, packing=packing)
        parts.append(
            pd.DataFrame(
                {
                    "sample_id": table["sample_id"],
                    "question": table["question"],
                    "frames": np.int64(frames),
                    "loss": -table["log_probability"],
                    "correct": table["correct"],
                }
            )
        )
    return pd.concat(parts, ignore_index=True)
