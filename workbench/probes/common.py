"""What all probes share: the metadata of their captures, and errors that say what a model lacks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import WorkbenchError
from workbench.models.tokenmap import TokenMap
from workbench.samples.sample import Clip, Sample

if TYPE_CHECKING:  # torch stays behind it: numbers on captures are read without
    from workbench.models.videolm import Prepared


class ProbeError(WorkbenchError):
    """A probe that cannot look where it was asked to."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Which weights were looked into.

    Attributes:
        name: of the checkpoint, without a path.
        step: training steps behind it; None when unknown.
        sha256: of the weights (see ``weights_sha256``); None for a model that never was on disk.
    """

    name: str
    step: int | None = None
    sha256: str | None = None

    @classmethod
    def at(cls, folder: str | Path, step: int | None = None) -> Checkpoint:
        """The checkpoint in a folder; for ``RUN/checkpoints/NAME/model`` it is called NAME."""
        path = Path(folder).resolve()
        name = path.parent.name if path.name == "model" else path.name
        return cls(name, step, weights_sha256(path))


def weights_sha256(folder: str | Path) -> str | None:
    """SHA-256 over names and bytes of all ``*.safetensors`` of a model folder, hexadecimal; None without any."""
    files = sorted(Path(folder).glob("*.safetensors"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0")
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest() if files else None


def model_summary(model: Any) -> dict[str, Any]:
    """Type and the sizes that matter for reading a capture, from the model's configuration."""
    config: Any = getattr(model, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    vision = getattr(config, "vision_config", None)
    names = ("model_type", "num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads")
    own = (
        "fusion_depth",
        "fusion_variant",
        "use_fusion",
        "images",
        "pool_to",
        "merge",
        "newline",
        "encoding",
    )
    summary: dict[str, Any] = {
        "type": getattr(config, "model_type", type(model).__name__),
        "dtype": str(getattr(model, "dtype", "unknown")).removeprefix("torch."),
    }
    for part, section in (("text", text), ("vision", vision)):
        found = {name: getattr(section, name, None) for name in names}
        summary[part] = {name: value for name, value in found.items() if value is not None} or None
    return summary | {name: getattr(config, name) for name in own if hasattr(config, name)}


def sample_summary(sample: Sample, turn: int = 0) -> dict[str, Any]:
    """One turn of a sample as captures store it (no path)."""
    asked = sample.turns[turn]
    return {
        "id": sample.id,
        "question": asked.question,
        "answer": asked.answer,
        "choices": list(asked.choices),
        "skill": asked.skill,
        "turn": turn,
    }


def capture_meta(
    model: Any,
    *,
    axes: Mapping[str, Sequence[str]],
    units: Mapping[str, str],
    sample: Sample | None = None,
    clip: Clip | None = None,
    prepared: Prepared | TokenMap | None = None,
    checkpoint: Checkpoint | None = None,
    recipe_hash: str | None = None,
    seed: int | None = None,
    turn: int = 0,
    **own: Any,
) -> dict[str, Any]:
    """``Capture.meta`` for what was seen in ``model``; ``own`` are the probe's own keys (JSON types)."""
    token_map = prepared if prepared is None or isinstance(prepared, TokenMap) else prepared.token_map
    frames = None
    if clip is not None:
        frames = {"indices": list(clip.indices), "timestamps": list(clip.timestamps_s)}
    return {
        "axes": {name: list(names) for name, names in axes.items()},
        "units": dict(units),
        "model": model_summary(model),
        "checkpoint": None
        if checkpoint is None
        else {"name": checkpoint.name, "step": checkpoint.step, "sha256": checkpoint.sha256},
        "recipe_hash": recipe_hash,
        "sample": None if sample is None else sample_summary(sample, turn),
        "frames": frames,
        "token_map": None if token_map is None else token_map.to_json(),
        "seed": seed,
    } | own
