"""Every backend returns the frames of a full sequential decode, with their times, in the order asked."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media_files import noise, oracle, uneven_times, write_video
from PIL import Image

from workbench.errors import MediaError
from workbench.samples.reader import FrameReader
from workbench.samples.sample import ImageRef, VideoRef

X264 = {"g": "10", "bf": "3", "preset": "veryfast"}
CASES = {
    "ffv1.mkv": {"codec": "ffv1", "pix_fmt": "bgr0"},
    "late-start.mkv": {"codec": "ffv1", "pix_fmt": "bgr0", "start": 5000},
    "h264-b-frames.mp4": {"codec": "libx264", "pix_fmt": "yuv420p", "options": X264},
    "h264-b-frames.mkv": {"codec": "libx264", "pix_fmt": "yuv420p", "options": X264},
    "open-gop.mp4": {
        "codec": "libx264",
        "pix_fmt": "yuv420p",
        "options": {**X264, "x264-params": "open-gop=1"},
    },
    "lossless-rgb.mp4": {"codec": "libx264rgb", "pix_fmt": "rgb24", "options": {"qp": "0", "g": "7"}},
    "vp9.webm": {"codec": "libvpx-vp9", "pix_fmt": "yuv420p", "options": {"g": "10", "cpu-used": "8"}},
    "transport.ts": {"codec": "libx264", "pix_fmt": "yuv420p", "options": X264},
}
ORDERS = [(0,), (35,), (35, 0, 17, 17, 3), (5, 12, 20, 28), tuple(range(36)), (34, 35), (11, 10, 9)]


@pytest.fixture(scope="module", params=CASES)
def clip(request: pytest.FixtureRequest, media: Path) -> tuple[Path, np.ndarray, list[float]]:
    options = dict(CASES[request.param])
    times = uneven_times(36, options.pop("start", 0))
    path = media / request.param
    if not path.exists():
        write_video(path, noise(36), times, **options)
    return path, *oracle(path)


def test_variable_rate_clips_equal_a_full_decode(reader: FrameReader, clip) -> None:
    path, frames, times = clip
    ref = VideoRef(path)
    if path.suffix == ".ts" and reader.backend != "pyav":
        # decord knows no transport streams; torchcodec returns another frame there, which the check sees
        with pytest.raises(MediaError, match=r"decord cannot decode it|torchcodec returns a frame of"):
            reader.read(ref, (0,))
        return
    for order in ORDERS:
        read = reader.read(ref, order)
        assert read.indices == order
        assert read.timestamps_s == pytest.approx([times[i] for i in order], abs=1e-9)
        assert read.frames.dtype == np.uint8 and read.frames.shape == (len(order), 48, 64, 3)
        difference = np.abs(read.frames.astype(int) - frames[list(order)]).max()
        # Lossless RGB leaves no room; chroma of 4:2:0 may be interpolated differently by another FFmpeg.
        assert difference == 0 or (
            read.backend == "torchcodec" and "rgb" not in path.name and difference <= 3
        )


def test_info_is_of_the_real_frames(reader: FrameReader, clip) -> None:
    path, frames, times = clip
    info = reader.info(VideoRef(path))
    assert (info.frames, info.height, info.width) == frames.shape[:3]
    span = times[-1] - times[0]
    assert span < info.duration_s < span + 0.3
    assert info.fps == pytest.approx(36 / info.duration_s)


@pytest.mark.parametrize("width", [8, 18, 32, 33, 48, 64, 96])
def test_narrow_frames(reader: FrameReader, media: Path, width: int) -> None:
    """decord 3.4 refuses some small widths (a typed error); no backend returns skewed pixels."""
    frames = noise(5, 16, width)
    path = media / f"narrow-{width}.mkv"
    if not path.exists():
        write_video(path, frames)
    try:
        read = reader.read(VideoRef(path), (4, 1))
    except MediaError as error:
        assert reader.backend == "decord" and error.kind == "broken" and str(path) in str(error)
        return
    assert np.array_equal(read.frames, frames[[4, 1]])
    assert read.backend == reader.backend


def test_packets_without_times_are_counted_instead(media: Path) -> None:
    """A raw H.264 stream has no timestamps: frames are numbered in order and spaced by the rate."""
    path = write_video(
        media / "raw.h264", noise(12), codec="libx264", pix_fmt="yuv420p", time_base=Fraction(1, 25)
    )
    with av.open(str(path)) as container:
        expected = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with FrameReader("pyav") as reader:
        read = reader.read(VideoRef(path), (11, 0, 6))
    assert np.array_equal(read.frames, np.stack(expected)[[11, 0, 6]])
    assert read.timestamps_s[1] < read.timestamps_s[2] < read.timestamps_s[0]


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_clips_filmed_sideways_come_upright(reader: FrameReader, media: Path, degrees: int) -> None:
    frames = noise(4, 50, 70)
    path = media / f"turned-{degrees}.mp4"
    if not path.exists():
        write_video(path, frames, codec="libx264rgb", pix_fmt="rgb24", options={"qp": "0"}, rotation=degrees)
    expected = np.stack([np.rot90(frame, degrees // 90) for frame in frames])
    info = reader.info(VideoRef(path))
    assert (info.height, info.width) == expected.shape[1:3]
    assert np.array_equal(reader.read(VideoRef(path), (3, 1)).frames, expected[[3, 1]])


def test_one_frame_video(reader: FrameReader, media: Path) -> None:
    frames = noise(1)
    path = write_video(media / "one.mkv", frames)
    assert reader.info(VideoRef(path)).frames == 1
    assert np.array_equal(reader.read(VideoRef(path), (0, 0)).frames, frames[[0, 0]])
    with pytest.raises(MediaError) as caught:
        reader.read(VideoRef(path), (0, 1))
    assert caught.value.kind == "bad_index" and str(path) in str(caught.value)


@pytest.mark.parametrize("indices", [(), (-1,), (36,), (0, 99)])
def test_indices_outside_the_clip(reader: FrameReader, media: Path, indices: tuple[int, ...]) -> None:
    path = media / "plain.mkv"
    if not path.exists():
        write_video(path, noise(36))
    before = reader.failures["bad_index"]
    with pytest.raises(MediaError) as caught:
        reader.read(VideoRef(path), indices)
    assert caught.value.kind == "bad_index"
    assert reader.failures["bad_index"] == before + 1


def test_folder_of_images_is_read_in_natural_order(tmp_path: Path) -> None:
    frames = noise(12)
    for i, pixels in enumerate(frames):
        Image.fromarray(pixels).save(tmp_path / f"frame{i}.png")
    (tmp_path / "notes.txt").write_text("not a frame")
    reader = FrameReader()
    read = reader.read(VideoRef(tmp_path), (11, 2, 10, 2))
    assert np.array_equal(read.frames, frames[[11, 2, 10, 2]])
    assert read.timestamps_s == (11.0, 2.0, 10.0, 2.0) and read.backend == "images"
    assert reader.info(VideoRef(tmp_path)).frames == 12 and reader.info(VideoRef(tmp_path)).fps == 1.0
    assert reader._process is None  # no worker was needed


def test_folder_with_a_frame_of_another_size(tmp_path: Path) -> None:
    for i, size in enumerate([(8, 8), (8, 8), (9, 8)]):
        Image.new("RGB", size).save(tmp_path / f"{i}.png")
    with pytest.raises(MediaError, match=r"2\.png is 9x8"):
        FrameReader().read(VideoRef(tmp_path), (0, 2))
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(MediaError) as caught:
        FrameReader().info(VideoRef(empty))
    assert caught.value.kind == "no_video"


def test_an_image_is_a_clip_of_copies(tmp_path: Path) -> None:
    pixels = noise(1)[0]
    Image.fromarray(pixels).save(tmp_path / "a.png")
    reader = FrameReader()
    read = reader.read(ImageRef(tmp_path / "a.png"), (0,) * 16)
    assert np.array_equal(read.frames, np.stack([pixels] * 16))
    assert read.timestamps_s == (0.0,) * 16
    assert reader.info(ImageRef(tmp_path / "a.png")).frames == 1
    with pytest.raises(MediaError) as caught:
        reader.read(ImageRef(tmp_path / "a.png"), (1,))
    assert caught.value.kind == "bad_index"


def test_images_of_unusual_kinds(tmp_path: Path) -> None:
    grey16 = np.array([[0, 65535], [32768, 256]], dtype=np.uint16)
    Image.fromarray(grey16).save(tmp_path / "grey16.png")
    read = FrameReader().read(ImageRef(tmp_path / "grey16.png"), (0,)).frames[0]
    assert np.array_equal(read[..., 0], [[0, 255], [128, 1]])
    turned = Image.fromarray(noise(1, 4, 6)[0])
    exif = turned.getexif()
    exif[0x0112] = 6  # rotate by 90 degrees to show
    turned.save(tmp_path / "turned.png", exif=exif)
    assert FrameReader().info(ImageRef(tmp_path / "turned.png")).width == 4
