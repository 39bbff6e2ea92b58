"""``TempFlexProcessor``: samples and frames -> ``Prepared`` conversations, and padded batches for
``generate``.

A tiny sample must take well under a millisecond, or preparing costs more than training: every turn is
tokenised once and kept, the layout of the visual tokens is computed once a grid, and pixels are reshaped, not
looped over.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from workbench.errors import CheckpointError, DataError
from workbench.models.shared import IGNORE, padded
from workbench.models.tempflex.configuration import TempFlexConfig
from workbench.models.tempflex.encodings import Placement, patchify, place_for, pooled_ranges, visual_tokens
from workbench.models.tempflex.merger import MergeMode, merged_cells
from workbench.models.tempflex.tokenizer import TEMPLATES
from workbench.models.tokenmap import ANSWER, NEWLINE, QUESTION, TEMPLATE, VISUAL, TokenMap
from workbench.models.videolm import Prepared
from workbench.samples.sample import Clip, Sample

FILE = "tempflex_processor.json"
_KEPT_TEXTS = 200_000  # turns remembered before the memory is emptied


@dataclass(frozen=True)
class Piece:
    """Tokens of a stretch of text: ids and labels int64 ``[n]``, kinds uint8 ``[n]``."""

    ids: np.ndarray
    labels: np.ndarray
    kinds: np.ndarray


@dataclass(frozen=True)
class VisualLayout:
    """The columns of ``TokenMap`` for one medium, n positions."""

    kinds: np.ndarray
    frame_span: np.ndarray
    patches: np.ndarray
    boxes: np.ndarray


class TempFlexProcessor:
    """Prepares inputs for a model of ``config``.

    Args:
        config: encoding, merging and averaging are read from it, so processor and model cannot disagree.
        tokenizer: any Hugging Face tokenizer whose vocabulary holds the template's marks.
        template: "lean" (word-level tokenizer), "qwen3" or "gemma3".

    Raises:
        CheckpointError: the tokenizer lacks a mark the template needs, or places the visual token elsewhere.
    """

    def __init__(
        self, config: TempFlexConfig, tokenizer: PreTrainedTokenizerBase, template: str = "lean"
    ) -> None:
        self.config, self.tokenizer, self.template_name = config, tokenizer, template
        self.template = TEMPLATES[template]
        found = tokenizer.convert_tokens_to_ids(self.template.visual)
        if found != config.visual_token_id:
            raise CheckpointError(
                f"use this tokenizer with the {template} template",
                f"its {self.template.visual} has id {found}, the model expects {config.visual_token_id}",
                "give the tokenizer that belongs to the model's language model",
            )
        self._texts: dict[str, list[int]] = {}
        self._turns: dict[tuple[str, str | None], Piece] = {}

    # ------------------------------------------------------------------------------------------ text

    @property
    def pad_token_id(self) -> int:
        pad = self.tokenizer.pad_token_id
        return 0 if pad is None else int(pad)

    def text_ids(self, text: str) -> list[int]:
        """Ids of a text without special marks; remembered."""
        ids = self._texts.get(text)
        if ids is None:
            if len(self._texts) >= _KEPT_TEXTS:
                self._texts.clear()
            ids = self._texts[text] = (
                self.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
            )
        return ids

    def answer_ids(self, answer: str) -> list[int]:
        """Ids of an answer as ``prepare`` writes it, without the end mark."""
        return self.text_ids(answer.strip())

    @property
    def end_token_id(self) -> int:
        """The mark that ends an answer."""
        return self.text_ids(self.template.end)[0]

    def decode(self, ids: Tensor | list[int]) -> str:
        """Text of generated ids, special marks left out."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def _turn(self, question: str, answer: str | None) -> Piece:
        """Question, assistant mark and, unless None, the answer with its end mark."""
        key = (question, answer)
        piece = self._turns.get(key)
        if piece is None:
            parts = [
                (self.text_ids(_without_marks(question)), QUESTION),
                (self.text_ids(self.template.assistant), TEMPLATE),
            ]
            learned = 0
            if answer is not None:
                parts += [(self.answer_ids(answer), ANSWER), (self.text_ids(self.template.end), TEMPLATE)]
                learned = len(parts[2][0]) + len(parts[3][0])
            piece = _piece(parts, learned)
            if len(self._turns) >= _KEPT_TEXTS:
                self._turns.clear()
            self._turns[key] = piece
        return piece

    # ------------------------------------------------------------------------------------------ samples

    def prepare(
        self, sample: Sample, clip: Clip | None, turns: Sequence[int] | None = None, with_answers: bool = True
    ) -> Prepared:
        """One conversation; media come first in the first kept turn.

        Args:
            sample, clip: what to ask, and the frames it was given (None for text).
            turns: indices of the turns to keep, all if None.
            with_answers: False leaves the last kept turn open for generation, and labels nothing.

        Raises:
            DataError: a sample with a medium came without frames, or no turn is kept.
        """
        kept = range(len(sample.turns)) if turns is None else turns
        if not len(kept):
            raise DataError(
                f"prepare {sample.id}", "no turn is kept", "keep at least one turn", sample.where or None
            )
        if sample.media is not None and (clip is None or not len(clip.frames)):
            raise DataError(
                f"prepare {sample.id}",
                "it has an image or video but no frames were given",
                "read its frames first, or leave the sample out",
                sample.where or None,
            )
        t = self.template
        pieces: list[Piece] = [self._fixed(t.begin + t.user)]
        owner = [-1 if t.begin else kept[0]]
        visual_at, layout, grid, pixels, size = 0, None, None, None, None
        if clip is not None:
            placement = self.place(clip.frames)
            grid = (len(clip.frames), placement.rows, placement.cols)
            size = (placement.width, placement.height)
            pixels = patchify(clip.frames, placement)
            layout = self.layout(grid, placement)
            visual_at = len(pieces[0].ids)
            pieces += [self._visual(len(layout.kinds)), self._fixed(t.after_media)]
            owner += [-1, kept[0]]
        for n, i in enumerate(kept):
            if n:
                pieces.append(self._fixed(t.between + t.user))
                owner.append(i)
            turn = sample.turns[i]
            open_end = not with_answers and n == len(kept) - 1
            pieces.append(self._turn(turn.question, None if open_end else turn.answer))
            owner.append(i)
        ids = np.concatenate([p.ids for p in pieces])
        labels = np.concatenate([p.labels for p in pieces]) if with_answers else np.full(len(ids), IGNORE)
        token_map = _token_map(pieces, owner, layout, visual_at, clip, grid, size)
        return Prepared(torch.from_numpy(ids), torch.from_numpy(labels), pixels, grid, token_map)

    def place(self, frames: np.ndarray) -> Placement:
        """Where the patches of frames ``[F, H, W, 3]`` lie."""
        return place_for(self.config, frames.shape[2], frames.shape[1])

    def layout(self, grid: tuple[int, int, int], placement: Placement) -> VisualLayout:
        """The rows of the token map that one medium fills."""
        return visual_layout(grid, placement, self.config.merge, self.config.pool_to, self.config.newline)

    def dummy(self) -> Prepared:
        """Two black frames and no label: lets a rank without video take part in the fusion's gradient
        reduction at zero loss."""
        side = 2 * self.config.vision_config.patch_size
        frames = np.zeros((2, side, side, 3), dtype=np.uint8)
        placement = self.place(frames)
        grid = (2, placement.rows, placement.cols)
        piece = self._visual(visual_tokens(grid, self.config.pool_to, self.config.newline))
        clip = Clip(frames, (0, 1), (0.0, 1.0))
        token_map = _token_map([piece], [-1], self.layout(grid, placement), 0, clip, grid, (side, side))
        pixels = patchify(frames, placement)
        return Prepared(torch.from_numpy(piece.ids), torch.from_numpy(piece.labels), pixels, grid, token_map)

    def _fixed(self, text: str) -> Piece:
        key = ("", text)
        piece = self._turns.get(key)
        if piece is None:
            piece = self._turns[key] = _piece([(self.text_ids(text), TEMPLATE)], 0)
        return piece

    def _visual(self, n: int) -> Piece:
        ids = np.full(n, self.config.visual_token_id, dtype=np.int64)
        return Piece(ids, np.full(n, IGNORE, dtype=np.int64), np.full(n, VISUAL, dtype=np.uint8))

    def batch(self, prepared: Sequence[Prepared], side: str = "left") -> dict[str, Tensor]:
        """A padded batch with ``attention_mask``, ready for ``generate`` (``side="left"``) or ``forward``."""
        return padded(prepared, self.pad_token_id, side)

    # ------------------------------------------------------------------------------------------ disk

    def save_pretrained(self, directory: str | Path) -> None:
        """Tokenizer files and the template's name, beside the model's files."""
        path = Path(directory)
        path.mkdir(parents=True, exist_ok=True)
        self.tokenizer.save_pretrained(path)
        (path / FILE).write_text(json.dumps({"template": self.template_name}) + "\n", encoding="utf-8")

    @classmethod
    def from_pretrained(
        cls, directory: str | Path, config: TempFlexConfig | None = None
    ) -> TempFlexProcessor:
        """The processor saved beside a model.

        Raises:
            CheckpointError: a file is missing or unreadable.
        """
        path = Path(directory)
        try:
            name = json.loads((path / FILE).read_text(encoding="utf-8"))["template"]
            tokenizer = AutoTokenizer.from_pretrained(path)
            return cls(config or TempFlexConfig.from_pretrained(path), tokenizer, name)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"load the processor in {path}",
                f"{type(error).__name__}: {error}",
                "save model and processor together with save_tempflex",
            ) from error


