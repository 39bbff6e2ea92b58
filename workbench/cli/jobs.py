"""Jobs on this machine or another: `submit`, `jobs`, `status`, `tail`, `stop`, `checkpoint`, `resume`, `fetch`.

An ADDRESS is MACHINE:JOB or MACHINE:JOB/RUN; without MACHINE it is this machine.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ADDRESS = "MACHINE:JOB or MACHINE:JOB/RUN; without MACHINE: this machine"


def register(subparsers: argparse._SubParsersAction) -> None:
    submit = subparsers.add_parser(
        "submit",
        help="start a recipe as a job that outlives this terminal, here or on another machine",
        description="Checks that data and weights are on that machine, then starts a supervisor there and returns.",
    )
    submit.add_argument("recipe", type=Path, metavar="RECIPE")
    submit.add_argument("--machine", default="local", metavar="M", help="a machine of your machines file")
    submit.add_argument("--name", help="of the job (default: the recipe's)")
    submit.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="change recipe values")
    submit.add_argument("--quick", action="store_true", help="the recipe's quick section")
    submit.add_argument("--seeds", nargs="+", type=int, metavar="N")
    submit.add_argument("--arms", nargs="+", metavar="ARM")
    submit.set_defaults(func=run_submit)
    listing = subparsers.add_parser("jobs", help="list the jobs of a machine")
    listing.add_argument("machine", nargs="?", default="local", metavar="MACHINE")
    listing.set_defaults(func=run_jobs)
    status = subparsers.add_parser("status", help="what a job or a run is doing, or how it ended")
    status.add_argument("address", metavar="ADDRESS", help=f"{ADDRESS}; or the folder of a run")
    status.set_defaults(func=run_job_status)
    tail = subparsers.add_parser("tail", help="what a job has written")
    tail.add_argument("address", metavar="ADDRESS", help=ADDRESS)
    tail.add_argument("--follow", "-f", action="store_true", help="go on until the job has ended")
    tail.add_argument(
        "--json", action="store_true", help='one JSON object a line: {"stream", "data"}, rows included'
    )
    tail.set_defaults(func=run_tail)
    stop = subparsers.add_parser("stop", help="let a job finish its step, save and end")
    stop.add_argument("address", metavar="ADDRESS", help=ADDRESS)
    stop.add_argument("--now", action="store_true", help="kill its processes at once, saving nothing")
    stop.set_defaults(func=run_stop)
    for name, text in (
        ("checkpoint", "ask a job for a checkpoint at its next step"),
        ("resume", "start an ended job again, from its last checkpoints"),
    ):
        parser = subparsers.add_parser(name, help=text)
        parser.add_argument("address", metavar="ADDRESS", help=ADDRESS)
        parser.set_defaults(func=run_checkpoint if name == "checkpoint" else run_resume)
    fetch = subparsers.add_parser("fetch", help="copy a job's files here; again to go on where it was cut")
    fetch.add_argument("address", metavar="ADDRESS", help=ADDRESS)
    fetch.add_argument("destination", type=Path, metavar="DEST")
    fetch.add_argument("--checkpoints", action="store_true", help="also the checkpoints, which are large")
    fetch.set_defaults(func=run_fetch)


def run_submit(args: argparse.Namespace) -> int:
    from workbench.machines import machine
    from workbench.recipe import parse_overrides

    overrides = parse_overrides(args.set)
    with machine(args.machine) as there:
        job = there.submit(
            args.recipe, args.name, overrides=overrides, quick=args.quick, seeds=args.seeds, arms=args.arms
        )
    for note in job.notes:
        print(f"note: {note}")
    print(f"{job.address} started (supervisor {job.pid})")
    print(f"Watch it: workbench tail --follow {job.address}    Stop it: workbench stop {job.address}")
    return 0


def run_jobs(args: argparse.Namespace) -> int:
    from workbench.cli.runs import duration
    from workbench.machines import machine

    with machine(args.machine) as there:
        found = there.jobs()
    if not found:
        print(f"no jobs on {args.machine} below {there.root}")
        return 0
    rows = [("JOB", "STATE", "STEP", "RUNS", "TIME LEFT", "ERROR")]
    for job in found:
        tasks = job.get("tasks") or {"done": 0, "total": None}
        runs = f"{tasks['done']}/{tasks['total']}" if tasks["total"] else ""
        left = "" if job.get("eta_s") is None else duration(job["eta_s"])
        error = " ".join((job.get("error") or "").split())[:60]
        rows.append((f"{args.machine}:{job['name']}", job["state"], _steps(job), runs, left, error))
    _table(rows)
    return 0


def run_job_status(args: argparse.Namespace) -> int:
    from workbench.cli.runs import duration, run_status
    from workbench.machines import attach

    folder = Path(args.address)
    if (folder / "run.json").is_file() or (folder.is_dir() and len(folder.parts) > 1):
        return run_status(argparse.Namespace(run=folder))

    attached = attach(args.address)
    with attached.machine:
        found = attached.status()
    lines = [("address", str(attached.address)), ("state", found["state"])]
    if found.get("job"):
        lines.append(("job", found["job"]))
    if _steps(found):
        lines.append(("step", _steps(found)))
    if found.get("loss") is not None:
        lines.append(("loss", str(found["loss"])))
    if found.get("eta_s") is not None:
        lines.append(("time left", duration(found["eta_s"])))
    if found.get("age_s") is not None:
        lines.append(("last sign", f"{duration(found['age_s'])} ago"))
    if found.get("error"):
        lines.append(("error", found["error"]))
    for name, value in lines:
        print(f"{name:<12} {value}")
    if found.get("runs"):
        print()
        rows = [("RUN", "STATE", "STEP", "LOSS", "TIME LEFT")]
        for name, run in found["runs"].items():
            left = "" if run["eta_s"] is None else duration(run["eta_s"])
            loss = "" if run["loss"] is None else f"{float(run['loss']):.4f}"
            rows.append((name, run["state"], _steps(run), loss, left))
        _table(rows)
    return 0


def run_tail(args: argparse.Namespace) -> int:
    from workbench.machines import attach

    attached = attach(args.address)
    with attached.machine:
        for stream, data in attached.follow() if args.follow else attached.so_far():
            if args.json:
                print(json.dumps({"stream": stream, "data": data}, ensure_ascii=False), flush=args.follow)
            elif "#" not in stream or stream.endswith("#metrics"):
                print(_line(stream, data), flush=args.follow)
    return 0


def run_stop(args: argparse.Namespace) -> int:
    attached = _attach(args.address)
    with attached.machine:
        attached.kill() if args.now else attached.stop()
    print(
        f"{attached.address}: {'its processes are killed' if args.now else 'it saves after its step and ends'}"
    )
    return 0


def run_checkpoint(args: argparse.Namespace) -> int:
    attached = _attach(args.address)
    with attached.machine:
        attached.checkpoint()
    print(f"{attached.address}: a checkpoint follows its next step")
    return 0


def run_resume(args: argparse.Namespace) -> int:
    attached = _attach(args.address)
    with attached.machine:
        attached.resume()
    print(f"{attached.address}: goes on from its last checkpoints")
    return 0


def run_fetch(args: argparse.Namespace) -> int:
    from workbench.machines.fetch import fetch

    def show(what: dict[str, Any]) -> None:
        if sys.stderr.isatty():
            end = "\n" if what["done"] == what["total"] else ""
            print(f"\r{what['done'] >> 10:>10} of {what['total'] >> 10} KiB", end=end, file=sys.stderr)

    attached = _attach(args.address)
    with attached.machine:
        folder = fetch(attached.machine, attached.address.job, args.destination, args.checkpoints, show)
    print(folder if attached.address.run is None else folder / "runs" / attached.address.run)
    return 0


def _attach(address: str) -> Any:
    from workbench.machines import attach

    return attach(address)


def _line(stream: str, data: dict[str, Any]) -> str:
    """One event or row for people: what it is, then its values."""
    if stream.endswith("#metrics"):
        loss = data.get("loss")
        shown = f"{loss:.4f}" if isinstance(loss, float) else str(loss)
        return f"{stream.removesuffix('#metrics')}: step {data.get('step')}  {data.get('stage', '')}  loss {shown}"
    rest = {key: value for key, value in data.items() if key not in ("seq", "time", "kind")}
    words = "  ".join(f"{key}={value}" for key, value in rest.items() if value is not None)
    return f"{data['time'][11:19]}  {stream or 'job'}: {data['kind']}  {words}".rstrip()


def _steps(found: dict[str, Any]) -> str:
    step, total = found.get("step"), found.get("total")
    return f"{step}/{total}" if step is not None and total is not None else ""


def _table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
