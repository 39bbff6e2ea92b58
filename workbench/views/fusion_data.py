"""A fusion capture as JSON for the browser: what is small at once, maps one by one.

Axes: F frames, P places (patches in raster order), L layers. A *detail* answers one question,
``{"side", "frames", "layer", "map"}``; those that fit travel with the view, the others are asked for.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from workbench.captures import Capture
from workbench.views import stills, ternary
from workbench.views.payload import pack, pack_map, size_of

TABLE_LIMIT = 300_000  # bytes of one table of clips or images
HORIZON_TITLES = {
    "effective_frames": ("frames that memory effectively holds", "frames"),
    "past_share": ("share of memory's weight on earlier frames", "share"),
    "mean_age": ("mean age of what memory holds", "frames"),
    "mass": ("sum of memory's weights", "1"),
    "future_factor": ("factor by which later gates scale the memory", "1"),
    "leak": ("change of the memory by later gates", "share of its norm"),
}
NORM_TITLES = {
    "input": "input x",
    "local": "local branch, before its weight",
    "memory": "memory branch, before its weight",
    "periodic": "periodic branch, before its weight",
    "fused": "weighed sum of the branches",
    "context": "context",
    "refine": "what the layer adds, z - x",
    "output": "output z",
}
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def film_maps(capture: Capture) -> list[tuple[str, str, str, str, int, str]]:
    """Maps over frames and patches that the capture names: (key, title, unit, array, column, colour scale)."""
    meta, found = capture.meta, []
    for at, name in enumerate(meta["norms"]):
        title = f"norm: {NORM_TITLES.get(name, name)}"
        found.append((f"norm {name}", title, "L2 over channels", "norms", at, "sequential"))
    for at, name in enumerate(meta["parts"]):
        title = f"share of the update: {name}"
        found.append((f"share {name}", title, "parts sum to 1", "shares", at, "diverging"))
    for at, name in enumerate(meta["horizon"]):
        title, unit = HORIZON_TITLES.get(name, (name, "1"))
        found.append((f"horizon {name}", f"memory: {title}", unit, "horizon", at, "sequential"))
    return [row for row in found if any(f"{row[3]}_{n}" in capture.arrays for n in meta["frame_counts"])]


def scales(captures: list[Capture]) -> dict[str, tuple[float, float]]:
    """(low, high) of every film map, one scale over sides, frame counts, layers, frames and patches."""
    found: dict[str, tuple[float, float]] = {}
    for capture in captures:
        for key, _, _, array, column, kind in film_maps(capture):
            for n in capture.meta["frame_counts"]:
                if f"{array}_{n}" not in capture.arrays:
                    continue
                values = capture.arrays[f"{array}_{n}"][..., column]
                values = values[np.isfinite(values)]
                if not values.size:
                    continue
                low, high = found.get(key, (0.0, 0.0))
                if kind == "diverging":
                    high = max(high, float(np.abs(values).max()))
                    low = -high
                else:
                    low, high = min(low, float(values.min())), max(high, float(values.max()))
                found[key] = low, high
    return found


def places(capture: Capture) -> tuple[int, int]:
    """Rows and columns of the patch map; one row where the capture does not say."""
    found = capture.meta.get("places") or {}
    if "rows" in found and "cols" in found:
        return int(found["rows"]), int(found["cols"])
    n = next(n for n in capture.meta["frame_counts"] if f"weights_{n}" in capture.arrays)
    return 1, int(capture.arrays[f"weights_{n}"].shape[1])


def side(title: str, capture: Capture) -> dict[str, Any]:
    """What is small of one capture."""
    meta, arrays = capture.meta, capture.arrays
    rows, cols = places(capture)
    counts = [int(n) for n in meta["frame_counts"]]
    shown = {str(n): _frames(capture, n) for n in counts}
    found = {
        "title": title,
        "variant": meta.get("variant", "not named"),
        "layers": int(meta["layers"]),
        "counts": counts,
        "rows": rows,
        "cols": cols,
        "what": (meta.get("places") or {}).get("what", "place"),
        "branches": list(meta["branches"]),
        "numbers": list(meta["numbers"]),
        "clip": (meta.get("sample") or {}).get("id", "a clip"),
        "frames": shown,
        "bypass": meta.get("still_images") == "bypass",
        "horizon": {str(n): spread(capture, n) for n in counts},
        "over": "channels" if any(f"horizon_channels_{n}" in arrays for n in counts) else "patches",
    }
    for name, ids, axis in (("sweep", "videos", "clip"), ("still", "images", "image")):
        if name in arrays and arrays[name].size * 4 <= TABLE_LIMIT:
            values = np.asarray(arrays[name], np.float32)
            found[name] = {"ids": list(meta.get(ids, [])), "values": pack(values), "axis": axis}
    return found


def _frames(capture: Capture, n: int) -> dict[str, Any]:
    clip = (capture.meta.get("clips") or {}).get(str(n)) or {}
    pictures = capture.arrays.get(f"pictures_{n}")
    return {
        "times": [float(t) for t in clip.get("timestamps", [])] or None,
        "picture": None if pictures is None else film(np.asarray(pictures)),
    }


def film(pictures_FYXC: np.ndarray, tall: int = 72) -> str:
    """Frames side by side as one JPEG in a data URL, ``tall`` pixels high."""
    stills.matplotlib()  # brings Pillow
    from PIL import Image

    frames, height, width, _ = pictures_FYXC.shape
    wide = max(1, round(width * tall / height))
    whole = Image.new("RGB", (wide * frames, tall))
    for f, picture in enumerate(pictures_FYXC):
        whole.paste(Image.fromarray(picture).resize((wide, tall), Image.Resampling.BILINEAR), (f * wide, 0))
    buffer = io.BytesIO()
    whole.save(buffer, "JPEG", quality=72)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def spread(capture: Capture, n: int) -> list[list[float]] | None:
    """Effective frames at the last frame, a row a layer: quantiles 5, 25, 50, 75, 95%, mean, how many values.

    Over channels (mean over patches) where the capture has ``horizon_channels_N``, else over patches.
    """
    if f"horizon_channels_{n}" in capture.arrays:
        values = np.asarray(capture.arrays[f"horizon_channels_{n}"], np.float64)
    elif f"horizon_{n}" in capture.arrays and "effective_frames" in capture.meta["horizon"]:
        at = capture.meta["horizon"].index("effective_frames")
        values = np.asarray(capture.arrays[f"horizon_{n}"][:, -1, :, at], np.float64)
    else:
        return None
    rows = []
    for row in values:
        row = row[np.isfinite(row)]
        if not row.size:
            rows.append([float("nan")] * 6 + [0])
            continue
        rows.append([*map(float, np.quantile(row, QUANTILES)), float(row.mean()), int(row.size)])
    return rows


def questions(captures: list[Capture]) -> Iterator[dict[str, Any]]:
    """All questions: what shows first comes first."""
    maps = ["", "norm memory", *(key for key, *_ in film_maps(captures[-1]))]
    for name in dict.fromkeys(maps):
        for n in sorted(captures[-1].meta["frame_counts"], reverse=True):
            for s, capture in enumerate(captures):
                for layer in range(capture.meta["layers"]):
                    yield {"side": s, "frames": int(n), "layer": layer, "map": name}


def detail(
    captures: list[Capture], scale: dict[str, tuple[float, float]], question: dict[str, Any]
) -> dict[str, Any]:
    """The answer to one question; ``{"missing": why}`` where the capture does not hold it."""
    capture = captures[int(question["side"])]
    n, layer, name = int(question["frames"]), int(question["layer"]), str(question["map"])
    if n not in capture.meta["frame_counts"] or not 0 <= layer < capture.meta["layers"]:
        counts = ", ".join(map(str, capture.meta["frame_counts"]))
        return {
            "missing": f"This capture holds no layer {layer} at {n} frames (counts: {counts}; layers: {capture.meta['layers']})."
        }
    if not name:
        return _base(capture, n, layer)
    row = next((row for row in film_maps(capture) if row[0] == name), None)
    if row is None or f"{row[3]}_{n}" not in capture.arrays:
        return {"missing": f"This capture does not hold “{name}” at {n} frames."}
    low, high = scale.get(name, (0.0, 1.0))
    return {"map": pack_map(capture.arrays[f"{row[3]}_{n}"][layer, ..., row[4]], low, high)}


def _base(capture: Capture, n: int, layer: int) -> dict[str, Any]:
    """Mixture, kernels and memory of one layer."""
    arrays = capture.arrays
    found: dict[str, Any] = {}
    if f"weights_{n}" in arrays:
        weights = np.asarray(arrays[f"weights_{n}"][layer], np.float32)
        found["weights"] = pack(weights)
        if weights.shape[-1] == 3:
            found["mix"] = pack(ternary.indices(weights))
    if f"kernels_{n}" in arrays:
        kernels = np.asarray(arrays[f"kernels_{n}"], np.float32)
        most = [float(np.nanmax(np.abs(kernels[..., at]), initial=0.0)) for at in (slice(0, 3), slice(3, 6))]
        means, norms = kernels[layer, :, :3].T, kernels[layer, :, 3:].T
        found["kernel_mean"] = pack_map(means, -most[0], most[0])
        found["kernel_norm"] = pack_map(norms, 0.0, most[1])
    if f"memory_weights_{n}" in arrays:
        weights = np.array(arrays[f"memory_weights_{n}"][layer], np.float32)
        weights[np.triu_indices(n, 1)] = np.nan  # later frames are not remembered: nothing is there to see
        found["memory"] = pack_map(weights, 0.0)
    return found


def details(
    captures: list[Capture], scale: dict[str, tuple[float, float]], room: int, skip: int = 0
) -> tuple[list[tuple[dict[str, Any], Any]], int]:
    """Questions with their answers as long as they fit into ``room`` bytes, after the first ``skip``; and how many."""
    found: list[tuple[dict[str, Any], Any]] = []
    for at, question in enumerate(questions(captures)):
        if at < skip:
            continue
        answer = detail(captures, scale, question)
        room -= size_of([question, answer])
        if room < 0:
            break
        found.append((question, answer))
    return found, skip + len(found)


def key_of(question: dict[str, Any]) -> str:
    """A question's text as ``JSON.stringify`` writes it."""
    return json.dumps(question, ensure_ascii=False, separators=(",", ":"))
