"""How many bytes attention rows take, and a refusal that says what to reduce when they do not fit."""

from __future__ import annotations

from workbench.captures.rows import BYTES, Store
from workbench.probes.common import ProbeError


def kept_bytes(layers: int, heads: int, queries: int, keys: int, store: Store = "float32") -> int:
    """Bytes of the arrays that ``attention_rows`` keeps: rows, a check a layer, and row maxima for uint8.

    16,384 keys, 36 layers, 32 heads, uint8: 19 MB a query; the same averaged over heads: 0.6 MB.
    """
    rows = layers * heads * queries
    return rows * keys * BYTES[store] + (4 * rows if store == "uint8" else 0) + 8 * layers


def check_room(asked: str, kept: int, working: int, on_disk: int | None, available: int) -> None:
    """Refuse what cannot fit.

    Args:
        kept: bytes of the capture; in memory unless ``on_disk``.
        working: bytes at work besides.
        on_disk: free bytes where the capture is streamed to; None when it is kept in memory.
        available: bytes of memory.

    Raises:
        ProbeError: naming the size needed and what to reduce.
    """
    less = "Ask for fewer queries or layers, heads='mean', or store='uint8'"
    memory = working + (kept if on_disk is None else 0)
    if memory > available:
        stream = "" if on_disk is not None else "; or give a path, and layers are streamed to disk"
        raise ProbeError(
            asked,
            f"it needs {memory / 2**30:,.1f} GiB of memory ({kept / 2**30:,.1f} GiB kept), {available / 2**30:,.1f} are "
            "free",
            less + stream,
        )
    if on_disk is not None and kept > on_disk:
        raise ProbeError(
            asked, f"it needs {kept / 2**30:,.1f} GiB on disk, {on_disk / 2**30:,.1f} are free", less
        )
