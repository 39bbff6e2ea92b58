"""From the patches of mixed media to LLM-ready features: encoder -> fusion -> averaging over time -> merger
-> newline.

M media, each of its own grid (F, rows, cols); D encoder channels, P = rows * cols. Media are grouped, never
padded: pictures of one (rows, cols) share an encoder and merger call whatever their frame counts, clips of
one (F, rows, cols) share a fusion call. So no medium can see another, and the cost is that of the real
patches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workbench.models.tempflex.configuration import TempFlexConfig
from workbench.models.tempflex.encodings import visual_tokens

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


class VisualPath:
    """The visual half of a model: what it needs are the modules and the configuration named here."""

    config: TempFlexConfig
    encoder: nn.Module
    fusion: nn.Module | None
    merger: nn.Module
    newline: nn.Parameter | None
    training: bool
    gradient_checkpointing: bool
    _gradient_checkpointing_func: Callable[..., Tensor]

    @property
    def fusion_active(self) -> bool:
        """Whether clips pass through the fusion: it exists and ``config.use_fusion`` is on."""
        return self.fusion is not None and self.config.use_fusion

    def activate_fusion(self) -> None:
        """Switch the fusion on (stage 3). Raises ValueError when the model was built without one."""
        if self.fusion is None:
            raise ValueError(
                "this model has no Temporal Fiber Fusion: set fusion_depth (model.fusion_layers) above 0"
            )
        self.config.use_fusion = True

    @property
    def encoder_width(self) -> int:
        return self.config.vision_config.hidden_size

    def _encode(self, patches_TPC: Tensor, rows: int, cols: int) -> Tensor:
        if self.config.encoding != "tiled":
            return self.encoder(patches_TPC, rows, cols)
        side = (
            self.config.tile_size // self.config.vision_config.patch_size
        )  # stacked views are encoded apart
        views = patches_TPC.reshape(-1, side * side, patches_TPC.shape[-1])
        return self.encoder(views, side, side).view(len(patches_TPC), rows * cols, -1)

    def encode(self, pixel_values: Tensor, grids: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Encoder features alone, grouped: (indices of the media ``[G]``, features ``[G, F, P, D_enc]``)."""
        sizes = as_grids(grids)
        for (rows, cols), members, patches in group_patches(pixel_values, sizes):
            features = self._encode(patches, rows, cols)
            at = start = 0
            for clips, frames in runs_of_equal_frames(members, sizes):
                part = features[at : at + clips * frames].view(clips, frames, rows * cols, -1)
                yield torch.tensor(members[start : start + clips], device=features.device), part
                at, start = at + clips * frames, start + clips

    def _over_time(self, x_TPD: Tensor, runs: Sequence[tuple[int, int]]) -> Tensor:
        """Fusion and averaging of ordered clips, ``[T, P, D]`` -> ``[T', P, D]``."""
        pool_to = self.config.pool_to
        if not self.fusion_active and (pool_to is None or runs[-1][1] <= pool_to):
            return x_TPD
        out, at = [], 0
        for clips, frames in runs:
            x_BFPD = x_TPD[at : at + clips * frames].view(clips, frames, *x_TPD.shape[1:])
            at += clips * frames
            if self.fusion_active and (frames > 1 or self.config.images == "through"):
                x_BFPD = self._fuse(x_BFPD)
            out.append(pool_time(x_BFPD, pool_to).flatten(0, 1))
        return out[0] if len(out) == 1 else torch.cat(out)

    def _fuse(self, x_BFPD: Tensor) -> Tensor:
        assert self.fusion is not None
        if self.gradient_checkpointing and self.training:
            return self._gradient_checkpointing_func(self.fusion, x_BFPD)
        return self.fusion(x_BFPD)

    def visual_features(self, pixel_values: Tensor, grids: Tensor | Sequence[Sequence[int]]) -> Tensor:
        """What replaces the placeholders, ``[N, D]``, media in the order given (newlines included).

        Args:
            pixel_values: ``[T, patch_dim]``, patches of all media one after the other.
            grids: ``[M, 3]``, (frames, rows, cols) in patches of each medium.

        Raises:
            ValueError: grids that do not add up to T, or cannot be merged.
        """
        sizes = as_grids(grids)
        groups = []
        for (rows, cols), members, patches in group_patches(pixel_values, sizes):
            x = self._encode(patches, rows, cols)
            x = self._over_time(x, runs_of_equal_frames(members, sizes))
            x = self.merger(x, rows, cols)
            if self.newline is not None:
                x = torch.cat([x, self.newline.expand(len(x), 1, -1)], dim=1)
            groups.append((members, x.flatten(0, 1)))
        return in_order(groups, self.media_tokens(sizes))

    def media_tokens(self, grids: Tensor | Sequence[Sequence[int]]) -> list[int]:
        """Placeholders each medium needs, known before any computation."""
        return [visual_tokens(g, self.config.pool_to, self.config.newline) for g in as_grids(grids)]
