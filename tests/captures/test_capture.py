"""Captures come back as they were, stay on disk until touched, and say one clear thing when they cannot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors import safe_open
from safetensors.numpy import save_file

from workbench.captures import FORMAT, META_KEYS, Capture, CaptureError, CaptureWriter
from workbench.captures.header import DTYPES
from workbench.errors import DiskFullError
from workbench.models.tokenmap import TokenMap
from workbench.runs import Run, RunError

ROOT = Path(__file__).parents[2]


def capture(**values: np.ndarray) -> Capture:
    axes = {name: [f"axis{i}" for i in range(array.ndim)] for name, array in values.items()}
    return Capture("test", values, {"axes": axes, "units": dict.fromkeys(values, "1"), "own": {"x": 1.5}})


def rewrite_meta(path: Path, **changes) -> None:
    """The same file with other metadata, by the library."""
    with safe_open(path, "np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        meta = json.loads(file.metadata()["workbench.capture"])
    save_file(tensors, path, {"workbench.capture": json.dumps(meta | changes)})


some_arrays = st.dictionaries(
    st.text(st.characters(categories=("L", "N"), include_characters="_. /"), min_size=1, max_size=12),
    st.sampled_from(sorted(DTYPES.values(), key=str)).flatmap(
        lambda dtype: arrays.arrays(
            dtype, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
        )
    ),
    max_size=5,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=some_arrays)
def test_round_trip_and_the_library_reads_the_same(tmp_path, values):
    made = capture(**values)
    back = Capture.load(made.save(tmp_path / "a.safetensors"))
    assert back.kind == "test" and set(back.arrays) == set(values)
    assert back.meta["own"] == {"x": 1.5} and list(back.meta)[: len(META_KEYS)] == list(META_KEYS)
    assert back.nbytes == sum(a.nbytes for a in values.values())
    with safe_open(tmp_path / "a.safetensors", "np") as file:
        assert set(file.keys()) == set(values)
        for name, array in values.items():
            for found in (back.arrays[name], file.get_tensor(name)):
                assert found.dtype == array.dtype and found.shape == array.shape
                np.testing.assert_array_equal(found, array)
            assert not back.arrays[name].flags.writeable and back.arrays[name].flags.aligned


def test_pieces_equal_the_whole(tmp_path):
    rng = np.random.default_rng(0)
    rows, errors = rng.random((4, 2, 3, 5), dtype=np.float32), rng.random(4)
    meta = {"axes": {"rows": list("abcd"), "errors": ["a"]}, "units": {"rows": "1", "errors": "1"}}
    with CaptureWriter(tmp_path / "new" / "a.safetensors", "test", meta) as writer:
        for piece, error in zip(rows, errors, strict=True):
            writer.append("rows", piece)
            writer.append("errors", np.asarray(error))
        writer.meta["note"] = "said at the end"
        with pytest.raises(CaptureError, match="pieces of one shape"):
            writer.append("rows", rows[0, :1])
    back = Capture.load(writer.path)
    np.testing.assert_array_equal(back.arrays["rows"], rows)
    np.testing.assert_array_equal(back.arrays["errors"], errors)
    assert back.meta["note"] == "said at the end"
    assert [p.name for p in writer.path.parent.iterdir()] == ["a.safetensors"]


def test_a_failed_block_leaves_the_old_file(tmp_path):
    path = capture(x=np.arange(3)).save(tmp_path / "a.safetensors")
    before = path.read_bytes()
    with pytest.raises(RuntimeError), CaptureWriter(path, "test", {}) as writer:
        writer.add("y", np.zeros(2))
        raise RuntimeError("the probe broke")
    with (
        pytest.raises(CaptureError, match="says nothing about 'y'"),
        CaptureWriter(path, "test", {}) as writer,
    ):
        writer.add("y", np.zeros(2))
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_is_cleared(tmp_path):
    code = """
