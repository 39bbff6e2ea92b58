"""Studies: several arms and seeds of one recipe, trained in parallel, compared with intervals.

``run_recipes`` is what `workbench study` and `workbench train` call, and what a notebook calls.
"""

from workbench.study.run import run_recipes
from workbench.study.scheduler import Study, open_study, run_studies
from workbench.study.tasks import Task, make_tasks

__all__ = ["Study", "Task", "make_tasks", "open_study", "run_recipes", "run_studies"]
