"""Which parameters are probed, and the module groups their numbers are summed over.

P parameters, G groups. A group is a set of parameters; groups may overlap ("llm" holds "llm.0"). A tied
weight is one parameter, whatever its number of names, so it is counted once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from workbench.errors import CheckpointError
from workbench.models.groups import layer_groups
from workbench.probes.common import ProbeError

ALL = "all"
_ZERO_FILES = ("zero_pp_rank_*", "*_optim_states.pt", "zero_to_fp32.py", "global_step*/*_states.pt")


@dataclass(frozen=True)
class ParameterGroups:
    """Attributes:
    names: the P probed parameters, in the model's order.
    parameters: the tensors themselves.
    parts: module group of each parameter.
    groups: name -> indices into ``names``: "all", "encoder", "fusion", "merger", "llm", then "llm.0" ...
    """

    names: tuple[str, ...]
    parameters: tuple[nn.Parameter, ...]
    parts: tuple[str, ...]
    groups: dict[str, np.ndarray]

    def group_of(self, index: int) -> str:
        """The smallest group that holds a parameter: what an error names."""
        holding = [name for name, members in self.groups.items() if index in members]
        return min(holding, key=lambda name: len(self.groups[name]))

    @property
    def copy_bytes(self) -> int:
        """Bytes of one kept gradient (float32; float64 for a float64 model)."""
        return sum(
            p.numel() * max(4, p.element_size() if p.is_floating_point() else 4) for p in self.parameters
        )


def parameter_groups(model: Any, only: Sequence[str] | None = None) -> ParameterGroups:
    """The trainable parameters of ``model.module_groups()``, and one group more for each layer of the LLM.

    Args:
        only: names of groups to probe, for example ``("merger", "llm.3", "encoder.0")``; everything, with the
            LLM's layers as groups of their own, if None. What is not probed costs neither memory nor time in the kept gradient.

    Raises:
        ProbeError: a group the model lacks; parameters that ZeRO or an offloader holds elsewhere.
    """
    first: dict[int, str] = {id(p): name for name, p in model.named_parameters()}
    every = dict(model.named_parameters(remove_duplicate=False))
    found: dict[str, list[str]] = {}
    for group, names in model.module_groups().items():
        unique = dict.fromkeys(first[id(every[name])] for name in names)
        if unique:
            found[group] = list(unique)
    layers = {
        name: [first[id(every[n])] for n in names]
        for name, names in layer_groups(model).items()
        if name[-1].isdigit()
    }
    by_default = [*found, *(name for name in layers if name.startswith("llm."))]
    found |= layers
    wanted = by_default if only is None else list(only)
    for group in wanted:
        if group not in found:
            raise ProbeError(
                f"probe the gradients of {group!r}",
                f"the model has no parameters there (it has {', '.join(found)})",
                "Name groups that it has",
            )
    chosen = {name for group in wanted for name in found[group]}
    kept = [(name, p) for name, p in model.named_parameters() if name in chosen and p.requires_grad]
    if not kept:
        raise ProbeError(
            "probe gradients", "every parameter asked for is frozen", "Set requires_grad on what is probed"
        )
    for name, parameter in kept:
        _refuse_absent(name, parameter)
    place = {name: i for i, (name, _) in enumerate(kept)}
    groups = {ALL: np.arange(len(kept))}
    for group, names in found.items():
        members = np.array([place[name] for name in names if name in place], dtype=np.int64)
        if len(members) and group in wanted:
            groups[group] = members
    part_of = {name: part for part in model.module_groups() for name in found.get(part, [])}
    return ParameterGroups(
        tuple(n for n, _ in kept), tuple(p for _, p in kept), tuple(part_of[n] for n, _ in kept), groups
    )


def _refuse_absent(name: str, parameter: nn.Parameter) -> None:
    if hasattr(parameter, "ds_id") or parameter.numel() == 0 or parameter.device.type == "meta":
        raise ProbeError(
            "probe gradients",
            f"the values of {name} are not here: it is partitioned (ZeRO-3) or offloaded",
            "Load a consolidated checkpoint outside the engine and probe that",
        )


def refuse_shards(folder: str | Path) -> None:
    """A checkpoint that holds ZeRO shards instead of weights is refused: gradients read from one are zeros.

    Raises:
        CheckpointError: the folder, or the one above it, holds DeepSpeed's partitioned states.
    """
    path = Path(folder)
    if any(path.glob("*.safetensors")) or any((path / "model").glob("*.safetensors")):
        return
    for pattern in _ZERO_FILES:
        shard = next(path.glob(pattern), None)
        if shard is not None:
            raise CheckpointError(
                f"probe the gradients of {path.name}",
                f"it holds ZeRO shards ({shard.relative_to(path)}), not a model's weights",
                "Consolidate them first (python zero_to_fp32.py . model --safe_serialization) "
                "and probe the result",
                str(path),
            )
