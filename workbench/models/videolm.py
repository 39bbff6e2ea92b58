"""What the trainer, evaluator and probes know of a model: ``Prepared`` conversations and the ``VideoLM``
protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from workbench.models.tokenmap import NEWLINE, VISUAL, TokenMap
from workbench.samples.sample import Clip, Sample


@dataclass(frozen=True, eq=False, slots=True)
class Prepared:
    """One conversation, unpadded, ready to pack. N positions.

    Attributes:
        input_ids: int64 ``[N]``.
        labels: int64 ``[N]``; -100 everywhere but on answer tokens, where ``labels[i] == input_ids[i]`` (the
            loss shifts).
        pixel_values: float32 ``[F * rows * cols, patch * patch * 3]`` in [-1, 1], raster order in a frame,
            frames in time order (a stock host's own layout differs); None without media.
        grid: (F, rows, cols) in patches, before merging, where F counts what the encoder sees (temporal patches of
            two frames in Qwen); a host may put columns of its own behind (``docs/hosts.md``); None without media.
        token_map: what each position stands for.
    """

    input_ids: Tensor
    labels: Tensor
    pixel_values: Tensor | None
    grid: tuple[int, ...] | None
    token_map: TokenMap

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def visual_tokens(self) -> int:
        """Positions filled with visual features, newlines included."""
        return int(((self.token_map.kind == VISUAL) | (self.token_map.kind == NEWLINE)).sum())


@runtime_checkable
class VideoLM(Protocol):
    """A video language model. The packed batch and the loss are specified in docs/architecture.md."""

    def prepare(
        self, sample: Sample, clip: Clip | None, turns: Sequence[int] | None = None, with_answers: bool = True
    ) -> Prepared:
        """A sample with the frames it was given. ``turns``: indices of the turns to keep (all when None).

        ``with_answers=False`` drops the last kept turn's answer and leaves the prompt open for generation.
        """
        ...

    def forward(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None = None,
        grids: Tensor | None = None,
        position_ids: Tensor | None = None,
        segment_ids: Tensor | None = None,
        labels: Tensor | None = None,
        num_items: int | Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """A packed batch -> an output with ``.loss`` and ``.logits``."""
        ...

    def module_groups(self) -> dict[str, list[str]]:
        """Parameter names by group: "encoder", "fusion", "merger", "llm"; every parameter exactly once, tied
        ones once."""
        ...

    def attention_layers(self) -> dict[str, list[str]]:
        """Names of the attention modules by part, in order of depth."""
        ...
