"""FrameReader against PyAV decoding in order: 32 of 300 frames of a generated 640x360 H.264 clip.

    python benchmarks/reader.py [--repeats 5]

Every line is the best of the repeats, in this run, through the reader (worker process and transport
included); frames are compared with the sequential decode before anything is timed.
``cached`` reads from a warm ``FrameCache``.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from workbench.errors import WorkbenchError
from workbench.samples.reader import FrameCache, FrameReader
from workbench.samples.reader.backends import PREFERENCE
from workbench.samples.sample import ImageRef, VideoRef

FRAMES, HEIGHT, WIDTH, WANTED = 300, 360, 640, 32


def make_clip(path: Path, frames: int, height: int, width: int, codec: str, pix_fmt: str) -> None:
    """Gradients that move, with a little noise: compresses like video, not like noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    grain = rng.integers(0, 12, (height, width, 1))
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        for i in range(frames):
            ramps = [(x + 3 * i) % 256, (y + 2 * i) % 256, (x + y - i) % 256]
            pixels = np.stack(ramps, axis=-1) // 2 + grain
            frame = av.VideoFrame.from_ndarray(pixels.astype(np.uint8), format="rgb24")
            container.mux(stream.encode(frame.reformat(format=pix_fmt)))
        container.mux(stream.encode(None))


def sequential(path: Path, wanted: list[int]) -> np.ndarray:
    """The yardstick: decode from the first frame to the last wanted one, one thread, keep the wanted ones."""
    chosen, kept = set(wanted), []
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        for i, frame in enumerate(container.decode(video=0)):
            if i in chosen:
                kept.append(frame.to_ndarray(format="rgb24"))
            if i == wanted[-1]:
                break
    return np.stack(kept)


def best(repeats: int, work: Callable[[], object]) -> float:
    """Seconds of the fastest of ``repeats`` runs."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        clip, small = Path(folder, "clip.mp4"), Path(folder, "small.mkv")
        make_clip(clip, FRAMES, HEIGHT, WIDTH, "libx264", "yuv420p")
        make_clip(small, 32, 32, 32, "ffv1", "bgr0")
        wanted = [int((i + 0.5) * FRAMES / WANTED) for i in range(WANTED)]
        expected = sequential(clip, wanted)
        base = best(repeats, lambda: sequential(clip, wanted))
        print(f"{WANTED} of {FRAMES} frames, {WIDTH}x{HEIGHT}, one thread, best of {repeats}")
        print(f"{'':<24}{'ms':>9}{'against sequential':>22}")
        print(f"{'PyAV, sequential':<24}{base * 1e3:>9.1f}{1:>21.2f}x")
        shuffled = [int(i) for i in np.random.default_rng(1).permutation(wanted)]
        for backend in PREFERENCE:
            with FrameReader(backend) as reader:
                try:
                    read = reader.read(VideoRef(clip), wanted).frames
                except WorkbenchError as error:
                    print(f"{backend:<24}  not here: {error.found[:70]}")
                    continue
                assert np.abs(read.astype(int) - expected).max() <= 3, f"{backend} returned other frames"
                for label, order in ((backend, wanted), (f"{backend}, asked shuffled", shuffled)):
                    seconds = best(repeats, lambda r=reader, o=order: r.read(VideoRef(clip), o))
                    print(f"{label:<24}{seconds * 1e3:>9.1f}{base / seconds:>21.2f}x")
        with FrameReader(cache=FrameCache(Path(folder, "cache"), whole_clip_bytes=256 << 20)) as reader:
            reader.read(VideoRef(clip), wanted)
            seconds = best(repeats, lambda: reader.read(VideoRef(clip), wanted))
            print(f"{'cached':<24}{seconds * 1e3:>9.1f}{base / seconds:>21.2f}x")
            half = tuple(range(0, 32, 2))
            reader.read(VideoRef(small), half)

            def cached_small() -> None:
                for _ in range(500):
                    reader.info(VideoRef(small))
                    reader.read(VideoRef(small), half)

            micro = best(repeats, cached_small) / 500 * 1e6
            print(f"\ncached, 16 of 32 frames of 32x32, with info(): {micro:.0f} µs")

            print_images(reader, Path(folder), repeats)


def print_images(reader: FrameReader, folder: Path, repeats: int) -> None:
    """6,000 PNG files of 32x32 in random order, as training visits them."""
    from PIL import Image

    rng = np.random.default_rng(2)
    refs = []
    for i in range(6000):
        refs.append(ImageRef(folder / f"{i}.png"))
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(
            refs[-1].path, compress_level=1
        )

    def visit() -> None:
        for i in rng.permutation(len(refs)):
            reader.read(refs[i], (0,))

    print(f"6,000 images of 32x32, first visit: {best(1, visit) / 6000 * 1e6:.0f} µs an image")
    print(f"6,000 images of 32x32, next visits: {best(repeats, visit) / 6000 * 1e6:.0f} µs an image")


if __name__ == "__main__":
    main()
