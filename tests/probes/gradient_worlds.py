"""Tiny models and batches that the gradient tests share, and the oracle: whole gradients flattened, in float64."""

from __future__ import annotations

import numpy as np
import torch

from tests.models.hosts import tiny
from tests.models.worlds import clip, model, sample
from workbench.training.packing import PackedBatch, materialise

torch.set_num_threads(1)


def double_model(kind: str = "tempflex", fusion: bool = True):
    """(model, processor) in float64, so that sums agree to rounding."""
    if kind == "tempflex":
        made, processor = model(seed=1, fusion_layers=int(fusion))
        if fusion:
            made.activate_fusion()
    else:
        made, processor = tiny.tiny_host(kind, seed=1)
    return made.double().eval(), processor


def conversation(processor, frames: int, seed: int, kind: str = "tempflex", width: int = 32, turns: int = 1):
    if kind == "tempflex":
        return processor.prepare(
            sample(frames, turns), clip(frames, width, 32, seed=seed) if frames else None
        )
    made = tiny.clip(frames, width, 24, seed=seed) if frames else None
    return processor.prepare(tiny.sample(frames, turns), made)


def batch_of(processor, frames: int, seeds, kind: str = "tempflex", width: int = 32) -> PackedBatch:
    prepared = [conversation(processor, frames, seed, kind, width) for seed in seeds]
    return materialise(prepared, [list(range(len(prepared)))], processor.pad_token_id)


def loss_of(made, batch: PackedBatch, num_items: int | None = None):
    return lambda: made(**batch.model_inputs(), num_items=num_items or batch.answer_tokens).loss


def whole_gradients(made, loss) -> dict[str, torch.Tensor | None]:
    """By autograd.grad, without the probe's hooks: None where the loss does not reach."""
    names, parameters = zip(*made.named_parameters(), strict=True)
    found = torch.autograd.grad(loss(), parameters, allow_unused=True)
    return dict(zip(names, found, strict=True))


def flat(gradients: dict[str, torch.Tensor | None], names) -> np.ndarray:
    return np.concatenate([gradients[name].detach().numpy().ravel() for name in names])
