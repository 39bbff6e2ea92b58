"""How a start of a job ended, and why: exit codes, what each rank said last, what the kernel killed.

A launcher's exit code says little (torchrun ends with 1 whatever its ranks died of), so every rank writes how it
ended (``workbench.runs.supervised``); one that has come up and written no end was killed.
"""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.errors import Interrupted
from workbench.machines.job import OUTPUT
from workbench.runs import read_events

# what ranks say when another one has gone: a consequence, not the cause
_OTHERS = re.compile(r"Connection (closed|reset)|ChildFailedError|SIGTERM|ncclRemoteError|Broken pipe")
# torchrun's own account of which rank failed first
_ROOT_CAUSE = re.compile(r"Root Cause.*?rank\s*:\s*(\d+).*?exitcode\s*:\s*(-?\d+)", re.DOTALL)
_NO_MEMORY = re.compile(r"MemoryError|OutOfMemoryError|out of memory|an't allocate memory")
NO_MEMORY = " (the system reports a process killed for lack of memory)"
TAIL = 65536  # bytes of the output that are looked at
MENDABLE = 2  # exit code of a WorkbenchError: starting again would only say it again


@dataclass(frozen=True, slots=True)
class End:
    """``reason`` as in the job's ``finish`` event; ``crash``: starting again may help."""

    reason: str
    error: str | None = None
    crash: bool = False


def next_attempt(job: Path) -> int:
    """Number of the next start, counted over every supervisor the job has had."""
    return sum(event["kind"] == "launched" for event in read_events(job))


def records(job: Path, attempt: int) -> list[dict[str, Any]]:
    """What the ranks of one start wrote, in their order."""
    found = []
    for path in (job / "ranks").glob(f"{attempt}-*.json"):
        try:
            found.append(json.loads(path.read_bytes()))
        except (OSError, ValueError):
            continue  # cut off by a full disk: as good as not there
    return sorted(found, key=lambda record: record["rank"])


def codes(job: Path, attempt: int) -> dict[str, int | None]:
    """Exit code by rank; None: still running, or killed."""
    return {str(record["rank"]): record["code"] for record in records(job, attempt)}


def oom_kills() -> int:
    """Processes that the kernel has killed for memory in this process's control group so far; 0 if unknown."""
    try:
        groups = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return 0
    count = 0
    for line in groups:
        _, controllers, path = line.split(":", 2)
        unified = Path("/sys/fs/cgroup") / path.strip("/") / "memory.events"
        first = Path("/sys/fs/cgroup/memory") / path.strip("/") / "memory.oom_control"
        for file in (unified,) if not controllers else (first,) if "memory" in controllers.split(",") else ():
            count += _oom_count(file)
    return count


def _oom_count(file: Path) -> int:
    try:
        pairs = [line.split() for line in file.read_text().splitlines()]
        return sum(int(pair[1]) for pair in pairs if pair[0] == "oom_kill")
    except (OSError, ValueError, IndexError):
        return 0


def judge(
    job: Path,
    attempt: int,
    code: int,
    *,
    output_from: int,
    oom: bool,
    asked: str | None,
    forced: str | None,
) -> End:
    """Why a start ended.

    Args:
        code: of the launcher; minus the signal's number when one killed it.
        output_from: byte of ``output.log`` where this start began.
        oom: the kernel has killed a process of this group for memory meanwhile.
        asked: ``stop`` or ``kill`` when somebody asked for it.
        forced: why the supervisor itself killed the processes, if it did.
    """
    said = _tail(job / OUTPUT, output_from)
    ranks = records(job, attempt)
    if code == 0:
        return End("finished")
    if asked == "kill":
        return End("killed", "by request")
    if asked == "stop" and forced is not None:
        return End("stopped", forced)
    if forced is not None:
        return End("failed", forced, crash=True)
    ended = {rank["code"] for rank in ranks}
    stopped = bool(ranks) and ended <= {0, Interrupted.exit_code} and Interrupted.exit_code in ended
    if stopped or code == Interrupted.exit_code or (asked == "stop" and code == -signal.SIGTERM):
        return End("stopped")
    if any(rank.get("out_of_memory") for rank in ranks):
        error = next(rank["error"] for rank in ranks if rank.get("out_of_memory"))
        return End("out_of_memory", error, crash=True)
    killed = _killed(code, ranks, said)
    if killed is not None:
        number, error = killed
        memory = oom and number == signal.SIGKILL
        return End("out_of_memory" if memory else "killed", error + (NO_MEMORY if memory else ""), crash=True)
    causes = [rank for rank in ranks if rank["code"] not in (None, 0, Interrupted.exit_code)]
    causes.sort(key=lambda rank: bool(_OTHERS.search(rank.get("error") or "")))
    if causes:
        return End("failed", causes[0].get("error"), crash=causes[0]["code"] != MENDABLE)
    error = last_error(said) or f"exit code {code}"
    if _NO_MEMORY.search(error):
        return End("out_of_memory", error, crash=True)
    return End("failed", error, crash=code != MENDABLE)


def _killed(code: int, ranks: list[dict[str, Any]], said: str) -> tuple[int, str] | None:
    """The signal that ended a start, and what to say about it; None when no signal did."""
    if code < 0:
        return -code, f"the training process died of {_name(-code)}"
    for rank in ranks:
        # a worker process of the rank died: the rank says so as a shell would
        if rank["code"] is not None and rank["code"] > 128 and rank["code"] != Interrupted.exit_code:
            return rank["code"] - 128, rank["error"]
    silent = [rank["rank"] for rank in ranks if rank["code"] is None]
    others = [r.get("error") or "" for r in ranks if r["code"] not in (None, 0, Interrupted.exit_code)]
    if not silent or not all(_OTHERS.search(error) for error in others):
        return None  # a rank failed by itself, and the launcher killed the rest
    number = int(signal.SIGKILL)
    if (root := _ROOT_CAUSE.search(said)) and int(root[2]) < 0:
        number, silent = -int(root[2]), [int(root[1])]
    who = f"rank {', '.join(map(str, silent))}" if len(ranks) > 1 else "the training process"
    return number, f"{who} died of {_name(number)}"


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def last_error(said: str) -> str | None:
    """The line of an output that says most: ours, else the end of the last traceback, else the last line."""
    lines = [line.rsplit("\r", 1)[-1].strip() for line in said.splitlines()]
    lines = [line for line in lines if line]
    ours = [line.removeprefix("workbench: ") for line in lines if line.startswith("workbench: ")]
    if ours:
        return ours[-1]
    raised = [line for line in lines if re.match(r"[A-Za-z_][\w.]*(Error|Exception|Interrupt)\b", line)]
    found = raised or lines
    return found[-1] if found else None


def _tail(path: Path, start: int) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(start, path.stat().st_size - TAIL))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def summary(end: End, restarts: int) -> Mapping[str, Any]:
    """The keys of the job's ``finish`` event."""
    return {"reason": end.reason, "restarts": restarts} | ({} if end.error is None else {"error": end.error})
