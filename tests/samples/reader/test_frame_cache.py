"""The frame cache changes the cost of a read and nothing else, whatever happens to its files."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from media_files import noise, uneven_times, write_video
from PIL import Image

from workbench.errors import MediaError
from workbench.samples.reader import FrameCache, FrameReader
from workbench.samples.sample import ImageRef, VideoRef

TIMES = uneven_times(20)


@pytest.fixture
def clip(tmp_path: Path) -> VideoRef:
    return VideoRef(write_video(tmp_path / "clip.mkv", noise(20), TIMES))


def cached(tmp_path: Path, **options: int) -> FrameReader:
    return FrameReader(cache=FrameCache(tmp_path / "cache", **options))


def files(tmp_path: Path, pattern: str) -> list[Path]:
    return sorted((tmp_path / "cache").rglob(pattern))


ORDER = (19, 0, 7, 7, 8, 3)


def check(reader: FrameReader, ref: VideoRef, order: tuple[int, ...] = ORDER) -> None:
    read = reader.read(ref, order)
    assert np.array_equal(read.frames, noise(20)[list(order)])
    assert read.timestamps_s == pytest.approx([TIMES[i] / 1000 for i in order])
    assert read.backend == "pyav" and read.info is not None and read.info.frames == 20


@pytest.mark.parametrize("whole", [1 << 26, 1000], ids=["whole", "frame by frame"])
def test_second_reader_decodes_nothing(tmp_path: Path, clip: VideoRef, whole: int) -> None:
    with cached(tmp_path, whole_clip_bytes=whole) as first:
        check(first, clip)
        check(first, clip)
    second = cached(tmp_path, whole_clip_bytes=whole)
    check(second, clip)
    assert second.info(clip) == first.info(clip)
    assert second._process is None  # neither decoded nor probed
    assert len(files(tmp_path, "clip.npy")) == (whole > 1000)
    assert len(files(tmp_path, "f*.npy")) == (0 if whole > 1000 else 5)
    stored = np.load(files(tmp_path, "*.npy")[0], mmap_mode="r")  # a plain array for anybody
    assert stored.dtype == np.uint8 and stored.shape[1:] == (48, 64, 3)


def test_the_key_is_the_content(tmp_path: Path, clip: VideoRef) -> None:
    with cached(tmp_path) as reader:
        check(reader, clip)
    copy = VideoRef(Path(shutil.copy(clip.path, tmp_path / "copy.mkv")))
    again = cached(tmp_path)
    check(again, copy)
    assert again._process is None
    write_video(clip.path, noise(20)[::-1], TIMES)  # same name, other content
    os.utime(clip.path, ns=(1, 1))
    with cached(tmp_path) as reader:
        assert np.array_equal(reader.read(clip, (0,)).frames[0], noise(20)[19])
        check(reader, copy)
    with FrameReader("decord", cache=FrameCache(tmp_path / "cache")) as other:
        assert (
            other.read(copy, (0,)).backend == "decord"
        )  # another decoder never reads the first one's frames


def test_a_file_changed_under_a_living_reader_is_read_again(tmp_path: Path, clip: VideoRef) -> None:
    with cached(tmp_path) as reader:
        check(reader, clip)
        write_video(clip.path, noise(9, seed=5))
        assert reader.info(clip).frames == 9
        assert np.array_equal(reader.read(clip, (8,)).frames, noise(9, seed=5)[[8]])


def damage_cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def damage_empty(path: Path) -> None:
    path.write_bytes(b"")


def damage_flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def damage_gone(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [damage_cut, damage_empty, damage_flip, damage_gone])
@pytest.mark.parametrize("name", ["clip.npy", "index.json", "f00000007.npy"])
def test_a_damaged_cache_file_is_made_again(tmp_path: Path, clip: VideoRef, name: str, damage) -> None:
    whole = 1000 if name.startswith("f") else 1 << 26
    with cached(tmp_path, whole_clip_bytes=whole) as reader:
        check(reader, clip)
    damage(files(tmp_path, name)[0])
    with cached(tmp_path, whole_clip_bytes=whole) as reader:
        check(reader, clip)
        assert reader._process is not None
    healed = cached(tmp_path, whole_clip_bytes=whole)
    check(healed, clip)
    assert healed._process is None


def test_a_cache_file_cut_under_a_living_reader(tmp_path: Path, clip: VideoRef) -> None:
    with cached(tmp_path) as reader:
        check(reader, clip)
        check(reader, clip)
        damage_cut(files(tmp_path, "clip.npy")[0])
        check(reader, clip)
        shutil.rmtree(tmp_path / "cache")
        check(reader, clip)
        check(reader, clip)


def test_no_half_written_files_are_left(tmp_path: Path, clip: VideoRef) -> None:
    with cached(tmp_path) as reader:
        check(reader, clip)
    folder = files(tmp_path, "clip.npy")[0].parent
    stale, fresh = folder / "clip.npy.1-1.part", folder / "clip.npy.2-2.part"
    stale.write_bytes(b"x"), fresh.write_bytes(b"x")
    os.utime(stale, (0, 0))
    FrameCache(tmp_path / "cache")
    assert not stale.exists() and fresh.exists()


def test_a_full_disk_is_said_once_and_reading_goes_on(tmp_path: Path, clip: VideoRef) -> None:
    """A real limit of the kernel on file sizes: the index fits, the frames do not."""
    script = f"""
