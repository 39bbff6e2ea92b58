"""The verb ``check``: what is on this machine, and whether a model trains here. Run on the machine itself.

Everything is tried rather than looked up: the folder of the jobs is written to, libraries are imported, and a
tiny TempFlex takes real training steps on the device that jobs would use.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from workbench.errors import WorkbenchError
from workbench.machines.base import Progress

GIB = 1 << 30
SMOKE_S = 5.0
ROOM_GIB = 5.0  # a study with its data and checkpoints
FRAMES, SIDE = 4, 32
# what matters to a person who asks (doctor's checks of browser, ports and notebook are about their own computer)
NOT_HERE = ("jupyterlab", "ipywidgets", "anywidget", "chromium", "ports")


def check(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Verb: {root, workdir?, recipe_yaml?, smoke?} -> {environment, gpus, disk, rows, smoke}.

    ``rows``: [{ok, required, what, found, fix}] in reading order; ``fix`` is empty when there is nothing to do.
    ``gpus``: [{name, memory, free}] in bytes. ``smoke``: {device, dtype, steps, seconds, first, last} of a few
    training steps, None when they were not asked for or failed (a row says why). ``recipe_yaml``: the data
    and weights that this recipe names are looked for here.
    """
    from workbench.runs.environment import environment

    rows: list[dict[str, Any]] = []
    progress({"doing": "looking at folders"})
    rows += _folders(request)
    gpus = _gpus()
    progress({"doing": "trying the libraries"})
    rows += _doctor()
    if request.get("recipe_yaml"):
        rows.append(_recipe(request))
    smoke = None
    if request.get("smoke", True):
        progress({"doing": "training a tiny model"})
        try:
            smoke = smoke_step()
        except Exception as error:  # a driver, a library or memory may fail in its own way
            found = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            fix = "Mend what is reported above; a driver too old for torch shows here: nvidia-smi must work"
            rows.append(_row(False, "training step", found, fix, required=True))
        else:
            rows.append(_smoke_row(smoke))
    return {"environment": environment(), "gpus": gpus, "rows": rows, "smoke": smoke}


def smoke_step(seconds: float = SMOKE_S, device: str | None = None) -> dict[str, Any]:
    """Train the ``tiny`` preset on one made-up clip for ``seconds``, at least 3 steps.

    Forward, loss, backward and AdamW are those of training, packed rows included; the loss must fall.

    Raises:
        WorkbenchError: the loss is not finite, or does not fall.
        RuntimeError, AssertionError: torch cannot use this device.
    """
    import math

    import numpy as np
    import torch

    from workbench.models.tempflex import new_tempflex
    from workbench.samples.sample import Clip, Sample, Turn, VideoRef
    from workbench.training.packing import pack

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    turns = (Turn("which colour comes first?", "red"), Turn("which digit is where?", "3 left"))
    texts = [text for turn in turns for text in (turn.question, turn.answer or "")]
    model, processor = new_tempflex("tiny", 0, vocab_texts=texts, fusion_layers=1)
    model.to(device).train()
    pixels = np.random.default_rng(0).integers(0, 256, (FRAMES, SIDE, SIDE, 3), dtype=np.uint8)
    clip = Clip(pixels, tuple(range(FRAMES)), tuple(i / 2 for i in range(FRAMES)))
    prepared = [
        processor.prepare(Sample(f"smoke-{i}", turns, VideoRef(Path("smoke"))), clip) for i in range(4)
    ]
    (batch, *_) = pack(prepared, 512, 8, processor.pad_token_id)
    inputs = batch.model_inputs(torch.device(device))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses: list[float] = []
    start = time.monotonic()
    while len(losses) < 3 or time.monotonic() - start < seconds:
        loss = model(**inputs).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))  # waits for the device: the time below is that of finished steps
    took = time.monotonic() - start
    if not all(map(math.isfinite, losses)) or losses[-1] >= losses[0]:
        found = f"the loss went from {losses[0]:.4g} to {losses[-1]:.4g} in {len(losses)} steps on {device}"
        raise WorkbenchError(
            "train a tiny model", found, "Reinstall torch for this machine's driver and processor"
        )
    return {"device": device, "steps": len(losses), "seconds": took, "first": losses[0], "last": losses[-1]}


