"""What runs inside the remote kernel. Its source text is sent there once, so it needs the standard library only.

``answer`` hands a request to the agent: in the kernel itself, or, when the machine has another interpreter
for workbench, in one agent process of that interpreter, kept for the next request. Answers are kept by the
request's id, so that a request sent again after a cut connection gets the same answer and is not done twice;
a kernel runs one request after the other, so the second never overtakes the first.
"""

import collections
import json
import os
import shlex
import subprocess
import sys

KEPT = 16  # answers; a client sends a request again before it sends another one
MARK = "\x1e"  # begins a line of progress on stdout; the rest of stdout is what libraries print

_kept: collections.OrderedDict = collections.OrderedDict()
_children: dict = {}


def answer(text):
    """JSON of ``{"result": ...}`` or ``{"error": ...}``, as the agent writes it."""
    envelope = json.loads(text)
    key = envelope["id"]
    if key not in _kept:
        line = json.dumps(envelope["request"])

        def progress(data):
            print(MARK + json.dumps({"id": key, "progress": data}), flush=True)

        python = envelope["python"]
        reply = _by_child(python, line, progress) if python else _here(line, progress)
        _kept[key] = json.dumps(reply)
        while len(_kept) > KEPT:
            _kept.popitem(last=False)
    return _kept[key]


def _here(line, progress):
    try:
        from workbench.machines import agent
    except ImportError as error:
        return _no_workbench(sys.executable, f"{type(error).__name__}: {error}")
    return agent.answer(line, progress)


def _by_child(python, line, progress):
    program = os.path.expanduser(python)
    child = _children.get(python)
    if child is None or child.poll() is not None:
        try:
            child = subprocess.Popen(
                [program, "-m", "workbench.machines.agent"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        except OSError as error:
            return _no_workbench(python, error.strerror or str(error))
        _children[python] = child
    try:
        print(line, file=child.stdin, flush=True)
        for told in child.stdout or ():
            message = json.loads(told)
            if "progress" not in message:
                return message
            progress(message["progress"])
    except BrokenPipeError:
        pass
    except BaseException:  # an interrupt: what the child still answers belongs to nobody
        child.kill()
        raise
    child.kill()
    said = child.communicate()[1].strip().splitlines()
    return _no_workbench(python, said[-1] if said else f"exit code {child.returncode}")


def _no_workbench(python, reason):
    install = f"There: {shlex.quote(python)} -m pip install -e CHECKOUT"
    return {
        "error": {
            "asked": "run workbench in the kernel",
            "found": f"{python} has no usable workbench ({reason})",
            "todo": f"{install}, or correct python or kernel_name in the machines file",
            "where": None,
            "kind": "WorkbenchError",
        }
    }
