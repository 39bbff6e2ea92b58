"""The fusion of a live model: found, run on the features of a clip, and taken apart layer by layer as it runs.

A layer is taken apart inside a forward hook, so at any time one layer's input and output exist, whatever the depth.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from workbench.models.tempflex.fusion import TemporalFiberFusion
from workbench.models.videolm import Prepared
from workbench.probes.common import ProbeError
from workbench.probes.fusion.layer import LayerView, relative_change, take_apart, tolerance


def fusion_of(model: Any) -> TemporalFiberFusion:
    """The active fusion of a model.

    Raises:
        ProbeError: a model without fusion, or one whose fusion is asleep; says how to get one.
    """
    fusion = getattr(model, "fusion", None)
    name = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
    if not isinstance(fusion, TemporalFiberFusion) or not len(fusion.layers):
        raise ProbeError(
            f"look into the fusion of this {name} model",
            "it has none",
            "Take a TempFlex model that was trained with model.fusion_layers above 0, or add a fresh fusion to a "
            "TempFlex checkpoint: load_tempflex(folder, fusion_layers=4, use_fusion=True)",
        )
    if not model.fusion_active:
        raise ProbeError(
            f"look into the fusion of this {name} model",
            "its fusion is asleep: the stages so far trained without it and its weights are as they were drawn",
            "Take a checkpoint of a stage that trains `fusion` or of a later one (--checkpoint), or wake it up as it "
            "is: load_tempflex(folder, use_fusion=True)",
        )
    return fusion


def features_of(model: Any, prepared: Prepared) -> Tensor:
    """What the fusion of ``model`` receives for one prepared medium, ``[F, P, D]``."""
    assert prepared.pixel_values is not None and prepared.grid is not None
    weight = next(model.encoder.parameters())
    pixels = prepared.pixel_values.to(weight.device, weight.dtype)
    with torch.no_grad():
        ((_, features_BFPD),) = model.encode(pixels, torch.tensor([prepared.grid], device=weight.device))
    return features_BFPD[0]


def look(
    fusion: TemporalFiberFusion,
    x_FPD: Tensor,
    seen: Callable[[int, LayerView], None],
    keep_parts: bool = False,
) -> float:
    """Run the fusion on one clip and hand every layer's view to ``seen(layer index, view)`` as it comes.

    Returns:
        ``|TFF(x) - x| / |x|`` of the whole stack.

    Raises:
        ProbeError: values that are not finite (names the layer), or parts that do not add up to a layer's output.
    """
    handles = []

    def hook(index: int) -> Callable[..., None]:
        def taken(layer: Any, args: tuple, output: tuple) -> None:
            x, z = args[0][:, 0], output[0][:, 0]  # the stack keeps frames first: [F, B, P, D]
            where = f"look into layer {index} of the fusion"
            for tensor, name in ((x, "input"), (z, "output")):
                if not torch.isfinite(tensor).all():
                    raise ProbeError(
                        where, f"its {name} is not finite", "Take a checkpoint from before the divergence"
                    )
            view = take_apart(layer, x, z, keep_parts)
            if not view.check <= tolerance(z.dtype):
                raise ProbeError(
                    where,
                    f"its parts miss its output by {view.check:.2g} of its largest value "
                    f"({tolerance(z.dtype):.2g} is rounding)",
                    "This layer does not compute what the lens takes apart (a changed layer, or autocast?)",
                )
            seen(index, view)

        return taken

    try:
        for index, layer in enumerate(fusion.layers):
            handles.append(layer.register_forward_hook(hook(index)))
        with torch.no_grad():
            z_FPD = fusion(x_FPD[None])[0]
    finally:
        for handle in handles:
            handle.remove()
    return relative_change(x_FPD, z_FPD)