import resource, signal, sys, warnings
sys.path.insert(0, {str(Path(__file__).parent)!r})
import numpy as np
from pathlib import Path
from media_files import noise
from workbench.samples.reader import FrameCache, FrameReader
from workbench.samples.sample import VideoRef
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with FrameReader() as started:
    pass
reader = FrameReader(cache=FrameCache({str(tmp_path / "cache")!r}))
reader.backend
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(3):
        read = reader.read(VideoRef(Path({str(clip.path)!r})), (3, 9))
        assert np.array_equal(read.frames, noise(20)[[3, 9]])
assert len(caught) == 1 and "cannot be written" in str(caught[0].message), caught
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
    assert not files(tmp_path, "*.part") and not files(tmp_path, "clip.npy")


def test_a_directory_that_cannot_be_made(tmp_path: Path, clip: VideoRef) -> None:
    (tmp_path / "cache").write_text("a file is in the way")
    with pytest.warns(UserWarning, match="cannot be written"):
        reader = cached(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(reader, clip)
    reader.close()


def test_the_oldest_clips_leave_first(tmp_path: Path) -> None:
    one = 20 * 48 * 64 * 3
    refs = [VideoRef(write_video(tmp_path / f"{i}.mkv", noise(20, seed=i))) for i in range(4)]
    with cached(tmp_path, max_bytes=int(2.5 * one)) as reader:
        for age, ref in enumerate(refs):
            reader.read(ref, (0,))
            newest = max(files(tmp_path, "clip.npy"), key=lambda path: path.stat().st_mtime_ns).parent
            os.utime(newest, (1000 + age, 1000 + age))
        assert len(files(tmp_path, "clip.npy")) == 2
        for i, ref in enumerate(refs):
            assert np.array_equal(reader.read(ref, (5,)).frames[0], noise(20, seed=i)[5])


def read_all(directory: str, paths: list[str], seed: int) -> bool:
    rng = np.random.default_rng(seed)
    with FrameReader(cache=FrameCache(directory)) as reader:
        for which in rng.permutation(np.repeat(np.arange(len(paths)), 5)):
            frames = reader.read(VideoRef(Path(paths[which])), (1, 17)).frames
            if not np.array_equal(frames, noise(20, seed=int(which))[[1, 17]]):
                return False
    return True


def test_processes_share_a_directory(tmp_path: Path) -> None:
    paths = [str(write_video(tmp_path / f"{i}.mkv", noise(20, seed=i))) for i in range(6)]
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        jobs = [pool.apply_async(read_all, (str(tmp_path / "cache"), paths, seed)) for seed in range(3)]
        assert all(job.get(timeout=90) for job in jobs)
    assert len(files(tmp_path, "clip.npy")) == 6 and not files(tmp_path, "*.part")


def test_a_clip_with_a_bad_frame_still_gives_the_others(tmp_path: Path) -> None:
    """The cache wants the whole clip; a frame that nobody asked for must not refuse those asked for."""
    options = {"codec": "libx264", "pix_fmt": "yuv420p", "options": {"g": "10", "preset": "veryfast"}}
    path = write_video(tmp_path / "hole.mp4", noise(40), **options)
    data = bytearray(path.read_bytes())
    first = int(len(data) * 0.5)
    data[first : first + 60] = np.random.default_rng(7).bytes(60)
    path.write_bytes(data)
    with FrameReader() as plain, cached(tmp_path) as reader:
        expected = plain.read(VideoRef(path), (1, 8)).frames
        assert np.array_equal(reader.read(VideoRef(path), (1, 8)).frames, expected)
        assert np.array_equal(reader.read(VideoRef(path), (8, 1)).frames, expected[::-1])
        with pytest.raises(MediaError):
            reader.read(VideoRef(path), tuple(range(40)))


def test_images_are_remembered_until_they_change(tmp_path: Path) -> None:
    reader = cached(tmp_path, image_bytes=4 * 32 * 32 * 3)
    refs = []
    for i in range(10):
        refs.append(ImageRef(tmp_path / f"{i}.png"))
        Image.fromarray(noise(1, 32, 32, seed=i)[0]).save(refs[-1].path)
    for i in [*range(10), *range(9, -1, -1), 0, 0]:
        assert np.array_equal(reader.read(refs[i], (0,)).frames[0], noise(1, 32, 32, seed=i)[0])
    assert reader.cache is not None
    assert sum(image.nbytes for image in reader.cache._images.values()) <= 4 * 32 * 32 * 3
    Image.fromarray(noise(1, 40, 40, seed=99)[0]).save(refs[0].path)
    changed = reader.read(refs[0], (0,)).frames
    assert np.array_equal(changed, noise(1, 40, 40, seed=99))
    changed[:] = 0  # the caller's own copy
    assert np.array_equal(reader.read(refs[0], (0,)).frames, noise(1, 40, 40, seed=99))
    refs[0].path.unlink()
    with pytest.raises(MediaError):
        reader.read(refs[0], (0,))
