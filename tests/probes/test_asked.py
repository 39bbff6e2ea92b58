"""Sections of a recipe become captures: what each names is what its probe gives, streamed where rows grow long."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from tests.probes.run_worlds import small_run
from workbench.captures import Capture
from workbench.captures.rows import rows_of
from workbench.probes.asked import Asked, load_captures, make_captures
from workbench.probes.atlas import temporal_atlas
from workbench.probes.attention import Look, attention_rows
from workbench.probes.attribution import attribution_map
from workbench.probes.knockout import knockout_map
from workbench.probes.target import open_target
from workbench.recipe.probes import ProbeSection

FRAMES = 128


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return small_run(tmp_path_factory.mktemp("data"), 3, frames=FRAMES, skill="order").directory


@pytest.fixture(scope="module")
def target(run):
    with open_target(run=run, sample=["v1"], frames=4) as opened:
        yield opened


def named(target, function, *words, **options) -> Capture:
    """The probe itself, called as a notebook would."""
    sample = target.samples[0]
    options |= {"checkpoint": target.checkpoint, "recipe_hash": target.recipe_hash}
    return function(target.model, target.processor, sample, target.clip(sample), *words, **options)


def same(found: Capture, expected: Capture) -> None:
    assert found.kind == expected.kind and set(found.arrays) == set(expected.arrays)
    for name in found.arrays:
        np.testing.assert_array_equal(found.arrays[name], expected.arrays[name])
    own = {"created", "asked", "seconds"}
    kept = {key: value for key, value in found.meta.items() if key not in own}
    assert kept == {key: value for key, value in expected.completed().meta.items() if key not in own}


SECTIONS = {
    "attention": (
        {"queries": "predict", "layers": (0, 2), "store": "topk", "norms": True},
        lambda t: named(t, attention_rows, "predict", (0, 2), store="topk", norms=True),
    ),
    "encoder": (
        {"where": "encoder", "norms": True, "heads": (1,), "pictures": False},
        lambda t: named(t, attention_rows, None, None, (1,), "encoder", norms=True, pictures=False),
    ),
    "atlas": (
        {"queries": "answer", "layers": (1,)},
        lambda t: temporal_atlas(
            t.model, t.processor, t.samples[0], t.clip(t.samples[0]), "answer",
            Look((1,), checkpoint=t.checkpoint, recipe_hash=t.recipe_hash),
        ),
    ),
    "knockout": (
        {"windows": "single,all", "grid": (1, 2), "checks": 1},
        lambda t: named(t, knockout_map, "single,all", (1, 2), checks=1),
    ),
    "attribution": (
        {"rankings": ("attention", "ig"), "steps": 4, "curves": True},
        lambda t: named(t, attribution_map, ("attention", "ig"), steps=4, with_curves=True),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_gives_what_its_probe_gives(run, target, name):
    words, directly = SECTIONS[name]
    probe = "attention" if name == "encoder" else name
    section = ProbeSection(probe=probe, samples=("v1",), frames=(4,), **words)
    (path,) = make_captures(Asked(run, section, name))
    assert path.name == f"{name}-end-f4-v1.safetensors" and path.parent == run / "captures"
    found = Capture.load(path)
    asked = found.meta["asked"]
    assert asked["probe"] == probe and asked["samples"] == ["v1"] and asked["frames"] == [4]
    assert set(words) <= set(asked) and found.meta["recipe_hash"] == "abc"
    same(found, directly(target))
    written = path.stat().st_mtime_ns
    assert make_captures(Asked(run, section, name)) == [path] and path.stat().st_mtime_ns == written


def test_a_capture_for_every_sample_and_frame_count_and_one_for_text(run):
    section = ProbeSection(probe="attention", frames=(2, 5), limit=9, heads=None, queries="answer")
    told = []
    found = load_captures(Asked(run, section, "all"), lambda *what: told.append(what))
    frames = {(c.meta["sample"]["id"], len((c.meta["frames"] or {"indices": []})["indices"])) for c in found}
    assert frames == {(f"v{i}", n) for i in range(3) for n in (2, 5)} | {("silent", 0)}
    assert told[-1][1:] == (7, 7) and all(c.meta["asked"]["frames"] == [2, 5] for c in found)
    for capture in found:
        np.testing.assert_allclose(np.nansum(rows_of(capture.arrays), -1), 1, atol=1e-5)


def peak(call: Callable[[], object]) -> int:
    """Bytes of numpy arrays and objects held at most during a call."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_long_captures_stream_to_their_file(run):
    """A layer's numbers are in memory at a time, not the file's; made in memory, the same is all of it."""
    section = ProbeSection(
        probe="attention", samples=("v0",), frames=(FRAMES,), queries="all", pictures=False
    )
    make_captures(Asked(run, section, "first"))  # imports, the model and the clip's frames
    streamed = peak(lambda: make_captures(Asked(run, section, "streamed")))
    (capture,) = load_captures(Asked(run, section, "streamed"))
    with open_target(run=run, sample=["v0"], frames=FRAMES) as opened:
        whole = peak(lambda: named(opened, attention_rows, "all", pictures=False))
    assert capture.nbytes > 10e6 and whole > capture.nbytes > 2.5 * streamed
