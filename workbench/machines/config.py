"""The user file that names machines: ``~/.config/workbench/machines.toml``.

    [gpu]
    kind = "jupyter"                  # a kernel of a Jupyter Server or Kernel Gateway
    url = "https://gpu.example:8888"
    token_env = "GPU_TOKEN"           # or keyring = "service/user"; the token itself never stands here
    ca = "~/lab-ca.pem"               # when the server's certificate is from a CA of your own

    [box]
    kind = "ssh"                      # OpenSSH with your own config and known_hosts
    host = "box"
    python = "/opt/wb/bin/python"

``local`` always exists. ``WORKBENCH_MACHINES`` names another file; ``XDG_CONFIG_HOME`` is respected.
Tokens are read when a connection is made and kept nowhere else.
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator

from workbench.errors import WorkbenchError

FILE_VARIABLE = "WORKBENCH_MACHINES"
ROOT = "~/workbench/runs"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
SECRET_KEYS = ("token", "password", "passwd", "secret", "api_key")
SECRET_IN_URL = "the URL carries a secret"


class MachineFileError(WorkbenchError):
    """A machines file that does not parse or validate, or a name it does not have."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LocalEntry(_Entry):
    """The machine this Python runs on."""

    kind: Literal["local"] = "local"
    root: str = ROOT
    workdir: str | None = None


class JupyterEntry(_Entry):
    """A Python kernel of a Jupyter Server or Kernel Gateway; the machine is the one the kernel runs on."""

    kind: Literal["jupyter"]
    url: str
    token_env: str | None = None  # name of the environment variable that holds the token
    keyring: str | None = None  # "service/user" in the keyring of this computer
    ca: str | None = None  # PEM file of the CA that signed the server's certificate
    kernel_name: str = "python3"  # kernelspec on the server
    kernel_id: str | None = None  # use this kernel and no other
    python: str | None = None  # interpreter there that has workbench; None: the kernel's own
    root: str = ROOT
    workdir: str | None = None
    plain_http: bool = False  # send the token unencrypted to another computer: a network you trust
    tunnel: str | None = None  # [user@]host: reach the url from there, through `ssh -L`
    ssh_config: str | None = None  # other file than ~/.ssh/config, for the tunnel

    @field_validator("url")
    @classmethod
    def _plain_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("not a URL such as https://gpu.example:8888")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError(f"{SECRET_IN_URL} or a query; leave only scheme, host, port and path")
        try:
            _ = parts.port
        except ValueError as error:
            raise ValueError("the port is not a number from 1 to 65535") from error
        return url.rstrip("/")

    @field_validator("token_env")
    @classmethod
    def _variable_name(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            # not repeated in the message: somebody may have put the token itself here
            raise ValueError("not the name of an environment variable")
        return name

    @field_validator("keyring")
    @classmethod
    def _keyring_place(cls, place: str | None) -> str | None:
        if place is not None and not all(place.partition("/")):
            raise ValueError('not "service/user"')
        return place

    @model_validator(mode="after")
    def _one_source(self) -> JupyterEntry:
        if self.token_env is not None and self.keyring is not None:
            raise ValueError("token_env and keyring are both given; keep one")
        return self


class SshEntry(_Entry):
    """A machine reached by OpenSSH, with the user's own config, keys and known_hosts."""

    kind: Literal["ssh"]
    host: str  # as in `ssh HOST`
    python: str = "python3"
    root: str = ROOT
    workdir: str | None = None
    ssh_config: str | None = None  # other file than ~/.ssh/config

    @field_validator("host")
    @classmethod
    def _not_an_option(cls, host: str) -> str:
        if host.startswith("-") or not host.strip():
            raise ValueError("not a host")
        return host


AnyEntry = LocalEntry | JupyterEntry | SshEntry
KINDS: dict[str, type[_Entry]] = {"local": LocalEntry, "jupyter": JupyterEntry, "ssh": SshEntry}


def machines_file() -> Path:
    """Where the user file is, whether or not it exists."""
    if named := os.environ.get(FILE_VARIABLE):
        return Path(named).expanduser()
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(home).expanduser() / "workbench" / "machines.toml"


def load_entries(path: str | Path | None = None) -> dict[str, AnyEntry]:
    """Every machine by name, ``local`` first. A missing file is an empty one, unless it was named.

    Raises:
        MachineFileError: with file and line.
    """
    named = path is not None or bool(os.environ.get(FILE_VARIABLE))
    file = Path(path).expanduser() if path is not None else machines_file()
    entries: dict[str, AnyEntry] = {"local": LocalEntry()}
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        if named:
            todo = f"Write it (docs/machines.md shows one), or unset {FILE_VARIABLE}"
            raise MachineFileError(
                "read the machines file", "there is no such file", todo, str(file)
            ) from None
        return entries
    except (OSError, UnicodeDecodeError) as error:
        todo = "Make it a readable UTF-8 text file"
        raise MachineFileError("read the machines file", str(error), todo, str(file)) from None
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"line (\d+)", str(error))
        where = f"{file}:{line.group(1)}" if line else str(file)
        # only the kind of mistake: the rest of the message never quotes the line, but may quote a character
        raise MachineFileError(
            "read the machines file", f"it is not TOML: {error}", "Mend it", where
        ) from None
    for name, table in tables.items():
        entries[name] = _entry(name, table, file, text)
    return entries


