"""The machines file: what it accepts, and one error with file and line for what it does not."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from workbench.errors import WorkbenchError
from workbench.machines.config import (
    JupyterEntry,
    LocalEntry,
    MachineFileError,
    SshEntry,
    load_entries,
    load_entry,
    machines_file,
    read_token,
)

GOOD = """
# the lab
[gpu]
kind = "jupyter"
url = "https://gpu.example:8888/"
token_env = "GPU_TOKEN"
ca = "~/ca.pem"

[box]
kind = "ssh"
host = "box"
python = "/opt/wb/bin/python"
workdir = "~/workbench"
"""


def write(home, text):
    path = home / "config" / "workbench" / "machines.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_machines_by_name_and_local_always(home):
    assert list(load_entries()) == ["local"] and isinstance(load_entry("local"), LocalEntry)
    path = write(home, GOOD)
    assert machines_file() == path
    entries = load_entries()
    assert list(entries) == ["local", "gpu", "box"]
    assert entries["gpu"] == JupyterEntry(
        kind="jupyter", url="https://gpu.example:8888", token_env="GPU_TOKEN", ca="~/ca.pem"
    )
    assert isinstance(entries["box"], SshEntry) and entries["box"].root == "~/workbench/runs"


def test_another_file_by_variable_must_exist(home, monkeypatch):
    monkeypatch.setenv("WORKBENCH_MACHINES", str(home / "mine.toml"))
    with pytest.raises(MachineFileError, match="no such file"):
        load_entries()
    (home / "mine.toml").write_text('[local]\nkind = "local"\nroot = "/data/runs"\n')
    assert load_entry("local").root == "/data/runs"


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ('[gpu]\nkind = "jupyter"\nurl = "http://x:1"\ntoken = "s3cr3tvalue"\n', 4, "secrets do not stand"),
        ('[gpu]\nkind = "jupyter"\nurl = "http://x:1/?token=s3cr3tvalue"\n', 3, "secret"),
        ('[gpu]\nkind = "jupyter"\nurl = "http://me:s3cr3tvalue@x:1"\n', 3, "secret"),
        (
            '[gpu]\nkind = "jupyter"\nurl = "http://x:1"\ntoken_env = "s3cr3t-value"\n',
            4,
            "environment variable",
        ),
        ('[gpu]\nkind = "jupyter"\nurl = "gpu:8888"\n', 3, "https://gpu.example"),
        ('[gpu]\nkind = "jupyter"\nurl = "http://x:99999"\n', 3, "port"),
        ('[gpu]\nkind = "jupyter"\n', 1, "'url' is missing"),
        ('[gpu]\nurl = "http://x:1"\n', 1, "kind is missing"),
        ('\n[gpu]\nkind = "slurm"\n', 3, "jupyter, ssh"),
        ('[a]\nkind = "ssh"\nhost = "x"\n[b]\nkind = "ssh"\nhost = "y"\nprt = 3\n', 7, "unknown key 'prt'"),
        ('[b]\nkind = "ssh"\nhost = "-oProxyCommand=x"\n', 3, "not a host"),
        ('[b]\nkind = "ssh"\nhost = 3\n', 3, "string"),
        ('[gpu]\nkind = "jupyter"\nurl = "http://x"\nkeyring = "only"\n', 4, "service/user"),
        ('[gpu]\nkind = "jupyter"\nurl = "http://x"\nkeyring = "a/b"\ntoken_env = "T"\n', 1, "both"),
        ('[local]\nkind = "ssh"\nhost = "x"\n', 1, "'local'"),
        ('["my box"]\nkind = "ssh"\nhost = "x"\n', 1, "name"),
        ("[gpu]\nkind = \n", 2, "not TOML"),
        ("gpu = 3\n", 1, "not a table"),
    ],
)
def test_errors_name_file_and_line_and_never_a_secret(home, text, line, says):
    path = write(home, text)
    with pytest.raises(MachineFileError) as error:
        load_entries()
    assert error.value.where == f"{path}:{line}" and says in str(error.value)
    assert "s3cr3t" not in str(error.value)


def test_unknown_name_lists_those_there_are(home):
    write(home, GOOD)
    with pytest.raises(MachineFileError, match="local, gpu, box"):
        load_entry("gpu2")


def test_token_from_the_environment(monkeypatch):
    entry = JupyterEntry(kind="jupyter", url="http://x:1", token_env="WB_TEST_TOKEN")
    monkeypatch.delenv("WB_TEST_TOKEN", raising=False)
    with pytest.raises(WorkbenchError, match="WB_TEST_TOKEN, which is empty"):
        read_token("gpu", entry)
    monkeypatch.setenv("WB_TEST_TOKEN", " abc\n")
    assert read_token("gpu", entry) == "abc"
    assert read_token("gpu", JupyterEntry(kind="jupyter", url="http://x:1")) is None


KEYRING = """
import keyring.backend, keyring.errors
class Box(keyring.backend.KeyringBackend):
    priority = 1
    def get_password(self, service, user):
        if service == "locked":
            raise keyring.errors.KeyringLocked("no")
        return {("lab", "me"): "from-the-ring"}.get((service, user))
    def set_password(self, service, user, password): raise NotImplementedError
    def delete_password(self, service, user): raise NotImplementedError
"""


def test_token_from_a_keyring(tmp_path):
    pytest.importorskip("keyring")
    (tmp_path / "ring.py").write_text(KEYRING)
    code = """
from workbench.errors import WorkbenchError
from workbench.machines.config import JupyterEntry, read_token
for place in ("lab/me", "lab/you", "locked/me"):
    try:
        print(read_token("gpu", JupyterEntry(kind="jupyter", url="http://x:1", keyring=place)))
    except WorkbenchError as error:
        print(error)
"""
    environment = {**os.environ, "PYTHON_KEYRING_BACKEND": "ring.Box", "PYTHONPATH": f"{tmp_path}:."}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    first, second, third = done.stdout.splitlines()
    assert first == "from-the-ring"
    assert "keyring set lab you" in second and "Unlock" in third
