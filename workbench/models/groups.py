"""Parameters by layer, for any ``VideoLM``: what probes report on."""

from __future__ import annotations

import re
from typing import Any


def layer_groups(model: Any) -> dict[str, list[str]]:
    """Parameter names by layer: ``encoder.0``, ``encoder.1`` ... ``llm.0`` ...; what belongs to no layer keeps its
    module group's name with ``.rest`` behind it (embeddings, final norms, head), or that name alone where the group has
    no layers at all ("merger"). Every parameter exactly once, in order of depth within a part.

    A layer is what holds an attention module of ``model.attention_layers()`` or, in the fusion, ``fusion.layers.i``.
    """
    owner: dict[str, str] = {}
    for part, names in model.attention_layers().items():
        for i, name in enumerate(names):
            owner[name.rsplit(".", 1)[0] + "."] = f"{part}.{i}"
    groups: dict[str, list[str]] = {}
    for group, names in model.module_groups().items():
        layers: dict[str, list[str]] = {}
        rest: list[str] = []
        for name in names:
            key = _layer_of(name, owner)
            if key is None and (match := re.match(r"fusion\.layers\.(\d+)\.", name)):
                key = f"fusion.{match[1]}"
            if key is None or key.split(".")[0] != group:
                rest.append(name)
            else:
                layers.setdefault(key, []).append(name)
        groups |= dict(sorted(layers.items(), key=lambda item: int(item[0].split(".")[1])))
        if rest:
            groups[f"{group}.rest" if layers else group] = rest
    return groups


def _layer_of(name: str, owner: dict[str, str]) -> str | None:
    """The layer whose prefix ``name`` begins with."""
    at = -1
    while (at := name.find(".", at + 1)) >= 0:
        if (key := owner.get(name[: at + 1])) is not None:
            return key
    return None
