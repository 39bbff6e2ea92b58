"""Arrays on their way to the browser: deflated, base64, one byte a value where a picture needs no more.

Never bytes: one binary buffer in a trait or a message breaks a notebook behind ``--gateway-url`` (ipywidgets#3798).
"""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import numpy as np

HIDDEN = 255  # the byte of what is not visible (NaN)
STEPS = 254
STATE_LIMIT = 2_000_000  # bytes of JSON that one view may keep in a notebook's state
_TYPES: dict[np.dtype[Any], str] = {
    np.dtype("u1"): "u1",
    np.dtype("<u2"): "u2",
    np.dtype("<i4"): "i4",
    np.dtype("<f4"): "f4",
}


def pack(array: np.ndarray) -> dict[str, Any]:
    """An array of uint8, uint16, int32 or float32 as JSON values (``lib/arrays.js`` unpacks it).

    Raises:
        ValueError: another type.
    """
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    if array.dtype not in _TYPES:
        raise ValueError(
            f"arrays of {array.dtype} do not travel; make it one of {', '.join(_TYPES.values())}"
        )
    squeezed = zlib.compress(array.tobytes(), 6)
    return {
        "bytes": base64.b64encode(squeezed).decode("ascii"),
        "shape": list(array.shape),
        "type": _TYPES[array.dtype],
    }


def pack_map(values: np.ndarray, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    """Numbers as one byte each: ``low`` .. ``high`` is 0 .. 254, NaN is 255.

    Args:
        values: any shape; NaN is what is not visible.
        low, high: of the colour scale; by default those of the values. Values outside are clipped.
    """
    values = np.asarray(values, dtype=np.float32)
    seen = values[np.isfinite(values)]
    low = float(seen.min()) if low is None and seen.size else float(low or 0.0)
    high = float(seen.max()) if high is None and seen.size else float(1.0 if high is None else high)
    span = high - low
    with np.errstate(invalid="ignore"):
        scaled = np.clip((values - low) * (STEPS / span if span > 0 else 0.0), 0, STEPS)
        bytes_ = np.where(np.isfinite(values), np.rint(np.nan_to_num(scaled)), HIDDEN).astype(np.uint8)
    return pack(bytes_) | {"low": low, "high": high}


def unpack(packed: dict[str, Any]) -> np.ndarray:
    """The inverse of ``pack``; of ``pack_map`` the numbers behind the bytes, float32 with NaN."""
    dtype = next(dtype for dtype, name in _TYPES.items() if name == packed["type"])
    squeezed = base64.b64decode(packed["bytes"])
    array: np.ndarray = np.frombuffer(zlib.decompress(squeezed), dtype=dtype).reshape(packed["shape"])
    if "low" not in packed:
        return array
    numbers = packed["low"] + array.astype(np.float32) / STEPS * (packed["high"] - packed["low"])
    return np.where(array == HIDDEN, np.float32("nan"), numbers)


def size_of(state: Any) -> int:
    """Bytes of a state as it travels and as a notebook keeps it."""
    return len(json.dumps(state, ensure_ascii=False, separators=(",", ":")).encode("utf-8"))


def text_of(state: Any) -> str:
    """JSON for a script element: no text of a dataset can end the element. NaN is null."""
    text = json.dumps(jsonable(state), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def jsonable(value: Any) -> Any:
    """JSON values only: numpy becomes plain, NaN and infinities become null. Raises TypeError for bytes."""
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, np.ndarray):
        return jsonable(value.tolist())
    if isinstance(value, np.generic):
        return jsonable(value.item())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if value is None or isinstance(value, str | int | bool):
        return value
    raise TypeError(f"a {type(value).__name__} does not travel to the browser")
