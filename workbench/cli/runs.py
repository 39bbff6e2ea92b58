"""`workbench runs [DIR]`: the runs below a folder. `workbench status FOLDER` shows one in detail (see jobs.py)."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path


def register(subparsers: argparse._SubParsersAction) -> None:
    listing = subparsers.add_parser("runs", help="list the runs below a folder")
    listing.add_argument("directory", nargs="?", type=Path, default=Path("runs"), metavar="DIR")
    listing.set_defaults(func=run_list)


def find_runs(directory: Path) -> list[Path]:
    """Run directories at or below ``directory``, sorted; links are not followed, runs are not searched."""
    found = []
    for folder, inner, files in os.walk(directory):
        if "run.json" in files:
            found.append(Path(folder))
            inner.clear()
        inner[:] = sorted(name for name in inner if not name.startswith("."))
    return found


def run_list(args: argparse.Namespace) -> int:
    from workbench.runs import Run, RunError

    if not args.directory.is_dir():
        raise RunError(
            "list runs", "there is no such folder", "Name the folder of your runs", str(args.directory)
        )
    rows = [("RUN", "STATE", "STEP", "LOSS", "TIME LEFT")]
    for path in find_runs(args.directory):
        try:
            status = Run.open(path).status()
        except RunError as error:
            rows.append((str(path), "damaged", "", "", error.found))
            continue
        left = "" if status.eta_s is None else duration(status.eta_s)
        rows.append((str(path), status.state, _steps(status.step, status.total), _loss(status.loss), left))
    if len(rows) == 1:
        print(f"no runs below {args.directory}")
        return 0
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def run_status(args: argparse.Namespace) -> int:
    from workbench.runs import Run

    run = Run.open(args.run)
    status = run.status()
    lines = [("run", str(args.run)), ("state", status.state)]
    lines += [(key, str(run.meta[key])) for key in ("study", "arm", "seed") if key in run.meta]
    lines.append(("step", _steps(status.step, status.total) or "none yet"))
    if status.loss is not None:
        lines.append(("loss", _loss(status.loss)))
    if status.eta_s is not None:
        lines.append(("time left", duration(status.eta_s)))
    if status.age_s is not None:
        lines.append(("last sign", f"{duration(status.age_s)} ago, process {status.pid}"))
    if status.error:
        lines.append(("error", status.error))
    lines.append(("checkpoints", ", ".join(path.name for path in run.checkpoints()) or "none"))
    if captures := run.captures():
        lines.append(("captures", ", ".join(path.stem for path in captures)))
    for name, value in lines:
        print(f"{name:<12} {value}")
    if status.state == "running":
        print(f"To stop it after its step, saving first: touch {args.run / 'control' / 'stop'}")
    elif status.state != "finished":
        print("To go on: start the command again that made it; it resumes from the last checkpoint.")
    return 0


def duration(seconds: float) -> str:
    """``75`` -> ``1m 15s``; two units at most."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"


def _steps(step: int | None, total: int | None) -> str:
    return "" if step is None else f"{step}/{total}" if total is not None else str(step)


def _loss(loss: float | None) -> str:
    return "" if loss is None else f"{loss:.4f}" if math.isfinite(loss) else str(loss)
