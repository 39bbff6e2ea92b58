"""``evaluate``: score a checkpoint of a run on the machine where it lies; the table is written into the run.

Runs in the process that answers: a remote kernel uses its GPU, its interrupt ends it. Imports torch when called.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from workbench.errors import CheckpointError, WorkbenchError
from workbench.machines.base import Progress
from workbench.machines.job import job_folder, meta, need, no_run, run_names
from workbench.runs import Run

CHUNK = 256  # questions between two words of progress
CONDITION = "asked"  # scores asked for afterwards never replace those that training wrote


def evaluate_run(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Verb: {root, job, run, suite | source | data, checkpoint?, frames?, copies?, limit?} -> {table, path, ...}.

    Args (of the request):
        suite, source: a name of the recipe's evaluation.suites or data.sources; data: a JSONL file there.
        checkpoint: its name; default the newest complete one.
        frames: of each video; default the policy of the run's last stage. copies: show images so often.
        limit: at most so many questions, balanced over skills.

    Returns:
        table (name, as in ``Run.scores()``), path, checkpoint, step, questions, accuracy, failed (questions whose
        media could not be read), skills [{skill, n, accuracy, low, high}].

    Raises:
        WorkbenchError: no such run, checkpoint, suite or file.
    """
    import pandas as pd
    import torch

    from workbench.evaluation.evaluate import Packing, evaluate, subset
    from workbench.evaluation.statistics import skill_intervals
    from workbench.models import load_model
    from workbench.recipe.schema import FramesSection
    from workbench.runs import scores
    from workbench.study.worker import Bench
    from workbench.training.checkpoint import load_position

    study, name = job_folder(request), str(need(request, "run"))
    if name not in run_names(study):
        raise no_run(study, name)
    run = Run.open(study / "runs" / name)
    checkpoint = _checkpoint(run, request.get("checkpoint"))
    bench = Bench(study)
    bench.root = Path(meta(study)["workdir"]) / bench.recipe.data.root
    try:
        suite, samples = _samples(bench, request, Path(meta(study)["workdir"]))
        samples = subset(samples, request.get("limit"))
        arm = bench.recipe.arms.get(run.meta.get("arm", ""))
        stages = bench.recipe.stages if arm is None else arm.stages
        frames = request.get("frames")
        policy = stages[-1].frames if stages and frames is None else FramesSection(frames=frames or 8)
        plan = bench.plan(policy, samples, int(run.meta.get("seed", 0)))
        if (copies := int(request.get("copies") or 1)) > 1:
            plan = plan.with_copies({s.id: copies for s in samples if s.media is not None and not s.is_video})
        packing = Packing(stages[-1].tokens_per_row, stages[-1].rows_per_micro_batch) if stages else None
        progress({"doing": "loading", "checkpoint": checkpoint.name, "questions": len(samples)})
        model, processor = load_model(checkpoint, dtype=torch.float32)
        if torch.cuda.is_available():
            model.to("cuda")
        step = load_position(checkpoint)[0].step
        about: dict[str, Any] = {
            "suite": suite,
            "arm": run.meta.get("arm"),
            "seed": run.meta.get("seed"),
            "step": step,
        }
        tables = []
        for at in range(0, len(samples), CHUNK):
            part = samples[at : at + CHUNK]
            tables.append(
                evaluate(
                    model, processor, part, plan, bench.reader, packing=packing, condition=CONDITION, **about
                )
            )
            progress({"doing": "scoring", "done": at + len(part), "questions": len(samples)})
    finally:
        bench.reader.close()
    table = pd.concat(tables, ignore_index=True)
    shown = [f"f{frames}" if frames else "own", f"c{copies}" if copies > 1 else ""]
    title = "-".join([suite, f"{step:06d}", CONDITION, *filter(None, shown)])
    # written beside the run's own tables without its lock: the run may be training
    scores.write(run.directory, title, table)
    return {
        "table": title,
        "path": f"runs/{name}/{scores.DIRECTORY}/{title}.parquet",
        "checkpoint": checkpoint.name,
        "step": step,
        "questions": len(table),
        "accuracy": float(table["correct"].astype(float).mean()),
        "failed": int(table["error"].notna().sum()),
        "skills": [asdict(row) for row in skill_intervals(table)],
    }


def _checkpoint(run: Run, name: str | None) -> Path:
    from workbench.runs.checkpoints import verify

    found = {path.name: path for path in run.checkpoints()}
    if not found or (name is not None and name not in found):
        known = f"the run has {', '.join(found)}" if found else "the run has none that is complete"
        todo = "Name one of them" if found else "Ask for one: workbench checkpoint ADDRESS"
        raise CheckpointError(f"evaluate the checkpoint {name or 'latest'}", known, todo, str(run.directory))
    return verify(found[name] if name is not None else list(found.values())[-1])


def _samples(bench: Any, request: dict[str, Any], workdir: Path) -> tuple[str, list[Any]]:
    """The questions asked for, and the name their scores go by."""
    from workbench.samples.source import load_source

    suite, source, data = (request.get(key) for key in ("suite", "source", "data"))
    recipe = bench.recipe
    given = [key for key in ("suite", "source", "data") if request.get(key) is not None]
    if len(given) != 1:
        found = f"{' and '.join(given)} are given" if given else "none of suite, source, data is given"
        raise WorkbenchError("evaluate a checkpoint", found, "Give exactly one of the three")
    if data is not None:
        path = workdir / Path(data).expanduser()
        return path.stem, load_source(path)
    names = recipe.evaluation.suites if suite is not None else dict.fromkeys(recipe.data.sources)
    asked = suite if suite is not None else source
    if asked not in names:
        kind = "suite" if suite is not None else "source"
        known = ", ".join(names) or "none"
        raise WorkbenchError(
            f"evaluate on the {kind} {asked!r}", f"the recipe has {known}", "Name one of them"
        )
    return str(asked), bench.source(recipe.evaluation.suites[asked] if suite is not None else asked)
