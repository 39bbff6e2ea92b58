"""The first exchange with an agent: does it speak our protocol, is it our version, is its clock ours."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from workbench import __version__
from workbench.errors import WorkbenchError
from workbench.machines.base import PROTOCOL

SKEW_S = 5.0  # beyond the time the exchange took; heartbeats are judged by a minute
# verbs that answer at once; everything else may work for hours and gets a process of its own on the machine
LIGHT_VERBS = ("hello", "submit", "resume", "jobs", "status", "tail", "signal", "files", "read")
Notify = Callable[[str], None]


def notify_stderr(message: str) -> None:
    print(f"workbench: {message}", file=sys.stderr, flush=True)


def say_hello(name: str, ask: Callable[[dict[str, Any]], dict[str, Any]], notify: Notify) -> dict[str, Any]:
    """Greet the agent of a machine; another version and a wrong clock are told to ``notify``.

    Raises:
        WorkbenchError: the agent speaks another protocol.
    """
    sent = time.time()
    answer = ask({"verb": "hello", "protocol": PROTOCOL, "workbench": __version__, "root": "~"})
    got = time.time()
    theirs, version = answer.get("protocol"), answer.get("workbench")
    if theirs != PROTOCOL:
        found = f"workbench {version} there speaks protocol {theirs}, workbench {__version__} here {PROTOCOL}"
        raise WorkbenchError(
            f"talk to the machine {name!r}", found, "Install the same version of workbench on both sides"
        )
    if version != __version__:
        notify(
            f"{name} has workbench {version}, here it is {__version__}: watching works, submitting will not"
        )
    skew = clock_skew(sent, got, float(answer["time"]))
    if abs(skew) > SKEW_S:
        word = "ahead of" if skew > 0 else "behind"
        notify(
            f"the clock of {name} is {abs(skew):.0f} s {word} this one: set both by NTP, ages are wrong until then"
        )
    return answer


def clock_skew(sent: float, got: float, theirs: float) -> float:
    """Seconds that the other clock is surely ahead (negative: behind): 0 while it lies between ours."""
    return theirs - got if theirs > got else min(0.0, theirs - sent)
