"""What the attention view's browser side is given, and what it is answered (``frontend/src/attention.js``).

A map travels as one byte a token, ``254 * sqrt(value / largest value of the map)``: attention is heavy-tailed, and small
values keep their proportions (error at most 0.4 % of the largest value, and less the smaller the value). Statistics and
sums over frames are float32.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from workbench.captures.rows import stated_error
from workbench.models.tokenmap import KINDS
from workbench.probes.boxes import Box
from workbench.views.attention_reading import STATISTICS, Reading
from workbench.views.attention_text import readable
from workbench.views.colours import tables
from workbench.views.film import pictures_of
from workbench.views.payload import HIDDEN, STEPS, pack, size_of

HEADS_LIMIT = 1_500_000  # bytes of single heads that an exported page carries
Sides = dict[str, Reading]  # "after" and, where there is one, "before"


def root_bytes(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Maps ``[..., T]`` as bytes, and the largest value of each ``[...]``, float32."""
    seen = np.nan_to_num(values)
    high = seen.max(-1, initial=0.0).astype(np.float32)
    share = seen / np.where(high > 0, high, 1.0)[..., None]
    return np.where(np.isnan(values), HIDDEN, np.rint(np.sqrt(share) * STEPS)).astype(np.uint8), high


def from_root(bytes_: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The inverse of ``root_bytes``, float32 with NaN."""
    values = (bytes_.astype(np.float32) / STEPS) ** 2 * np.asarray(high, np.float32)[..., None]
    return np.where(bytes_ == HIDDEN, np.float32("nan"), values)


def bundle(sides: Sides, query: int) -> dict[str, Any]:
    """Everything about one query but single heads: by side, and the largest differences between two sides."""
    out: dict[str, Any] = {}
    for name, reading in sides.items():
        found = reading.query(query)
        maps, high = root_bytes(found.mean)
        out[name] = {
            "maps": pack(maps),
            "high": pack(high),
            "frames": pack(found.frames),
            "statistics": pack(found.statistics),
            "top": pack(found.top),
        }
    if len(sides) == 2:
        out["gap"] = pack(_gaps(sides, query))
    return out


def _gaps(sides: Sides, query: int) -> np.ndarray:
    """Largest |after - before| of every map, with all tokens and without the sinks of either: float32 ``[2, L, 1 + H]``."""
    after, before = sides["after"], sides["before"]
    out = np.zeros((2, len(after.layers), len(after.heads)), np.float32)
    for layer in range(len(after.layers)):
        gaps = np.abs(np.nan_to_num(after.maps(query, layer) - before.maps(query, layer)))
        out[0, layer] = gaps.max(-1, initial=0.0)
        hidden = after.sink_tokens[layer] | before.sink_tokens[layer]
        out[1, layer] = gaps[:, ~hidden].max(-1, initial=0.0) if hidden.any() else out[0, layer]
    return out


def head(sides: Sides, query: int, layer: int, place: int) -> dict[str, Any]:
    """One head's map of each side; ``place`` on the heads axis (0 is the mean)."""
    out = {}
    for name, reading in sides.items():
        values = reading.map(query, layer, place)
        maps, high = root_bytes(values)
        out[name] = {"map": pack(maps), "high": float(high), "frames": reading.frame_mass(values).tolist()}
    return out


def boxed(sides: Sides, query: int, box: list[int]) -> dict[str, Any]:
    """Mass in a drawn box, of every map of each side."""
    boxes = [Box(*box)]
    return {name: pack(reading.box_mass(query, boxes)) for name, reading in sides.items()}


def carried_heads(
    sides: Sides, query: int, layer: int, limit: int = HEADS_LIMIT
) -> list[tuple[int, int, int]]:
    """(query, layer, place) of the single heads that a page carries, as many as surely fit: the picked query's first, of
    these the picked layer's and then the nearest layers'; then other queries'."""
    reading = sides["after"]
    if reading.only_mean or reading.strip is None:
        return []
    tokens, frames = len(reading.visual), len(reading.strip.spans)
    one = len(sides) * (math.ceil(4 / 3 * (tokens + tokens // 1000 + 64)) + 24 * frames + 160) + 80
    layers = sorted(range(len(reading.layers)), key=lambda i: (abs(i - layer), i))
    places = range(1, len(reading.heads))
    count = min(limit // one, len(reading.positions) * len(layers) * len(places))
    all_of_them = ((q, i, place) for q in in_order(reading, query) for i in layers for place in places)
    return list(itertools.islice(all_of_them, count))


def carried_words(sides: Sides, carried: list[tuple[int, int, int]], token: str) -> str:
    """What a page carries of single heads, in words."""
    reading = sides["after"]
    if reading.only_mean:
        return "The capture holds the mean over heads only."
    heads, layers = len(reading.heads) - 1, reading.layers
    whole, rest = divmod(len(carried), heads * len(layers))
    if whole == len(reading.positions):
        return "An exported page carries every single head."
    if whole:
        others = f" and of {whole - 1} other tokens" if whole > 1 else ""
        return f"An exported page carries every single head of “{token}”{others}" + (
            ", and a few more." if rest else "."
        )
    found = [layers[i] for i in sorted({i for _, i, _ in carried})]
    said = f"some heads of layers {found[0]} to {found[-1]}" if found else "none"
    return f"An exported page carries single heads for “{token}” only: {said}."


def precision(reading: Reading) -> str:
    """How exact the capture's rows are, as it states itself."""
    store = reading.capture.meta.get("store")
    return stated_error(store) if store else "as the capture keeps them"


def state(
    sides: Sides, names: dict[str, str], notes: list[str], picks: dict[str, Any], limit: int
) -> dict[str, Any]:
    """The data of one view, at most ``limit`` bytes of JSON: as many queries as fit, the one picked first."""
    reading = sides["after"]
    texts = readable(reading.capture.meta.get("tokens") or [])
    tokens: list[dict[str, Any]] = []
    for at, place in reading.shown_tokens():
        kind = KINDS[reading.token_map.kind[at]]
        tokens.append({"text": texts[at] if texts else f"#{at}", "kind": kind, "query": place, "at": at})
    data: dict[str, Any] = {
        "colours": tables(),
        "sides": [{"key": key, "name": names[key]} for key in sides],
        "notes": notes,
        "layers": reading.layers,
        "heads": reading.heads,
        "tokens": tokens,
        "statistics": [{"key": s.key, "title": s.title, "meaning": s.meaning} for s in STATISTICS],
        "start": {key: picks[key] for key in ("query", "layer", "head")},
        "precision": precision(reading),
        "strip": None,
        "queries": {},
    }
    if reading.strip is None:
        return data
    data["strip"] = reading.strip.data(pictures_of(reading.capture))
    data["size"] = list(reading.token_map.frame_size or ())
    data["box"] = _box_data(reading, picks["query"])
    data["sinks"] = {
        key: {"tokens": pack(side.sink_tokens.astype(np.uint8)), "meaning": side.sinks.definition}
        if side.sinks is not None
        else {"why": side.why_no_sinks}
        for key, side in sides.items()
    }
    token = next((t["text"] for t in tokens if t["query"] == picks["query"]), f"#{picks['query']}")
    data["page"] = carried_words(sides, carried_heads(sides, picks["query"], picks["layer"]), token.strip())
    room = limit - size_of(data)
    for query in in_order(reading, picks["query"]):
        made = bundle(sides, query)
        if (room := room - size_of({str(query): made})) < 0:
            break
        data["queries"][str(query)] = made
    return data


def in_order(reading: Reading, first: int) -> list[int]:
    """Queries as they matter: ``first``, then the answer's, the question's, others."""
    rank = {"answer": 0, "question": 1, "template": 2, "system": 3, "visual": 4, "newline": 5}
    kinds = [KINDS[reading.token_map.kind[at]] for at in reading.positions]
    return sorted(range(len(kinds)), key=lambda i: (i != first, rank[kinds[i]], i))


def _box_data(reading: Reading, query: int) -> dict[str, Any] | None:
    """The box that was given: its outlines by frame (shares of the frame), and its chance."""
    if reading.inside is None or reading.strip is None or reading.token_map.frame_size is None:
        return None
    width, height = reading.token_map.frame_size
    indices = reading.token_map.frame_indices
    outlines = []
    for start, stop in reading.strip.spans:
        there = [box for box in reading.boxes if any(box.at(frame) for frame in indices[start:stop])]
        corners = {(box.x0 / width, box.y0 / height, box.x1 / width, box.y1 / height) for box in there}
        outlines.append([list(corner) for corner in sorted(corners)])
    return {"outlines": outlines, "chance": reading.chance(reading.inside, query)}
