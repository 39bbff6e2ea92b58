"""Which frames and patches the interference <g_V, g_I> comes from, exactly.

For a linear layer y_t = W x_t + b the gradient is g_V = sum_t delta_t x_t^T over tokens t (delta = dL/dy), so

    <g_V, G_I> = sum_t delta_t^T (G_I x_t + G_b)

splits over tokens without approximation (an embedding is the linear layer of one-hot inputs). One conversation
is run at a time against the kept image gradient; forward hooks see x, a hook on y sees delta, and only the
split is stored: tokens x groups. Tokens become frames and patches through the conversation's ``TokenMap``.

What is not split is not dropped: parameters that are no linear layer (norms, position tables), and tokens
without a place, make up ``other``, so frames + fibers + text + other is the whole interference.
A token that covers several frames or patches (merging, averaging over time) gives each an equal part.

T tokens of a layer, N positions of the conversation, F frames, P patches a frame, G groups.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from workbench.models.tokenmap import KINDS, VISUAL, TokenMap
from workbench.models.videolm import Prepared
from workbench.probes.gradients.parameters import ParameterGroups
from workbench.probes.gradients.stream import KeptGradient, discarding, receiving
from workbench.training.packing import IGNORE, materialise

TEXT = tuple(kind for kind in KINDS if kind != "visual")
FIBER = "fiber"  # a patch position of all frames at once: what acts on a mean over time
OTHER = "other"
PLACES = (*TEXT, FIBER, OTHER)


@dataclass
class ConflictMap:
    """Parts of <g_V, g_I>, float64; negative where a token pushes against the image gradient.

    Attributes:
        groups: names of the G groups.
        frames: ``[G, F]``.
        patches: ``[G, F, P]`` in raster order; sums over P to ``frames``, or NaN where a layer's tokens have a
            frame but no patch.
        rest: ``[G, len(PLACES)]``: text by kind, newlines, fibers, and what has no token.
        whole: ``[G]``: <g_V, g_I>; equals ``frames`` and ``rest`` summed.
    """

    groups: tuple[str, ...]
    frames: np.ndarray
    patches: np.ndarray
    rest: np.ndarray
    whole: np.ndarray

    def __add__(self, other: ConflictMap) -> ConflictMap:
        """Of two conversations with equally many frames; patches only where their grids agree."""
        same = self.patches.shape == other.patches.shape
        patches = self.patches + other.patches if same else np.full((*self.frames.shape, 0), np.nan)
        return ConflictMap(
            self.groups,
            self.frames + other.frames,
            patches,
            self.rest + other.rest,
            self.whole + other.whole,
        )


def conflict_map(
    model: Any,
    probed: ParameterGroups,
    image: KeptGradient,
    prepared: Prepared,
    num_items: int,
    pad_id: int = 0,
) -> ConflictMap:
    """The split of one conversation's part of <g_V, g_I>.

    Args:
        image: the kept image gradient G_I.
        num_items: answer tokens of the whole batch, so that the conversations' maps add up to the batch's.
    """
    if prepared.token_map.grid is None:
        raise ValueError("a conversation without a video has no frames to map")
    batch = materialise([prepared], [[0]], pad_id)
    device = probed.parameters[0].device
    split: dict[int, list[np.ndarray]] = {}
    whole_P = torch.zeros(len(probed.parameters), dtype=torch.float64, device=device)

    def stream(index: int, gradient: Tensor) -> None:
        kept = image.tensors[index]
        if kept is not None:
            whole_P[index] = torch.sum(gradient.double() * kept)

    def token_scores(index: int, scores_T: Tensor) -> None:
        split.setdefault(index, []).append(scores_T.double().cpu().numpy())

    with (
        receiving(probed.parameters, stream),
        discarding(model, probed.parameters),
        splitting(model, probed, image, token_scores),
    ):
        loss = model(**batch.model_inputs(device), num_items=num_items).loss
        loss.backward()
    raster = getattr(model.config, "model_type", "") == "tempflex"
    return _collect(probed, _Places(prepared, raster), split, whole_P.cpu().numpy())


@contextlib.contextmanager
def splitting(
    model: nn.Module,
    probed: ParameterGroups,
    image: KeptGradient,
    take: Callable[[int, Tensor], None],
) -> Iterator[None]:
    """Calls ``take(parameter index, scores [T])`` for weights and biases of linear layers and word embeddings.

    Position tables of an encoder are embeddings too, but looked up once for all frames: they are not split.
    """
    places = {id(p): i for i, p in enumerate(probed.parameters)}

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        weight = places.get(id(module.weight))
        bias = places.get(id(module.bias)) if getattr(module, "bias", None) is not None else None
        x = inputs[0].detach()

        def arrived(delta: Tensor) -> None:
            d_TO = delta.detach().reshape(-1, delta.shape[-1])
            if weight is not None and (kept := image.tensors[weight]) is not None:
                if isinstance(module, nn.Embedding):
                    moved_TO = kept[x.reshape(-1)]
                else:
                    moved_TO = x.reshape(-1, x.shape[-1]).to(kept.dtype) @ kept.T
                take(weight, (d_TO.to(kept.dtype) * moved_TO).sum(-1, dtype=torch.float64))
            if bias is not None and (kept := image.tensors[bias]) is not None:
                take(bias, d_TO.double() @ kept.double())

        if output.requires_grad:
            output.register_hook(arrived)

    def splits(module: nn.Module) -> bool:
        if isinstance(module, nn.Embedding):
            return probed.parts[places[id(module.weight)]] == "llm" if id(module.weight) in places else False
        return isinstance(module, nn.Linear) and (
            id(module.weight) in places or (module.bias is not None and id(module.bias) in places)
        )

    handles = [module.register_forward_hook(hook) for module in model.modules() if splits(module)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


Placed = tuple[np.ndarray, np.ndarray | None, np.ndarray]


class _Places:
    """Where the T tokens of a layer lie: weights onto frames, patches and other places.

    Every answer is ``(frames [T, F], patches [T, F, P] or None, rest [T, len(PLACES)])`` with rows that sum to 1.
    Vision layers of every host go frame by frame in time order; only TempFlex is known to go in raster order
    inside a frame (others shuffle patches into windows), so only there do they have patches.
    """

    def __init__(self, prepared: Prepared, raster: bool) -> None:
        self.map: TokenMap = prepared.token_map
        assert self.map.grid is not None
        _, rows, cols = (
            self.map.grid
        )  # its first entry counts what the encoder sees, which may be pairs of frames
        self.frames = len(self.map.frame_indices)
        self.patches, self.raster = rows * cols, raster
        self.answers = int((prepared.labels != IGNORE).sum())
        self.visual = self.map.visual
        self._known: dict[tuple[str, int], Placed] = {}

    def of(self, part: str, tokens: int) -> Placed:
        """``part``: module group of the layer, one of "encoder", "fusion", "merger", "llm"."""
        key = (part, tokens)
        if key not in self._known:
            self._known[key] = self._language(tokens) if part == "llm" else self._vision(part, tokens)
        return self._known[key]

    def _language(self, tokens: int) -> Placed:
        rest = np.zeros((tokens, len(PLACES)))
        if tokens == len(self.map):
            frames, patches = self._from_map(np.arange(tokens))
            for place, kind in enumerate(KINDS):
                if kind != "visual":
                    rest[self.map.kind == place, PLACES.index(kind)] = 1
            return frames, patches, rest
        # logits are computed where an answer token is predicted, nowhere else
        rest[:, PLACES.index("answer" if tokens == self.answers else OTHER)] = 1
        return np.zeros((tokens, self.frames)), None, rest

    def _vision(self, part: str, tokens: int) -> Placed:
        rest = np.zeros((tokens, len(PLACES)))
        frames = np.zeros((tokens, self.frames))
        at = np.arange(tokens)
        if self.raster and part != "merger" and tokens == self.frames * self.patches:
            patches = np.zeros((tokens, self.frames, self.patches))
            patches[at, at // self.patches, at % self.patches] = 1
            return patches.sum(-1), patches, rest
        if self.raster and part == "merger" and tokens == len(self.visual):
            return *self._from_map(self.visual), rest
        if self.raster and part == "fusion" and tokens == self.patches:
            rest[:, PLACES.index(FIBER)] = 1
            return frames, None, rest
        spans = list(dict.fromkeys(map(tuple, self.map.frame_span[self.visual].tolist())))
        if tokens % len(spans) == 0 and tokens:
            each = tokens // len(spans)
            for i, (start, stop) in enumerate(spans):
                frames[i * each : (i + 1) * each, start:stop] = 1 / (stop - start)
        else:
            rest[:, PLACES.index(OTHER)] = 1
        return frames, None, rest

    def _from_map(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        patches = np.zeros((len(positions), self.frames, self.patches))
        for row, position in enumerate(positions):
            if self.map.kind[position] == VISUAL:
                start, stop = self.map.frame_span[position]
                cells = self.map.patches[position]
                cells = cells[cells >= 0]
                patches[row, start:stop, cells] = 1 / ((stop - start) * len(cells))
        return patches.sum(-1), patches


def _collect(
    probed: ParameterGroups, places: _Places, split: dict[int, list[np.ndarray]], whole_P: np.ndarray
) -> ConflictMap:
    names = tuple(probed.groups)
    n = len(whole_P)
    frames = np.zeros((n, places.frames))
    patches = np.zeros((n, places.frames, places.patches))
    rest = np.zeros((n, len(PLACES)))
    for index, parts in split.items():
        for scores in parts:
            onto_frames, onto_patches, onto_rest = places.of(probed.parts[index], len(scores))
            frames[index] += scores @ onto_frames
            rest[index] += scores @ onto_rest
            if onto_patches is None:
                patches[index] += np.where(onto_frames.any(), np.nan, 0.0)
            else:
                patches[index] += np.tensordot(scores, onto_patches, 1)
    placed = frames.sum(1) + rest.sum(1)
    rest[:, PLACES.index(OTHER)] += whole_P - placed
    members = [probed.groups[name] for name in names]
    return ConflictMap(
        names,
        np.stack([frames[at].sum(0) for at in members]),
        np.stack([patches[at].sum(0) for at in members]),
        np.stack([rest[at].sum(0) for at in members]),
        np.array([whole_P[at].sum() for at in members]),
    )
