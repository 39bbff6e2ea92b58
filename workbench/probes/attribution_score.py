"""The answer's log-probability as a function of the visual embeddings alone: what attribution methods differentiate.

V visual positions, D model width, L early layers that add visual features (DeepStack), b rows at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from workbench.models.videolm import Prepared
from workbench.probes.attention import inputs_of
from workbench.probes.common import ProbeError
from workbench.probes.knockout import gained
from workbench.probes.knockout_cells import answer_places
from workbench.probes.knockout_replay import final_logits

BASELINES = ("mean", "zero")


class AnswerScore:
    """Called with visual embeddings ``[b, V, D (1 + L)]``, gives the answer's log-probability ``[b]`` (natural log).

    What encoder, fusion and merger made of the frames is ``embeddings``; with DeepStack, what early layers add at the
    same positions stands behind it, so that one position is one row. Text embeddings and positions stay as they are.

    Args:
        prepared: one conversation with an answer.
        name: of the sample, for errors.

    Attributes:
        positions: int64 ``[V]``, visual ones without newlines.
        embeddings: ``[1, V, D (1 + L)]`` as the model made them.
        answer_tokens: how many tokens the log-probability is summed over.

    Raises:
        ProbeError: no answer, or nothing visual.
    """

    def __init__(self, model: Any, prepared: Prepared, name: str) -> None:
        self.model = model
        self.positions = prepared.token_map.visual
        if not len(self.positions):
            raise ProbeError(
                f"attribute the answer of {name}",
                "the conversation has no image or video",
                "Give one that has",
            )
        places = answer_places(prepared.labels.numpy(), name)
        self.answer_tokens = len(places)
        inputs = inputs_of(prepared, model)
        given = _language_inputs(model, inputs, places)
        self._text: Tensor = given["inputs_embeds"]
        device = self._text.device
        self._rope: Tensor | None = given.get("position_ids")
        self._visual = torch.from_numpy(self.positions).to(device)
        self._places = torch.from_numpy(places).to(device)
        self._targets = inputs["input_ids"][0, self._places + 1]
        parts = [self._text[:, self._visual]]
        deep = given.get("deepstack_visual_embeds") or []
        if len(deep):
            at = given["visual_pos_masks"][0].nonzero().flatten()
            if not torch.equal(at, self._visual):
                raise ProbeError(
                    f"attribute the answer of {name}",
                    "early layers add features at other positions than the visual ones",
                    "This host is not supported",
                )
            parts += [features[None].to(parts[0].dtype) for features in deep]
        self._mask = given.get("visual_pos_masks")
        self.width = parts[0].shape[-1]
        self.embeddings = torch.cat(parts, -1)

    def baseline(self, kind: str) -> Tensor:
        """What stands for "nothing seen", shaped as ``embeddings``.

        "mean": the mean over this clip's visual positions, which keeps their scale: differences between frames and
        places are gone, what all share is still there. "zero": no such vector occurs, so paths to it need many steps.

        Raises:
            ProbeError: an unknown kind.
        """
        if kind not in BASELINES:
            raise ProbeError(
                f"take {kind!r} as baseline", "there is no such", f"Use {' or '.join(BASELINES)}"
            )
        if kind == "zero":
            return torch.zeros_like(self.embeddings)
        return self.embeddings.mean(1, keepdim=True).expand_as(self.embeddings).contiguous()

    def __call__(self, embeddings: Tensor) -> Tensor:
        b = len(embeddings)
        whole = self._text.expand(b, -1, -1).index_copy(1, self._visual, embeddings[..., : self.width])
        more: dict[str, Any] = {}
        if embeddings.shape[-1] > self.width and self._mask is not None:
            deep = embeddings[..., self.width :].split(self.width, -1)
            more["visual_pos_masks"] = self._mask.expand(b, -1)
            more["deepstack_visual_embeds"] = [part.flatten(0, 1) for part in deep]
        rope = self._rope
        if rope is not None:
            rope = rope.expand(*rope.shape[:-2], b, -1)
        out = self.model.language_model(inputs_embeds=whole, position_ids=rope, use_cache=False, **more)
        logits = final_logits(self.model, out.last_hidden_state[:, self._places])
        return gained(logits, self._targets).sum(-1).to(embeddings.dtype)

    def many(self, embeddings: Iterator[Tensor], batch: int) -> np.ndarray:
        """Scores of rows ``[V, D (1 + L)]``, ``batch`` at a time, without gradients; float64."""
        found: list[Tensor] = []
        waiting: list[Tensor] = []
        with torch.no_grad():
            for row in embeddings:
                waiting.append(row)
                if len(waiting) == batch:
                    found.append(self(torch.stack(waiting)))
                    waiting = []
            if waiting:
                found.append(self(torch.stack(waiting)))
        return torch.cat(found).double().cpu().numpy()


class _Enough(Exception):
    """The language model's inputs are known; the rest of the forward pass is not needed."""


def _language_inputs(model: Any, inputs: dict[str, Any], places: np.ndarray) -> dict[str, Any]:
    """Keyword arguments with which the model calls its language model."""
    found: dict[str, Any] = {}

    def hook(_module: nn.Module, _args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found.update(kwargs)
        raise _Enough

    handle = model.language_model.register_forward_pre_hook(hook, with_kwargs=True)
    at = torch.from_numpy(np.stack([np.zeros_like(places), places], 1)).to(inputs["input_ids"].device)
    try:
        with torch.no_grad(), contextlib.suppress(_Enough):
            model.logits_at(at=at, **inputs)
    finally:
        handle.remove()
    return found


@contextlib.contextmanager
def frozen(model: Any) -> Iterator[None]:
    """Eval mode, and no parameter asks for a gradient: only the embeddings do. All as before afterwards."""
    training = model.training
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.eval()
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)
        model.train(training)
