"""One error type for everything a user can cause: what was asked, what was found, what to do, and where.

The command line prints ``str(error)`` and exits with ``exit_code``; the traceback appears only with ``--debug``.
"""

from __future__ import annotations


class WorkbenchError(Exception):
    """A problem the user can mend.

    Args:
        asked: what was being attempted, for example ``"read frames 0..15 of clips/a.mp4"``.
        found: what stood in the way, for example ``"the file has 0 bytes"``.
        todo: the next action, for example ``"make the data again: workbench data make glyphworld"``.
        where: ``file`` or ``file:line`` when the cause lies in a file the user wrote.
    """

    exit_code = 2

    def __init__(self, asked: str, found: str, todo: str, where: str | None = None) -> None:
        self.asked, self.found, self.todo, self.where = asked, found, todo, where
        super().__init__(str(self))

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return f"{place}cannot {self.asked}: {self.found}. {self.todo}."

    def __reduce__(self):  # crosses process borders (decode worker, study workers) with its fields intact
        return (type(self), (self.asked, self.found, self.todo, self.where), self.__dict__.copy())


class RecipeError(WorkbenchError):
    """A recipe that does not validate; ``where`` names file and line."""


class DataError(WorkbenchError):
    """A dataset row that cannot be used; ``where`` names file and line."""


class MediaError(WorkbenchError):
    """An image or video that cannot be read. ``kind`` is one of the names in ``KINDS``."""

    KINDS = ("missing", "empty", "broken", "truncated", "no_video", "bad_header", "timeout", "bad_index")

    def __init__(
        self, asked: str, found: str, todo: str, where: str | None = None, kind: str = "broken"
    ) -> None:
        self.kind = kind
        super().__init__(asked, found, todo, where)


class CheckpointError(WorkbenchError):
    """A checkpoint that is cut, in progress, or of another shape or variant."""


class DiskFullError(WorkbenchError):
    """No space left where the run writes; everything sealed before stays intact."""


class Interrupted(WorkbenchError):
    """Ctrl-C or a stop request: the step was finished and saved; ``todo`` says how to resume."""

    exit_code = 130
