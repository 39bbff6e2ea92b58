"""``View``: one thing to look at, alone in a cell or linked with others; interactive, exportable, in words, as a table."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import WorkbenchError
from workbench.views import stills
from workbench.views.pieces import Link, Piece

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from workbench.views.widget import Shown


class View(ABC):
    """Everything a view offers; a view of its own says only what it is made of."""

    title: str

    @abstractmethod
    def pieces(self) -> Sequence[Piece]:
        """What is drawn, from top to bottom."""

    def links(self) -> Sequence[Link]:
        """What follows what."""
        return ()

    @abstractmethod
    def data(self) -> pd.DataFrame:
        """Every number shown, as a table."""

    @abstractmethod
    def words(self) -> str:
        """What it shows, for those who cannot see it: the text alternative."""

    @abstractmethod
    def caption(self) -> str:
        """Where it comes from: run, checkpoint, prompt, seed, n, version."""

    @abstractmethod
    def picture(self) -> Figure:
        """A still of it, drawn without a browser."""

    def save(self, path: str | Path) -> Path:
        """Write a still as ``.svg``, ``.pdf`` or ``.png``, caption and provenance inside; no browser is needed.

        Raises:
            WorkbenchError: another ending, or matplotlib is not installed.
        """
        with stills.style():
            drawn = self.picture()
        return stills.save(drawn, path, self.title, self.caption())

    def to_html(self, path: str | Path) -> Path:
        """Write one self-contained page: interactive, needs neither network nor kernel."""
        from workbench.views.export import write_page

        return write_page(self, path)

    @property
    def shown(self) -> Shown:
        """The view's widgets, made when they are first asked for.

        Raises:
            WorkbenchError: the notebook packages are not installed.
        """
        if "_shown" not in self.__dict__:
            try:
                widget = importlib.import_module("workbench.views.widget")
            except ImportError as error:
                raise WorkbenchError(
                    "show a view in a notebook", f"{error.name} is not installed", stills.INSTALL
                ) from error
            pieces = self.pieces()
            self.__dict__["_shown"] = widget.Shown(
                self.title, pieces, self.links(), self.caption(), self.words()
            )
        return self.__dict__["_shown"]

    @property
    def widget(self) -> Any:
        """The widget to put beside other widgets."""
        return self.shown.box

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """For Jupyter: the widget; where scripts do not run a still and the words."""
        live = self.widget._repr_mimebundle_()
        bundle = dict(live[0] if isinstance(live, tuple) else live)
        with stills.style():
            bundle["image/png"] = stills.png(self.picture())
        return bundle | {"text/plain": f"{self.title}. {self.words()} {self.caption()}"}, {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.title!r})"
