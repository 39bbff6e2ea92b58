"""Does a media file end where its own container says? Told apart: a file that was cut from a file that lies.

Only the outermost sizes are read (a few seeks, no decoding): ISO boxes (MP4, MOV), the EBML segment
(Matroska, WebM) and the RIFF chunk (AVI). Other containers carry no total size and give ``None``.
"""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

EBML_MAGIC, EBML_SEGMENT = b"\x1a\x45\xdf\xa3", 0x18538067


def missing_bytes(path: str | os.PathLike[str]) -> int | None:
    """How many bytes the outermost element promises beyond the file's end; None if unknown."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        head = file.read(12)
        if len(head) < 12:
            return None
        if head[:4] == b"RIFF":
            return max(0, 8 + struct.unpack("<I", head[4:8])[0] - size)
        if head[:4] == EBML_MAGIC:
            return _ebml(file, size)
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
            return _iso(file, size)
    return None


def _iso(file: BinaryIO, size: int) -> int:
    position = 0
    while position < size:
        file.seek(position)
        head = file.read(16)
        if len(head) < 8:
            return 8 - len(head)
        length = int.from_bytes(head[:4], "big")
        if length == 1 and len(head) == 16:  # 64-bit size
            length = int.from_bytes(head[8:16], "big")
        if length == 0:  # "to the end of the file"
            return 0
        if length < 8:  # not a box: garbage, which is not what a cut leaves
            return 0
        position += length
    return position - size


def _ebml(file: BinaryIO, size: int) -> int | None:
    position = 0
    while position < size:
        file.seek(position)
        identity, id_length = _ebml_number(file.read(4), keep_marker=True)
        file.seek(position + id_length)
        length, width = _ebml_number(file.read(8), keep_marker=False)
        if not id_length or not width:
            return None
        body = position + id_length + width
        if length == (1 << (7 * width)) - 1:  # unknown size: a live stream
            return None
        if identity == EBML_SEGMENT:
            return max(0, body + length - size)
        position = body + length
    return position - size


def _ebml_number(data: bytes, keep_marker: bool) -> tuple[int, int]:
    """Value and width in bytes of an EBML variable-length number; width 0 if ``data`` does not hold one."""
    if not data or not data[0]:
        return 0, 0
    width = 9 - data[0].bit_length()
    if len(data) < width:
        return 0, 0
    value = int.from_bytes(data[:width], "big")
    return (value if keep_marker else value & ((1 << (7 * width)) - 1)), width
