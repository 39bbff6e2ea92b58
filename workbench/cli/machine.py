"""`workbench machine list` and `workbench machine check NAME`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def register(subparsers: argparse._SubParsersAction) -> None:
    group = subparsers.add_parser("machine", help="machines that jobs can run on")
    actions = group.add_subparsers(title="actions", dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="the machines of your machines file")
    listing.set_defaults(func=run_list)
    check = actions.add_parser(
        "check", help="connect, compare versions, look at GPUs and disk, train a tiny model"
    )
    check.add_argument("name", metavar="NAME", help="a machine of your machines file, or local")
    check.add_argument("--recipe", type=Path, metavar="FILE", help="also look for its data and weights there")
    check.add_argument("--no-smoke", action="store_true", help="skip the 5 seconds of training")
    check.add_argument("--json", action="store_true", help="print the findings as JSON")
    check.set_defaults(func=run_check)


def run_list(args: argparse.Namespace) -> int:
    from workbench.machines.config import JupyterEntry, SshEntry, load_entries, machines_file

    rows = []
    for name, entry in load_entries().items():
        where = "this machine"
        if isinstance(entry, JupyterEntry):
            where = entry.url + (f" through {entry.tunnel}" if entry.tunnel else "")
        elif isinstance(entry, SshEntry):
            where = entry.host
        rows.append((name, entry.kind, where, entry.root))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if len(rows) == 1:
        print(f"Add machines in {machines_file()} (docs/machines.md).")
    return 0


def run_check(args: argparse.Namespace) -> int:
    import json
    from dataclasses import asdict

    from workbench.machines import machine
    from workbench.machines.checkup import check_machine

    def tell(data: dict[str, object]) -> None:
        print(f"{args.name}: {data.get('doing', '')} ...", file=sys.stderr, flush=True)

    with machine(args.name) as there:
        report = check_machine(there, args.recipe, tell, smoke=not args.no_smoke)
    if args.json:
        print(json.dumps({**asdict(report), "ready": report.ready}, indent=1))
    else:
        print(report.to_text())
    return 0 if report.ready else 2
