"""A view as one page: our modules, plotly where a curve needs it, and the data; no network, no kernel, no widget manager."""

from __future__ import annotations

import json
import os
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from workbench.views import stills
from workbench.views.payload import jsonable, text_of
from workbench.views.pieces import Module, Piece, Plot, plain_figure

if TYPE_CHECKING:
    from workbench.views.base import View


def write_page(view: View, path: str | Path) -> Path:
    """The page of a view; written beside its name and renamed, so that a page is whole."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(render(view), encoding="utf-8")
    partial.replace(path)
    return path


def render(view: View) -> str:
    """The page's text."""
    pieces = list(view.pieces())
    modules = sorted({piece.module for piece in pieces if isinstance(piece, Module)})
    with stills.style():
        still = stills.png(view.picture())
    links = [{"source": k.source, "key": k.key, "target": k.target, "to": k.to} for k in view.links()]
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    return environment.from_string(_asset("page.html")).render(
        title=view.title,
        caption=view.caption(),
        words=view.words(),
        still=still,
        names=[piece.name for piece in pieces],
        csv=_csv(view),
        css=Markup(_asset("views.css")),
        state=Markup(text_of({"pieces": [_state(piece) for piece in pieces], "links": links})),
        modules={name: Markup(_script(_asset(f"{name}.js"))) for name in modules},
        carried={
            piece.name: Markup(text_of(_carried(piece))) for piece in pieces if isinstance(piece, Module)
        },
        plotly=Markup(_script(_plotly())) if any(isinstance(piece, Plot) for piece in pieces) else "",
        page=Markup(_script(_asset("page.js"))),
    )


def _state(piece: Piece) -> dict[str, Any]:
    if isinstance(piece, Plot):
        spec = json.loads(plain_figure(piece.figure).to_json() or "{}")
        return {
            "name": piece.name,
            "plot": {"data": spec["data"], "layout": spec["layout"]},
            "picks": dict(piece.picks),
        }
    return {"name": piece.name, "module": piece.module, "data": piece.data, "picks": piece.picks}


def _carried(piece: Module) -> dict[str, Any]:
    """Answers by question, its text in the order and form of JSON.stringify: page.js looks them up by it."""
    pairs = piece.carried() if piece.carried else []
    return {json.dumps(jsonable(q), ensure_ascii=False, separators=(",", ":")): a for q, a in pairs}


def _csv(view: View) -> Markup:
    import base64

    text = view.data().to_csv(index=False)
    return Markup("data:text/csv;charset=utf-8;base64,") + base64.b64encode(text.encode("utf-8")).decode(
        "ascii"
    )


def _asset(name: str) -> str:
    return (resources.files("workbench.views") / "static" / name).read_text("utf-8")


def _script(code: str) -> str:
    """ "</script" cannot stand in a script element; the escape means the same inside a JavaScript string."""
    return code.replace("</script", "<\\/script")


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return get_plotlyjs()
