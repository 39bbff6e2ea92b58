"""What every sink does, and the one guard for a package that is not installed."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from workbench.errors import WorkbenchError
from workbench.runs.files import RunError, pretty_json, write_atomic


@dataclass
class Position:
    """What a sink has of one run: metric rows below ``row``, events below ``seq``, training steps to ``step``."""

    row: int = 0
    seq: int = 0
    step: int = 0


class Sink(Protocol):
    """One run in another tool."""

    position: Position

    def row(self, number: int, step: int, values: Mapping[str, float]) -> None:
        """The numbers of one training step."""
        ...

    def event(self, event: Mapping[str, Any], step: int) -> None:
        """One event, at the step the run had reached."""
        ...

    def flush(self) -> None:
        """Make what was given safe, and then ``position``."""
        ...

    def close(self) -> None: ...


def need(package: str, extra: str) -> Any:
    """A package of an extra.

    Raises:
        WorkbenchError: it is not installed; with the line that installs it.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        found = f"the package {package.partition('.')[0]} does not load ({error})"
        raise WorkbenchError(
            f"write to {extra}", found, f"Install it: pip install -e '.[{extra}]'"
        ) from error


def said(event: Mapping[str, Any]) -> str:
    """An event as one line: when, what, and its values."""
    rest = {key: value for key, value in event.items() if key not in ("seq", "time", "kind")}
    return f"{event['time']} {event['kind']} {json.dumps(rest, ensure_ascii=False)}"


def load_position(path: Path) -> tuple[Position, dict[str, Any]]:
    """The position kept in a file, and what else the sink kept there; a new one where there is no file."""
    try:
        kept = json.loads(path.read_bytes())
        return Position(**kept.pop("position")), kept
    except FileNotFoundError:
        return Position(), {}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        todo = "Delete the folder it is in; the sink then writes everything again"
        raise RunError(
            "go on with a sink", f"what it noted is not readable ({error})", todo, str(path)
        ) from error


def save_position(path: Path, position: Position, **more: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, pretty_json({"position": asdict(position), **more}))
