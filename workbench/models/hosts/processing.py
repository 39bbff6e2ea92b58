"""``HostProcessor``: samples and frames -> ``Prepared`` conversations for a stock model, with its own chat template,
placeholders and picture settings, and a ``TokenMap`` for every position.

A host's file says how its frames become pixels and which positions they fill (``media``); text is common to all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from workbench.errors import CheckpointError, DataError
from workbench.models.hosts.chat import ChatFormat
from workbench.models.hosts.media import Media, Part, join, text_part
from workbench.models.hosts.settings import PictureSettings, ProcessorFiles, picture_settings
from workbench.models.shared import IGNORE, padded
from workbench.models.tokenmap import ANSWER, SYSTEM, TEMPLATE, TokenMap
from workbench.models.videolm import Prepared
from workbench.samples.sample import Clip, Sample

DEFAULT_RATE = (
    2.0  # frames/s of copies of one image, which have no time: the published processors' sampling rate
)


class HostProcessor(ABC):
    """Prepares inputs for a host of ``config``.

    Args:
        config: the model's configuration; placeholders, patch sizes and layouts are read from it.
        tokenizer: the model's own, with its chat template.
        files: the published processor's settings, as read from the model's folder; the defaults of the architecture
            hold for what they leave out.
        system: a system message of your own, in the place of the template's default.

    Raises:
        CheckpointError: the tokenizer lacks a placeholder or has it under another id than the model.
    """

    image_defaults: ClassVar[PictureSettings]
    video_defaults: ClassVar[PictureSettings]
    pads_to_square: ClassVar[bool] = False

    def __init__(
        self,
        config: PreTrainedConfig,
        tokenizer: PreTrainedTokenizerBase,
        files: ProcessorFiles | None = None,
        system: str | None = None,
    ) -> None:
        self.config, self.tokenizer = config, tokenizer
        self.files = files or ProcessorFiles()
        self.chat = ChatFormat(tokenizer, self.files.chat_template, system)
        self.image = picture_settings(self.files.image(), self.image_defaults, self.pads_to_square)
        self.video = picture_settings(self.files.video(), self.video_defaults, self.pads_to_square)
        self.mark_ids = self._mark_ids()
        for kind, token_id in self.mark_ids.items():
            rendered = self.chat.turn("", True, kind, 1).ids
            if (rendered == token_id).sum() != 1:
                raise CheckpointError(
                    f"use this tokenizer with a {config.model_type} model",
                    f"its chat template puts no single {kind} placeholder of id {token_id} into a prompt",
                    "give the tokenizer and chat template that belong to the model",
                )
        self._dummy: Prepared | None = None

    # ------------------------------------------------------------------------------------------ what hosts differ in

    def _mark_ids(self) -> dict[str, int]:
        """Placeholder ids by kind of media."""
        config: Any = self.config
        return {"image": config.image_token_id, "video": config.video_token_id}

    @abstractmethod
    def media(self, clip: Clip, video: bool) -> Media:
        """Frames as the host takes them; ``video`` is False for one still image."""

    # ------------------------------------------------------------------------------------------ text

    @property
    def pad_token_id(self) -> int:
        pad = self.tokenizer.pad_token_id
        return 0 if pad is None else int(pad)

    @property
    def end_token_id(self) -> int:
        """The mark that ends an answer."""
        return self.chat.end_token_id

    def answer_ids(self, answer: str) -> list[int]:
        """Ids of an answer as ``prepare`` writes it, without the end mark."""
        return self.chat.answer_ids(answer)

    def decode(self, ids: Tensor | list[int]) -> str:
        """Text of generated ids, special marks left out."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    # ------------------------------------------------------------------------------------------ samples

    def prepare(
        self, sample: Sample, clip: Clip | None, turns: Sequence[int] | None = None, with_answers: bool = True
    ) -> Prepared:
        """One conversation; media stand in the first kept turn, where the chat template puts them.

        Args:
            sample, clip: what to ask, and the frames it was given (None for text). One frame of an image takes the
                image path, everything else (a video of one frame too) the video path.
            turns: indices of the turns to keep, all if None.
            with_answers: False leaves the last kept turn open for generation, and labels nothing.

        Raises:
            DataError: a sample with a medium came without frames, no turn is kept, a question holds a placeholder,
                or the frames have a shape the host cannot take.
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
        media = None
        if clip is not None:
            try:
                media = self.media(clip, sample.is_video or len(clip.frames) > 1)
            except ValueError as error:
                raise DataError(
                    f"prepare {sample.id}",
                    str(error),
                    "crop the frames or leave it out",
                    sample.where or None,
                ) from error
        parts: list[tuple[Part, int, bool]] = []  # (positions, turn, learned)
        for n, i in enumerate(kept):
            question = sample.turns[i].question.replace("<image>", "").replace("<video>", "").strip()
            marks = (media.kind, len(media.parts)) if media is not None and n == 0 else (None, 0)
            turn = self.chat.turn(question, n == 0, *marks)
            parts += self._spliced(sample, turn.ids, turn.kinds, media if n == 0 else None, i)
            if with_answers or n < len(kept) - 1:
                answer = np.array(
                    [*self.answer_ids(sample.turns[i].answer), self.end_token_id], dtype=np.int64
                )
                if np.isin(answer, list(self.mark_ids.values())).any():
                    raise DataError(
                        f"prepare {sample.id}",
                        "an answer holds a media placeholder",
                        "remove the host's placeholder tokens from the answer",
                        sample.where or None,
                    )
                kinds = np.full(len(answer), ANSWER, dtype=np.uint8)
                kinds[-1] = TEMPLATE
                parts.append((text_part(answer, kinds), i, True))
        return self._prepared(parts, clip, media, with_answers)

    def _spliced(
        self, sample: Sample, ids: np.ndarray, kinds: np.ndarray, media: Media | None, turn: int
    ) -> list[tuple[Part, int, bool]]:
        """A turn's tokens with its media in the places of their marks."""
        places = np.flatnonzero(np.isin(ids, list(self.mark_ids.values())))
        expected = 0 if media is None else len(media.parts)
        if len(places) != expected:
            raise DataError(
                f"prepare {sample.id}",
                f"its text holds {len(places)} media placeholders where {expected} belong",
                "remove the host's placeholder tokens from the question",
                sample.where or None,
            )
        out: list[tuple[Part, int, bool]] = []
        at = 0
        for place, part in zip(
            [*places.tolist(), len(ids)], [*(media.parts if media else ()), None], strict=True
        ):
            text, text_kinds = ids[at:place], kinds[at:place]
            system = int((text_kinds == SYSTEM).sum())
            if system:  # a system message belongs to no turn
                out.append((text_part(text[:system], text_kinds[:system]), -1, False))
            if place > at + system:
                out.append((text_part(text[system:], text_kinds[system:]), turn, False))
            if part is not None:
                out.append((part, -1, False))
            at = place + 1
        return out

    def _prepared(
        self, parts: list[tuple[Part, int, bool]], clip: Clip | None, media: Media | None, with_answers: bool
    ) -> Prepared:
        whole = join([part for part, _, _ in parts])
        lengths = [len(part) for part, _, _ in parts]
        turn = np.repeat(np.array([turn for _, turn, _ in parts], dtype=np.int16), lengths)
        learned = np.repeat(np.array([learned for _, _, learned in parts]), lengths) & with_answers
        labels = np.where(learned, whole.ids, IGNORE)
        columns = (whole.kinds, turn, whole.span, whole.patches, whole.boxes)
        if media is None or clip is None:
            token_map = TokenMap(*columns)
        else:
            times = tuple(clip.indices), tuple(clip.timestamps_s)
            token_map = TokenMap(*columns, *times, media.map_grid, media.frame_size)
        return Prepared(
            torch.from_numpy(whole.ids),
            torch.from_numpy(labels),
            None if media is None else media.pixel_values,
            None if media is None else media.grid,
            token_map,
        )

    def dummy(self) -> Prepared:
        """Two black frames and no label: lets a rank without video take part in the gradient reduction at zero
        loss."""
        if self._dummy is None:
            clip = Clip(np.zeros((2, 32, 32, 3), dtype=np.uint8), (0, 1), (0.0, 1.0))
            media = self.media(clip, True)
            self._dummy = self._prepared([(join(list(media.parts)), -1, False)], clip, media, False)
        return self._dummy

    def batch(self, prepared: Sequence[Prepared], side: str = "left") -> dict[str, Tensor]:
        """A padded batch with ``attention_mask``, ready for ``generate`` (``side="left"``) or ``forward``."""
        return padded(prepared, self.pad_token_id, side)

    # ------------------------------------------------------------------------------------------ disk

    def save_pretrained(self, directory: str | Path) -> None:
        """Tokenizer, picture settings and chat template as they were found, beside the model's files."""
        path = Path(directory)
        path.mkdir(parents=True, exist_ok=True)
        self.tokenizer.save_pretrained(path)
        self.files.write(path)


def frame_times(clip: Clip) -> list[float]:
    """Seconds of the frames; copies of one image, which have no time, are taken as ``DEFAULT_RATE`` frames a second."""
    times = [float(t) for t in clip.timestamps_s]
    if len(times) > 1 and times[-1] <= times[0]:
        return [i / DEFAULT_RATE for i in range(len(times))]
    return times
