"""``machine.check()``: the connection, then everything the machine says about itself, beside this computer.

Runs here; the machine's own part is ``check.py``, over the same transport as everything else, so that what is
checked is what jobs will use.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from workbench import __version__
from workbench.machines.base import Machine, Progress
from workbench.machines.check import GIB
from workbench.machines.hello import SKEW_S, clock_skew

HELLOS = 5
# other versions of these can change numbers or what loads; the rest is told without comment
WEIGHTY = (
    "torch",
    "transformers",
    "accelerate",
    "deepspeed",
    "safetensors",
    "tokenizers",
    "numpy",
    "flash-attn",
)


@dataclass(frozen=True, slots=True)
class Row:
    """One finding. ``fix`` is what to do, empty when nothing; only ``required`` rows decide `Report.ready`."""

    ok: bool
    what: str
    found: str
    fix: str = ""
    required: bool = False


@dataclass(frozen=True)
class Report:
    """What ``check`` found. ``versions``: package -> (here, there), None where it is not installed."""

    machine: str
    rows: tuple[Row, ...]
    gpus: tuple[dict[str, Any], ...]
    versions: dict[str, tuple[str | None, str | None]]
    smoke: dict[str, Any] | None

    @property
    def ready(self) -> bool:
        """Jobs can be submitted."""
        return all(row.ok for row in self.rows if row.required)

    def to_text(self) -> str:
        """Aligned plain text, each fix below its line, then the versions that differ."""
        width = max(len(row.what) for row in self.rows)
        lines = []
        for row in self.rows:
            mark = "ok" if row.ok else "!!" if row.required else "--"
            lines.append(f"{row.what:<{width}}  {mark}  {row.found}")
            if row.fix:
                lines.append(f"{'':<{width}}      -> {row.fix}")
        differing = {name: pair for name, pair in self.versions.items() if pair[0] != pair[1]}
        lines.append("")
        lines.append(
            f"{len(self.versions) - len(differing)} of {len(self.versions)} versions are the same here and there."
        )
        if differing:
            wide = max(map(len, differing))
            lines += [
                f"  {name:<{wide}}  here {a or '-':<12}  there {b or '-'}"
                for name, (a, b) in differing.items()
            ]
        lines.append(self._verdict())
        return "\n".join(lines)

    def _verdict(self) -> str:
        wrong = [row.what for row in self.rows if row.required and not row.ok]
        if wrong:
            return f"{self.machine} is not ready: {', '.join(wrong)}."
        return f"{self.machine} is ready: workbench submit RECIPE --machine {self.machine}"

    def __repr__(self) -> str:
        return self.to_text()

    def _repr_html_(self) -> str:
        cells = "".join(
            f"<tr><td>{'✓' if row.ok else '✗'}</td><td>{escape(row.what)}</td><td>{escape(row.found)}"
            + (f"<br><i>{escape(row.fix)}</i>" if row.fix else "")
            + "</td></tr>"
            for row in self.rows
        )
        versions = "".join(
            f"<tr><td>{escape(name)}</td><td>{escape(a or '–')}</td><td>{escape(b or '–')}</td></tr>"
            for name, (a, b) in self.versions.items()
        )
        return (
            f"<b>{escape(self._verdict())}</b><table>{cells}</table><details><summary>versions</summary>"
            f"<table><tr><th></th><th>here</th><th>there</th></tr>{versions}</table></details>"
        )


def check_machine(
    machine: Machine,
    recipe: str | Path | None = None,
    on_progress: Progress | None = None,
    smoke: bool = True,
) -> Report:
    """Connect and look at everything; about 15 s, of which 5 train a tiny model there.

    Args:
        recipe: also look for the data and weights that this recipe file names, on the machine.

    Raises:
        WorkbenchError: there is no way to the machine or its workbench; what to do.
    """
    from workbench.runs.environment import environment

    rows, hello = _connection(machine)
    recipe_yaml = None
    if recipe is not None:
        from workbench.recipe import load_recipe, to_yaml

        recipe_yaml = to_yaml(load_recipe(recipe))
    answer = machine.call("check", on_progress, workdir=machine.workdir, recipe_yaml=recipe_yaml, smoke=smoke)
    theirs = answer["environment"]
    rows.append(_same_workbench(hello, theirs))
    for i, gpu in enumerate(answer["gpus"]):
        found = f"{gpu['name']}, {gpu['memory'] / GIB:.0f} GiB, {gpu['free'] / GIB:.0f} GiB free"
        busy = gpu["free"] < gpu["memory"] / 2
        rows.append(
            Row(True, f"GPU {i}", found, "Somebody uses it: nvidia-smi there shows who" if busy else "")
        )
    if not answer["gpus"]:
        rows.append(Row(True, "GPU", "none: jobs train on the processor"))
    shown = [
        row for row in answer["rows"] if not str(row["what"]).startswith("cuda:")
    ]  # they are above, with more
    rows += [Row(row["ok"], row["what"], row["found"], row["fix"], row["required"]) for row in shown]
    return Report(
        machine.name, tuple(rows), tuple(answer["gpus"]), compare(environment(), theirs), answer["smoke"]
    )


def compare(here: dict[str, Any], there: dict[str, Any]) -> dict[str, tuple[str | None, str | None]]:
    """Python, workbench and every package known on either side -> (here, there), weighty ones first."""
    a = {"python": here["python"], "workbench": here["workbench"], **here["packages"]}
    b = {"python": there["python"], "workbench": there["workbench"], **there["packages"]}
    names = sorted(
        a.keys() | b.keys(), key=lambda name: (name not in ("python", "workbench", *WEIGHTY), name.lower())
    )
    return {name: (a.get(name), b.get(name)) for name in names}


def _connection(machine: Machine) -> tuple[list[Row], dict[str, Any]]:
    hello = machine.hello()  # the first one connects, starts a kernel, and is not timed
    times, skews = [], []
    for _ in range(HELLOS):
        sent, start = time.time(), time.perf_counter()
        hello = machine.hello()
        times.append(time.perf_counter() - start)
        skews.append(clock_skew(sent, time.time(), float(hello["time"])))
    found = f"{hello['host']}, a request takes {1000 * statistics.median(times):.0f} ms"
    rows = [Row(True, "connection", found, required=True)]
    skew = min(skews, key=abs)
    right = abs(skew) <= SKEW_S
    ahead = "ahead" if skew > 0 else "behind"
    rows.append(
        Row(
            right,
            "clock",
            "agrees with this one" if right else f"{abs(skew):.0f} s {ahead} of this one",
            "" if right else "Set both by NTP: ages of heartbeats are wrong until then",
        )
    )
    return rows, hello


def _same_workbench(hello: dict[str, Any], theirs: dict[str, Any]) -> Row:
    from workbench.runs.environment import environment

    mine = environment()
    if hello["workbench"] != __version__:
        found = f"{hello['workbench']} there, {__version__} here"
        return Row(False, "workbench", found, "Install the same version on both sides", required=True)
    commits = [str(found["commit"])[:10] for found in (mine, theirs) if found.get("commit")]
    if len(commits) == 2 and commits[0] != commits[1]:
        found = f"{__version__}, commit {commits[1]} there, {commits[0]} here"
        return Row(True, "workbench", found, "Check out the same commit on both sides to compare runs")
    return Row(True, "workbench", f"{__version__}, the same here and there")
