"""``workbench doctor``: what is installed, what is missing, and the line that mends it."""

from __future__ import annotations

import argparse
import json


def register(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "doctor", help="what is installed, what is missing, and the line that mends it"
    )
    parser.add_argument("--json", action="store_true", help="print the checks as JSON")
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the report. Exit code 0 unless something that ``make study`` requires is missing or broken."""
    from workbench.doctor import as_rows, diagnose, healthy, table

    checks = diagnose()
    print(json.dumps(as_rows(checks), indent=1) if arguments.json else table(checks))
    return 0 if healthy(checks) else 1
