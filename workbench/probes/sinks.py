"""Attention sinks among visual tokens: found by a stated rule, hidden on request, and their mass always said.

Some tokens draw much attention from everything, whatever is asked [Xiao et al. 2023, "Efficient streaming language models
with attention sinks"; Kang et al. 2025, "See what you are told", for visual tokens]; maps are easier to read without
them. Definition here [OURS]: in a layer, a visual token is a sink when, averaged over heads, at least ``share`` (0.9) of
the queries that see it give it at least ``factor`` (10) times what they give a visual token on average. Asking for nearly
all queries keeps what one question looks for apart from what everything looks at: use many queries ("text").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workbench.captures import Capture
from workbench.captures.rows import rows_of
from workbench.probes.common import ProbeError

FACTOR, SHARE, FEW_QUERIES = 10.0, 0.9, 4


@dataclass(frozen=True, eq=False)
class Sinks:
    """Attributes:
    tokens: bool ``[layers, N]``, which positions are sinks.
    hidden_mass: float32 ``[layers, heads, queries]``, share of each row that lies on sinks.
    hidden_visual: float32, the same as a share of the row's visual mass (NaN without any).
    definition: the rule in words, with its numbers.
    """

    tokens: np.ndarray
    hidden_mass: np.ndarray
    hidden_visual: np.ndarray
    definition: str


def find_sinks(capture: Capture, factor: float = FACTOR, share: float = SHARE) -> Sinks:
    """Sinks of an ``attention_rows`` capture.

    Raises:
        ProbeError: another kind of capture, no visual tokens, or fewer than 4 queries, which cannot tell a sink from an
            object that was asked for.
    """
    if capture.kind != "attention_rows" or capture.token_map is None:
        raise ProbeError("find sinks", f"this is a {capture.kind} capture", "Give an attention_rows capture")
    visual = capture.token_map.visual
    if not len(visual):
        raise ProbeError("find sinks", "the conversation has no visual tokens", "Give a sample with media")
    queries = len(capture.arrays["queries"])
    if queries < FEW_QUERIES:
        raise ProbeError(
            "tell sinks from objects",
            f"the capture has {queries} queries",
            f"Capture queries='text' (at least {FEW_QUERIES})",
        )
    layers = capture.arrays["rows"].shape[0]
    tokens = np.zeros((layers, len(capture.token_map)), dtype=bool)
    masses, visuals = [], []
    for layer in range(layers):
        rows = rows_of(capture.arrays, layer)
        w = rows[..., visual]
        seen = ~np.isnan(w).all(0)  # [queries, visual]
        mean = np.where(seen, np.nan_to_num(w, nan=0.0).mean(0), 0.0)
        average = mean.sum(-1, keepdims=True) / np.maximum(1, seen.sum(-1, keepdims=True))
        drawn = ((mean >= factor * average) & seen).sum(0)
        watchers = seen.sum(0)
        sinks = (watchers >= FEW_QUERIES) & (drawn >= share * watchers)
        tokens[layer, visual] = sinks
        hidden = np.nansum(w[..., sinks], axis=-1)
        total = np.nansum(w, axis=-1)
        masses.append(hidden.astype(np.float32))
        visuals.append(np.divide(hidden, total, out=np.full_like(total, np.nan), where=total > 0))
    definition = (
        f"a visual token to which, averaged over heads, at least {share:.0%} of the {queries} queries give at least "
        f"{factor:g} times the mean over visible visual tokens of that layer"
    )
    return Sinks(tokens, np.stack(masses), np.stack(visuals), definition)


def without_sinks(capture: Capture, sinks: Sinks, layer: int) -> np.ndarray:
    """Rows of one layer (index along the capture) with sinks hidden as NaN: float32 ``[heads, queries, keys]``.

    Nothing is scaled up: what is missing from a row is ``sinks.hidden_mass``.
    """
    rows = rows_of(capture.arrays, layer)
    rows[..., sinks.tokens[layer]] = np.nan
    return rows
