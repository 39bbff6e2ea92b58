"""From the patches of mixed media to LLM-ready features: encoder -> fusion -> averaging over time -> merger
-> newline.

M media, each of its own grid (F, rows, cols); D encoder channels, P = rows * cols. Media are grouped, never
padded: pictures of one (rows, cols) share an encoder and merger call whatever their frame counts, clips of
one (F, rows, cols) share a fusion call. So no medium can see another, and the cost is that of the real
patches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor
from torch.nn import functional as F

Grid = tuple[int, int, int]


def as_grids(grids: Tensor | Sequence[Sequence[int]]) -> list[Grid]:
    """``[M, 3]`` as plain tuples."""
    rows = grids.tolist() if isinstance(grids, Tensor) else grids
    return [(int(f), int(r), int(c)) for f, r, c in rows]


def by_size(grids: Sequence[Grid]) -> dict[tuple[int, int], list[int]]:
    """(rows, cols) -> indices of the media of that size, ordered by frame count (stable)."""
    groups: dict[tuple[int, int], list[int]] = {}
    for i, (_, rows, cols) in enumerate(grids):
        groups.setdefault((rows, cols), []).append(i)
    for members in groups.values():
        members.sort(key=lambda i: grids[i][0])
    return groups


def split_media(pixel_values: Tensor, grids: Sequence[Grid]) -> list[Tensor]:
    """Patches of each medium, views of ``[T, patch_dim]``.

    Raises ValueError when the grids do not add up to T.
    """
    sizes = [f * r * c for f, r, c in grids]
    if sum(sizes) != len(pixel_values):
        raise ValueError(
            f"pixel_values holds {len(pixel_values)} patches, its {len(grids)} grids ask for {sum(sizes)}: "
            "give one (frames, rows, cols) for every medium, in the order of its patches"
        )
    return list(pixel_values.split(sizes))


def group_patches(
    pixel_values: Tensor, grids: Sequence[Grid]
) -> Iterator[tuple[tuple[int, int], list[int], Tensor]]:
    """For every size: (rows, cols), the media it gathers, and their pictures ``[T_g, P, patch_dim]`` in that
    order."""
    groups = by_size(grids)
    parts = split_media(pixel_values, grids)
    for (rows, cols), members in groups.items():
        whole = members == list(range(len(grids)))  # nothing to reorder: the common case costs no copy
        patches = pixel_values if whole else torch.cat([parts[i] for i in members])
        yield (rows, cols), members, patches.view(-1, rows * cols, pixel_values.shape[-1])


def runs_of_equal_frames(members: Sequence[int], grids: Sequence[Grid]) -> list[tuple[int, int]]:
    """(clips, frames) of each run of equal frame counts among ordered media."""
    return [(len(list(run)), frames) for frames, run in groupby(grids[i][0] for i in members)]


def pool_time(x_BFPD: Tensor, to: int | None) -> Tensor:
    """Average F frames to at most ``to`` (release: 32): adaptive average pooling, ``[B, F', P, D]``."""
    b, f, p, d = x_BFPD.shape
    if to is None or f <= to:
        return x_BFPD
    if f % to == 0:
        return x_BFPD.view(b, to, f // to, p, d).mean(2)
    flat = x_BFPD.reshape(b, f, p * d).transpose(1, 2)
    return F.adaptive_avg_pool1d(flat, to).transpose(1, 2).reshape(b, to, p, d)


def in_order(groups: Sequence[tuple[list[int], Tensor]], counts: Sequence[int]) -> Tensor:
    """Rows of several groups back in the order of the media: ``[sum(counts), D]``; ``counts[i]`` rows for
    medium i."""
    if len(groups) == 1 and groups[0][0] == list(range(len(counts))):
        return groups[0][1]
    parts: list[Tensor | None] = [None] * len(counts)
    for members, rows in groups:
        for i, part in zip(members, rows.split([counts[i] for i in members]), strict=True):
            parts[i] = part
    return torch.cat([part for part in parts if part is not None])


def repeat_media(
    pixel_values: Tensor, grids: Sequence[Grid], rows: Sequence[int], times: int
) -> tuple[Tensor, Tensor]:
    """Media of a batch whose every row is repeated ``times`` (row 0, row 0, row 1, row 1 ...); ``rows[i]`` is
    medium i's row."""
    parts = split_media(pixel_values, grids)
    order = [i for _, run in groupby(range(len(grids)), key=lambda i: rows[i]) for i in list(run) * times]
    repeated = torch.tensor([grids[i] for i in order], dtype=torch.long, device=pixel_values.device)
    return torch.cat([parts[i] for i in order]), repeated
