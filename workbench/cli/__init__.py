"""The command line. One file a group of commands; heavy imports happen only inside their handlers."""

from workbench.cli.main import main

__all__ = ["main"]
