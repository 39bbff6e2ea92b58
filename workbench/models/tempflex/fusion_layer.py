"""One layer of Temporal Fiber Fusion: the frame that both variants share, and the paper's variant.

Axes: F frames, B clips, P patches, D channels; J = 3 branches or taps. Layers keep frames first, so that one
frame of a whole batch is one contiguous block. A *fiber* is one patch position of a clip followed through
time: ``x[:, b, p, :]``.

    1. local     a kernel of three frames, made from the fiber's mean, convolved circularly with it  (eq. 1)
    2. memory    a gated running average along the fiber                                             (eq. 2)
    3. periodic  the fiber under cosines of fixed frequencies                                        (eq. 3)
    4. fusion    one softmax triple a fiber, constant in time, weighs the three branches into y      (eq. 4)
    5. context   y += gamma * mean over the frame's patches of y
    6. refine    residual, LayerNorm and a gated FFN                                                 (eq. 5)

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
        self._gamma_start = gamma

    def reset_parameters(self) -> None:
        """Draws the layer's own bare parameters again; submodules have their own ``reset_parameters``."""
        nn.init.constant_(self.gamma, self._gamma_start)

    def _memory(self, a_FBPD: Tensor, x_FBPD: Tensor) -> Tensor:
        raise NotImplementedError

    def _periodic(self, x_FBPD: Tensor) -> Tensor:
        raise NotImplementedError

    def _refine(self, x_FBPD: Tensor, y_FBPD: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x_FBPD: Tensor, return_weights: bool = False) -> tuple[Tensor, LayerWeights | None]:
        """``[F, B, P, D]`` to the same shape; the second item is None unless ``return_weights``."""
        fiber_BPD = x_FBPD.mean(0)
        beta_BPJ = torch.softmax(self.blend(fiber_BPD), dim=-1)
        share = beta_BPJ.unsqueeze(-2).unbind(-1)  # 3 x [B, P, 1]
        kernel_BPJD = self.local_out(functional.gelu(self.local_in(fiber_BPD))).unflatten(-1, (3, -1))
        kernel_JBPD = kernel_BPJD.movedim(-2, 0)
        a_FBPD = torch.sigmoid(self.gate(x_FBPD))

        # beta_1 weighs the kernel, which has no frame axis, instead of the convolved result.
        local_FBPD = local_conv(share[0] * kernel_JBPD, x_FBPD)
        memory_FBPD = self._memory(a_FBPD, x_FBPD)
        periodic_FBPD = self._periodic(x_FBPD)
        y_FBPD = torch.addcmul(local_FBPD, share[1], memory_FBPD)
        y_FBPD = torch.addcmul(y_FBPD, share[2], periodic_FBPD)
        y_FBPD = torch.addcmul(y_FBPD, self.gamma, y_FBPD.mean(2, keepdim=True))
        z_FBPD = self._refine(x_FBPD, y_FBPD)

        weights = None
        if return_weights:
            with torch.no_grad():
                branches = (local_conv(kernel_JBPD, x_FBPD), memory_FBPD, periodic_FBPD)
                norms_FBPJ = torch.stack([torch.linalg.vector_norm(b, dim=-1) for b in branches], dim=-1)
                weights = LayerWeights(
                    beta_BPJ.detach(), norms_FBPJ.transpose(0, 1), a_FBPD.mean(-1).transpose(0, 1)
                )
        return z_FBPD, weights


class PaperLayer(FusionLayer):
    """A layer as the paper writes it (eq. 1-5).

    Parameters at D = 1152, local hidden 1152, FFN hidden 2304: 21,250,947 = 16 D^2 + 15 D + 3. Every linear
    map has a bias but the five W_w of eq. 3, which are bare matrices as written: biases on them too would
    make 21.26M, no bias anywhere 21.24M. gamma starts at 0 [OURS: the paper does not say], so context enters
    as training asks for it.
    """

    def __init__(self, dim: int, local_hidden: int, ffn_hidden: int, frequencies: tuple[int, ...]) -> None:
        super().__init__(dim, local_hidden, gamma=0.0)
        self.frequencies = frequencies
        self.periodic = nn.Parameter(torch.empty(len(frequencies), dim, dim))
        self.ffn_in = nn.Linear(dim, ffn_hidden)
        self.ffn_out = nn.Linear(ffn_hidden, 2 * dim)
        self.norm = nn.LayerNorm(dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        bound = self.periodic.shape[-1] ** -0.5  # as nn.Linear draws its weights
        nn.init.uniform_(self.periodic, -bound, bound)

    def _memory(self, a_FBPD: Tensor, x_FBPD: Tensor) -> Tensor:
        return gated_memory(a_FBPD, x_FBPD)

    def _periodic(self, x_FBPD: Tensor) -> Tensor:
        return periodic(x_FBPD, self.periodic, self.frequencies)

    def _refine(self, x_FBPD: Tensor, y_FBPD: Tensor) -> Tensor:
        ffn = functional.glu(self.ffn_out(functional.gelu(self.ffn_in(y_FBPD))), dim=-1)
        return x_FBPD + self.norm(y_FBPD + ffn)
