"""`workbench sink tensorboard|trackio|wandb ADDRESS`: a job's curves and events in another tool."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.machines.address import Address
    from workbench.sinks.base import Sink

KINDS = ("tensorboard", "trackio", "wandb")


def register(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "sink",
        help="also send a job's curves and events to TensorBoard, trackio or Weights & Biases",
        description="May be started at any time, on any computer, and again: each step and event goes there once.",
    )
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument(
        "address", metavar="ADDRESS", help="MACHINE:JOB or MACHINE:JOB/RUN; without MACHINE: this machine"
    )
    parser.add_argument("--follow", "-f", action="store_true", help="go on until the job has ended")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of tensorboard's or wandb's files (default: KIND/)"
    )
    parser.set_defaults(func=run_sink)


def run_sink(args: argparse.Namespace) -> int:
    from workbench.machines import attach
    from workbench.sinks.feed import feed

    attached = attach(args.address)
    out = args.out or Path(args.kind)
    with attached.machine:
        at = feed(attached, lambda run: open_sink(args.kind, attached.address, run, out), args.follow)
    for run, position in at.items():
        print(f"{run}: to step {position.step}, {position.seq} events")
    viewers = {"tensorboard": f"tensorboard --logdir {out}", "trackio": "trackio show"}
    if args.kind in viewers:
        print(f"See it: {viewers[args.kind]}")
    return 0


def open_sink(kind: str, address: Address, run: str, out: Path) -> Sink:
    """The sink of one run of a job.

    Raises:
        WorkbenchError: its package is not installed.
    """
    if kind == "tensorboard":
        from workbench.sinks.tensorboard import TensorBoardSink

        return TensorBoardSink(out / address.job / run)
    if kind == "trackio":
        from workbench.sinks.trackio import TrackioSink

        return TrackioSink(address.job, run)
    from workbench.sinks.wandb import WandbSink

    return WandbSink(out / address.job, address.job, run, f"{address.machine}-{address.job}-{run}")
