"""A probe as a recipe, a machine or a notebook asks for it: a section in, captures in ``RUN/captures/`` out.

``make_captures`` is the one way from ``ProbeSection`` to files. A capture that is there already, of the same weights and
made with the same section, is not made again: looking twice costs nothing.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench.captures import Capture, CaptureError
from workbench.probes.common import Checkpoint, ProbeError
from workbench.probes.gradients.sources import RunSources, find
from workbench.probes.pictures import NAME as PICTURES
from workbench.probes.target import DEFAULT_FRAMES, Target, load_model, newest_checkpoint
from workbench.recipe.probes import PARAMETERS, ProbeSection
from workbench.samples.reader import FrameReader
from workbench.samples.sample import Sample

Tell = Callable[[str, int, int], None]
SCATTER_SAMPLES, FUSION_VIDEOS, FUSION_IMAGES = 64, 16, 64


@dataclass
class Asked:
    """Where a probe looks.

    Attributes:
        run: the run directory; captures go there.
        section: what to look at.
        name: of the captures.
        checkpoint: of the run (default: the newest).
        start: the run whose newest checkpoint this one started from, for ``against_start``.
        workdir: what ``data.root`` of the recipe is relative to.
        live: (model, processor, step) of a training that goes on; then no checkpoint is read.
    """

    run: Path
    section: ProbeSection
    name: str
    checkpoint: str | None = None
    start: Path | None = None
    workdir: Path = field(default_factory=Path)
    live: tuple[Any, Any, int] | None = None


def make_captures(asked: Asked, tell: Tell | None = None) -> list[Path]:
    """Look, and write what was seen; the captures' files, in the order of frame counts and samples.

    Args:
        tell: called as ``tell(what, done, total)``.

    Raises:
        ProbeError: the run has no such checkpoint, sample or frame count; see the probes.
        CheckpointError, DataError, MediaError, RunError: what is there cannot be read.
    """
    sources = _sources(asked)
    tell = tell or (lambda what, done, total: None)
    wanted = asked.section.model_dump(mode="json", exclude={"at", "arms"}, exclude_none=True)
    with FrameReader(cache=sources.frame_cache()) as reader:
        bench = _Bench(asked, sources, reader, tell)
        pieces = list(_PIECES[asked.section.probe](bench))
        paths = []
        for done, (suffix, make) in enumerate(pieces):
            path = bench.path(suffix)
            if not bench.there(path, wanted):
                make(path, {"asked": wanted})
            paths.append(path)
            tell(f"{asked.name} {suffix}".strip(), done + 1, len(pieces))
        return paths


def load_captures(asked: Asked, tell: Tell | None = None) -> list[Capture]:
    """``make_captures``, opened."""
    return [Capture.load(path) for path in make_captures(asked, tell)]


def without_pictures(section: dict[str, Any] | None) -> dict[str, Any] | None:
    """A section as captures keep it, without whether pictures are kept."""
    return section and {key: value for key, value in section.items() if key != PICTURES}


# writes one capture: where to, and further keys of its metadata
Make = Callable[[Path, dict[str, Any]], object]
Piece = tuple[str, Make]  # what the file's name ends in, and how it is made


def _saved(make: Callable[..., Capture], *given: Any) -> Make:
    """For captures that are small: made in memory, then written. Those that grow with length stream to their file."""

    def write(path: Path, own: dict[str, Any]) -> None:
        capture = make(*given)
        Capture(capture.kind, capture.arrays, capture.meta | own).save(path)

    return write


class _Bench:
    """A run's model and data, read when they are first needed."""

    def __init__(self, asked: Asked, sources: RunSources, reader: FrameReader, tell: Tell) -> None:
        self.asked, self.section, self.sources, self.reader, self.tell = (
            asked, asked.section, sources, reader, tell,
        )  # fmt: skip
        self.recipe_hash = sources.recipe_hash
        if asked.live is not None:
            self.checkpoint = Checkpoint(f"step-{asked.live[2]:06d}", asked.live[2])
        else:
            self.folder, step = newest_checkpoint(asked.run, asked.checkpoint)
            self.checkpoint = Checkpoint.at(self.folder, step)
        self._model: tuple[Any, Any] | None = asked.live[:2] if asked.live is not None else None

    @property
    def model(self) -> tuple[Any, Any]:
        """(model, processor)."""
        if self._model is None:
            self._model = load_model(self.folder)
        return self._model

    def path(self, suffix: str) -> Path:
        from workbench.runs.captures import path_of

        name = "-".join(part for part in (self.asked.name, self.checkpoint.name, suffix) if part)
        return path_of(self.asked.run, "".join(c if c.isalnum() or c in "-_+." else "_" for c in name))

    def there(self, path: Path, wanted: dict[str, Any]) -> bool:
        """A capture of these weights, made with this section.

        Pictures change nothing that is measured: a capture from before they were kept counts, unless they are asked for.
        """
        try:
            capture = Capture.load(path)
        except CaptureError:
            return False
        meta = capture.meta
        kept = any(name.startswith(PICTURES) for name in capture.arrays)
        if self.section.pictures and meta.get("frames") and not kept:
            return False
        then = meta.get("checkpoint") or {}
        known = self.checkpoint.sha256 is not None or self.asked.live is not None
        same = without_pictures(meta.get("asked")) == without_pictures(wanted)
        return known and same and then.get("sha256") == self.checkpoint.sha256

    def given(self, **names: str) -> dict[str, Any]:
        """Parameters of this probe that the section sets; ``names`` maps its words to a function's."""
        found = {}
        for key in PARAMETERS[self.section.probe]:
            value = getattr(self.section, key)
            if value is not None and names.get(key, key):
                found[names.get(key, key)] = value
        return found

    def samples(self, default: int) -> list[Sample]:
        """Samples of the suite asked for."""
        suites = self.sources.recipe.evaluation.suites
        if not suites:
            raise ProbeError(
                f"look with the probe {self.asked.name!r}",
                "the recipe has no suites to take samples from",
                "Add `evaluation.suites`",
            )
        source = suites[self.section.suite or next(iter(suites))]
        path, samples = self.sources.load(source)
        if self.section.samples is None:
            return samples[: self.section.limit or default]
        known = {sample.id: sample for sample in samples}
        missing = [name for name in self.section.samples if name not in known]
        if missing:
            raise ProbeError(
                f"look at sample {missing[0]}",
                f"{path} has no sample of that id among its {len(samples)}",
                f"Its first is {samples[0].id}",
            )
        return [known[name] for name in self.section.samples]

    def target(self, samples: list[Sample], frames: int) -> Target:
        return Target(
            *self.model, self.checkpoint, samples, frames, self.asked.run, self.recipe_hash,
            turn=self.section.turn or 0, seed=self.section.seed, _reader=self.reader,
        )  # fmt: skip

    def counts(self) -> tuple[int, ...]:
        common = self.sources.recipe.evaluation.common_frames
        return self.section.frames or (common or DEFAULT_FRAMES,)


