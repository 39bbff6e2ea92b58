"""How many bytes attention rows take, and a refusal that says what to reduce when they do not fit."""

from __future__ import annotations

from workbench.captures.rows import Store, store_bytes
from workbench.probes.common import ProbeError


def kept_bytes(layers: int, heads: int, queries: int, keys: int, store: Store = "float32") -> int:
    """Bytes of the arrays that ``attention_rows`` keeps for its rows, and a check a layer.

    16,384 keys, 36 layers, 32 heads: 75.5 MB a query in float32, 9.4 MB in topk, so 8 queries in 75.6 MB; averaged over
    heads 2.4 MB a query in float32.
    """
    number_of_keys = 8 * layers if store == "topk" else 0
    return store_bytes(layers * heads * queries, keys, store) + number_of_keys + 8 * layers


def check_room(
    asked: str, kept: int, working: int, on_disk: int | None, available: int, smallest: int | None = None
) -> None:
    """Refuse what cannot fit.

    Args:
        kept: bytes of the capture; in memory unless ``on_disk``.
        working: bytes at work besides.
        on_disk: free bytes where the capture is streamed to; None when it is kept in memory.
        available: bytes of memory.
        smallest: bytes of the same capture with store="topk"; None where that is no choice.

    Raises:
        ProbeError: naming the size needed and what to reduce.
    """
    less = "Ask for fewer queries or layers, or heads='mean'"
    if smallest is not None and smallest < kept:
        less += f"; store='topk' keeps {_size(smallest)} instead"
    memory = working + (kept if on_disk is None else 0)
    if memory > available:
        stream = "" if on_disk is not None else "; or give a path, and layers are streamed to disk"
        raise ProbeError(
            asked,
            f"it needs {_size(memory)} of memory ({_size(kept)} kept), {_size(available)} are free",
            less + stream,
        )
    if on_disk is not None and kept > on_disk:
        raise ProbeError(asked, f"it needs {_size(kept)} on disk, {_size(on_disk)} are free", less)


def _size(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.0f} MiB"