import os, sys, numpy as np
from workbench.captures import CaptureWriter
writer = CaptureWriter(sys.argv[1], "test", {})
writer.append("x", np.zeros(100_000))
os.kill(os.getpid(), 9)
"""
    path = tmp_path / "a.safetensors"
    done = subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT)
    assert done.returncode == -9 and not path.exists() and len(list(tmp_path.iterdir())) == 1
    capture(x=np.zeros(2)).save(path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs ulimit")
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path):
    code = """
import resource, signal, sys, numpy as np
from tests.captures.test_capture import capture
from workbench.errors import DiskFullError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
try:
    capture(x=np.zeros(100_000)).save(sys.argv[1])
except DiskFullError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.safetensors")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert "no space is left" in done.stdout, done.stderr
    assert list(tmp_path.iterdir()) == [] and DiskFullError.exit_code == 2


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: p.unlink(), "there is no such file"),
        (lambda p: rewrite_meta(p, format=FORMAT + 1), f"format {FORMAT + 1}, this workbench knows up to"),
        (lambda p: p.write_bytes(p.read_bytes()[:-1]), "the file is cut"),
        (lambda p: p.write_bytes(p.read_bytes()[:40]), "the file is cut"),
        (lambda p: p.write_bytes(b"\x10\0"), "the file is cut"),
        (lambda p: p.write_bytes(b"PAR1" + b"\0" * 100), "not a safetensors file"),
        (lambda p: p.write_text("hello " * 10), "not a safetensors file"),
        (lambda p: save_file({"w": np.zeros(3)}, p), "without capture metadata"),
        (lambda p: p.write_bytes(p.read_bytes().replace(b'"dtype"', b'"dtyp?"')), "'x' is damaged"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, spoil, message):
    path = capture(x=np.arange(50)).save(tmp_path / "a.safetensors")
    spoil(path)
    with pytest.raises(CaptureError, match=message) as caught:
        Capture.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(CaptureError, match="type is complex64"):
        capture(x=np.zeros(2, dtype=np.complex64)).save(tmp_path / "a.safetensors")
    wrong = Capture("test", {"x": np.zeros((2, 2))}, {"axes": {"x": ["a"]}, "units": {"x": "1"}})
    with pytest.raises(CaptureError, match="2 dimensions"):
        wrong.save(tmp_path / "a.safetensors")
    with pytest.raises(CaptureError, match=r"End it in .safetensors"):
        capture(x=np.zeros(2)).save(tmp_path / "a.npz")
    assert list(tmp_path.iterdir()) == []


def test_a_token_map_comes_back(tmp_path):
    n = 4
    columns = (np.full((n, 2), -1), np.full((n, 4), -1), np.full((n, 4), -1.0))
    token_map = TokenMap(np.array([5, 1, 2, 5]), np.zeros(n, dtype=np.int16), *columns)
    made = capture(x=np.zeros(n))
    made.meta["token_map"] = token_map.to_json()
    back = Capture.load(made.save(tmp_path / "a.safetensors"))
    assert back.token_map == token_map and Capture("k", {}, {}).token_map is None


def test_captures_of_a_run(tmp_path):
    run = Run.create(tmp_path / "run", "name: x")
    assert run.captures() == []
    capture(x=np.zeros(2)).save(run.capture_path("b"))
    capture(x=np.zeros(2)).save(run.capture_path("a"))
    with CaptureWriter(run.capture_path("c"), "test", {}) as writer:
        assert [p.stem for p in run.captures()] == ["a", "b"]
        writer.meta |= {"axes": {}, "units": {}}
    run.finish("finished")
    assert [p.stem for p in Run.open(run.directory).captures()] == ["a", "b", "c"]
    with pytest.raises(RunError, match="plain file name"):
        run.capture_path("../a")


def test_reading_needs_no_torch(tmp_path):
    path = capture(x=np.arange(3)).save(tmp_path / "a.safetensors")
    code = """
import sys
from workbench.captures import Capture
assert Capture.load(sys.argv[1]).arrays["x"].sum() == 3
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not {"torch", "transformers", "pandas", "safetensors"} & set(done.stdout.split())
