"""Loading a stock model with its processor: safetensors only, code of a checkpoint never."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig

from workbench.errors import CheckpointError
from workbench.models.hosts.modeling import HostModel
from workbench.models.hosts.processing import HostProcessor
from workbench.models.hosts.settings import read_files
from workbench.models.tempflex.checkpoints import saved_shapes

Bundle = tuple[HostModel, HostProcessor]


@dataclass(frozen=True, slots=True)
class Adapter:
    """Where a host's classes are: the module of this room, its two classes, the stock class in transformers."""

    title: str
    module: str
    model: str
    processor: str
    stock: str


HOSTS = {
    "qwen2_5_vl": Adapter(
        "Qwen2.5-VL",
        "qwen2_5_vl",
        "Qwen2_5VLHost",
        "Qwen2_5VLProcessor",
        "Qwen2_5_VLForConditionalGeneration",
    ),
    "qwen3_vl": Adapter(
        "Qwen3-VL", "qwen3_vl", "Qwen3VLHost", "Qwen3VLProcessor", "Qwen3VLForConditionalGeneration"
    ),
    "llava": Adapter("LLaVA-1.5", "llava", "LlavaHost", "LlavaProcessor", "LlavaForConditionalGeneration"),
    "llava_next_video": Adapter(
        "LLaVA-NeXT-Video",
        "llava_next_video",
        "LlavaNextVideoHost",
        "LlavaNextVideoProcessor",
        "LlavaNextVideoForConditionalGeneration",
    ),
    "llava_onevision": Adapter(
        "LLaVA-OneVision",
        "llava_onevision",
        "LlavaOnevisionHost",
        "LlavaOnevisionProcessor",
        "LlavaOnevisionForConditionalGeneration",
    ),
}


def adapter_of(model_type: Any, asked: str) -> Adapter:
    """Raises CheckpointError for an architecture that is not registered, listing those that are."""
    if model_type not in HOSTS:
        known = ", ".join(f"{a.title} ({name})" for name, a in HOSTS.items())
        raise CheckpointError(
            asked, f"it holds a {model_type!r} model", f"Supported are TempFlex (tempflex), {known}"
        )
    return HOSTS[model_type]


def attach(stock: Any, processor: HostProcessor) -> Bundle:
    """A stock model in memory and its processor as a host."""
    asked = f"use a {type(stock).__name__}"
    adapter = adapter_of(stock.config.model_type, asked)
    model: HostModel = getattr(import_module(f"{__package__}.{adapter.module}"), adapter.model)(stock)
    model.processor = processor
    return model.eval(), processor


def make_processor(
    config: PreTrainedConfig, tokenizer: Any, files: Any = None, system: str | None = None
) -> Any:
    """The processor of a configuration's architecture."""
    adapter = adapter_of(config.model_type, f"prepare inputs for a {config.model_type!r} model")
    return getattr(import_module(f"{__package__}.{adapter.module}"), adapter.processor)(
        config, tokenizer, files, system
    )


def load_host(source: str | Path, dtype: torch.dtype | None = None, system: str | None = None) -> Bundle:
    """A stock model and its processor, in eval mode.

    Args:
        source: a local folder, or a hub name (downloaded by huggingface_hub, or found in its cache).
        dtype: of the weights; as saved if None.
        system: a system message in the place of the chat template's default.

    Raises:
        CheckpointError: not found; an architecture without an adapter; files missing, cut or not safetensors; weights
            that do not fit the configuration, named; a tokenizer or chat template that does not belong to it.
    """
    asked = f"load the model {source}"
    folder = local_folder(source, asked)
    config = read_config(folder, asked)
    adapter = adapter_of(config.model_type, asked)
    if not list(folder.glob("*.safetensors")):
        raise CheckpointError(
            asked,
            "there is no *.safetensors file in it",
            "convert its weights to safetensors; pickles are not read",
        )
    saved_shapes(folder, asked)
    stock = load_stock(folder, config, adapter, dtype, asked)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            asked, f"its tokenizer cannot be read ({first_line(error)})", "download tokenizer.json again"
        ) from error
    return attach(stock, make_processor(config, tokenizer, read_files(folder), system))


