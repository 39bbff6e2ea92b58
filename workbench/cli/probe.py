"""`workbench probe WHAT RUN ...`: look inside a trained model. Every probe registers itself here.

A probe's command lives in ``workbench/cli/probe_NAME.py`` with ``register(verbs)``; it calls
``common_arguments(parser)`` and, when it runs, ``workbench.probes.target.open_target(args)``, so that all probes
choose run, checkpoint, samples and frames with the same words.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

# each has register(verbs) in workbench.cli.probe_NAME; verbs appear in this order
PROBES = ("attention", "knockout", "attribution", "fusion", "gradients")


def register(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("probe", help="look inside a trained model and keep what was seen")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="WHAT")
    for probe in PROBES:
        importlib.import_module(f"workbench.cli.probe_{probe}").register(verbs)


def common_arguments(parser: argparse.ArgumentParser, samples: bool = True) -> None:
    """What every probe is told: where the model is, which checkpoint, and which samples at how many frames."""
    parser.add_argument("run", type=Path, metavar="RUN", help="a run directory, or a model folder with --out")
    parser.add_argument("--checkpoint", metavar="NAME", help="of the run (default: the newest)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write here instead of RUN/captures/")
    parser.add_argument("--name", help="of the capture (default: from probe, checkpoint and sample)")
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32", help="of the weights")
    parser.add_argument("--threads", type=int, help="processor threads (default: torch's)")
    if not samples:
        return
    parser.add_argument(
        "--data", type=Path, metavar="FILE", help="JSONL (default: a suite of the run's recipe)"
    )
    parser.add_argument("--suite", metavar="NAME", help="which suite of the recipe (default: the first)")
    parser.add_argument(
        "--sample", action="append", metavar="ID", help="sample by id, repeatable (default: the first)"
    )
    parser.add_argument(
        "--turn", type=int, default=0, help="which question of the sample (default: 0, the first)"
    )
    parser.add_argument(
        "--frames", type=int, metavar="N", help="frames a video (default: the recipe's, or 8)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn at random (default 0)")


def pictures_argument(parser: argparse.ArgumentParser) -> None:
    """For probes whose captures hold the frames they looked at."""
    parser.add_argument(
        "--no-pictures",
        dest="pictures",
        action="store_false",
        help="leave the frames out of the capture (default: kept, at most 160 pixels wide or high)",
    )
