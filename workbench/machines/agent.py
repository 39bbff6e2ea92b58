"""Everything a machine does, done on that machine: JSON in, JSON out.

``handle`` answers one request in this process (a kernel, or the local machine). As a program,
``python -m workbench.machines.agent`` reads requests from stdin, one JSON object a line, and answers each on
stdout with lines ``{"progress": ...}`` and a last one ``{"result": ...}`` or ``{"error": ...}``; it ends when
stdin does. A request has ``verb``, ``protocol``, ``workbench`` and the verb's keys; it never holds a secret.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from typing import Any

from workbench import __version__
from workbench.errors import WorkbenchError
from workbench.machines.base import PROTOCOL, Progress, error_to_json
from workbench.machines.job import root_of

# verb -> "module:function", loaded when asked for; function(request, progress) -> result. Rooms above the
# machines add their verb here (probes), so that nothing heavy is imported for a status.
VERBS: dict[str, str] = {
    "hello": "workbench.machines.agent:hello",
    "submit": "workbench.machines.submit:submit",
    "resume": "workbench.machines.submit:resume",
    "jobs": "workbench.machines.job:jobs",
    "status": "workbench.machines.job:status",
    "tail": "workbench.machines.tail:tail",
    "signal": "workbench.machines.job:signal",
    "files": "workbench.machines.files:files",
    "read": "workbench.machines.files:read",
    "check": "workbench.machines.check:check",
    "evaluate": "workbench.machines.evaluate:evaluate_run",
    "probe": "workbench.machines.probe:probe_run",
}
# Reading works between versions (the files say their own format); these start our code with their data.
SAME_VERSION = ("submit", "resume", "evaluate", "probe")


def handle(request: dict[str, Any], progress: Progress | None = None) -> dict[str, Any]:
    """Answer one request.

    Args:
        progress: called with JSON values while a long verb works.

    Raises:
        WorkbenchError: what was asked cannot be done; also an unknown verb or another protocol.
    """
    verb = str(request.get("verb"))
    asked = f"answer {verb!r}"
    if request.get("protocol") != PROTOCOL:
        found = f"the request speaks protocol {request.get('protocol')}, this machine {PROTOCOL}"
        raise WorkbenchError(asked, found, "Install the same version of workbench on both sides")
    if verb not in VERBS:
        found = f"workbench {__version__} on this machine does not know it (it knows {', '.join(VERBS)})"
        raise WorkbenchError(asked, found, "Update workbench on the machine")
    theirs = request.get("workbench")
    if verb in SAME_VERSION and theirs != __version__:
        found = f"workbench is {theirs} where you are and {__version__} on the machine"
        raise WorkbenchError(asked, found, "Install the same version on both sides, then try again")
    module, _, name = VERBS[verb].partition(":")
    return getattr(importlib.import_module(module), name)(request, progress or _ignore)


def hello(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Who answers, and its clock."""
    import platform

    return {
        "protocol": PROTOCOL,
        "workbench": __version__,
        "python": platform.python_version(),
        "host": platform.node(),
        "time": time.time(),
        "root": str(root_of(request)),
    }


def answer(line: str, progress: Progress) -> dict[str, Any]:
    """``{"result": ...}`` or ``{"error": ...}`` for one line of JSON; never raises but for an interrupt."""
    try:
        request = json.loads(line)
        if not isinstance(request, dict):
            raise ValueError("not an object")
    except ValueError as error:
        problem = WorkbenchError(
            "read the request", f"it is not JSON ({error})", "Update workbench on both sides"
        )
        return {"error": error_to_json(problem)}
    try:
        return {"result": handle(request, progress)}
    except Exception as error:
        return {"error": error_to_json(error)}


def main() -> int:
    """Answer the requests of stdin; what libraries print goes to stderr, so that stdout is JSON alone."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)

        def say(message: dict[str, Any]) -> None:
            out.write(json.dumps(message) + "\n")
            out.flush()

        for line in sys.stdin:
            if line.strip():
                say(answer(line, lambda data: say({"progress": data})))
    return 0


def _ignore(data: dict[str, Any]) -> None:
    return None


if __name__ == "__main__":
    sys.exit(main())
