"""Which frames of a clip a count of frames stands for: the middle of each of ``used`` equal spans."""

from __future__ import annotations

from functools import lru_cache


@lru_cache(maxsize=4096)
def midpoint_indices(available: int, used: int) -> tuple[int, ...]:
    """Frame numbers ``floor((i + 0.5) * available / used)`` for ``i`` in ``0 .. used - 1``.

    Integer arithmetic, so no rounding error on hour-long clips. Indices are sorted, and distinct whenever
    ``used <= available``; ``used > available`` repeats frames, which only the copies probe asks for.

    Raises:
        ValueError: ``used`` is negative, or positive on a clip without frames.
    """
    if used < 0 or (used > 0 and available < 1):
        raise ValueError(f"cannot take {used} frames of {available}")
    return tuple((2 * i + 1) * available // (2 * used) for i in range(used))
