"""Calling OpenSSH as the user does: own config, keys, agent and known_hosts. Host checking is never turned off.

``BatchMode`` makes ssh fail instead of asking: a password, a passphrase or an unknown host key becomes an
error with the command that mends it.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from workbench.errors import WorkbenchError

ALIVE_S, ALIVE_COUNT = 5, 3  # a stalled connection is given up after 15 s
CONNECT_S = 10


def command(
    asked: str, host: str, config: str | None, options: Sequence[str], remote: Sequence[str] = ()
) -> list[str]:
    """The argv of one ssh.

    Raises:
        WorkbenchError: there is no ssh.
    """
    if shutil.which("ssh") is None:
        raise WorkbenchError(asked, "there is no ssh on PATH", "Install OpenSSH's client")
    argv = ["ssh", "-T", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_S}"]
    argv += ["-o", f"ServerAliveInterval={ALIVE_S}", "-o", f"ServerAliveCountMax={ALIVE_COUNT}"]
    if config is not None:
        from pathlib import Path

        argv += ["-F", str(Path(config).expanduser())]
    return [*argv, *options, "--", host, *remote]


def explain(asked: str, host: str, code: int, said: str, python: str = "python3") -> WorkbenchError:
    """One error for what ssh, or the shell there, wrote to stderr before it ended with ``code``.

    ``temporary`` of the error says that trying again may help.
    """
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = lines[-1] if lines else f"exit code {code}"
    name = host.rpartition("@")[2]
    by_hand = f"ssh {host} true"
    if "REMOTE HOST IDENTIFICATION HAS CHANGED" in said:
        found = f"the host key of {name} is not the one in known_hosts: another machine, or one set up anew"
        todo = f"Ask its administrator; if it is right: ssh-keygen -R {name}, then {by_hand}"
    elif "Host key verification failed" in said:
        found = f"the host key of {name} is not known here"
        todo = f"Compare and accept it once: {by_hand}"
    elif "Permission denied" in said and code == 255:
        found = f"{name} refuses the login ({last})"
        todo = f"Make a login without password work: {by_hand} (key in authorized_keys, ssh-add for a passphrase)"
    elif "Could not resolve hostname" in said:
        found, todo = (
            f"there is no host {name}",
            "Correct host in the machines file, or add it to ~/.ssh/config",
        )
    elif code == 127 or "command not found" in said or ("No such file or directory" in said and code != 255):
        found = f"{name} has no {python}"
        todo = "Give python, in the machines file, the path of an interpreter there that has workbench"
    elif "No module named" in said:
        found = f"{python} on {name} has no usable workbench ({last})"
        todo = f"There: {python} -m pip install -e CHECKOUT, or correct python in the machines file"
    elif "port forwarding" in said or "cannot listen" in said:
        found, todo = f"{name} does not forward ports ({last})", "Ask for AllowTcpForwarding there"
    else:
        found, todo = f"ssh to {name} ended: {last}", f"Try by hand: {by_hand}"
    return WorkbenchError(asked, found, todo)


def is_cut(code: int, said: str) -> bool:
    """Whether ssh ended for a reason that may pass: the line, not the keys."""
    lasting = (
        "verification failed",
        "Permission denied",
        "resolve hostname",
        "IDENTIFICATION",
        "Bad ",
        "usage:",
    )
    return code == 255 and not any(sign in said for sign in lasting)
