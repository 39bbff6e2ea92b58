"""Checkpoints that resume exactly, on any number of ranks.

``model/`` is an ordinary ``save_pretrained`` folder (weights and processor). ``trainer.safetensors`` holds
Adam's moments *by parameter name* (so they do not depend on ranks or on the order of groups), the alignment
head of stage 0 and the random state; ``trainer.json`` says where training stood. No pickles anywhere.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from workbench.errors import CheckpointError

MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass(frozen=True)
class Position:
    """Where training stands: next step to run inside stage ``stage`` (index), and the run's step count so
    far.
    """

    stage: int = 0
    stage_step: int = 0
    step: int = 0


@dataclass
class Totals:
    """What a stage has cost so far, over all ranks; ``places`` are the positions computed, padding
    included.
    """

    seconds: float = 0.0
    visual_tokens: int = 0
    answer_tokens: int = 0
    real_tokens: int = 0
    places: int = 0
    skipped: int = 0


def save_trainer(
    directory: Path,
    position: Position,
    totals: Totals,
    optimizer: torch.optim.Optimizer | None,
    module: nn.Module | None,
) -> None:
    """Write the trainer's half of a checkpoint into ``directory`` (which the run renames when complete).

    ``totals`` are those of the stage that ``position`` is in.
    """
    tensors: dict[str, torch.Tensor] = {"rng": torch.get_rng_state()}
    if optimizer is not None and module is not None:
        names = {id(p): name for name, p in module.named_parameters()}
        for parameter, state in optimizer.state.items():
            for moment in MOMENTS:
                tensors[f"{moment}::{names[id(parameter)]}"] = torch.as_tensor(state[moment]).detach().cpu()
        head = getattr(module, "head", None)
        if isinstance(head, nn.Module):
            for name, value in head.state_dict().items():
                tensors[f"head::{name}"] = value.detach().cpu()
    save_file({k: v.clone().contiguous() for k, v in tensors.items()}, directory / "trainer.safetensors")
    state = {"position": asdict(position), "totals": asdict(totals)}
    (directory / "trainer.json").write_text(json.dumps(state) + "\n")


def load_position(directory: Path) -> tuple[Position, Totals]:
    """Where the checkpoint stands, and what its stage had cost by then.

    Raises:
        CheckpointError: the checkpoint is incomplete or its files are damaged.
    """
    try:
        state = json.loads((directory / "trainer.json").read_text())
        return Position(**state["position"]), Totals(**state["totals"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _damaged(directory, error) from None


def load_trainer(directory: Path, optimizer: torch.optim.Optimizer, module: nn.Module) -> None:
    """Put moments, alignment head and random state back.

    Raises:
        CheckpointError: a file is cut, or belongs to another model or stage.
    """
    try:
        tensors = load_file(directory / "trainer.safetensors")
    except (OSError, SafetensorError) as error:
        raise _damaged(directory, error) from None
    torch.set_rng_state(tensors["rng"])
    head = {k.removeprefix("head::"): v for k, v in tensors.items() if k.startswith("head::")}
    if head:
        module.get_submodule("head").load_state_dict(head)
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in module.named_parameters():
        if id(parameter) not in trained or f"exp_avg::{name}" not in tensors:
            continue
        state: dict[str, Any] = {m: tensors[f"{m}::{name}"] for m in MOMENTS}
        if state["exp_avg"].shape != parameter.shape:
            raise CheckpointError(
                f"resume from {directory.name}",
                f"the optimizer state of {name} has shape {tuple(state['exp_avg'].shape)}, the model "
                f"{tuple(parameter.shape)}",
                "resume with the recipe that wrote the checkpoint",
            )
        optimizer.state[parameter] = {moment: value.to(parameter.device) for moment, value in state.items()}


def _damaged(directory: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"resume from checkpoint {directory.name}",
        f"it is damaged ({str(error).splitlines()[0][:120]})",
        "delete that folder; the run resumes from the checkpoint before it",
        where=str(directory),
    )
