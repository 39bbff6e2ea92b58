"""The bottom layer: lines, whole files, JSON, and what counts as a full disk."""

from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench.errors import DiskFullError
from workbench.runs import RunError, read_events
from workbench.runs.events import EventLog, last_event
from workbench.runs.files import LineFile, check_name, disk_guard, plain, read_lines, to_json, write_atomic


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.binary(max_size=40).map(lambda b: b.replace(b"\n", b"").replace(b"\r", b"")), max_size=8),
    st.integers(0, 60),
)
def test_a_torn_tail_is_skipped_by_readers_and_cut_by_the_next_writer(tmp_path, lines, cut):
    path = tmp_path / "lines"
    whole = b"".join(line + b"\n" for line in lines)
    kept = whole[: max(0, len(whole) - cut)]
    path.write_bytes(kept)
    expected, rest = [], kept  # the slow way: take lines while there is a newline
    while b"\n" in rest:
        line, _, rest = rest.partition(b"\n")
        expected.append(line)
    assert len(read_lines(path)) == len(expected)
    file = LineFile(path)
    file.append(b"next")
    file.close()
    assert path.read_bytes() == b"".join(line + b"\n" for line in [*expected, b"next"])


def test_a_torn_line_longer_than_a_block_is_cut_too(tmp_path):
    path = tmp_path / "lines"
    path.write_bytes(b"first\n" + b"x" * 200_000)
    LineFile(path).close()
    assert path.read_bytes() == b"first\n"
    path.write_bytes(b"\0" * 100_000)  # what some file systems leave after a power cut
    LineFile(path).close()
    assert path.read_bytes() == b""


def test_line_separators_inside_text_do_not_split_an_event(tmp_path):
    log = EventLog(tmp_path)
    text = "a\u2028b\u0085c\x0bd\re\nf\x1c"
    log.append("note", {"text": text})
    log.append("note", {"text": "second"})
    log.close()
    assert [event["text"] for event in read_events(tmp_path)] == [text, "second"]


def test_write_atomic_replaces_whole_files_and_leaves_nothing_beside_them(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, b"one")
    write_atomic(path, b"two", sync=False)
    assert path.read_bytes() == b"two" and os.listdir(tmp_path) == ["file"]
    with pytest.raises(FileNotFoundError):
        write_atomic(tmp_path / "no" / "file", b"")


def test_plain_values():
    value = {
        "path": Path("a/b"),
        "array": np.arange(3, dtype=np.int64),
        "scalar": np.float32(0.5),
        "flag": np.bool_(True),
        "tensor": torch.ones(2, 1),
        "nan": math.nan,
        "list": [math.inf, -math.inf, np.float64("nan")],
        3: {"b", "a"},
        "tuple": (1, None, True),
    }
    assert json.loads(to_json(value)) == {
        "path": "a/b",
        "array": [0, 1, 2],
        "scalar": 0.5,
        "flag": True,
        "tensor": [[1.0], [1.0]],
        "nan": "NaN",
        "list": ["Infinity", "-Infinity", "NaN"],
        "3": ["a", "b"],
        "tuple": [1, None, True],
    }
    with pytest.raises(TypeError, match="function"):
        plain(lambda: None)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", ".hidden", "x.partial", "x.tmp", "x.old", "a b", "ü"])
def test_names_that_are_not_plain_are_refused(name):
    with pytest.raises(RunError):
        check_name("checkpoint", name)


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (OSError(errno.EFBIG, "File too large"), True),
        (OSError(errno.EACCES, "Permission denied"), False),
        (RuntimeError("I/O error: No space left on device (os error 28)"), True),
        (
            RuntimeError('IoError(Os { code: 28, kind: StorageFull, message: "No space left on device" })'),
            True,
        ),
        (RuntimeError("bad shape (28, 27)"), False),
        (KeyError("code"), False),
    ],
)
def test_what_counts_as_a_full_disk(error, full):
    wanted = DiskFullError if full else type(error)
    with pytest.raises(wanted), disk_guard("write", Path("x")):
        raise error
    with pytest.raises(wanted if full else ValueError), disk_guard("write", Path("x")):
        try:
            raise error
        except Exception as cause:
            raise ValueError("wrapped") from cause


def test_the_last_event_of_a_kind_is_the_one_a_slow_search_finds(tmp_path):
    log = EventLog(tmp_path)
    for i in range(30):
        log.append(
            "finish" if i % 7 == 3 else "note", {"inner": {"kind": "finish" if i % 2 else "start"}, "i": i}
        )
    log.close()
    with (tmp_path / "events.jsonl").open("ab") as file:
        file.write(b'{"seq":30,"time":"x","kind":"finish","i":99')  # torn: never happened
    events = read_events(tmp_path)
    for kinds in (("finish",), ("note",), ("note", "finish"), ("start",)):
        slow = next((event for event in reversed(events) if event["kind"] in kinds), None)
        assert last_event(tmp_path, kinds) == slow
