"""One layer of Temporal Fiber Fusion as the TempFlex release of 2025-12 computes it (docs/tff.md: what
differs)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from workbench.models.tempflex.fusion_layer import FusionLayer
from workbench.models.tempflex.fusion_ops import periodic_gains
from workbench.models.tempflex.scan import release_memory


class ReleaseLayer(FusionLayer):
    """A layer of the release.

    memory: ``m_f = sum_{i<=f} w_i (1 - a_i) x_i`` (:func:`release_memory`): no decay, future gates leak.
    periodic: x times a fixed scalar a frame, ``sum_w cos(2 pi w f / F)``; no parameters; 5 at F = 1.
    refine: ``o = x + LN1(y)``, ``z = o + FFN(LN2(o))``, FFN ``D -> 2 ffn_hidden -> GELU -> 2D -> value *
    sigmoid``. gamma starts at 1.

    Parameters at D = 1152, local hidden 1152, FFN hidden 2304: 22,582,659 = 17 D^2 + 19 D + 3.
    """

    def __init__(self, dim: int, local_hidden: int, ffn_hidden: int, frequencies: tuple[int, ...]) -> None:
        super().__init__(dim, local_hidden, gamma=1.0)
        self.frequencies = frequencies
        self.ffn_in = nn.Linear(dim, 2 * ffn_hidden)
        self.ffn_out = nn.Linear(2 * ffn_hidden, 2 * dim)
        self.norm = nn.LayerNorm(dim)
        self.norm_ffn = nn.LayerNorm(dim)

    def _memory(self, a_FBPD: Tensor, x_FBPD: Tensor) -> Tensor:
        return release_memory(a_FBPD, x_FBPD)

    def _periodic(self, x_FBPD: Tensor) -> Tensor:
        gain_F = periodic_gains(x_FBPD.shape[0], self.frequencies).sum(1)
        return gain_F.to(x_FBPD.device, x_FBPD.dtype)[:, None, None, None] * x_FBPD

    def _refine(self, x_FBPD: Tensor, y_FBPD: Tensor) -> Tensor:
        o_FBPD = x_FBPD + self.norm(y_FBPD)
        ffn = functional.glu(self.ffn_out(functional.gelu(self.ffn_in(self.norm_ffn(o_FBPD)))), dim=-1)
        return o_FBPD + ffn
