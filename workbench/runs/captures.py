"""``captures/<name>.safetensors``: what probes saw. The format is the room ``workbench.captures``'; a run only
knows where the files lie."""

from __future__ import annotations

from pathlib import Path

from workbench.runs.files import check_name

DIRECTORY, SUFFIX = "captures", ".safetensors"


def complete(directory: Path) -> list[Path]:
    """Captures of a run, by name (those in progress have another suffix and are folders)."""
    return sorted(path for path in (directory / DIRECTORY).glob(f"*{SUFFIX}") if path.is_file())


def path_of(directory: Path, name: str) -> Path:
    """Where the capture ``name`` of a run lies or would lie. Raises RunError for a name that is no file name."""
    return directory / DIRECTORY / f"{check_name('capture', name)}{SUFFIX}"