def load_stock(folder: Path, config: Any, adapter: Adapter, dtype: torch.dtype | None, asked: str) -> Any:
    """The transformers model of a folder; every weight must be there and have its shape."""
    import transformers

    from workbench.models.tempflex.modeling import without_bars

    kind = getattr(transformers, adapter.stock)
    try:
        with without_bars():
            stock, report = kind.from_pretrained(
                folder,
                config=config,
                dtype=dtype or "auto",
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
    except (OSError, ValueError, RuntimeError, SafetensorError, KeyError) as error:
        raise CheckpointError(asked, first_line(error), "download or write the checkpoint again") from error
    problems = [f"{name} is missing" for name in sorted(report["missing_keys"])]
    problems += [
        f"{name} has shape {list(found)}, not {list(needed)}"
        for name, found, needed in report["mismatched_keys"]
    ]
    if problems:
        more = f" and {len(problems) - 6} more" if len(problems) > 6 else ""
        raise CheckpointError(
            asked,
            "its weights do not fit its configuration: " + "; ".join(problems[:6]) + more,
            "use weights and config.json of one checkpoint",
        )
    return stock


def describe_host(source: str | Path) -> HostModel:
    """The model of a folder or hub name on the meta device: names and sizes, no weights (only config.json is read).

    Raises:
        CheckpointError: not found, damaged, or without an adapter.
    """
    import transformers

    asked = f"describe the model {source}"
    folder = Path(source) if Path(source).is_dir() else hub_snapshot(str(source), ["config.json"], asked)
    config = read_config(folder, asked)
    if Path(source).is_dir():
        saved_shapes(folder, asked)
    adapter = adapter_of(config.model_type, asked)
    with torch.device("meta"):
        stock = getattr(transformers, adapter.stock)(config)
    return getattr(import_module(f"{__package__}.{adapter.module}"), adapter.model)(stock)


def local_folder(source: str | Path, asked: str) -> Path:
    """The folder of a checkpoint: itself, or the snapshot of a hub name."""
    folder = Path(source)
    if folder.is_dir():
        return folder
    name = str(source)
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise CheckpointError(
            asked, "there is no such folder", "give a model folder or a hub name such as org/model"
        )
    return hub_snapshot(name, ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"], asked)


def hub_snapshot(name: str, patterns: list[str], asked: str) -> Path:
    """Files of a hub repository, from the network or, where the hub cannot be reached, from the cache.

    Raises:
        CheckpointError: no such repository, no access, or neither network nor cache.
    """
    try:
        # one question first: a download without network retries for minutes before it says so
        HfApi().model_info(name, timeout=10)
        return Path(snapshot_download(name, allow_patterns=patterns))
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise CheckpointError(
            asked,
            f"the hub has no such model for you ({first_line(error)})",
            "check the name and your access to it",
        ) from error
    except Exception as error:  # whatever the HTTP client raises when it cannot connect
        try:
            return Path(snapshot_download(name, allow_patterns=patterns, local_files_only=True))
        except OSError:
            raise CheckpointError(
                asked,
                f"there is no such folder, the hub cannot be reached ({first_line(error)}) and its cache holds "
                "nothing of that name",
                "check the network, or download the model's folder elsewhere and give its path",
            ) from error


def read_config(folder: Path, asked: str) -> PreTrainedConfig:
    """The configuration of a host. Raises CheckpointError beginning with ``asked``."""
    model_type = read_model_type(folder, asked)
    adapter_of(model_type, asked)
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (ValueError, TypeError, KeyError, AttributeError, OSError, StrictDataclassError) as error:
        raise CheckpointError(
            asked, f"config.json: {first_line(error)}", "download the checkpoint again"
        ) from error


def read_model_type(folder: Path, asked: str) -> Any:
    """``model_type`` of a folder's config.json. Raises CheckpointError beginning with ``asked``."""
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(asked, "there is no config.json in it", "give a model folder")
    try:
        return json.loads(path.read_text(encoding="utf-8"))["model_type"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            asked,
            f"config.json does not say its model_type ({error!r})",
            "write or download the checkpoint again",
        ) from error


def first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__
