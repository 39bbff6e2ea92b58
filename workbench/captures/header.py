"""The safetensors container, read and written without loading data: 8 bytes of length, a JSON header, then bytes.

Own code, because the library can neither write an array piece by piece nor map one into memory for numpy; the
tests read our files with the library and the library's with this module.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from workbench.runs.files import RunError

KEY = "workbench.capture"
_LIMIT = 100_000_000  # the largest header that the safetensors library reads
DTYPES = {
    "BOOL": np.dtype("?"),
    "U8": np.dtype("u1"),
    "I8": np.dtype("i1"),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "F16": np.dtype("<f2"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "F32": np.dtype("<f4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F64": np.dtype("<f8"),
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


class CaptureError(RunError):
    """A capture that cannot be read or written; ``where`` names the file."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One array in the file: ``start`` and ``stop`` are byte offsets from the file's beginning."""

    dtype: np.dtype
    shape: tuple[int, ...]
    start: int
    stop: int


def little_endian(array: np.ndarray) -> np.ndarray:
    """``array`` contiguous and in a type that the file knows. Raises CaptureError naming the type otherwise."""
    dtype = array.dtype.newbyteorder("<")
    if dtype not in _NAMES:
        raise CaptureError(
            "write an array into a capture",
            f"its type is {array.dtype}",
            f"convert it to one of {', '.join(str(d) for d in _NAMES)}",
        )
    return np.ascontiguousarray(array, dtype=dtype).reshape(array.shape)


def build_header(arrays: Mapping[str, tuple[np.dtype, tuple[int, ...]]], meta_json: str) -> bytes:
    """Length and header for arrays stored one after the other in the order given.

    Padded to 8 bytes, so that arrays ordered by falling item size are aligned.
    """
    header: dict[str, Any] = {"__metadata__": {KEY: meta_json}}
    at = 0
    for name, (dtype, shape) in arrays.items():
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        header[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > _LIMIT:
        raise CaptureError(
            "write a capture",
            f"its metadata take {len(text):,} bytes",
            f"keep them below {_LIMIT:,}: large tables belong into arrays",
        )
    return len(text).to_bytes(8, "little") + text


def read_header(path: Path) -> tuple[dict[str, Entry], dict[str, Any]]:
    """Entries by array name, and the capture's metadata.

    Raises:
        CaptureError: no file, not safetensors, not a capture, or cut.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            text = file.read(min(length, _LIMIT))
    except FileNotFoundError as error:
        raise CaptureError(
            "open a capture",
            "there is no such file",
            "`workbench status RUN` lists those of a run",
            str(path),
        ) from error
    except OSError as error:
        raise CaptureError(
            "open a capture", str(error.strerror or error), "Name a file you may read", str(path)
        ) from error
    if size < 8:
        raise _cut(path, size, "its beginning")
    if length > _LIMIT or not text.lstrip()[:1] == b"{":
        raise _foreign(path, "it is not a safetensors file")
    if len(text) < length:
        raise _cut(path, size, f"{8 + length:,} bytes of header")
    try:
        header = json.loads(text)
        own = header.pop("__metadata__", {}).get(KEY)
        if own is None:
            raise _foreign(path, "it is a safetensors file without capture metadata (model weights?)")
        meta = json.loads(own)
        if not isinstance(meta, dict):
            raise TypeError("the metadata are not a mapping")
    except (ValueError, AttributeError, TypeError) as error:
        raise _foreign(path, f"its header cannot be read ({error})") from error
    entries = {}
    for name, row in header.items():
        try:
            dtype, shape = DTYPES[row["dtype"]], tuple(int(n) for n in row["shape"])
            start, stop = (8 + length + int(n) for n in row["data_offsets"])
            if stop - start != int(np.prod(shape, dtype=np.int64)) * dtype.itemsize:
                raise ValueError("its shape and its bytes disagree")
        except (KeyError, TypeError, ValueError) as error:
            raise _foreign(path, f"the entry of its array {name!r} is damaged ({error})") from error
        entries[name] = Entry(dtype, shape, start, stop)
    end = max((entry.stop for entry in entries.values()), default=8 + length)
    if size < end:
        raise _cut(path, size, f"{end:,} bytes")
    return entries, meta


def _cut(path: Path, size: int, wanted: str) -> CaptureError:
    return CaptureError(
        "open a capture",
        f"the file is cut: it has {size:,} bytes, not {wanted}",
        "Copy it again, or make it again with the probe that wrote it",
        str(path),
    )


def _foreign(path: Path, found: str) -> CaptureError:
    return CaptureError(
        "open a capture", found, "Name a file that a probe wrote (RUN/captures/NAME.safetensors)", str(path)
    )
