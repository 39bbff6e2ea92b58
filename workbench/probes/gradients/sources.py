"""What a run's recipe says about where its image and video batches and its optimizer state are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from workbench.probes.common import ProbeError
from workbench.probes.gradients.adam import FILE, AdamMetric
from workbench.recipe import Recipe, load_recipe
from workbench.recipe.schema import StageSection
from workbench.runs import Run
from workbench.samples.reader import FrameCache
from workbench.samples.sample import Sample
from workbench.samples.source import load_source
from workbench.training.checkpoint import load_position


@dataclass(frozen=True)
class RunSources:
    """A run's directory, recipe, the stages that trained it, and the hash of the recipe as the run has it."""

    directory: Path
    recipe: Recipe
    stages: tuple[StageSection, ...]
    recipe_hash: str | None = None

    @classmethod
    def of(cls, directory: Path) -> RunSources:
        """Raises RunError, RecipeError for a damaged run."""
        opened = Run.open(directory)
        recipe = load_recipe(opened.directory / "recipe.yaml")
        arm = recipe.arms.get(opened.meta.get("arm", ""))
        stages = tuple(recipe.stages if arm is None else arm.stages)
        return cls(opened.directory, recipe, stages, opened.meta.get("recipe_hash"))

    def by_preference(self) -> Iterator[str]:
        """Names of sources, those trained on last first; then what the recipe has beside them."""
        others = [stage for arm in self.recipe.arms.values() for stage in arm.stages]
        for stage in (*reversed(self.stages), *reversed(self.recipe.stages), *others):
            if stage.objective == "sft":
                yield from stage.data
        yield from self.recipe.data.sources

    def load(self, name: str) -> tuple[Path, list[Sample]]:
        """A source's file and samples. Raises ProbeError for a name the recipe lacks, DataError."""
        section = self.recipe.data.sources.get(name)
        if section is None:
            raise ProbeError(
                f"take batches from the source {name!r}",
                f"the recipe has {', '.join(self.recipe.data.sources)}",
                "Name one of them, or give a file",
            )
        path = Path(self.recipe.data.root) / section.path
        return path, load_source(path, limit=section.limit, skills=section.skills)

    def adam(self, checkpoint: str) -> AdamMetric | None:
        """The metric of a checkpoint's optimizer; None when the checkpoint has no optimizer state."""
        folder = self.directory / "checkpoints" / checkpoint
        if not (folder / FILE).is_file():
            return None
        position, _ = load_position(folder)
        # a checkpoint at the end of a stage stands at the beginning of the next
        index = position.stage if position.stage_step else position.stage - 1
        stage = self.stages[max(0, min(index, len(self.stages) - 1))]
        return AdamMetric(folder, beta2=stage.optimizer.betas[1])

    def frame_cache(self) -> FrameCache | None:
        """Decoded frames of the study this run belongs to, if it keeps them."""
        folder = self.directory.parent.parent / "cache" / "frames"
        return FrameCache(folder) if folder.is_dir() else None


def find(
    sources: RunSources | None, name: str | None, file: Path | None, video: bool
) -> tuple[Path, list[Sample]]:
    """(file, samples) of images or videos: a file, a named source, or what the run was trained on.

    Raises:
        ProbeError: nothing of that kind is there.
        DataError: the file cannot be read.
    """
    kind = "video" if video else "image"
    if file is not None:
        return file, load_source(file)
    if sources is None:
        raise ProbeError(
            f"draw {kind} batches", "this is no run, so no recipe names any", f"Give --{kind}-data FILE"
        )
    for candidate in (name,) if name is not None else dict.fromkeys(sources.by_preference()):
        path, samples = sources.load(candidate)
        if samples and samples[0].media is not None and samples[0].is_video == video:
            return path, samples
    raise ProbeError(
        f"draw {kind} batches",
        f"the recipe's source {name!r} holds none" if name else f"the recipe has no source of {kind}s",
        f"Name another source with --{kind}s, or give --{kind}-data FILE",
    )
