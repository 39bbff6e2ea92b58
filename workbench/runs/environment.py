"""What a run was made with: versions, platform, processors, code commit. No names, paths or secrets."""

from __future__ import annotations

import functools
import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from workbench import __version__

PACKAGES = (
    "torch",
    "transformers",
    "accelerate",
    "tokenizers",
    "safetensors",
    "numpy",
    "pandas",
    "pyarrow",
    "pydantic",
    "PyYAML",
    "Pillow",
    "scikit-learn",
    "av",
    "decord2",
    "torchcodec",
    "plotly",
    "deepspeed",
    "flash-attn",
)


def _git(*arguments: str) -> str | None:
    """Output of a git command in the workbench's own checkout; None when it is not one or git is absent."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@functools.lru_cache(maxsize=1)
def _collect() -> dict[str, Any]:
    status = _git("status", "--porcelain", "--untracked-files=no", "--", "workbench")
    return {
        "workbench": __version__,
        "commit": _git("rev-parse", "HEAD"),
        "changed_since_commit": None if status is None else bool(status),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "packages": {name: version for name in PACKAGES if (version := _version(name)) is not None},
    }


def environment() -> dict[str, Any]:
    """The present environment as JSON types, read from package metadata (nothing heavy is imported)."""
    found = _collect()
    return {**found, "packages": dict(found["packages"])}


def recorded(path: Path) -> dict[str, Any]:
    """What ``environment.json`` says; empty when somebody removed or damaged it."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def differences(before: dict[str, Any], now: dict[str, Any]) -> dict[str, list[Any]]:
    """What changed, ``name -> [before, now]``; packages by their own names."""
    flat_before = {**before, **before.get("packages", {})}
    flat_now = {**now, **now.get("packages", {})}
    names = sorted((flat_before.keys() | flat_now.keys()) - {"packages"})
    pairs = {name: [flat_before.get(name), flat_now.get(name)] for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
