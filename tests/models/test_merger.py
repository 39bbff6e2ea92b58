"""Patch merger: which patches meet in a token, by marking them; the MLP by hand; grids it refuses."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from workbench.errors import WorkbenchError
from workbench.models.tempflex.merger import PatchMerger, merged_cells, merged_grid

GRIDS = st.tuples(st.integers(1, 5), st.integers(1, 5))


@pytest.mark.parametrize("mode", ["2x2", "strip4"])
@settings(max_examples=25, deadline=None)
@given(grid=GRIDS)
def test_every_token_is_the_mlp_of_its_cells(mode: str, grid: tuple[int, int]) -> None:
    rows, cols = (2 * grid[0], 2 * grid[1]) if mode == "2x2" else (4 * grid[0], grid[1])
    torch.manual_seed(0)
    merger = PatchMerger(3, 5, mode=mode, hidden=7).double()
    x = torch.randn(2, rows * cols, 3, dtype=torch.float64)
    if merger.norm is not None:
        with torch.no_grad():
            merger.norm.weight.copy_(torch.tensor([0.5, 2.0, -1.0]))
    out = merger(x, rows, cols)
    cells = merged_cells(rows, cols, mode)
    assert out.shape == (2, rows * cols // 4, 5) and len(cells) == out.shape[1]
    assert sorted(cell for four in cells for cell in four) == [
        (r, c) for r in range(rows) for c in range(cols)
    ]
    for frame in range(2):
        for token, four in enumerate(cells):
            patches = [x[frame, r * cols + c] for r, c in four]
            if merger.norm is not None:
                patches = [p / torch.sqrt((p**2).mean() + 1e-6) * merger.norm.weight for p in patches]
            hidden = merger.mlp_in.weight @ torch.cat(patches) + merger.mlp_in.bias
            expected = merger.mlp_out.weight @ functional.gelu(hidden) + merger.mlp_out.bias
            torch.testing.assert_close(out[frame, token], expected)


def test_cells_of_small_grids() -> None:
    assert merged_grid(2, 4, "2x2") == (1, 2)
    assert merged_cells(2, 4, "2x2") == [[(0, 0), (0, 1), (1, 0), (1, 1)], [(0, 2), (0, 3), (1, 2), (1, 3)]]
    assert merged_grid(2, 4, "strip4") == (2, 1)
    assert merged_cells(2, 4, "strip4") == [
        [(0, 0), (0, 1), (0, 2), (0, 3)],
        [(1, 0), (1, 1), (1, 2), (1, 3)],
    ]
    # Width 6 is no multiple of 4: the second strip runs over the end of row 0.
    assert merged_grid(2, 6, "strip4") == (1, 3)
    assert merged_cells(2, 6, "strip4")[1] == [(0, 4), (0, 5), (1, 0), (1, 1)]


@pytest.mark.parametrize(
    ("rows", "cols", "mode"),
    [(3, 4, "2x2"), (4, 3, "2x2"), (0, 2, "2x2"), (3, 3, "strip4"), (1, 2, "strip4")],
)
def test_grid_that_cannot_be_merged(rows: int, cols: int, mode: str) -> None:
    for ask in (merged_grid, merged_cells):
        with pytest.raises(WorkbenchError, match=f"the grid is {rows} x {cols} patches"):
            ask(rows, cols, mode)
    if rows:
        with pytest.raises(WorkbenchError):
            PatchMerger(3, 5, mode=mode)(torch.zeros(1, rows * cols, 3), rows, cols)


def test_shape_that_contradicts_the_grid() -> None:
    with pytest.raises(ValueError, match=r"expected \[T, 4 \* 4, 3\], got \[1, 12, 3\]"):
        PatchMerger(3, 5)(torch.zeros(1, 12, 3), 4, 4)
    with pytest.raises(ValueError, match="merge mode"):
        PatchMerger(3, 5, mode="3x3")
    with pytest.raises(ValueError, match="merge mode"):
        merged_grid(4, 4, "3x3")