def load_entry(name: str, path: str | Path | None = None) -> AnyEntry:
    """One machine of the user file.

    Raises:
        MachineFileError: there is none of this name, or the file is wrong.
    """
    entries = load_entries(path)
    if name not in entries:
        file = Path(path) if path is not None else machines_file()
        todo = f"Name one of {', '.join(entries)}, or add a table [{name}] to {file}"
        raise MachineFileError(f"use the machine {name!r}", "the machines file has none of this name", todo)
    return entries[name]


def read_token(name: str, entry: JupyterEntry) -> str | None:
    """The token of a Jupyter machine, from where the user file says; None when it names no place.

    Raises:
        WorkbenchError: the variable is empty, the keyring has no such password or is not installed.
    """
    asked = f"connect to the machine {name!r}"
    if entry.token_env is not None:
        if token := os.environ.get(entry.token_env, "").strip():
            return token
        found = f"its token should be in the environment variable {entry.token_env}, which is empty"
        raise WorkbenchError(asked, found, f"Set it in this process: export {entry.token_env}=...")
    if entry.keyring is not None:
        return _from_keyring(asked, entry.keyring)
    return None


def _from_keyring(asked: str, place: str) -> str:
    try:
        import keyring
        import keyring.errors
    except ImportError:
        todo = "pip install -e '.[remote]', or use token_env in the machines file"
        raise WorkbenchError(asked, "its token is in a keyring and keyring is not installed", todo) from None
    service, _, user = place.partition("/")
    try:
        token = keyring.get_password(service, user)
    except keyring.errors.KeyringError as error:
        todo = "Unlock the keyring, or use token_env in the machines file"
        raise WorkbenchError(asked, f"the keyring does not answer ({type(error).__name__})", todo) from None
    if not token:
        todo = f"Put it there: keyring set {service} {user}"
        raise WorkbenchError(asked, f"the keyring has no password for {place}", todo)
    return token.strip()


def _entry(name: str, table: Any, file: Path, text: str) -> AnyEntry:
    asked = f"read the machine {name!r}"

    def problem(found: str, todo: str, key: str | None = None) -> MachineFileError:
        return MachineFileError(asked, found, todo, f"{file}:{_line(text, name, key)}")

    if not isinstance(table, dict):
        raise problem("it is a value, not a table", f"Write its keys below a line [{name}]", name)
    if not NAME.fullmatch(name):
        raise problem("a name is letters, digits, '-', '_' and '.'", "Give it another name")
    for key in table:
        if key.lower() in SECRET_KEYS:
            todo = 'Put it into an environment variable and write token_env = "NAME", or keyring = "service/user"'
            raise problem(f"{key!r} is a secret, and secrets do not stand in this file", todo, key)
    kind = table.get("kind")
    if kind not in KINDS:
        found = "kind is missing" if kind is None else f"kind is {kind!r}"
        raise problem(found, f"Choose one of {', '.join(KINDS)}", "kind")
    if (kind == "local") != (name == "local"):
        raise problem(f"kind {kind!r} for the name {name!r}", "'local' is the machine here, and only that")
    try:
        entry = KINDS[kind].model_validate(table)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = str(first["loc"][0]) if first["loc"] else None
        if first["type"] == "extra_forbidden":
            known = ", ".join(KINDS[kind].model_fields)
            raise problem(f"unknown key {key!r}", f"Keys of kind {kind!r}: {known}", key) from None
        if first["type"] == "missing":
            raise problem(f"{key!r} is missing", f"Add {key} = ...", None) from None
        found = first["msg"].removeprefix("Value error, ")
        raise problem(f"{key}: {found}" if key else found, "Correct it", key) from None
    assert isinstance(entry, LocalEntry | JupyterEntry | SshEntry)
    return entry


def _line(text: str, name: str, key: str | None) -> int:
    """Line of ``key`` in the table ``name``; that of the table's head when the key is not found."""
    head = re.compile(rf"""\s*\[\s*["']?{re.escape(name)}["']?\s*\]""")
    assignment = re.compile(rf"""\s*["']?{re.escape(key)}["']?\s*=""") if key else None
    found = 0
    for number, line in enumerate(text.splitlines(), start=1):
        if head.match(line):
            found = number
        elif found and line.lstrip().startswith("["):
            break
        elif (found or key == name) and assignment and assignment.match(line):
            return number
    return found or 1
