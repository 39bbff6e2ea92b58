"""The browser side: unit tests without Jupyter, types, and bundles that are what their sources give."""

from __future__ import annotations

import json

from tests.views.frontend import FOLDER, needs_node, npm

LIMIT = 60 * 1024  # bytes of a view's bundle


@needs_node
def test_the_unit_tests_pass():
    done = npm("test")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "# fail 0" in done.stdout and "# pass 0" not in done.stdout


@needs_node
def test_the_types_hold():
    done = npm("check")
    assert done.returncode == 0, done.stdout + done.stderr


@needs_node
def test_what_is_packaged_is_what_the_sources_give():
    done = npm("build", "--", "--check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_bundle_is_larger_than_a_view_may_be():
    built = FOLDER.parent / "workbench/views/static"
    sizes = {path.name: path.stat().st_size for path in built.glob("*.js")}
    assert {"page.js", "table.js"} <= sizes.keys()
    assert max(sizes.values()) <= LIMIT, sizes


def test_the_lock_file_names_no_place_to_download_from():
    packages = json.loads((FOLDER / "package-lock.json").read_text())["packages"]
    assert packages and not [name for name, entry in packages.items() if "resolved" in entry]
