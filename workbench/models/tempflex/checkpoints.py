"""Making, saving and loading a model with its processor, with errors that name what does not fit."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedTokenizerBase

from workbench.errors import CheckpointError, RecipeError
from workbench.models.tempflex.configuration import TempFlexConfig
from workbench.models.tempflex.modeling import TempFlexForConditionalGeneration, make_fusion, without_bars
from workbench.models.tempflex.presets import apply_aliases, preset_config, template_of
from workbench.models.tempflex.processing import TempFlexProcessor
from workbench.models.tempflex.tokenizer import build_word_tokenizer

Bundle = tuple[TempFlexForConditionalGeneration, TempFlexProcessor]

# switches that change no weight, and may differ from what was saved
SWITCHES = ("images", "pool_to", "use_fusion", "encoding", "tile_size")


def new_tempflex(
    preset: str,
    seed: int,
    tokenizer: PreTrainedTokenizerBase | None = None,
    vocab_texts: Iterable[str] | None = None,
    **options: Any,
) -> Bundle:
    """A freshly initialised model and its processor; the same seed gives the same weights.

    Args:
        preset: a name in ``presets.PRESETS``.
        tokenizer: for the full models, the one of their language model.
        vocab_texts: for the tiny models instead: all questions, answers and choices there will be.
        options: see ``presets.preset_config``.

    Raises:
        RecipeError: unknown preset or option; neither or both of ``tokenizer`` and ``vocab_texts``.
    """
    if (tokenizer is None) == (vocab_texts is None):
        raise RecipeError(
            f"make a {preset} model",
            "it needs either a tokenizer or the texts to build one from",
            "give exactly one of tokenizer and vocab_texts",
        )
    lean = template_of_or_lean(preset) == "lean"
    if tokenizer is None:
        assert vocab_texts is not None
        tokenizer = build_word_tokenizer(vocab_texts)
    config = preset_config(preset, len(tokenizer) if lean else None, **options)
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    model = TempFlexForConditionalGeneration(config)
    torch.random.set_rng_state(state)
    return _attach(model, TempFlexProcessor(config, tokenizer, template_of(preset)))


def template_of_or_lean(preset: str) -> str:
    """Template of a preset; an unknown name is reported by ``preset_config``, not here."""
    try:
        return template_of(preset)
    except StopIteration:
        return "lean"


def _attach(model: TempFlexForConditionalGeneration, processor: TempFlexProcessor) -> Bundle:
    model.processor = processor
    if model.generation_config is not None:
        model.generation_config.eos_token_id = processor.end_token_id
        model.generation_config.pad_token_id = processor.pad_token_id
    return model, processor


def save_tempflex(
    model: TempFlexForConditionalGeneration, processor: TempFlexProcessor, directory: str | Path
) -> None:
    """Model (safetensors), processor and tokenizer in one folder, which ``load_tempflex`` reads."""
    model.save_pretrained(directory)
    processor.save_pretrained(directory)


def load_tempflex(
    path: str | Path, seed: int = 0, dtype: torch.dtype | None = None, **overrides: Any
) -> Bundle:
    """A saved model and its processor, in eval mode.

    Args:
        path: a folder written by ``save_tempflex``.
        seed: of a fusion that is added.
        dtype: of the weights; as saved if None.
        overrides: switches that change no weight (``images``, ``pool_to``, ``use_fusion``, ``encoding``),
            and, for a checkpoint without fusion, ``fusion_layers`` (with ``variant`` ...) to add a fresh one
            (stage 3).

    Raises:
        CheckpointError: files missing or cut; weights missing, left over or of another shape, each named; an
            override that would need other weights.
    """
    path = Path(path)
    asked = f"load the checkpoint {path}"
    config = read_config(path, asked)
    wanted = apply_aliases(overrides)
    add = _plan_overrides(config, wanted, asked)
    check_weights(path, config, asked)
    with without_bars():
        model = TempFlexForConditionalGeneration.from_pretrained(path, config=config, dtype=dtype or "auto")
    if add:
        for name, value in add.items():
            setattr(config, name, value)
            setattr(model.config, name, value)
        state = torch.random.get_rng_state()
        torch.manual_seed(seed)
        model.fusion = make_fusion(model.config).to(model.dtype).eval()
        torch.random.set_rng_state(state)
    return _attach(model, TempFlexProcessor.from_pretrained(path, model.config))


def read_config(path: Path, asked: str) -> TempFlexConfig:
    """The configuration of a checkpoint folder. Raises CheckpointError beginning with ``asked``."""
    if not (path / "config.json").is_file():
        raise CheckpointError(
            asked, "there is no config.json in it", "give a folder written by save_tempflex"
        )
    try:
        kind = json.loads((path / "config.json").read_text(encoding="utf-8")).get("model_type")
        if kind != TempFlexConfig.model_type:
            raise CheckpointError(asked, f"it holds a {kind!r} model", "give a TempFlex checkpoint")
        return TempFlexConfig.from_pretrained(path)
    except (ValueError, TypeError, AttributeError, OSError, StrictDataclassError) as error:
        raise CheckpointError(asked, f"config.json: {error}", "write the checkpoint again") from error


def _plan_overrides(config: TempFlexConfig, wanted: dict[str, Any], asked: str) -> dict[str, Any]:
    """Applies the switches to ``config``; returns the settings of a fusion to add."""
    fusion = {k: v for k, v in wanted.items() if k.startswith("fusion_")}
    for name, value in wanted.items():
        if name in SWITCHES:
            _switch(config, name, value, asked)
        elif name not in fusion and getattr(config, name) != value:
            raise CheckpointError(
                asked,
                f"it was trained with {name}={getattr(config, name)!r}, not {value!r}",
                f"leave {name} out, or train a model with it",
            )
    if not config.fusion_depth:
        return fusion if fusion.get("fusion_depth") else {}
    for name, value in fusion.items():
        if getattr(config, name) != value:
            raise CheckpointError(
                asked,
                f"its fusion has {name}={getattr(config, name)!r}, not {value!r}",
                "give the settings it was trained with, or start from a checkpoint without fusion",
            )
    return {}


def _switch(config: TempFlexConfig, name: str, value: Any, asked: str) -> None:
    try:
        setattr(config, name, value)
        config.validate()
    except StrictDataclassError as error:
        raise CheckpointError(
            asked, f"{name}={value!r}: {error}".replace("\n", " "), f"correct {name}"
        ) from error


def saved_shapes(path: Path, asked: str) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every saved weight, without reading the data.

    Raises:
        CheckpointError: no weights, or a file that is cut short or damaged.
    """
    files = sorted(path.glob("*.safetensors"))
    index = path / "model.safetensors.index.json"
    if index.is_file():
        files = sorted(
            {path / name for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
        )
    if not files:
        raise CheckpointError(
            asked, "there is no *.safetensors file in it", "the save did not finish: use an earlier one"
        )
    shapes: dict[str, tuple[int, ...]] = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as reader:
                for key in reader.keys():  # noqa: SIM118 - not a mapping
                    shapes[key] = tuple(reader.get_slice(key).get_shape())
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                asked,
                f"{file.name} is cut short or damaged ({error})",
                "use an earlier checkpoint",
                str(file),
            ) from error
    return shapes


def check_weights(path: Path, config: TempFlexConfig, asked: str) -> None:
    """Compare names and shapes on disk with those ``config`` needs.

    Raises:
        CheckpointError: naming what is missing, left over or of another shape.
    """
    found = saved_shapes(path, asked)
    with torch.device("meta"):
        model = TempFlexForConditionalGeneration(config)
    needed = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    if config.tie_word_embeddings:
        needed.pop("lm_head.weight", None)
        found.pop("lm_head.weight", None)
    problems = [f"{k} is missing" for k in needed if k not in found]
    problems += [f"{k} is left over" for k in found if k not in needed]
    problems += [
        f"{k} has shape {list(found[k])}, not {list(needed[k])}"
        for k in needed
        if k in found and found[k] != needed[k]
    ]
    if problems:
        more = f" and {len(problems) - 6} more" if len(problems) > 6 else ""
        raise CheckpointError(
            asked,
            "its weights do not fit its configuration: " + "; ".join(problems[:6]) + more,
            "use the checkpoint of the variant and sizes in its config.json",
        )