def _row(ok: bool, what: str, found: str, fix: str = "", required: bool = False) -> dict[str, Any]:
    return {"ok": ok, "required": required, "what": what, "found": found, "fix": fix}


def _folders(request: dict[str, Any]) -> list[dict[str, Any]]:
    root = Path(request["root"]).expanduser().absolute()
    rows = [_root_row(root), _disk_row(root)]
    workdir = Path(request.get("workdir") or Path.cwd()).expanduser().absolute()
    if not workdir.is_dir():
        rows.append(
            _row(False, "workdir", f"{workdir} does not exist", "Make it, or correct workdir", required=True)
        )
        return rows
    rows.append(_row(True, "workdir", str(workdir)))
    sources = sorted({path.parent for path in workdir.glob("data/**/*.jsonl")})
    names = ", ".join(str(path.relative_to(workdir)) for path in sources[:8]) + (
        " ..." if len(sources) > 8 else ""
    )
    fix = "" if sources else "Recipes that make their data need nothing; others: copy it below data/ there"
    rows.append(_row(True, "data roots", names or f"no data below {workdir / 'data'}", fix))
    return rows


def _root_row(root: Path) -> dict[str, Any]:
    """Whether jobs can be written: by writing."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root) as file:
            file.write(b"x")
    except OSError as error:
        fix = "Correct root in the machines file, or its rights there"
        return _row(False, "root", f"{root}: {error.strerror or error}", fix, required=True)
    return _row(True, "root", str(root))


def _disk_row(root: Path) -> dict[str, Any]:
    place = next(folder for folder in (root, *root.parents) if folder.exists())
    usage = shutil.disk_usage(place)
    found = f"{usage.free / GIB:.1f} GiB free of {usage.total / GIB:.1f} where the jobs go"
    roomy = usage.free >= ROOM_GIB * GIB
    return _row(roomy, "disk", found, "" if roomy else f"A study takes up to {ROOM_GIB:.0f} GiB: free some")


def _gpus() -> list[dict[str, Any]]:
    try:
        import torch

        found = []
        for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
            free, memory = torch.cuda.mem_get_info(i)
            found.append({"name": torch.cuda.get_device_name(i), "memory": memory, "free": free})
        return found
    except Exception:  # torch is missing or broken: its own row says so
        return []


def _doctor() -> list[dict[str, Any]]:
    from workbench.doctor import diagnose

    shown = (one for one in diagnose() if one.name not in NOT_HERE and one.name not in ("disk", "cuda"))
    return [
        _row(one.state in ("ok", "note"), one.name, one.found, one.fix, required=one.required)
        for one in shown
    ]


def _recipe(request: dict[str, Any]) -> dict[str, Any]:
    from workbench.machines.submit import check_inputs
    from workbench.recipe import load_recipe

    with tempfile.TemporaryDirectory(prefix="workbench-") as folder:
        path = Path(folder) / "recipe.yaml"
        path.write_text(request["recipe_yaml"], encoding="utf-8")
        recipe = load_recipe(path)
    workdir = Path(request.get("workdir") or os.getcwd()).expanduser().absolute()
    try:
        notes = check_inputs(recipe, workdir)
    except WorkbenchError as error:
        return _row(False, f"recipe {recipe.name}", error.found, error.todo, required=True)
    return _row(True, f"recipe {recipe.name}", "; ".join(notes) or "its data and weights are there")


def _smoke_row(smoke: dict[str, Any]) -> dict[str, Any]:
    found = (
        f"{smoke['steps']} steps of the tiny model on {smoke['device']} in {smoke['seconds']:.1f} s, "
        f"loss {smoke['first']:.3f} -> {smoke['last']:.3f}"
    )
    return _row(True, "training step", found)
