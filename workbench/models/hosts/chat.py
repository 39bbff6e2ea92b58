"""Conversations as text, by the chat template that belongs to the host.

The template is rendered a few times with stand-ins for questions and answers and cut there; what is left between them
is the text around a turn. So every template gives the same parts, and a conversation for training, a prompt for
generation and the scoring of an answer behind a prompt consist of the same tokens:

    [begin + question + assistant] answer end [next + question + assistant] answer end ...

Each bracket is tokenised as one text (words at its seams are cut as the published processor cuts them); an answer is
tokenised behind the text that precedes it. ``end`` is the special token that follows an answer in the template, or the
tokenizer's end of sequence where the template has none (LLaVA-1.5, as in its training code).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from workbench.errors import CheckpointError
from workbench.models.tokenmap import QUESTION, SYSTEM, TEMPLATE

_Q1, _A1, _Q2, _A2 = "Zq1z", "Za1z", "Zq2z", "Za2z"
_KEPT = 200_000


@dataclass(frozen=True)
class TurnTokens:
    """A turn up to the place of its answer: ids int64 and kinds uint8 ``[n]``; the media marks still stand as one
    token each."""

    ids: np.ndarray
    kinds: np.ndarray


class ChatFormat:
    """The text around turns, and its tokens.

    Args:
        tokenizer: must be fast (offsets of tokens tell which belong to the question).
        template: Jinja text; the tokenizer's own if None.
        system: text of a system message, where none is given the template's default holds.

    Raises:
        CheckpointError: no template, or one that cannot be rendered with media, or a slow tokenizer.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, template: str | None = None, system: str | None = None
    ) -> None:
        self.tokenizer, self.template, self.system = tokenizer, template, system
        asked = "use this tokenizer for conversations"
        if not tokenizer.is_fast:
            raise CheckpointError(
                asked, "it gives no offsets of its tokens", "use a checkpoint with tokenizer.json"
            )
        if template is None and not tokenizer.chat_template:
            raise CheckpointError(
                asked,
                "the checkpoint has no chat template (chat_template.jinja, chat_template.json or in its tokenizer)",
                "add the file from the model's page",
            )
        whole = self._render([_user(_Q1), _assistant(_A1), _user(_Q2), _assistant(_A2)])
        open_end = self._render([_user(_Q1)], generate=True)
        if not all(whole.count(mark) == 1 for mark in (_Q1, _A1, _Q2, _A2)) or open_end.count(_Q1) != 1:
            raise CheckpointError(
                asked,
                "its chat template does not show every question and answer exactly once, in plain text",
                "use the template from the model's page",
            )
        self.assistant = open_end.split(_Q1)[1]
        between = whole.split(_Q1)[1].split(_A1)[0]
        # what stands between the generation prompt and an answer; generation prompts that end otherwise than the
        # template writes a past answer are taken as they are
        self.gap = between.removeprefix(self.assistant) if between.startswith(self.assistant) else ""
        tail = whole.split(_A1)[1].split(_Q2)[0]
        self.end = self._special_at(tail.lstrip()) or self._end_of_sequence(asked)
        self.next = (
            tail.lstrip().removeprefix(self.end) if tail.lstrip().startswith(self.end) else tail.lstrip()
        )
        end: Any = tokenizer.convert_tokens_to_ids(self.end)
        self.end_token_id = int(end)
        self._heads: dict[tuple[str | None, int], str] = {}
        self._turns: dict[tuple[Any, ...], TurnTokens] = {}
        self._answers: dict[str, list[int]] = {}

    def _special_at(self, text: str) -> str | None:
        """The special token that ``text`` begins with."""
        found = [token for token in self.tokenizer.all_special_tokens if text.startswith(token)]
        return max(found, key=len, default=None)

    def _end_of_sequence(self, asked: str) -> str:
        if self.tokenizer.eos_token is None:
            raise CheckpointError(
                asked,
                "neither its chat template nor the tokenizer marks the end of an answer",
                "set eos_token",
            )
        return str(self.tokenizer.eos_token)

    def _render(self, messages: list[dict[str, Any]], generate: bool = False) -> str:
        if self.system is not None:
            messages = [{"role": "system", "content": [{"type": "text", "text": self.system}]}, *messages]
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    messages, chat_template=self.template, tokenize=False, add_generation_prompt=generate
                )
            )
        except (TemplateError, TypeError, ValueError) as error:
            raise CheckpointError(
                "render the checkpoint's chat template",
                f"{type(error).__name__}: {error}",
                "use the multimodal template from the model's page (chat_template.jinja)",
            ) from error

    def head(self, kind: str | None, count: int) -> str:
        """The text before the first question, with ``count`` marks of a ``kind`` of media."""
        key = (kind, count)
        if key not in self._heads:
            text = self._render([_user(_Q1, kind, count)], generate=True)
            self._heads[key] = text.split(_Q1)[0]
        return self._heads[key]

    def turn(self, question: str, first: bool, kind: str | None = None, count: int = 0) -> TurnTokens:
        """Tokens of a turn up to the place of its answer; remembered."""
        key = (question, first, kind, count)
        turn = self._turns.get(key)
        if turn is None:
            if len(self._turns) >= _KEPT:
                self._turns.clear()
            turn = self._turns[key] = self._tokens(
                question, self.head(kind, count) if first else self.next, first
            )
        return turn

    def _tokens(self, question: str, before: str, first: bool) -> TurnTokens:
        text = before + question + self.assistant
        out = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids, spans = (
            np.array(out["input_ids"], dtype=np.int64),
            np.array(out["offset_mapping"]).reshape(-1, 2),
        )
        begin, end = len(before), len(before) + len(question)
        last = spans[:, 1] - 1  # a token with a leading space belongs to the word it ends with
        kinds = np.full(len(ids), TEMPLATE, dtype=np.uint8)
        kinds[(last >= begin) & (last < end)] = QUESTION
        if first:
            kinds[(last < self._system_end()) & (last >= spans[:, 0])] = SYSTEM
            bos = self.tokenizer.bos_token_id
            with_marks = self.tokenizer("a")["input_ids"][:1]
            if bos is not None and with_marks == [bos] and list(ids[:1]) != [bos]:
                ids, kinds = np.insert(ids, 0, bos), np.insert(kinds, 0, np.uint8(TEMPLATE))
        return TurnTokens(ids, kinds)

    def _system_end(self) -> int:
        """Characters of the first turn's text that belong to a system message."""
        header = self.next.lstrip()
        text = self.head(None, 0)
        return len(text) - len(header) if header and text.endswith(header) else 0

    def answer_ids(self, answer: str) -> list[int]:
        """Ids of an answer as they follow a prompt, without the end mark; remembered."""
        ids = self._answers.get(answer)
        if ids is None:
            if len(self._answers) >= _KEPT:
                self._answers.clear()
            ids = self._answers[answer] = self._answer(answer.strip())
        return ids

    def _answer(self, answer: str) -> list[int]:
        def ids(text: str) -> list[int]:
            return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

        before, whole = ids(self.assistant), ids(self.assistant + self.gap + answer)
        return whole[len(before) :] if whole[: len(before)] == before else ids(answer)


def _user(text: str, kind: str | None = None, count: int = 0) -> dict[str, Any]:
    media = [{"type": kind} for _ in range(count)] if kind is not None else []
    return {"role": "user", "content": [*media, {"type": "text", "text": text}]}


def _assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}
