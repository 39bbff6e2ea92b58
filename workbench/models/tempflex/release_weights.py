"""Loads the TempFlex release's weights of its temporal encoder (TFF) and patch merger into ours.

Names on the left are the release's (its modules ``temporal_encoder`` and ``mm_projector``, code of 2025-12),
under any prefix that ends in the module's name, such as ``model.temporal_encoder.``; bare names are accepted
too.

==============================  ==============================  =================
release                         ours                            shape
==============================  ==============================  =================
layers.N.local_gen.0.*          layers.N.local_in.*             [H, D], [H]
layers.N.local_gen.2.*          layers.N.local_out.*            [3D, H], [3D]
layers.N.mem_gate.*             layers.N.gate.*                 [D, D], [D]
layers.N.blend_fc.*             layers.N.blend.*                [3, D], [3]
layers.N.gamma                  layers.N.gamma                  [1, 1, 1, D] -> [D]
layers.N.ffn.0.*                layers.N.ffn_in.*               [4D, D], [4D]
layers.N.ffn.2.*                layers.N.ffn_out.*              [2D, 4D], [2D]
layers.N.norm_fiber.*           layers.N.norm.*                 [D], [D]
layers.N.norm_ffn.*             layers.N.norm_ffn.*             [D], [D]
ln_q.weight (mm_projector)      norm.weight                     [D]
mlp.0.*, mlp.2.*                mlp_in.*, mlp_out.*             [4D, 4D], [W, 4D]
==============================  ==============================  =================

Row order is the same on both sides: the 3D rows of the kernel are frames f - 1, f, f + 1; blend is local,
memory, periodic; the 2D rows of the FFN are value, then gate. So loading renames and never permutes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from workbench.errors import CheckpointError
from workbench.models.tempflex.fusion import TemporalFiberFusion
from workbench.models.tempflex.merger import PatchMerger

FUSION_NAMES = {
    "local_in": "local_gen.0",
    "local_out": "local_gen.2",
    "gate": "mem_gate",
    "blend": "blend_fc",
    "ffn_in": "ffn.0",
    "ffn_out": "ffn.2",
    "norm": "norm_fiber",
    "norm_ffn": "norm_ffn",
}
MERGER_NAMES = {"norm": "ln_q", "mlp_in": "mlp.0", "mlp_out": "mlp.2"}


def load_release_fusion(
    fusion: TemporalFiberFusion, state: Mapping[str, Tensor], source: str | None = None
) -> None:
    """Copies a release state dict (of the TFF alone or of the whole model) into ``fusion``, all or nothing.

    Args:
        fusion: of variant "release" and of the checkpoint's depth and dim.
        state: release names -> tensors.
        source: the file it was read from, named in errors.

    Raises:
        CheckpointError: ``fusion`` is of the paper's variant, or keys are missing, unexpected or misshaped.
    """
    if fusion.variant != "release":
        raise CheckpointError(
            "load the release's TFF",
            f"the model is of variant {fusion.variant!r}, whose layers have other parameters",
            'build the model with variant "release"',
            source,
        )
    names = {}
    for ours in fusion.state_dict():
        stem, _, rest = ours.removeprefix("layers.").partition(".")
        module, dot, parameter = rest.partition(".")
        names[ours] = f"layers.{stem}.{FUSION_NAMES.get(module, module)}{dot}{parameter}"
    _load(fusion, names, _under(state, "temporal_encoder", source), "load the release's TFF", source)


def load_release_merger(merger: PatchMerger, state: Mapping[str, Tensor], source: str | None = None) -> None:
    """Copies the release's ``mm_projector`` into ``merger``, all or nothing. Args and raises as above.

    Raises:
        CheckpointError: ``merger`` is not of mode "strip4", or keys are missing, unexpected or misshaped.
    """
    if merger.mode != "strip4":
        raise CheckpointError(
            "load the release's patch merger",
            f"the model merges by {merger.mode}, the release by strip4",
            'build the model with merge "strip4"',
            source,
        )
    names = {}
    for ours in merger.state_dict():
        module, _, parameter = ours.partition(".")
        names[ours] = f"{MERGER_NAMES[module]}.{parameter}"
    _load(merger, names, _under(state, "mm_projector", source), "load the release's patch merger", source)


def _under(state: Mapping[str, Tensor], module: str, source: str | None) -> dict[str, Tensor]:
    """The part of a state dict below ``module``, without prefix; all of it when no key names the module."""
    prefixes = {key[: at + len(module) + 1] for key in state if (at := f".{key}".find(f".{module}.")) >= 0}
    if not prefixes:
        return dict(state)
    if len(prefixes) > 1:
        raise CheckpointError(
            f"find {module} in a release checkpoint",
            f"several modules have that name: {', '.join(sorted(prefixes))}",
            "pass the part of the state dict that belongs to one of them",
            source,
        )
    (prefix,) = prefixes
    return {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}


def _load(
    module: nn.Module, names: dict[str, str], state: dict[str, Tensor], asked: str, source: str | None
) -> None:
    own = module.state_dict()
    problems = [f"missing {theirs}" for theirs in names.values() if theirs not in state]
    problems += [f"unexpected {theirs}" for theirs in sorted(state.keys() - set(names.values()))]
    for ours, theirs in names.items():
        if theirs in state:
            found, wanted = list(state[theirs].shape), list(own[ours].shape)
            if found != wanted and found != [1, 1, 1, *wanted]:
                problems.append(f"{theirs} has shape {found}, not {wanted}")
    if problems:
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        todo = "check that depth, dim and hidden sizes of the model are those of the checkpoint"
        raise CheckpointError(asked, shown, todo, source)
    with torch.no_grad():
        for ours, theirs in names.items():
            own[ours].copy_(state[theirs].reshape(own[ours].shape))
