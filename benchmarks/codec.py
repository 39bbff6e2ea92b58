"""Which lossless codec for 32-frame clips? Encode and decode time, size, exactness in PyAV and decord.

Run: python benchmarks/codec.py. One thread; medians of `REPEATS` files. data/glyphworld.md quotes its table.
"""

from __future__ import annotations

import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import decord
import numpy as np

REPEATS = 20
CODECS = {  # name: codec, pixel format, options, container
    "QuickTime Animation": ("qtrle", "rgb24", {"g": "1"}, "mov"),
    "FFV1 level 3": ("ffv1", "bgr0", {"level": "3", "g": "1"}, "matroska"),
    "x264 RGB, qp 0": ("libx264rgb", "rgb24", {"qp": "0", "preset": "ultrafast"}, "matroska"),
    "HuffYUV RGB": ("huffyuv", "rgb24", {}, "avi"),
}


def encode(
    path: Path, frames: np.ndarray, codec: str, pixels: str, options: dict[str, str], container: str
) -> None:
    with av.open(str(path), "w", format=container, options={"fflags": "+bitexact"}) as output:
        stream = output.add_stream(codec, rate=8, options={"flags": "+bitexact", **options})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pixels
        stream.codec_context.thread_count = 1
        for index, rgb in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            if pixels == "bgr0":  # no direct way from RGB: add the unused channel
                four = np.dstack([rgb[..., ::-1], np.full(rgb.shape[:2], 255, np.uint8)])
                frame = av.VideoFrame.from_ndarray(four, format="bgra").reformat(format="bgr0")
            frame.pts, frame.time_base = index, Fraction(1, 8)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())


def with_pyav(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def with_decord(path: Path) -> np.ndarray:
    reader = decord.VideoReader(str(path), num_threads=1)
    frames = [reader[i].asnumpy() for i in range(len(reader))]
    return np.stack([f.reshape(f.shape[0], -1)[:, : 3 * f.shape[1]].reshape(*f.shape[:2], 3) for f in frames])


def main() -> None:
    rng = np.random.default_rng(0)
    print(f"{'codec':<22}{'pixels':>8}{'encode ms':>11}{'PyAV ms':>9}{'decord ms':>11}{'KiB':>7}  exact")
    for side in (32, 64):
        frames = np.clip(rng.normal(40, 20, (32, side, side, 3)), 0, 255).astype(np.uint8)
        for name, (codec, pixels, options, container) in CODECS.items():
            times: dict[str, list[float]] = {"encode": [], "pyav": [], "decord": []}
            exact = True
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / f"clip.{container}"
                for _ in range(REPEATS):
                    start = time.perf_counter()
                    encode(path, frames, codec, pixels, options, container)
                    times["encode"].append(time.perf_counter() - start)
                    for key, decode in (("pyav", with_pyav), ("decord", with_decord)):
                        start = time.perf_counter()
                        decoded = decode(path)
                        times[key].append(time.perf_counter() - start)
                        exact &= np.array_equal(decoded, frames)
                size = path.stat().st_size / 1024
            e, p, d = (1000 * float(np.median(times[key])) for key in ("encode", "pyav", "decord"))
            told = "yes" if exact else "NO"
            print(f"{name:<22}{f'{side}x{side}':>8}{e:>11.1f}{p:>9.1f}{d:>11.1f}{size:>7.0f}  {told}")


if __name__ == "__main__":
    main()