def _sources(asked: Asked) -> RunSources:
    """The run's sources, its data folder made absolute."""
    sources = RunSources.of(asked.run)
    recipe = sources.recipe
    root = str(asked.workdir / recipe.data.root)
    data = recipe.data.model_copy(update={"root": root})
    return dataclasses.replace(sources, recipe=recipe.model_copy(update={"data": data}))


One = Callable[[Target, Sample, Path, dict[str, Any]], object]  # of one sample, as ``Make``


def _each(bench: _Bench, one: One, default: int = 1) -> Iterator[Piece]:
    """A capture a sample and frame count."""
    for sample in bench.samples(default):
        for n in bench.counts() if sample.is_video else (1,):
            suffix = f"f{n}-{sample.id}" if sample.is_video else sample.id
            yield suffix, functools.partial(_look_at, bench, one, sample, n)


def _look_at(bench: _Bench, one: One, sample: Sample, frames: int, path: Path, own: dict[str, Any]) -> None:
    one(bench.target([sample], frames), sample, path, own)


def _attention(bench: _Bench) -> Iterator[Piece]:
    from workbench.probes.attention import attention_rows

    def one(target: Target, sample: Sample, path: Path, own: dict[str, Any]) -> None:
        attention_rows(
            target.model, target.processor, sample, target.clip(sample), path=path, own=own,
            checkpoint=target.checkpoint, recipe_hash=target.recipe_hash,
            **bench.given(suite="", samples="", limit=""),
        )  # fmt: skip

    return _each(bench, one)


def _atlas(bench: _Bench) -> Iterator[Piece]:
    from workbench.probes.atlas import temporal_atlas
    from workbench.probes.attention import Look

    def one(target: Target, sample: Sample, path: Path, own: dict[str, Any]) -> None:
        section = bench.section
        look = Look(section.layers, section.heads, turn=target.turn, checkpoint=target.checkpoint,
                    recipe_hash=target.recipe_hash, pictures=section.pictures is not False, own=own)  # fmt: skip
        queries = section.queries or "all"
        temporal_atlas(target.model, target.processor, sample, target.clip(sample), queries, look, path=path)

    return _each(bench, one)


