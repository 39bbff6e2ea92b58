"""Still images, and folders of them, read in this process with Pillow."""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path
from stat import S_ISDIR

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from workbench.samples.reader.faults import media_error, stat_media

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm"})
FOLDER_FPS = 1.0
# Where Pillow finds an orientation. Asking costs half of a small image's read: only these are asked.
EXIF_FORMATS = frozenset({"TIFF", "MPO"})
EXIF_KEYS = frozenset({"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"})


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """uint8 ``[H, W, 3]`` RGB, turned upright by its EXIF orientation, alpha dropped.

    Raises ``MediaError``: missing, empty, truncated, broken (also if implausibly large).
    """
    found = stat_media(path)
    if S_ISDIR(found.st_mode):
        raise media_error("broken", path, "it is a folder, not an image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                image: Image.Image = opened
                if image.mode.startswith("I"):  # 16-bit grey: Pillow would clip at 255 instead of scaling
                    grey = np.asarray(image, dtype=np.float64)
                    return np.repeat((grey * (255 / 65535)).round().astype(np.uint8)[..., None], 3, axis=2)
                image.load()
                if image.format in EXIF_FORMATS or not EXIF_KEYS.isdisjoint(image.info):
                    image = ImageOps.exif_transpose(image)
                return np.array(image if image.mode == "RGB" else image.convert("RGB"), dtype=np.uint8)
    except UnidentifiedImageError:
        raise media_error("broken", path, f"its {found.st_size} bytes fit no image format") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise media_error("broken", path, f"it is implausibly large ({error})") from None
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError) as error:
        kind = "truncated" if "truncated" in str(error).lower() else "broken"
        raise media_error(kind, path, f"Pillow cannot decode it ({error})") from None


def folder_images(path: str | os.PathLike[str]) -> list[Path]:
    """The images of a folder in natural order (f2 before f10). Raises ``MediaError`` (no_video, broken)."""
    try:
        images = [entry for entry in Path(path).iterdir() if entry.suffix.lower() in SUFFIXES]
    except OSError as error:
        raise media_error("broken", path, f"the folder cannot be listed ({error.strerror})") from None
    if not images:
        raise media_error("no_video", path, f"the folder holds no image ({', '.join(sorted(SUFFIXES))})")
    return sorted(images, key=lambda entry: natural_key(entry.name))


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Numbers compare as numbers, the rest as text; ``01`` and ``1`` keep a stable order."""
    parts = re.split(r"(\d+)", name)
    return tuple((0, int(p), p) if p.isdecimal() else (1, 0, p.casefold()) for p in parts if p)
