"""Which video backend to use: the preference, what is installed, and the clash of decord with decord2."""

from __future__ import annotations

import importlib.metadata as metadata

# PyAV first: of the three it alone passes on that FFmpeg found a frame damaged and patched it up (the others
# return the patch in silence), and since it seeks it is not slower (benchmarks/reader.py).
PREFERENCE = ("pyav", "torchcodec", "decord")
DISTRIBUTION = {"decord": "decord2", "torchcodec": "torchcodec", "pyav": "av"}
INSTALL = {
    "decord": "pip install 'decord2>=3.4,<4'",
    "torchcodec": "pip install -e '.[video]' (it also loads FFmpeg's shared libraries: apt install ffmpeg)",
    "pyav": "pip install 'av>=15,<19'",
}
CLASH = "pip uninstall -y decord decord2 && pip install 'decord2>=3.4,<4'"


def installed_version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def unusable(backend: str) -> tuple[str, str] | None:
    """``(found, todo)`` if what is installed already rules ``backend`` out, None if it is worth probing."""
    if backend == "decord" and (old := installed_version("decord")):
        beside = (
            "beside decord2, and both install the same module" if installed_version("decord2") else "alone"
        )
        return f"the unmaintained distribution decord {old} is installed {beside}", f"Run: {CLASH}"
    if installed_version(DISTRIBUTION[backend]) is None:
        return f"{DISTRIBUTION[backend]} is not installed", f"Run: {INSTALL[backend]}"
    return None


def candidates(asked: str | None) -> list[str]:
    """The backends worth probing, best first."""
    return [name for name in ([asked] if asked else PREFERENCE) if unusable(name) is None]
