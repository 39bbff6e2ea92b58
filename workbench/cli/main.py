"""``workbench COMMAND ...``: builds the parser, runs one handler, makes errors one line and an exit code.

Exit codes: 0 done, 1 an error nobody foresaw, 2 something the user can mend (``WorkbenchError``, bad
arguments), 130 interrupted. A traceback appears only with ``--debug``, which may stand anywhere on the line.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence

from workbench import __version__
from workbench.errors import WorkbenchError

# each has register(subparsers); commands appear in this order
GROUPS = (
    "study",
    "data",
    "recipe",
    "jobs",
    "machine",
    "sink",
    "runs",
    "report",
    "lab",
    "model",
    "evaluate",
    "probe",
    "policy",
    "doctor",
)
DEBUG = "--debug"


def build_parser() -> argparse.ArgumentParser:
    """The parser with every group's commands; imports no torch and reads no file."""
    parser = argparse.ArgumentParser(
        prog="workbench",
        description="See, measure and escape the temporal trap of video MLLMs. "
        "Start with: workbench study --quick",
    )
    parser.add_argument("--version", action="version", version=f"workbench {__version__}")
    parser.add_argument(DEBUG, action="store_true", help="show the traceback of an error")
    subparsers = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND")
    for group in GROUPS:
        name = f"workbench.cli.{group}"
        if importlib.util.find_spec(name) is not None:
            importlib.import_module(name).register(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code; bad arguments leave through argparse's ``SystemExit(2)``."""
    given = list(sys.argv[1:] if argv is None else argv)
    debug = DEBUG in given
    parser = build_parser()
    args = parser.parse_args([word for word in given if word != DEBUG])
    if args.command is None:
        parser.print_help(sys.stderr)
        return 2
    try:
        code = args.func(args)
        sys.stdout.flush()  # a reader that went away shows here, not at exit
        return code or 0
    except BrokenPipeError:
        # our reader (head, less) has seen enough; keep Python from flushing into it again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        return _fail("interrupted", 130, debug)
    except WorkbenchError as error:
        return _fail(str(error), error.exit_code, debug)
    except Exception as error:
        text = " ".join(str(error).split())
        detail = f"{type(error).__name__}: {text}" if text else type(error).__name__
        return _fail(f"{detail} (run again with --debug for the traceback)", 1, debug)


def _fail(message: str, code: int, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exc()
    print(f"workbench: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
