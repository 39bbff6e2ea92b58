"""The Adam metric: inner products weighed by what the optimizer would do with the gradient.

AdamW moves a parameter by ``lr * m / (sqrt(v / (1 - beta2^t)) + eps)``; to first order a step on g_V changes the
image loss by ``-lr <g_I, D g_V>`` with the diagonal ``D = 1 / (sqrt(v / (1 - beta2^t)) + eps)``. v and t come from
a checkpoint of the trainer, one parameter at a time, so the metric costs no memory beyond one parameter (and
a fixed 64 MB that spare a small model the reading).
Momentum is left out: it belongs to earlier batches.
"""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from workbench.errors import CheckpointError

FILE = "trainer.safetensors"
REMEMBERED = 64 << 20  # bytes


class AdamMetric:
    """Reads ``D`` from ``trainer.safetensors``.

    Args:
        checkpoint: a checkpoint folder of a run (or its ``model`` folder).
        beta2, eps: of the optimizer that wrote it.

    Raises:
        CheckpointError: no optimizer state there, or a damaged one.
    """

    def __init__(self, checkpoint: str | Path, beta2: float, eps: float = 1e-8) -> None:
        folder = Path(checkpoint)
        folder = folder.parent if folder.name == "model" else folder
        self.path, self.beta2, self.eps = folder / FILE, beta2, eps
        try:
            self._file = safe_open(self.path, framework="pt")
            self._names = {
                k.removeprefix("exp_avg_sq::")
                for k in list(self._file.keys())
                if k.startswith("exp_avg_sq::")
            }
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                "use the Adam metric",
                f"{folder.name} has no readable optimizer state ({error})",
                "Probe a checkpoint the trainer wrote, or leave the Adam metric out",
                str(folder),
            ) from None
        self._remembered: dict[str, Tensor] = {}
        self._room = REMEMBERED
        if not self._names:
            raise CheckpointError(
                "use the Adam metric",
                f"{folder.name} holds no second moments",
                "Probe a checkpoint written during or after a training stage",
                str(folder),
            )

    def diagonal(self, name: str, like: Tensor) -> Tensor | None:
        """``D`` of one parameter, float64 ``[numel]`` on the device of ``like``; None if it was not trained.

        Raises:
            CheckpointError: the state has another shape than the parameter.
        """
        if name not in self._names:
            return None
        if name in self._remembered:
            return self._remembered[name]
        second = self._file.get_tensor(f"exp_avg_sq::{name}")
        if second.shape != like.shape:
            raise CheckpointError(
                "use the Adam metric",
                f"the second moments of {name} have shape {tuple(second.shape)}, the parameter {tuple(like.shape)}",
                "Use the optimizer state of the same checkpoint",
                str(self.path),
            )
        step = float(self._file.get_tensor(f"step::{name}"))
        unbiased = second.reshape(-1).to(like.device).double() / (1 - self.beta2**step)
        made = 1 / (unbiased.sqrt() + self.eps)
        if made.numel() * made.element_size() <= self._room:
            self._room -= made.numel() * made.element_size()
            self._remembered[name] = made
        return made
