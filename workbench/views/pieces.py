"""What a view is made of: modules of ours, plotly figures, and links between what is picked in them.

Links are data, so that Python (in a notebook) and ``page.js`` (on an exported page) follow the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import plotly.graph_objects as go

from workbench.views.payload import jsonable

Answer = Callable[[dict[str, Any]], Any]


@dataclass(eq=False)
class Module:
    """One of our own front-end modules (``static/NAME.js``).

    Attributes:
        name: of the piece within its view.
        module: file name without ``.js``.
        data: JSON values, Python to browser; replaced as a whole.
        picks: what is chosen, both ways; small.
        answer: answers questions the browser asks, with JSON values.
        carried: answers that an exported page carries, by question.
    """

    name: str
    module: str
    data: Mapping[str, Any]
    picks: Mapping[str, Any] = field(default_factory=dict)
    answer: Answer | None = None
    carried: Callable[[], list[tuple[dict[str, Any], Any]]] | None = None


@dataclass(eq=False)
class Plot:
    """A plotly figure. A trace whose ``customdata`` holds mappings is clickable: the mapping becomes the piece's picks."""

    name: str
    figure: go.Figure
    picks: Mapping[str, Any] = field(default_factory=dict)


Piece = Module | Plot


@dataclass(frozen=True, slots=True)
class Link:
    """When ``key`` is picked in piece ``source``, it is picked as ``to`` in piece ``target``."""

    source: str
    key: str
    target: str
    to: str


def plain_figure(figure: go.Figure) -> go.Figure:
    """The same figure with lists for arrays: as a widget's state they then travel as text."""
    return go.Figure(jsonable(_plain(figure.to_dict())))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
