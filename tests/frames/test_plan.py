"""Frame plans on real clips: midpoint sampling, contract of the rows, files, cache, copies."""

import math
import pickle
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.frames.worlds import Clips, sample, video, write_clip, write_image
from workbench.errors import DataError, DiskFullError
from workbench.frames import FramePlan, content_hash, make_plan, midpoint_indices
from workbench.frames.policies import Fixed, UniformChoice
from workbench.samples.reader import FrameReader
from workbench.samples.sample import ImageRef, VideoRef


@given(available=st.integers(1, 10**7), used=st.integers(1, 128))
def test_midpoints_equal_exact_fractions(available, used):
    exact = tuple(math.floor((Fraction(i) + Fraction(1, 2)) * available / used) for i in range(used))
    assert midpoint_indices(available, used) == exact
    assert all(0 <= index < available for index in exact)
    if used <= available:
        assert len(set(exact)) == used and list(exact) == sorted(exact)


def test_midpoints_by_hand():
    assert midpoint_indices(32, 2) == (8, 24)
    assert midpoint_indices(5, 5) == (0, 1, 2, 3, 4)
    assert midpoint_indices(1, 1) == (0,) and midpoint_indices(7, 0) == ()
    with pytest.raises(ValueError):
        midpoint_indices(0, 1)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Two good clips, an image, text, and files that cannot be read, on disk."""
    root = tmp_path_factory.mktemp("media")
    (root / "empty.mkv").write_bytes(b"")
    return [
        sample("long", media=VideoRef(write_clip(root / "clips" / "long.mkv", 20))),
        sample("short", media=VideoRef(write_clip(root / "clips" / "short.mkv", 3))),
        sample("picture", media=ImageRef(write_image(root / "a.png"))),
        sample("words"),
        sample("empty", media=VideoRef(root / "empty.mkv")),
        sample("gone", media=VideoRef(root / "gone.mkv")),
        sample("gone-picture", media=ImageRef(root / "gone.png")),
    ]


def test_plan_of_real_files_keeps_the_contract(real):
    with FrameReader() as reader:
        plan = make_plan(Fixed(8), real, reader)
        clip = reader.read(real[0].media, plan.indices("long"))
    rows = plan.table.set_index("sample_id")
    assert rows[["requested", "available", "used"]].to_numpy().tolist() == [
        [8, 20, 8],
        [8, 3, 3],  # a short clip is not repeated to fill 8
        [1, 1, 1],
        [0, 0, 0],
        [0, 0, 0],
        [0, 0, 0],
        [0, 0, 0],
    ]
    assert rows["reason"].tolist() == [
        "fixed",
        "fixed",
        "image",
        "text",
        "failed: empty",
        "failed: missing",
        "failed: missing",
    ]
    assert plan.indices("short") == (0, 1, 2) and plan.indices("picture") == (0,)
    assert plan.indices("words") == () and plan.indices("gone") == ()
    assert clip.indices == plan.indices("long") == (1, 3, 6, 8, 11, 13, 16, 18)
    assert (
        clip.frames[:, 0, 0, 0] == np.array(clip.indices) * 4
    ).all()  # the frames planned are the ones read
    assert plan.histogram() == {3: 1, 8: 1} and plan.mean_frames() == 5.5
    assert plan.failures() == {"empty": 1, "missing": 2}
    assert plan.reasons()["failed: missing"] == 2


def test_each_file_is_opened_once_and_unknown_ids_are_an_error():
    reader = Clips()
    shared = VideoRef(Path("clips/a.mkv"))
    plan = make_plan(Fixed(4), [sample(f"q{i}", media=shared) for i in range(50)], reader)
    assert reader.asked == 1 and len(plan) == 50 and "q7" in plan and "x" not in plan
    with pytest.raises(DataError, match="'x'"):
        plan.indices("x")


def test_images_are_not_opened_and_one_without_bytes_is_a_failure(tmp_path):
    (tmp_path / "empty.png").touch()
    images = [
        sample("a", media=ImageRef(write_image(tmp_path / "a.png"))),
        sample("empty", media=ImageRef(tmp_path / "empty.png")),
        sample("gone", media=ImageRef(tmp_path / "gone.png")),
    ]
    reader = Clips()
    plan = make_plan(Fixed(4), images, reader)
    assert reader.asked == 0 and [plan.used(s.id) for s in images] == [1, 0, 0]
    assert plan.failures() == {"empty": 1, "missing": 1}


def test_two_samples_with_one_id_are_an_error():
    with pytest.raises(DataError, match="'a'"):
        make_plan(Fixed(4), [video("a"), video("a")], Clips())


def test_a_plan_that_uses_more_than_there_is_is_refused():
    row = {
        "sample_id": ["a"],
        "requested": [4],
        "available": [2],
        "used": [4],
        "policy": ["fixed"],
        "reason": ["x"],
    }
    with pytest.raises(DataError, match="has 2"):
        FramePlan(pd.DataFrame(row))
    with pytest.raises(DataError, match="available"):
        FramePlan(pd.DataFrame(row).drop(columns="available"))


def test_save_and_load_keep_everything(tmp_path, real):
    with FrameReader() as reader:
        plan = make_plan(UniformChoice((2, 4)), real, reader, seed=3)
    again = FramePlan.load(plan.save(tmp_path / "deep" / "plan.parquet"))
    pd.testing.assert_frame_equal(again.table, plan.table)
    assert again.metadata == plan.metadata
    assert again.metadata["parameters"] == {"choices": [2, 4], "seed": 0} and again.metadata["seed"] == 3
    assert again.metadata["content"] == content_hash(real)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["plan.parquet"]
    assert pickle.loads(pickle.dumps(plan)).indices("long") == plan.indices("long")


def test_load_names_what_is_wrong(tmp_path):
    good = make_plan(Fixed(2), [video("a")], Clips()).save(tmp_path / "good.parquet")
    (tmp_path / "cut.parquet").write_bytes(good.read_bytes()[:-20])
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "other.parquet")
    for name, words in (
        ("none", "no such file"),
        ("cut", "not a whole Parquet"),
        ("other", "plan's metadata"),
    ):
        with pytest.raises(DataError, match=words) as caught:
            FramePlan.load(tmp_path / f"{name}.parquet")
        assert name in str(caught.value)


def test_a_full_disk_says_so_and_leaves_nothing(tmp_path, monkeypatch):
    def full(table, path):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(DiskFullError):
        make_plan(Fixed(2), [video("a")], Clips()).save(tmp_path / "plan.parquet")
    assert list(tmp_path.iterdir()) == []


def test_cache_opens_no_media_twice_and_follows_the_content(tmp_path):
    samples = [video(f"v{i}") for i in range(5)]
    reader = Clips()
    first = make_plan(Fixed(4), samples, reader, cache=tmp_path)
    assert reader.asked == 5
    again = make_plan(Fixed(4), samples, reader, cache=tmp_path)
    assert reader.asked == 5
    pd.testing.assert_frame_equal(first.table, again.table)
    make_plan(Fixed(8), samples, reader, cache=tmp_path)  # other parameters
    make_plan(Fixed(4), samples, reader, seed=1, cache=tmp_path)  # other seed
    make_plan(Fixed(4), [video("v0", "asked otherwise"), *samples[1:]], reader, cache=tmp_path)
    assert reader.asked == 20 and len(list(tmp_path.iterdir())) == 4
    for path in tmp_path.iterdir():
        path.write_bytes(b"cut")
    make_plan(Fixed(4), samples, reader, cache=tmp_path)
    assert reader.asked == 25


def test_plans_with_failures_are_not_cached(tmp_path, real):
    with FrameReader() as reader:
        make_plan(Fixed(4), real, reader, cache=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_content_hash_sees_media_questions_and_columns_but_not_the_truth(tmp_path):
    def at(root, frames=4, **keys):
        return [sample("a", media=VideoRef(write_clip(root / "clips" / "a.mkv", frames)), **keys)]

    base = content_hash(at(tmp_path / "one"))
    assert content_hash(at(tmp_path / "two")) == base  # the same data elsewhere
    assert content_hash(at(tmp_path / "one", needed=9)) == base
    assert content_hash(at(tmp_path / "one", column=9)) != base
    assert content_hash(at(tmp_path / "one", frames=9)) != base
    assert content_hash([sample("a", "other?", media=VideoRef(tmp_path / "one/clips/a.mkv"))]) != base
    folder = tmp_path / "folder"
    write_image(folder / "0.png")
    before = content_hash([sample("a", media=VideoRef(folder))])
    write_image(folder / "1.png")
    assert content_hash([sample("a", media=VideoRef(folder))]) != before


def test_copies_repeat_an_image_and_nothing_else(tmp_path):
    picture = sample("i", media=ImageRef(write_image(tmp_path / "i.png")))
    plan = make_plan(Fixed(4), [picture, video("v"), sample("t")], Clips())
    copies = plan.with_copies({"i": 16})
    assert copies.indices("i") == (0,) * 16 and copies.used("i") == 16
    assert copies.indices("v") == plan.indices("v") and plan.indices("i") == (0,)
    assert copies.mean_frames() == plan.mean_frames() == 4  # copies are not videos
    assert copies.with_copies({"i": 2}).indices("i") == (0, 0)
    for wrong in ({"v": 4}, {"t": 1}, {"i": 0}, {"nobody": 2}):
        with pytest.raises(DataError):
            plan.with_copies(wrong)


def test_by_skill_counts_videos_only():
    samples = [
        video("a", skill="order"),
        video("b", skill="static"),
        sample("i", media=ImageRef(Path("i.png")), skill="ocr"),
    ]
    assert make_plan(Fixed(4), samples, Clips({"a": 3, "b": 9})).by_skill(samples) == {
        "order": 3.0,
        "static": 4.0,
    }
