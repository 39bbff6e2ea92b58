"""``workbench.machine(name)``: a machine of the user file, not yet connected."""

from __future__ import annotations

import os

from workbench.machines.address import LOCAL
from workbench.machines.base import Machine, Transport
from workbench.machines.config import JupyterEntry, SshEntry, load_entry

RUNS_VARIABLE = "WORKBENCH_RUNS"  # where this computer's runs are, as for studies started from a notebook


def machine(name: str = LOCAL) -> Machine:
    """The machine called ``name``. Nothing is connected before its first verb.

    Raises:
        WorkbenchError: the machines file has none of this name, or is wrong (file and line).
    """
    entry = load_entry(name)
    transport: Transport
    root = entry.root
    if isinstance(entry, JupyterEntry):
        from workbench.machines.jupyter import JupyterTransport

        transport = JupyterTransport(name, entry)
    elif isinstance(entry, SshEntry):
        from workbench.machines.ssh import SshTransport

        transport = SshTransport(name, entry)
    else:
        from workbench.machines.local import LocalTransport

        transport = LocalTransport()
        root = os.environ.get(RUNS_VARIABLE) or root
    return Machine(name, transport, root, entry.workdir)
