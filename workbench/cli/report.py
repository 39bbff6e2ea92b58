"""`workbench report STUDY_DIR`: the table of a study, finished or not, and its ``report.html``."""

from __future__ import annotations

import argparse
from pathlib import Path


def register(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "report",
        help="write report.html of a study and print its table",
        description="Works on finished and unfinished studies; needs no torch and no network.",
    )
    parser.add_argument("study_dir", type=Path, metavar="STUDY_DIR", help="for example runs/trap")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: STUDY_DIR/report.html")
    parser.set_defaults(func=run_report)


def run_report(args: argparse.Namespace) -> int:
    from workbench.report import build_report
    from workbench.study.results import load_results
    from workbench.study.table import render_table

    results = load_results(args.study_dir)  # once: table and report share its analysis
    print(render_table(results))
    print(f"report: {build_report(results, args.out)}")
    return 0
