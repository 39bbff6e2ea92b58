"""Video language models: our own, and stock hosts behind the same protocol (``videolm.VideoLM``)."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

# model_type in config.json -> where its loader is: (module, function(path, dtype=..., **overrides))
LOADERS = {"tempflex": ("workbench.models.tempflex", "load_tempflex")}


def load_model(source: str | Path, dtype: Any = None, **overrides: Any) -> tuple[Any, Any]:
    """The one door to every model: reads ``model_type`` and hands on.

    Args:
        source: a model folder, a checkpoint of a run (its ``model`` folder is taken), or a hub name of a stock host.
        dtype: of the weights (torch); as saved if None.
        overrides: switches that change no weight (``images``, ``pool_to`` ...); a stock host has none.

    Returns:
        (model, processor), in eval mode.

    Raises:
        CheckpointError: nothing there, files missing or damaged, or an architecture that is not supported (the message
            lists those that are).
        RecipeError: overrides for a stock host.
    """
    from workbench.errors import RecipeError
    from workbench.models.hosts.loading import load_host, local_folder, read_model_type

    asked = f"load the model {source}"
    folder = model_folder(local_folder(source, asked))
    model_type = read_model_type(folder, asked)
    if model_type in LOADERS:
        module, function = LOADERS[model_type]
        return getattr(import_module(module), function)(folder, dtype=dtype, **overrides)
    given = {name: value for name, value in overrides.items() if value is not None}
    bundle = None if given else load_host(folder, dtype)
    if bundle is None:
        raise RecipeError(
            asked,
            f"{', '.join(given)} {'are switches' if len(given) > 1 else 'is a switch'} of our own models, this is a "
            f"{model_type!r} model",
            "remove them from the recipe",
        )
    return bundle


def model_folder(folder: Path) -> Path:
    """A model folder: itself, or ``model`` in a checkpoint of a run."""
    inner = folder / "model"
    return inner if (inner / "config.json").is_file() else folder
