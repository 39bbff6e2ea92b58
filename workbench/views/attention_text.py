"""Tokens as people read them, and what stands against putting two captures side by side."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from workbench.captures import Capture


@functools.cache
def _byte_of() -> dict[str, int]:
    """The printable stand-ins that byte-level vocabularies (GPT-2 and its heirs) use for bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(others)}


def readable(tokens: Sequence[str]) -> list[str]:
    """Vocabulary entries as text: stand-ins of bytes and of spaces become what they stand for.

    A token that holds part of a character keeps its stand-ins: that part is no text.
    """
    bytes_of = _byte_of()
    by_bytes = any("Ġ" in token or "Ċ" in token for token in tokens)
    out = []
    for token in tokens:
        text = token
        if by_bytes and all(c in bytes_of for c in token):
            try:
                text = bytes(bytes_of[c] for c in token).decode("utf-8")
            except UnicodeDecodeError:
                text = token
        out.append(text.replace("▁", " "))
    return out


def differences(one: Capture, other: Capture) -> list[str]:
    """Why two captures of attention rows cannot be compared place by place; empty when they can.

    Args:
        one: what is shown.
        other: what should stand before it.
    """
    if other.kind != one.kind:
        return [f"it is a capture of the kind {other.kind!r}, not {one.kind!r}"]
    found = []
    for name, ours, theirs in (
        ("model", _model(one), _model(other)),
        ("sample", _sample(one), _sample(other)),
        ("question", _question(one), _question(other)),
        ("frames", _frames(one), _frames(other)),
        ("layers", one.meta.get("layers"), other.meta.get("layers")),
        ("heads", one.meta.get("heads"), other.meta.get("heads")),
    ):
        if ours != theirs:
            found.append(f"its {name}: {_short(theirs)}, here {_short(ours)}")
    if not found and one.token_map != other.token_map:
        found.append("its tokens lie elsewhere in the frames")
    if not found and not np.array_equal(one.arrays["token_ids"], other.arrays["token_ids"]):
        found.append("its conversation has other tokens")
    if not found and not np.array_equal(one.arrays["queries"], other.arrays["queries"]):
        found.append("it was asked from other positions (queries)")
    return found


def _model(capture: Capture) -> Any:
    model = capture.meta.get("model") or {}
    return [model.get("type"), model.get("text"), model.get("vision")]


def _sample(capture: Capture) -> Any:
    return (capture.meta.get("sample") or {}).get("id")


def _question(capture: Capture) -> Any:
    sample = capture.meta.get("sample") or {}
    return [sample.get("question"), sample.get("answer")]


def _frames(capture: Capture) -> Any:
    return (capture.meta.get("frames") or {}).get("indices")


def _short(value: Any) -> str:
    if isinstance(value, list) and value and all(isinstance(v, int) for v in value):
        return f"{len(value)} ({', '.join(map(str, value[:4]))}{', …' if len(value) > 4 else ''})"
    if isinstance(value, list):
        return ", ".join(_short(v) for v in value if v is not None)
    if isinstance(value, dict):
        return ", ".join(f"{key} {v}" for key, v in value.items() if key != "model_type")
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "…"
