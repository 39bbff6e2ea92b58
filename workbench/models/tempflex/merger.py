"""Patch merger: four patches of a frame become one token of the language model.

Axes: T frames (of any clips with one grid), P = rows x cols patches in raster order, D channels.

``2x2``     the paper: pixel unshuffle of stride 2, then a two-layer MLP.
``strip4``  the release: RMSNorm of every patch, then groups of 4 *consecutive raster tokens*, then the MLP.
            Where the width is not a multiple of 4, a strip runs over the end of a row into the next one, so a
            token can join two sides of a frame.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from workbench.errors import WorkbenchError

MergeMode = Literal["2x2", "strip4"]


class GridError(WorkbenchError, ValueError):
    """A patch grid that cannot be merged."""


def _not_divisible(rows: int, cols: int, mode: str, rule: str) -> GridError:
    todo = "resize the frame to a size the encoding allows, or choose the other merge mode"
    return GridError(f"merge patches by {mode}", f"the grid is {rows} x {cols} patches, {rule}", todo)


def merged_grid(rows: int, cols: int, mode: MergeMode) -> tuple[int, int]:
    """Rows and columns of the merged tokens.

    2x2: ``(rows / 2, cols / 2)``. strip4: ``(rows, cols / 4)``, or ``(1, rows * cols / 4)`` when its strips
    wrap, because then they form no grid.

    Raises:
        GridError: the grid cannot be divided (2x2: rows or cols odd; strip4: rows * cols % 4).
    """
    if mode == "2x2":
        if rows % 2 or cols % 2 or rows < 1 or cols < 1:
            raise _not_divisible(rows, cols, mode, "and both sides must be even")
        return rows // 2, cols // 2
    if mode != "strip4":
        raise ValueError(f"merge mode must be '2x2' or 'strip4', not {mode!r}")
    if rows * cols % 4 or rows < 1 or cols < 1:
        raise _not_divisible(rows, cols, mode, "and their number must be a multiple of 4")
    return (rows, cols // 4) if cols % 4 == 0 else (1, rows * cols // 4)


def merged_cells(rows: int, cols: int, mode: MergeMode) -> list[list[tuple[int, int]]]:
    """For every merged token, in the merger's order, the four (row, column) patches it is made of.

    The four are in the order in which their channels are joined. Raises as :func:`merged_grid`.
    """
    out_rows, out_cols = merged_grid(rows, cols, mode)
    if mode == "2x2":
        return [
            [(2 * r + dr, 2 * c + dc) for dr in (0, 1) for dc in (0, 1)]
            for r in range(out_rows)
            for c in range(out_cols)
        ]
    return [[divmod(i, cols) for i in range(start, start + 4)] for start in range(0, rows * cols, 4)]


class PatchMerger(nn.Module):
    """Joins 4 patches' channels (4D) and maps them to the language model's width: Linear, GELU, Linear.

    Args:
        dim: channels D of a patch.
        out_dim: width of the language model.
        mode: "2x2" or "strip4".
        hidden: width between the two linear maps; 4 D if None, as in the release (the paper does not say).
    """

    def __init__(self, dim: int, out_dim: int, mode: MergeMode = "2x2", hidden: int | None = None) -> None:
        super().__init__()
        if mode not in ("2x2", "strip4"):
            raise ValueError(f"merge mode must be '2x2' or 'strip4', not {mode!r}")
        self.dim, self.mode = dim, mode
        self.norm = nn.RMSNorm(dim, eps=1e-6) if mode == "strip4" else None
        self.mlp_in = nn.Linear(4 * dim, hidden or 4 * dim)
        self.mlp_out = nn.Linear(hidden or 4 * dim, out_dim)

    def forward(self, x_TPD: Tensor, rows: int, cols: int) -> Tensor:
        """``[T, rows * cols, D]`` to ``[T, rows * cols / 4, out_dim]``.

        Token i covers the patches ``merged_cells(rows, cols, mode)[i]``.

        Raises:
            GridError: the grid cannot be divided.
            ValueError: P is not rows * cols, or D is not dim.
        """
        out_rows, out_cols = merged_grid(rows, cols, self.mode)
        if x_TPD.dim() != 3 or x_TPD.shape[1:] != (rows * cols, self.dim):
            raise ValueError(f"expected [T, {rows} * {cols}, {self.dim}], got {list(x_TPD.shape)}")
        frames = x_TPD.shape[0]
        if self.norm is not None:
            joined = self.norm(x_TPD).reshape(frames, out_rows * out_cols, 4 * self.dim)
        else:
            blocks = x_TPD.reshape(frames, out_rows, 2, out_cols, 2, self.dim)
            joined = blocks.transpose(2, 3).reshape(frames, out_rows * out_cols, 4 * self.dim)
        return self.mlp_out(functional.gelu(self.mlp_in(joined)))
