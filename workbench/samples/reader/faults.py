"""One way to make a ``MediaError``, so that every kind says the same helpful thing wherever it is found."""

from __future__ import annotations

import os
import stat

from workbench.errors import MediaError

NEXT_ACTION = {
    "missing": "Check the path; media paths in a dataset are relative to the folder of its JSONL file",
    "empty": "Copy or make the file again: it holds nothing",
    "broken": "Try another player on it; if that fails too, make or download the file again",
    "truncated": "The copy or download was cut short: fetch the file again",
    "no_video": "Give a file with a video stream or a folder of images, or drop the row from the dataset",
    "bad_header": "Rewrite the container without re-encoding: ffmpeg -i FILE -c copy NEW",
    "timeout": "Raise deadline_s if the file is merely large; otherwise drop it from the dataset",
    "bad_index": "Plan the frames again: the plan was made for another version of this file",
}


def media_error(kind: str, path: str | os.PathLike[str], found: str, asked: str | None = None) -> MediaError:
    """A ``MediaError`` of ``kind`` about ``path``; ``asked`` defaults to reading the file."""
    return MediaError(asked or f"read {os.fspath(path)}", found, NEXT_ACTION[kind], kind=kind)


def stat_media(path: str | os.PathLike[str]) -> os.stat_result:
    """``os.stat``. Raises ``MediaError``: missing, empty (0 bytes), broken (no regular file)."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise media_error("missing", path, "there is no such file") from None
    except (OSError, ValueError) as error:
        raise media_error("broken", path, f"the system refuses it ({error})") from None
    if stat.S_ISDIR(found.st_mode):
        return found
    if not stat.S_ISREG(found.st_mode):
        raise media_error("broken", path, "it is not a regular file")
    if found.st_size == 0:
        raise media_error("empty", path, "the file has 0 bytes")
    return found
