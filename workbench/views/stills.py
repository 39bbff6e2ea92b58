"""Pictures without a browser: matplotlib in the house style, saved as SVG, PDF or PNG with their caption inside."""

from __future__ import annotations

import base64
import functools
import importlib
import io
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INSTALL = "pip install -e '.[notebook]'"
KINDS = ("svg", "pdf", "png")
INK = "#1f2328"
STYLE = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#808890",
    "axes.grid": False,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text: it can be searched, and edited in a drawing program
    "svg.hashsalt": "workbench",  # the same figure gives the same bytes
    "pdf.fonttype": 42,
    "figure.dpi": 100,
    "savefig.dpi": 200,
}


@functools.cache
def matplotlib() -> Any:
    """The package. Raises WorkbenchError with the line that installs it."""
    try:
        return importlib.import_module("matplotlib")
    except ImportError as error:
        raise WorkbenchError("draw a picture", f"matplotlib does not load ({error})", INSTALL) from error


def figure(width: float = 7.2, height: float = 4.0) -> Figure:
    """An empty figure (inches) that belongs to no window and no global state."""
    matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def style() -> Any:
    """``with style():`` around everything that draws."""
    return matplotlib().rc_context(STYLE)


def save(drawn: Figure, path: str | Path, title: str, caption: str) -> Path:
    """Write a figure with its caption below it and in the file's own metadata.

    Raises:
        WorkbenchError: an ending that is none of svg, pdf, png.
    """
    path = Path(path)
    kind = path.suffix.removeprefix(".").lower()
    if kind not in KINDS:
        raise WorkbenchError(
            f"save a picture as {path.name}",
            f"{path.suffix or 'no ending'!r} is no kind of picture here",
            f"End the name in .{', .'.join(KINDS)}; `to_html` writes a page",
        )
    keys = {"svg": ("Title", "Description"), "pdf": ("Title", "Subject"), "png": ("Title", "Description")}
    metadata: dict[str, Any] = dict(zip(keys[kind], (title, caption), strict=True))
    metadata |= {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[kind]
    path.parent.mkdir(parents=True, exist_ok=True)
    with style():
        width = int(drawn.get_size_inches()[0] * 17)
        drawn.supxlabel(
            "\n".join(textwrap.wrap(caption, width)), fontsize=7, color="#57606a", x=0.02, ha="left"
        )
        drawn.savefig(path, format=kind, metadata=metadata)
    return path


def png(drawn: Figure, dpi: int = 80) -> str:
    """A figure as PNG in base64: what is seen where scripts do not run."""
    buffer = io.BytesIO()
    with style():
        drawn.savefig(buffer, format="png", dpi=dpi)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
