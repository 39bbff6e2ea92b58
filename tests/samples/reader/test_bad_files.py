"""Every way a file can be bad ends, within the deadline, in a typed error that names it and is counted."""

from __future__ import annotations

import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media_files import (
    DEADLINE_S,
    cut,
    lie_about_duration,
    lie_about_frames,
    noise,
    oracle,
    spoil,
    write_sound,
    write_video,
)
from PIL import Image

from workbench.errors import MediaError
from workbench.samples.reader import FrameReader
from workbench.samples.sample import ImageRef, VideoRef

MPEG4 = {"codec": "mpeg4", "pix_fmt": "yuv420p"}
X264 = {"codec": "libx264", "pix_fmt": "yuv420p", "options": {"g": "10", "preset": "veryfast"}}


@pytest.fixture(scope="session")
def good(media: Path) -> dict[str, Path]:
    frames = noise(40)
    return {
        "mkv": write_video(media / "good.mkv", frames),
        "mp4": write_video(media / "good.mp4", frames, **X264),
        "avi": write_video(media / "good.avi", frames, list(range(40)), time_base=Fraction(1, 25), **MPEG4),
    }


def fails(reader: FrameReader, path: Path, *kinds: str, indices: tuple[int, ...] = (0, 20, 39)) -> MediaError:
    before, started = dict(reader.failures), time.monotonic()
    with pytest.raises(MediaError) as caught:
        reader.read(VideoRef(path), indices)
    assert time.monotonic() - started < DEADLINE_S + 5
    assert caught.value.kind in kinds, str(caught.value)
    assert str(path) in str(caught.value)
    assert reader.failures[caught.value.kind] == before.get(caught.value.kind, 0) + 1
    return caught.value


def test_missing(reader: FrameReader, media: Path) -> None:
    fails(reader, media / "nowhere.mp4", "missing")
    fails(reader, media / "good.mkv" / "below-a-file.mp4", "missing")


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_zero_bytes(reader: FrameReader, tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"none.{suffix}").touch()
    fails(reader, tmp_path / f"none.{suffix}", "empty")


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_truncated(
    reader: FrameReader, good: dict[str, Path], tmp_path: Path, suffix: str, share: float
) -> None:
    fails(reader, cut(good[suffix], tmp_path / f"cut.{suffix}", share), "truncated")


def test_a_few_bytes_only(reader: FrameReader, good: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "tiny.mp4").write_bytes(good["mp4"].read_bytes()[:5])
    fails(reader, tmp_path / "tiny.mp4", "broken", "truncated")


def test_text_that_calls_itself_video(reader: FrameReader, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("this is not a video\n" * 500)
    fails(reader, tmp_path / "text.mp4", "broken", "no_video")


def test_noise_that_calls_itself_video(reader: FrameReader, tmp_path: Path) -> None:
    (tmp_path / "noise.mkv").write_bytes(np.random.default_rng(0).bytes(50_000))
    fails(reader, tmp_path / "noise.mkv", "broken", "no_video")


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_audio_only(reader: FrameReader, media: Path, suffix: str) -> None:
    error = fails(reader, write_sound(media / f"sound.{suffix}"), "no_video")
    assert "audio" in str(error)


@pytest.mark.parametrize("factor", [1e4, 1e-3])
def test_header_lies_about_duration(reader: FrameReader, media: Path, tmp_path: Path, factor: float) -> None:
    source = media / "long.mkv"
    if not source.exists():
        write_video(source, noise(40), [100 * i for i in range(40)])
    fails(reader, lie_about_duration(source, tmp_path / "lie.mkv", factor), "bad_header")


@pytest.mark.parametrize("frames", [3, 1_000_000])
def test_header_lies_about_frames(
    reader: FrameReader, good: dict[str, Path], tmp_path: Path, frames: int
) -> None:
    fails(reader, lie_about_frames(good["avi"], tmp_path / "lie.avi", frames), "bad_header")


@pytest.mark.parametrize("length", [60, 4000])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_damage_in_the_middle(
    reader: FrameReader, good: dict[str, Path], tmp_path: Path, suffix: str, length: int
) -> None:
    """Random bytes over part of the packets: an answer within the deadline, typed if it is an error."""
    path = spoil(good[suffix], tmp_path / f"hole.{suffix}", 0.4, length)
    for index in range(0, 40, 3):
        started = time.monotonic()
        try:
            read = reader.read(VideoRef(path), (index,))
        except MediaError as error:
            assert error.kind in ("broken", "bad_header", "truncated", "bad_index"), str(error)
        else:
            assert read.indices == (index,) and read.frames.shape == (1, 48, 64, 3)
        assert time.monotonic() - started < DEADLINE_S + 5


@pytest.mark.parametrize("start", [0.2, 0.4, 0.5])
def test_pyav_refuses_frames_that_were_patched(good: dict[str, Path], tmp_path: Path, start: float) -> None:
    """FFmpeg hides damage by copying from a neighbour and flags it: the default backend refuses those frames
    and those that lean on them, up to the next key frame; frames before are read as if nothing were."""
    path = spoil(good["mp4"], tmp_path / "hole.mp4", start, 60)
    sound, _ = oracle(good["mp4"])
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        flagged = [i for i, frame in enumerate(container.decode(video=0)) if frame.is_corrupt]
    assert flagged, "the test needs damage that FFmpeg sees"
    with FrameReader() as reader:
        for index in flagged:
            with pytest.raises(MediaError, match="damaged or lost") as caught:
                reader.read(VideoRef(path), (index,))
            assert caught.value.kind == "broken"
        before = tuple(range(flagged[0] // 10 * 10))
        if before:
            assert np.array_equal(reader.read(VideoRef(path), before).frames, sound[list(before)])
        with pytest.raises(MediaError, match="damaged or lost"):
            reader.read(VideoRef(path), (0, flagged[0] + 1 if (flagged[0] + 1) % 10 else flagged[0]))


def test_a_bad_file_does_not_spoil_the_next_read(
    reader: FrameReader, good: dict[str, Path], tmp_path: Path
) -> None:
    fails(reader, cut(good["mp4"], tmp_path / "cut.mp4", 0.5), "truncated")
    assert np.array_equal(reader.read(VideoRef(good["mkv"]), (7,)).frames, noise(40)[[7]])


def test_images_that_are_bad(tmp_path: Path) -> None:
    reader = FrameReader()
    whole = tmp_path / "whole.jpg"
    Image.fromarray(noise(1, 200, 200)[0]).save(whole)
    Image.fromarray(noise(1, 200, 200)[0]).save(tmp_path / "whole.png")
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not an image")
    spoil(tmp_path / "whole.png", tmp_path / "spoilt.png", 0.3, 300)
    cases = [
        (tmp_path / "nowhere.png", {"missing"}),
        (tmp_path / "empty.png", {"empty"}),
        (tmp_path / "text.png", {"broken"}),
        (tmp_path, {"broken"}),
        (cut(whole, tmp_path / "cut.jpg", 0.5), {"truncated"}),
        (cut(tmp_path / "whole.png", tmp_path / "cut.png", 0.5), {"truncated"}),
        (tmp_path / "spoilt.png", {"broken", "truncated"}),
    ]
    for path, kinds in cases:
        with pytest.raises(MediaError) as caught:
            reader.read(ImageRef(path), (0,))
        assert caught.value.kind in kinds, (path, str(caught.value))
        assert str(path) in str(caught.value)
    assert sum(reader.failures.values()) == len(cases)
