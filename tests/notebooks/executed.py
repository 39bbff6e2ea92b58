"""Execute a notebook as a reader would, from its own folder, and look at what its cells gave."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

from tests.notebooks.small import ROOT

PLOTLY = "application/vnd.plotly.v1+json"
NOTEBOOKS = ROOT / "notebooks"


def execute(
    path: Path, *changes: tuple[str, str], folder: Path | None = None, allow_errors: bool = False
) -> tuple[Any, list[dict[str, Any]]]:
    """The notebook with all cells run, and every message its kernel sent.

    Args:
        changes: (old, new) texts, each of exactly one cell: what a reader would change to make it shorter.
        folder: the kernel's, default the notebook's own.
    """
    book, messages = nbformat.read(path, as_version=4), []
    for old, new in changes:
        (cell,) = [c for c in book.cells if c.cell_type == "code" and old in c.source]
        cell.source = cell.source.replace(old, new)

    class Listening(NotebookClient):
        def process_message(self, message, cell, cell_index):
            messages.append(message)
            return super().process_message(message, cell, cell_index)

    resources = {"metadata": {"path": str(folder or path.parent)}}
    Listening(book, timeout=600, resources=resources, allow_errors=allow_errors).execute()
    return book, messages


def code(book: Any) -> list[Any]:
    return [c for c in book.cells if c.cell_type == "code"]


def cell(book: Any, words: str) -> Any:
    """The code cell with these words."""
    return next(c for c in code(book) if words in c.source)


def printed(of: Any) -> str:
    return "".join(o.text for o in of.outputs if o.output_type == "stream" and o.name == "stdout")


def outputs(book: Any, kind: str) -> list[Any]:
    return [o.data[kind] for c in code(book) for o in c.outputs if kind in o.get("data", {})]


def assert_clean(book: Any) -> None:
    """Every cell ran; no error, nothing on stderr."""
    assert all(c.execution_count for c in code(book))
    assert not [o for c in code(book) for o in c.outputs if o.output_type == "error"]
    assert not [
        o.text for c in code(book) for o in c.outputs if o.output_type == "stream" and o.name == "stderr"
    ]


def assert_text_only(messages: list[dict[str, Any]]) -> None:
    """Behind a gateway one binary message breaks the notebook (ipywidgets#3798)."""
    assert not [m["msg_type"] for m in messages if m.get("buffers")]


def assert_stored_clean(path: Path, claims: bool = True) -> None:
    """Valid, without outputs, no place of any machine in it; says whose claim is whose and ends with three questions."""
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    assert not any(c.outputs or c.execution_count for c in code(book))
    text = path.read_text(encoding="utf-8")
    assert not any(f"{own}/" in text for own in (Path.home(), ROOT, "/home", "/tmp"))
    if claims:
        assert "Whose claim is whose" in book.cells[0].source
        assert re.search(r"\bours?\b|\bthis project's\b|\byours\b", book.cells[0].source, re.IGNORECASE)
    last = book.cells[-1]
    assert last.cell_type == "markdown" and "Three questions for you" in last.source
    assert len(re.findall(r"^\d\. .*\?", last.source, flags=re.M)) == 3


def intervals(text: str) -> int:
    """How many intervals like [1.2, 3] a text holds."""
    return len(re.findall(r"\[[+\u2212-]?[\d.]+, [+\u2212-]?[\d.]+\]", text))
