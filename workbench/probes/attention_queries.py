"""Which positions are asked where they look: answer tokens, question words, all text, or positions by number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from workbench.models.tokenmap import ANSWER, NEWLINE, QUESTION, VISUAL, TokenMap
from workbench.probes.common import ProbeError

NAMED = ("answer", "predict", "question", "text", "all")


def query_positions(token_map: TokenMap, queries: str | Sequence[int], turn: int | None = None) -> np.ndarray:
    """Positions of the conversation, int64, ascending (positions given by number keep their order).

    Args:
        queries: ``"answer"`` the tokens of the answer; ``"predict"`` the position before each of them, whose output
            predicts it; ``"question"`` the words of the question; ``"text"`` every position but visual ones and
            newlines; ``"all"``; or positions, negative ones from the end.
        turn: of answers and questions; None for all turns.

    Raises:
        ProbeError: there are none (a sample without an answer, a text without a question), or a position lies outside.
    """
    n = len(token_map)
    if not isinstance(queries, str):
        given = np.asarray(list(queries), dtype=np.int64)
        wrong = given[(given < -n) | (given >= n)]
        if len(wrong) or not len(given):
            raise ProbeError(
                f"look from position {wrong[0] if len(wrong) else '(none given)'}",
                f"the conversation has positions 0 to {n - 1}",
                "Give positions of its token map",
            )
        return given % n
    if queries not in NAMED:
        raise ProbeError(
            f"look from {queries!r}", "there is no such group of queries", f"Use {', '.join(NAMED)}"
        )
    mine = np.ones(n, dtype=bool) if turn is None else token_map.turn == turn
    kind = token_map.kind
    if queries == "all":
        return np.arange(n)
    if queries == "text":
        return np.flatnonzero((kind != VISUAL) & (kind != NEWLINE))
    found = np.flatnonzero((kind == (QUESTION if queries == "question" else ANSWER)) & mine)
    if queries == "predict":
        found = found - 1
    if not len(found):
        what = "question" if queries == "question" else "answer"
        raise ProbeError(
            f"look from the {what} of this sample",
            f"its conversation has no {what} tokens",
            "Give a sample with an answer" if what == "answer" else "Ask from 'text' or from positions",
        )
    return found