def _without_marks(question: str) -> str:
    return (
        question.replace("<image>", "").replace("<video>", "").strip()
        if "<" in question
        else question.strip()
    )


def _piece(parts: list[tuple[list[int], int]], learned: int) -> Piece:
    """``learned``: how many of the last ids carry labels."""
    ids = np.array([i for part, _ in parts for i in part], dtype=np.int64)
    labels = np.full(len(ids), IGNORE, dtype=np.int64)
    if learned:
        labels[-learned:] = ids[-learned:]
    kinds = np.repeat(np.array([k for _, k in parts], dtype=np.uint8), [len(part) for part, _ in parts])
    return Piece(ids, labels, kinds)


@lru_cache(maxsize=4096)
def visual_layout(
    grid: tuple[int, int, int], placement: Placement, merge: MergeMode, pool_to: int | None, newline: bool
) -> VisualLayout:
    """One row a visual position of a medium: the order in which the model returns features.

    A token's patches come from ``merged_cells``; its frames from ``pooled_ranges``; a newline covers its
    frame(s) only.
    """
    frames, rows, cols = grid
    cells = np.array(
        [[r * cols + c for r, c in cell] for cell in merged_cells(rows, cols, merge)], dtype=np.int32
    )
    corners = placement.boxes()[cells]
    boxes = np.concatenate([corners[..., :2].min(1), corners[..., 2:].max(1)], axis=1)
    kinds = np.full(len(cells), VISUAL, dtype=np.uint8)
    if newline:
        cells = np.concatenate([cells, np.full((1, 4), -1, dtype=np.int32)])
        boxes = np.concatenate([boxes, np.full((1, 4), -1, dtype=np.float32)])
        kinds = np.append(kinds, np.uint8(NEWLINE))
    ranges = np.array(pooled_ranges(frames, pool_to), dtype=np.int32)
    n = len(ranges)
    return VisualLayout(
        np.tile(kinds, n),
        np.repeat(ranges, len(kinds), axis=0),
        np.tile(cells, (n, 1)),
        np.tile(boxes, (n, 1)),
    )


def _token_map(
    pieces: list[Piece],
    owner: list[int],
    layout: VisualLayout | None,
    at: int,
    clip: Clip | None,
    grid: tuple[int, int, int] | None,
    size: tuple[int, int] | None,
) -> TokenMap:
    kind = np.concatenate([p.kinds for p in pieces])
    turn = np.repeat(np.array(owner, dtype=np.int16), [len(p.ids) for p in pieces])
    n = len(kind)
    span, patches = np.full((n, 2), -1, dtype=np.int32), np.full((n, 4), -1, dtype=np.int32)
    boxes = np.full((n, 4), -1, dtype=np.float32)
    if layout is None or clip is None:
        return TokenMap(kind, turn, span, patches, boxes)
    place = slice(at, at + len(layout.kinds))
    kind[place], span[place], patches[place], boxes[place] = (
        layout.kinds, layout.frame_span, layout.patches, layout.boxes,
    )  # fmt: skip
    return TokenMap(
        kind, turn, span, patches, boxes, tuple(clip.indices), tuple(clip.timestamps_s), grid, size
    )
