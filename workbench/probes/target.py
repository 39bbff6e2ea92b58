"""What a probe looks at, from the words of a command line or a recipe: model, samples, frames, where to write."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench.errors import CheckpointError
from workbench.probes.common import Checkpoint, ProbeError
from workbench.samples.sample import Clip, Sample

DEFAULT_FRAMES = 8


@dataclass
class Target:
    """A loaded model and the samples it will be shown.

    Attributes:
        model, processor: a ``VideoLM`` in eval mode and what prepares its inputs.
        checkpoint: which weights these are, for the capture.
        samples: in the order asked for.
        frames: of each video; images have one.
        run: the run directory, None for a bare model folder.
        recipe_hash: of the run, None without one.
        out: the file the user asked for, None for the run's captures.
    """

    model: Any
    processor: Any
    checkpoint: Checkpoint
    samples: list[Sample]
    frames: int
    run: Path | None
    recipe_hash: str | None
    out: Path | None = None
    name: str | None = None
    turn: int = 0
    seed: int = 0
    _reader: Any = field(default=None, repr=False)

    def clip(self, sample: Sample) -> Clip | None:
        """The frames of a sample by midpoint sampling; None for text. Raises MediaError."""
        from workbench.frames.sampling import midpoint_indices
        from workbench.samples.reader import FrameReader

        if sample.media is None:
            return None
        if self._reader is None:
            self._reader = FrameReader()
        available = self._reader.info(sample.media).frames
        return self._reader.read(sample.media, midpoint_indices(available, min(self.frames, available)))

    def looks(self) -> Iterator[tuple[Sample, Clip | None]]:
        """Samples with their clips, one at a time."""
        for sample in self.samples:
            yield sample, self.clip(sample)

    def path(self, probe: str, sample: Sample | None = None) -> Path:
        """Where the capture goes: ``--out``, or ``RUN/captures/<name>.safetensors``."""
        from workbench.runs.captures import path_of

        if self.out is not None:
            return self.out
        assert self.run is not None
        parts = [probe, self.checkpoint.name, sample.id if sample is not None else ""]
        name = self.name or "-".join(part for part in parts if part)
        return path_of(self.run, "".join(c if c.isalnum() or c in "-_+." else "_" for c in name))

    def close(self) -> None:
        """Stop the decoding process."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def __enter__(self) -> Target:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def load_model(folder: Path, precision: str = "float32") -> tuple[Any, Any]:
    """A saved model of any kind and its processor, in eval mode.

    Raises:
        CheckpointError: not a model folder, or one that does not load.
    """
    import torch

    from workbench.models.tempflex import load_tempflex

    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"load the model {folder.name}", "it has no config.json", "Name a model folder", str(folder)
        )
    dtype = {"float32": torch.float32, "bf16": torch.bfloat16}[precision]
    kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    if kind == "tempflex":
        model, processor = load_tempflex(folder, dtype=dtype)
    else:
        from workbench.models.hosts.loading import load_host

        model, processor = load_host(folder, dtype=dtype)
    return model.eval(), processor


def open_target(
    run: Path,
    *,
    checkpoint: str | None = None,
    data: Path | None = None,
    suite: str | None = None,
    sample: Sequence[str] | None = None,
    limit: int | None = 1,
    frames: int | None = None,
    out: Path | None = None,
    name: str | None = None,
    precision: str = "float32",
    threads: int | None = None,
    turn: int = 0,
    seed: int = 0,
    **_: Any,
) -> Target:
    """Load what the arguments of ``common_arguments`` name (``open_target(**vars(args))``).

    Args:
        run: a run directory, or a model folder (then ``out`` and ``data`` are needed).
        sample: ids; without them the first ``limit`` samples (None: all).

    Raises:
        ProbeError: a checkpoint, suite or sample that is not there.
        CheckpointError, RunError, DataError: what is there cannot be read.
    """
    import torch

    from workbench.samples.source import load_source

    if threads is not None:
        torch.set_num_threads(threads)
    recipe_hash, step, directory = None, None, None
    path: Path | None
    if (run / "run.json").exists():
        directory, folder, recipe_hash, step = _of_run(run, checkpoint)
        path, skills, default_frames = _data_of(run, suite) if data is None else (data, None, None)
    else:
        folder = run / "model" if (run / "model").is_dir() else run
        path, skills, default_frames = data, None, None
        if out is None or data is None:
            raise ProbeError(
                f"look into {run}",
                "it is not a run",
                "Name a run, or give --data and --out for a model folder",
            )
    assert path is not None
    samples = load_source(path, skills=skills)
    if sample:
        known = {s.id: s for s in samples}
        missing = [i for i in sample if i not in known]
        if missing:
            raise ProbeError(
                f"look at sample {missing[0]}",
                f"{path} has no sample of that id among its {len(samples)}",
                f"Its first is {samples[0].id}",
            )
        samples = [known[i] for i in sample]
    model, processor = load_model(folder, precision)
    return Target(
        model,
        processor,
        Checkpoint.at(folder, step),
        samples if sample else samples[:limit],
        frames or default_frames or DEFAULT_FRAMES,
        directory,
        recipe_hash,
        out,
        name,
        turn,
        seed,
    )


def newest_checkpoint(run: Path, checkpoint: str | None = None) -> tuple[Path, int | None]:
    """(model folder, training steps behind it) of a run's checkpoint, the newest by default.

    Raises:
        ProbeError: the run has no such checkpoint, or one without a model.
        CheckpointError, RunError: it cannot be read.
    """
    _, folder, _, step = _of_run(run, checkpoint)
    return folder, step


def _of_run(run: Path, checkpoint: str | None) -> tuple[Path, Path, str | None, int | None]:
    """(run directory, model folder, recipe hash, step) of a checkpoint."""
    from workbench.runs import Run
    from workbench.runs.checkpoints import verify

    opened = Run.open(run)
    found = {path.name: path for path in opened.checkpoints()}
    if not found or (checkpoint is not None and checkpoint not in found):
        raise ProbeError(
            f"look into the checkpoint {checkpoint or 'of this run'}",
            f"the run has {', '.join(found) or 'none'}",
            "Choose one of those" if found else "Train it first",
            str(run),
        )
    path = verify(found[checkpoint] if checkpoint is not None else list(found.values())[-1])
    if not (path / "model").is_dir():
        shards = any(path.rglob("*optim_states.pt")) or any(path.rglob("zero_*"))
        raise ProbeError(
            f"look into the checkpoint {path.name}",
            "it holds ZeRO shards, not a model" if shards else "it has no folder model/",
            "Gather the shards into whole weights first"
            if shards
            else "Use a checkpoint that the trainer wrote",
            str(path),
        )
    step = None
    if (path / "trainer.json").is_file():
        step = json.loads((path / "trainer.json").read_text())["position"]["step"]
    return opened.directory, path / "model", opened.meta.get("recipe_hash"), step


def _data_of(run: Path, suite: str | None) -> tuple[Path, tuple[str, ...] | None, int | None]:
    """(file, skills, frames) of a suite of the run's recipe."""
    from workbench.recipe import load_recipe

    recipe = load_recipe(run / "recipe.yaml")
    suites = recipe.evaluation.suites
    if not suites or (suite is not None and suite not in suites):
        raise ProbeError(
            f"take samples of the suite {suite or 'of this run'}",
            f"its recipe has {', '.join(suites) or 'none'}",
            "Choose one with --suite, or give a file with --data",
            str(run / "recipe.yaml"),
        )
    source = recipe.data.sources[suites[suite or next(iter(suites))]]
    return Path(recipe.data.root) / source.path, source.skills, recipe.evaluation.common_frames
