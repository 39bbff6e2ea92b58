"""One layer of Temporal Fiber Fusion: the frame that both variants share, and the paper's variant.

Axes: B clips, F frames, P patches, D channels. A *fiber* is one patch position followed through time: ``x[:, :, p, :]``.

    1. local     a kernel of three frames, made from the fiber's mean, convolved circularly with it        (eq. 1)
    2. memory    a gated running average along the fiber                                                    (eq. 2)
    3. periodic  the fiber under cosines of fixed frequencies                                               (eq. 3)
    4. fusion    one softmax triple a fiber, constant in time, weighs the three branches into y             (eq. 4)
    5. context   y += gamma * mean over the frame's patches of y
    6. refine    residual, LayerNorm and a gated FFN                                                        (eq. 5)

Variants differ in 2, 3 and 6 (``_memory``, ``_periodic``, ``_refine``); docs/tff.md sets them side by side.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from workbench.models.tempflex.fusion_ops import local_conv, periodic
from workbench.models.tempflex.scan import gated_memory


@dataclass(frozen=True)
class LayerWeights:
    """What one layer did to one batch, without gradients.

    beta ``[B, P, 3]``: share of (local, memory, periodic) in each fiber; sums to 1.
    norms ``[B, F, P, 3]``: L2 norm over channels of each branch before beta weighs it.
    gates ``[B, F, P]``: memory gate a, mean over channels; 1 keeps the past, 0 takes the new frame.
    """

    beta: Tensor
    norms: Tensor
    gates: Tensor


class FusionLayer(nn.Module):
    """The shared frame. Subclasses add ``_memory``, ``_periodic``, ``_refine`` and their parameters."""

    def __init__(self, dim: int, local_hidden: int, gamma: float) -> None:
        super().__init__()
        self.local_in = nn.Linear(dim, local_hidden)
        self.local_out = nn.Linear(local_hidden, 3 * dim)
        self.gate = nn.Linear(dim, dim)
        self.blend = nn.Linear(dim, 3)
        self.gamma = nn.Parameter(torch.full((dim,), gamma))

    def _memory(self, a_BFPD: Tensor, x_BFPD: Tensor) -> Tensor:
        raise NotImplementedError

    def _periodic(self, x_BFPD: Tensor) -> Tensor:
        raise NotImplementedError

    def _refine(self, x_BFPD: Tensor, y_BFPD: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x_BFPD: Tensor, return_weights: bool = False) -> tuple[Tensor, LayerWeights | None]:
        """``[B, F, P, D]`` to the same shape; the second item is None unless ``return_weights``."""
        fiber_BPD = x_BFPD.mean(1)
        kernel_BPJD = self.local_out(functional.gelu(self.local_in(fiber_BPD))).unflatten(-1, (3, -1))
        a_BFPD = torch.sigmoid(self.gate(x_BFPD))
        beta_BPJ = torch.softmax(self.blend(fiber_BPD), dim=-1)

        branches = (
            local_conv(kernel_BPJD.transpose(1, 2), x_BFPD),
            self._memory(a_BFPD, x_BFPD),
            self._periodic(x_BFPD),
        )
        share = beta_BPJ[:, None, :, :, None].unbind(3)
        y_BFPD = share[0] * branches[0] + share[1] * branches[1] + share[2] * branches[2]
        y_BFPD = y_BFPD + self.gamma * y_BFPD.mean(2, keepdim=True)
        z_BFPD = self._refine(x_BFPD, y_BFPD)

        weights = None
        if return_weights:
            with torch.no_grad():
                norms = torch.stack([torch.linalg.vector_norm(b, dim=-1) for b in branches], dim=-1)
                weights = LayerWeights(beta_BPJ.detach(), norms, a_BFPD.mean(-1))
        return z_BFPD, weights


class PaperLayer(FusionLayer):
    """A layer as the paper writes it (eq. 1-5).

    Parameters at D = 1152, local hidden 1152, FFN hidden 2304: 21,250,947 = 16 D^2 + 15 D + 3. This is the one layout of biases
    that meets the paper's 21.25M: every linear map has one, but the five W_w of eq. 3 have none.
    gamma starts at 0 [OURS: the paper does not say], so that context enters as training asks for it.
    """

    def __init__(self, dim: int, local_hidden: int, ffn_hidden: int, frequencies: tuple[int, ...]) -> None:
        super().__init__(dim, local_hidden, gamma=0.0)
        self.frequencies = frequencies
        self.periodic = nn.Parameter(torch.empty(len(frequencies), dim, dim))
        self.ffn_in = nn.Linear(dim, ffn_hidden)
        self.ffn_out = nn.Linear(ffn_hidden, 2 * dim)
        self.norm = nn.LayerNorm(dim)
        bound = dim**-0.5  # as nn.Linear draws its weights
        nn.init.uniform_(self.periodic, -bound, bound)

    def _memory(self, a_BFPD: Tensor, x_BFPD: Tensor) -> Tensor:
        return gated_memory(a_BFPD.transpose(0, 1), x_BFPD.transpose(0, 1)).transpose(0, 1)

    def _periodic(self, x_BFPD: Tensor) -> Tensor:
        return periodic(x_BFPD, self.periodic, self.frequencies)

    def _refine(self, x_BFPD: Tensor, y_BFPD: Tensor) -> Tensor:
        ffn = functional.glu(self.ffn_out(functional.gelu(self.ffn_in(y_BFPD))), dim=-1)
        return x_BFPD + self.norm(y_BFPD + ffn)
