"""The run directory: events, metrics, scores, checkpoints, status. Importing it is quick: no torch."""

from workbench.runs.environment import environment
from workbench.runs.events import read_events
from workbench.runs.files import RunError
from workbench.runs.metrics import read_metrics
from workbench.runs.rundir import Run
from workbench.runs.scores import read_scores
from workbench.runs.status import RunStatus, run_status

__all__ = [
    "Run",
    "RunError",
    "RunStatus",
    "environment",
    "read_events",
    "read_metrics",
    "read_scores",
    "run_status",
]
