"""Inner products of gradients without a second copy of any.

Post-accumulate hooks see each parameter's gradient the moment it is complete. A pass either *keeps* it (the
tensor autograd made becomes the kept copy, float32) or *streams* it: scalars per parameter are taken against
the kept ones and the gradient is freed, before the backward pass makes the next. So besides the model and the
activations of one batch the peak is the kept copies and one parameter's gradient.

P parameters. Scalars of a pass, float64 per parameter: |g|^2, <g, K> for every kept K, and both once more in
the Adam metric if one is given. Products are taken in float64 in blocks, so differences of squares (|g_V - s|^2
from three of them) do not cancel. A parameter the loss does not reach has NaN everywhere: missing is not 0.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from workbench.probes.common import ProbeError
from workbench.probes.gradients.adam import AdamMetric
from workbench.probes.gradients.parameters import ParameterGroups

MEND = "Use an earlier checkpoint, or load it in float32 if it was half precision"
BLOCK = 1 << 18  # elements converted to float64 at a time: 2 MB


@dataclass
class KeptGradient:
    """One stored gradient: a tensor a parameter, None where the loss did not reach it."""

    tensors: list[Tensor | None]

    @property
    def nbytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in self.tensors if t is not None)


@dataclass
class Scalars:
    """What one pass measured.

    Attributes:
        loss: of the batch.
        squares: metric -> |g|^2 by parameter, float64 ``[P]``; NaN where there is no gradient.
        dots: (kept name, metric) -> <g, kept> by parameter; NaN where either has no gradient.
    """

    loss: float
    squares: dict[str, np.ndarray]
    dots: dict[tuple[Any, str], np.ndarray] = field(default_factory=dict)

    @property
    def missing(self) -> np.ndarray:
        """Indices of the parameters the loss did not reach."""
        return np.flatnonzero(np.isnan(self.squares["plain"]))


class GradientStream:
    """Runs backward passes of a model and takes scalars of their gradients.

    Args:
        model: whose gradients; asked for its modules only when something is not finite.
        probed: the parameters that scalars are taken of. For all others none is computed.
        adam: the second metric; None for the plain one only.
    """

    def __init__(self, model: nn.Module, probed: ParameterGroups, adam: AdamMetric | None = None) -> None:
        self.model, self.probed, self.adam = model, probed, adam
        self._wide: Tensor | None = None  # one block of every factor in float64: 2 MB a kept gradient
        self._spare: list[KeptGradient] = []
        self.metrics = ("plain",) if adam is None else ("plain", "adam")

    def run(
        self,
        loss: Callable[[], Tensor],
        against: Mapping[Any, KeptGradient] | None = None,
        keep: bool = False,
    ) -> tuple[Scalars, KeptGradient | None]:
        """One forward and backward pass.

        Args:
            loss: makes the loss of one batch; it is called once.
            against: kept gradients that the new one is multiplied with.
            keep: return the new gradient, as one more copy.

        Raises:
            ProbeError: a loss or gradient that is not finite, with the module it first appeared in; a
                gradient that arrives in parts (reentrant checkpointing), whose square would be wrong.
        """
        against = dict(against or {})
        parameters = self.probed.parameters
        rows: list[tuple[Any, str]] = [(name, metric) for metric in self.metrics for name in (None, *against)]
        device = parameters[0].device
        out_RP = torch.full((len(rows), len(parameters)), torch.nan, dtype=torch.float64, device=device)
        kept: list[Tensor | None] | None = None
        if keep:
            kept = self._spare.pop().tensors if self._spare else [None] * len(parameters)
        fired: list[int] = []

        def take(index: int, gradient: Tensor) -> None:
            fired.append(index)
            others = [copy.tensors[index] for copy in against.values()]
            out_RP[:, index] = self._scalars(index, gradient, others).to(device)
            if kept is not None:
                wide = torch.float64 if gradient.dtype == torch.float64 else torch.float32
                before = kept[index]
                if before is not None and before.dtype == wide:
                    before.copy_(gradient.detach())
                else:
                    kept[index] = gradient.detach().to(wide)

        with receiving(parameters, take), discarding(self.model, parameters):
            value = loss()
            found = float(value.detach())
            if not np.isfinite(found):
                raise self._loss_not_finite(found, loss)
            value.backward()
        self._check(fired, out_RP)
        if kept is not None:  # what an earlier gradient reached and this one did not is missing
            reached = set(fired)
            kept = [copy if index in reached else None for index, copy in enumerate(kept)]
        table = out_RP.cpu().numpy()
        scalars = Scalars(found, {}, {})
        for row, (name, metric) in enumerate(rows):
            if name is None:
                scalars.squares[metric] = table[row]
            else:
                scalars.dots[(name, metric)] = table[row]
        return scalars, None if kept is None else KeptGradient(kept)

    def reuse(self, kept: KeptGradient) -> None:
        """Take back a kept gradient that is no longer needed: the next one is written into its memory.

        Memory that is asked of the system anew for every copy costs more time than all products.
        """
        self._spare.append(kept)

    def release(self) -> None:
        """Free what was taken back."""
        self._spare.clear()

    def _scalars(self, index: int, gradient: Tensor, others: list[Tensor | None]) -> Tensor:
        """|g|^2 and <g, K> for each kept K, then the same in the Adam metric: float64 ``[R]``."""
        weights = None if self.adam is None else self.adam.diagonal(self.probed.names[index], gradient)
        flat = gradient.detach().reshape(-1)
        there = [other.reshape(-1) for other in others if other is not None]
        rows = len(there) + 1
        if self._wide is None or self._wide.shape[0] < rows or self._wide.device != flat.device:
            self._wide = torch.empty(rows, BLOCK, dtype=torch.float64, device=flat.device)
        plain = adam = None
        for start in range(0, flat.numel(), BLOCK):
            at = slice(start, start + BLOCK)
            first = flat[at]
            block_RE = self._wide[:rows, : len(first)]
            block_RE[0].copy_(first)
            for row, other in enumerate(there, start=1):
                block_RE[row].copy_(other[at])
            part = _products(block_RE, block_RE[0])
            plain = part if plain is None else plain + part
            if weights is not None:
                part = _products(block_RE, block_RE[0] * weights[at])
                adam = part if adam is None else adam + part
        assert plain is not None
        if self.adam is None:
            found = [plain]
        else:
            found = [plain, torch.full_like(plain, torch.nan) if adam is None else adam]
        if len(there) < len(others):
            at_all = [0, *(row for row, other in enumerate(others, start=1) if other is not None)]
            found = [
                plain.new_full((len(others) + 1,), torch.nan).index_copy(
                    0, torch.tensor(at_all, device=plain.device), f
                )
                for f in found
            ]
        return torch.cat(found)

    def _check(self, fired: list[int], out_RP: Tensor) -> None:
        twice = next((i for i, count in Counter(fired).items() if count > 1), None)
        if twice is not None:
            raise ProbeError(
                "stream gradients",
                f"the gradient of {self.probed.names[twice]} came in parts (reentrant checkpointing)",
                'Use activation_checkpointing_enable({"use_reentrant": False}), or switch checkpointing off',
            )
        if not fired:
            raise ProbeError(
                "stream gradients",
                "the loss reaches none of the probed parameters",
                "Probe groups that the batch goes through",
            )
        finite = torch.isfinite(out_RP[0]).tolist()
        bad = [i for i in fired if not finite[i]]  # in the order of the backward pass: the first is the cause
        if bad:
            name, group = self.probed.names[bad[0]], self.probed.group_of(bad[0])
            raise ProbeError(
                "probe gradients",
                f"the gradient of {name} (module group {group}) is NaN or infinite, and of {len(bad) - 1} "
                "parameters after it",
                MEND,
            )

    def _loss_not_finite(self, found: float, loss: Callable[[], Tensor]) -> ProbeError:
        """The error for a loss that is not finite: names the parameter, or the module whose output is."""
        cause = "all weights and module outputs are finite"
        for name, parameter in self.model.named_parameters():
            if not bool(torch.isfinite(parameter).all()):
                cause = f"the weights of {name} are not finite"
                break
        else:
            module = first_not_finite(self.model, loss)
            if module is not None:
                cause = f"the output of {module} is the first that is not finite"
        return ProbeError("probe gradients", f"the loss is {found}: {cause}", MEND)


def _products(rows: Tensor, column: Tensor) -> Tensor:
    """``rows @ column``; on a CPU row by row, which reads the column from its cache."""
    if rows.is_cuda:
        return rows @ column
    return torch.stack([torch.dot(row, column) for row in rows])


def first_not_finite(model: nn.Module, loss: Callable[[], Tensor]) -> str | None:
    """Name of the first module, in order of completion, that returns NaN or infinity; None if none does."""
    found: list[str] = []

    def look(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            parts = output if isinstance(output, tuple | list) else (output,)
            if any(isinstance(t, Tensor) and not bool(torch.isfinite(t).all()) for t in parts):
                found.append(name)

        return hook

    handles = [m.register_forward_hook(look(name)) for name, m in model.named_modules() if name]
    try:
        with torch.no_grad():
            loss()
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


@contextlib.contextmanager
def receiving(parameters: tuple[nn.Parameter, ...], take: Callable[[int, Tensor], None]) -> Iterator[None]:
    """Calls ``take(index, gradient)`` as each parameter's gradient is complete, and frees it afterwards.

    Gradients that were there before are put back at the end, also after an error.
    """
    before = [p.grad for p in parameters]
    for parameter in parameters:
        parameter.grad = None

    def hook_for(index: int) -> Callable[[Tensor], None]:
        def hook(parameter: Tensor) -> None:
            gradient, parameter.grad = parameter.grad, None
            if gradient is not None:
                take(index, gradient)

        return hook

    handles = [p.register_post_accumulate_grad_hook(hook_for(i)) for i, p in enumerate(parameters)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for parameter, gradient in zip(parameters, before, strict=True):
            parameter.grad = gradient


@contextlib.contextmanager
def discarding(model: nn.Module, but: tuple[nn.Parameter, ...]) -> Iterator[None]:
    """No gradients for parameters that are not probed: they are neither computed nor stored."""
    probed = {id(p) for p in but}
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in probed]
    for parameter in others:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in others:
            parameter.requires_grad_(True)