def _knockout(bench: _Bench) -> Iterator[Piece]:
    from workbench.probes.knockout import knockout_map

    return _each(bench, _effect(bench, knockout_map))


def _attribution(bench: _Bench) -> Iterator[Piece]:
    from workbench.probes.attribution import attribution_map

    return _each(bench, _effect(bench, attribution_map, curves="with_curves"))


def _effect(bench: _Bench, function: Callable[..., Capture], **names: str) -> One:
    """Knockouts or attributions of one sample; ``names``: see ``_Bench.given``."""
    words = bench.given(suite="", samples="", limit="", **names)

    def one(target: Target, sample: Sample, path: Path, own: dict[str, Any]) -> None:
        def make() -> Capture:
            return function(
                target.model, target.processor, sample, target.clip(sample), seed=target.seed,
                checkpoint=target.checkpoint, recipe_hash=target.recipe_hash, **words,
            )  # fmt: skip

        _saved(make)(path, own)

    return one


def _scatter(bench: _Bench) -> Iterator[Piece]:
    from workbench.probes.attention_pairs import scatter_capture, scatter_over

    samples = bench.samples(SCATTER_SAMPLES)
    words = bench.given(suite="", samples="", limit="", turn="", against_start="")
    words = {"queries": "answer", "layers": None, "heads": None, "boxes": "asked"} | words

    def one(n: int) -> Capture:
        target = bench.target(samples, n)
        now, before, earlier = scatter_over(target, **words), None, None
        if bench.section.against_start and bench.asked.start is not None:
            folder, step = newest_checkpoint(bench.asked.start, None)
            earlier = Checkpoint.at(folder, step)
            model, processor = load_model(folder)
            other = dataclasses.replace(target, model=model, processor=processor, checkpoint=earlier)
            before = scatter_over(other, **words)
        return scatter_capture(target, now, before, earlier, **words)[0]

    images = not any(sample.is_video for sample in samples)
    for n in (1,) if images else bench.counts():
        suite = bench.section.suite or next(iter(bench.sources.recipe.evaluation.suites))
        yield suite if images else f"{suite}-f{n}", _saved(one, n)


def _fusion(bench: _Bench) -> Iterator[Piece]:
    from workbench.probes.fusion.probe import fusion_probe

    def one() -> Capture:
        section = bench.section
        distinct: dict[Any, Sample] = {}  # several samples may ask about one clip
        for name in bench.sources.recipe.evaluation.suites.values():
            for sample in bench.sources.load(name)[1]:
                if sample.media is not None:
                    distinct.setdefault(sample.media, sample)
        clips = [sample for sample in distinct.values() if sample.is_video][: section.videos or FUSION_VIDEOS]
        images = [s for s in distinct.values() if not s.is_video][: section.images or FUSION_IMAGES]
        words = bench.given(videos="", images="")
        words |= {"frames": section.frames} if section.frames else {}
        model, processor = bench.model
        return fusion_probe(
            model, processor, clips + images, bench.reader, seed=section.seed, checkpoint=bench.checkpoint,
            recipe_hash=bench.recipe_hash, **words,
        )  # fmt: skip

    yield "", _saved(one)


def _gradients(bench: _Bench) -> Iterator[Piece]:
    from workbench.probes.gradients import gradient_probe

    def one() -> Capture:
        section = bench.section
        images = find(bench.sources, section.image_source, None, video=False)[1]
        videos = find(bench.sources, section.video_source, None, video=True)[1]
        metric = None
        if section.adam and bench.asked.live is None:
            metric = bench.sources.adam(bench.checkpoint.name)
        words = bench.given(image_source="", video_source="", adam="")
        words |= {"frames": section.frames} if section.frames else {}
        return gradient_probe(
            *bench.model, images, videos, reader=bench.reader, adam=metric, seed=section.seed,
            checkpoint=bench.checkpoint, recipe_hash=bench.recipe_hash,
            progress=lambda phase, done, total: bench.tell(f"{bench.asked.name}: {phase}", done, total),
            **words,
        )  # fmt: skip

    yield "", _saved(one)


_PIECES: dict[str, Callable[[_Bench], Iterator[Piece]]] = {
    "attention": _attention,
    "atlas": _atlas,
    "scatter": _scatter,
    "fusion": _fusion,
    "gradients": _gradients,
    "knockout": _knockout,
    "attribution": _attribution,
}
