"""``MACHINE:JOB/RUN``, the name of a job or of one of its runs; ``MACHINE`` is left out for ``local``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from workbench.errors import WorkbenchError

LOCAL = "local"
_PART = r"[A-Za-z0-9][A-Za-z0-9._+-]*"
_ADDRESS = re.compile(rf"(?:(?P<machine>{_PART}):)?(?P<job>{_PART})(?:/(?P<run>{_PART}))?")


@dataclass(frozen=True, slots=True)
class Address:
    """A job on a machine, or one ``run`` of it."""

    machine: str
    job: str
    run: str | None = None

    def __str__(self) -> str:
        return f"{self.machine}:{self.job}" + (f"/{self.run}" if self.run else "")


def parse_address(text: str) -> Address:
    """``"gpu:trap/hybrid-s0"`` -> its parts.

    Raises:
        WorkbenchError: not of that form.
    """
    found = _ADDRESS.fullmatch(text)
    if found is None:
        raise WorkbenchError(
            f"find {text!r}",
            "it is not MACHINE:JOB or MACHINE:JOB/RUN",
            "Write for example gpu:trap, gpu:trap/hybrid-s0, or trap for a job on this machine",
        )
    return Address(found["machine"] or LOCAL, found["job"], found["run"])
