"""Learning rates: one a module group, shaped over the stage by a schedule; a group without a rate is
frozen.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from workbench.errors import RecipeError
from workbench.recipe.schema import OptimizerSection, StageSection


def schedule_factor(step: int, steps: int, section: OptimizerSection) -> float:
    """Share of the peak learning rate used at ``step`` (0-based) of ``steps``.

    Warm-up is linear over ``section.warmup`` of the steps. ``cosine`` then falls to 0; ``trapezoid`` stays
    flat and falls linearly over the last ``section.cooldown`` of the steps; ``constant`` stays.
    """
    warmup = round(section.warmup * steps)
    if step < warmup:
        return (step + 1) / warmup
    if section.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
    if section.schedule == "trapezoid":
        cooldown = round(section.cooldown * steps)
        return min(1.0, (steps - step) / max(1, cooldown))
    return 1.0


def make_optimizer(
    model: nn.Module, groups: dict[str, list[str]], stage: StageSection, extra: nn.Module | None = None
) -> torch.optim.AdamW:
    """AdamW over the groups that ``stage.train`` names; everything else is frozen (``requires_grad`` off).

    Weight decay is applied to matrices only. ``extra`` (the alignment head) trains at the largest rate.

    Raises:
        RecipeError: the stage trains a group this model does not have.
    """
    parameters = dict(model.named_parameters())
    for parameter in parameters.values():
        parameter.requires_grad_(False)
    param_groups: list[dict] = []

    def add(name: str, members: list[nn.Parameter], rate: float) -> None:
        for decays in (True, False):
            part = [p for p in members if (p.ndim >= 2) == decays]
            if part:
                decay = stage.optimizer.weight_decay if decays else 0.0
                param_groups.append(
                    {"params": part, "lr": rate, "peak_lr": rate, "weight_decay": decay, "name": name}
                )

    for group, rate in stage.train.items():
        names = groups.get(group, [])
        if not names:
            raise RecipeError(
                f"train {group!r} in stage {stage.name!r}",
                f"the model has no parameters there (it has {', '.join(g for g in groups if groups[g])})",
                "remove the group from the stage's train section"
                + (" or set model.fusion_layers above 0" if group == "fusion" else ""),
            )
        members = [parameters[name] for name in names]
        for parameter in members:
            parameter.requires_grad_(True)
        add(group, members, rate)
    if extra is not None:
        add("head", list(extra.parameters()), max(stage.train.values()))
    return torch.optim.AdamW(param_groups, betas=stage.optimizer.betas, fused=True)


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> dict[str, float]:
    """Scale every group's peak rate; returns ``{"lr_encoder": ...}`` for the metrics."""
    rates: dict[str, float] = {}
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
        rates[f"lr_{group['name']}"] = group["lr"]
    return rates
