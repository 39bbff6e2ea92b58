"""The world as files: equal bytes, balance, disjoint splits, made whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import av
import decord
import numpy as np
import pytest

from workbench.errors import DataError, DiskFullError
from workbench.samples.glyphworld import SKILLS, make, make_glyphworld
from workbench.samples.glyphworld.phrasings import PHRASINGS, vocabulary
from workbench.samples.glyphworld.render import render, write_clip
from workbench.samples.glyphworld.scene import Deck, glyph_split, image_scene
from workbench.samples.glyphworld.timing import SAMPLE_COUNTS, midpoints
from workbench.samples.source import load_source

COUNTS = (
    "train_images",
    "train_video_questions",
    "calibration_questions",
    "test_images",
    "test_video_questions",
)
TINY = dict.fromkeys(COUNTS, 11) | {"progress": False}
SPLIT_FILES = {
    "train": ["captions.jsonl", "images.jsonl", "objects.jsonl", "video_captions.jsonl", "videos.jsonl"],
    "calibration": ["objects.jsonl", "videos.jsonl"],
    "test": ["images.jsonl", "objects.jsonl", "videos.jsonl"],
}


def tree_hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(str(path.relative_to(folder)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def test_same_seed_same_bytes_in_another_process(tmp_path):
    make_glyphworld(tmp_path / "a", 5, **TINY)
    code = (
        "import sys; from pathlib import Path; from workbench.samples.glyphworld import make_glyphworld;"
        f"make_glyphworld(Path(sys.argv[1]), 5, **{TINY!r})"
    )
    environment = os.environ | {"PYTHONHASHSEED": "77", "OMP_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "b")], check=True, env=environment)
    make_glyphworld(tmp_path / "c", 6, **TINY)
    assert tree_hash(tmp_path / "a") == tree_hash(tmp_path / "b") != tree_hash(tmp_path / "c")


def test_layout_and_counts(world):
    manifest = json.loads((world / "world.json").read_text())
    assert manifest["skills"] == list(SKILLS) and manifest["glyphs"] == {"train": 1347, "test": 450}
    for split, names in SPLIT_FILES.items():
        assert sorted(p.name for p in (world / split).glob("*.jsonl")) == names
    for name, count in manifest["files"].items():
        assert len((world / name).read_text().splitlines()) == count
    assert manifest["files"]["train/images.jsonl"] == manifest["arguments"]["train_images"] == 60
    assert manifest["files"]["train/videos.jsonl"] == manifest["arguments"]["train_video_questions"] == 440
    clips = manifest["files"]["train/video_captions.jsonl"]
    assert 3.5 < 440 / clips <= 4


def test_skills_are_balanced(world):
    train = Counter(s.skill for s in load_source(world / "train/videos.jsonl"))
    assert {train[s] for s in ("ocr", "colour", "where", "count", "comparison")} <= {35, 36}
    assert {train[s] for s in ("direction", "order", "speed", "change", "brief", "flash")} == {44}
    assert set(Counter(s.skill for s in load_source(world / "test/videos.jsonl")).values()) == {10}
    assert set(Counter(s.skill for s in load_source(world / "test/images.jsonl")).values()) == {8}
    for sample in load_source(world / "train/images.jsonl"):
        assert len(sample.turns) >= 4 and len({t.skill for t in sample.turns}) == len(sample.turns)


def test_answers_are_single_words_among_choices_and_not_lopsided(world):
    answers: dict[str, Counter] = {}
    for name in ("train/images", "train/videos", "calibration/videos", "test/images", "test/videos"):
        for sample in load_source(world / f"{name}.jsonl"):
            for turn in sample.turns:
                assert turn.answer in turn.choices and " " not in turn.answer
                place = str(turn.choices.index(turn.answer)) if len(turn.choices) == 2 else turn.answer
                answers.setdefault(turn.skill, Counter())[place] += 1
    for skill, counter in answers.items():
        assert max(counter.values()) < 2.2 * counter.total() / len(counter), (skill, counter)


@pytest.mark.parametrize("name", ["train/images", "train/videos", "test/images", "test/videos"])
def test_counts_are_equally_frequent_in_images_and_clips(world, name):
    counter = Counter(
        t.answer for s in load_source(world / f"{name}.jsonl", skills=["count"]) for t in s.turns
    )
    assert set(counter) == {"one", "two", "three", "four"}
    assert max(counter.values()) - min(counter.values()) <= 1


def test_test_split_is_held_out(world):
    def glyphs(split):
        lines = (world / split / "objects.jsonl").read_text().splitlines()
        return {o["glyph"] for line in lines for o in json.loads(line)["objects"] if o["kind"] == "digit"}

    train, test = glyph_split()
    assert glyphs("train") | glyphs("calibration") <= {int(g) for d in train for g in train[d]}
    assert glyphs("test") <= {int(g) for d in test for g in test[d]}
    assert not glyphs("train") & glyphs("test")


def test_held_out_phrasings_are_new_sentences_of_known_words(world):
    for skill, parts in PHRASINGS.items():
        assert len(parts["train"]) >= 4 and len(parts["test"]) >= 2
        assert not set(parts["train"]) & set(parts["test"]), skill
        assert len(set(parts["train"])) == len(parts["train"])
    assert vocabulary(held_out=True) <= vocabulary(held_out=False)

    def sentences(name):
        return {turn.question for s in load_source(world / name) for turn in s.turns}

    seen = sentences("train/images.jsonl") | sentences("train/videos.jsonl")
    asked = sentences("test/images.jsonl") | sentences("test/videos.jsonl")
    assert not seen & asked
    known = set(re.findall(r"[a-z]+", " ".join(seen)))
    assert set(re.findall(r"[a-z]+", " ".join(asked))) <= known
    assert np.mean([len(s.split()) for s in seen]) < 8


def test_midpoints_are_the_middles_of_equal_parts():
    for n in SAMPLE_COUNTS:
        assert midpoints(n) == tuple(int((i + 0.5) * 32 / n) for i in range(n))


@pytest.mark.parametrize("size", [32, 64])
def test_clips_are_lossless_in_every_reader(tmp_path, size):
    frames = np.random.default_rng(0).integers(0, 256, (32, size, size, 3), dtype=np.uint8)
    write_clip(tmp_path / "a.mov", frames)
    with av.open(str(tmp_path / "a.mov")) as container:
        decoded = list(container.decode(video=0))
        assert container.streams.video[0].average_rate == 8
        container.seek(0)
        assert all(packet.is_keyframe for packet in container.demux(video=0) if packet.size)
    assert np.array_equal(np.stack([f.to_ndarray(format="rgb24") for f in decoded]), frames)
    assert [f.time for f in decoded] == [i / 8 for i in range(32)]
    reader = decord.VideoReader(str(tmp_path / "a.mov"), num_threads=1)
    assert len(reader) == 32
    for i in (31, 0, 17):  # its rows may be padded: take the row length from the buffer
        padded = reader[i].asnumpy().reshape(size, -1)
        assert np.array_equal(padded[:, : 3 * size].reshape(size, size, 3), frames[i])


def test_large_world_has_sixteen_merged_tokens_and_sharp_glyphs(tmp_path):
    make_glyphworld(tmp_path / "large", 0, "large", **TINY)
    row = json.loads((tmp_path / "large/train/objects.jsonl").read_text().splitlines()[0])
    assert row["width"] == row["height"] == 64 and (64 // 8 // 2) ** 2 == 16
    box = row["objects"][0]["box"]
    assert box[2] - box[0] == box[3] - box[1] == 16
    deck = Deck(glyph_split()[0], np.random.default_rng(0))
    scene = image_scene(deck, 4)
    small, large = (render(scene, s, np.random.default_rng(1))[0].astype(float) for s in (32, 64))
    pooled = large.reshape(32, 2, 32, 2, 3).mean(axis=(1, 3))
    assert np.corrcoef(small.ravel(), pooled.ravel())[0, 1] > 0.8


def test_made_once_and_never_over_something_else(tmp_path):
    out = tmp_path / "w"
    first = make_glyphworld(out, 1, **TINY)
    before = tree_hash(out)
    again = make_glyphworld(out, 1, **TINY)
    assert first.created and not again.created and again.manifest == first.manifest
    with pytest.raises(DataError, match=r"another world.*seed 1 where seed 2"):
        make_glyphworld(out, 2, **TINY)
    assert tree_hash(out) == before
    (out / "test/videos.jsonl").unlink()
    with pytest.raises(DataError, match=r"lost test/videos.jsonl"):
        make_glyphworld(out, 1, **TINY)
    other = tmp_path / "mine"
    other.mkdir()
    (other / "thesis.tex").write_text("dear")
    with pytest.raises(DataError, match="not a glyphworld"):
        make_glyphworld(other, 1, **TINY)
    assert (other / "thesis.tex").read_text() == "dear"
    with pytest.raises(DataError, match="no such size"):
        make_glyphworld(tmp_path / "x", 1, "huge", **TINY)
    with pytest.raises(DataError, match="train_images is 0"):
        make_glyphworld(tmp_path / "x", 1, **(TINY | {"train_images": 0}))
    with pytest.raises(DataError, match="never negative"):
        make_glyphworld(tmp_path / "x", -1, **TINY)


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), DiskFullError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_nothing_remains_of_a_failed_attempt(tmp_path, monkeypatch, failure, expected):
    written = []

    def fail_later(path, frames):
        written.append(path)
        if len(written) == 3:
            raise failure
        write_clip(path, frames)

    monkeypatch.setattr(make, "write_clip", fail_later)
    with pytest.raises(expected):
        make_glyphworld(tmp_path / "w", 1, **TINY)
    assert len(written) == 3 and list(tmp_path.iterdir()) == []


def test_two_processes_making_the_same_world_agree(tmp_path):
    code = (
        "import sys; from pathlib import Path; from workbench.samples.glyphworld import make_glyphworld;"
        f"make_glyphworld(Path(sys.argv[1]), 1, **{TINY!r})"
    )
    both = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "w")]) for _ in range(2)]
    assert [p.wait(60) for p in both] == [0, 0]
    assert [p.name for p in tmp_path.iterdir()] == ["w"]
    make_glyphworld(tmp_path / "alone", 1, **TINY)
    assert tree_hash(tmp_path / "w") == tree_hash(tmp_path / "alone")


def test_no_torch_is_imported():
    code = (
        "import sys, workbench.samples.source, workbench.samples.glyphworld, workbench.cli.data;"
        "assert not {'torch', 'sklearn', 'av'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
