"""The fusion view's plotly figure: means over clips and still images with their intervals. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.captures import Capture
from workbench.probes.fusion import table as fusion_table
from workbench.probes.fusion.read import WHOLE
from workbench.views.charts import inside
from workbench.views.theme import MARKERS


def fusion_effects(captures: Mapping[str, Capture]) -> go.Figure:
    """What the whole fusion changes, and how many frames each layer's memory holds, on still images and at every count.

    Args:
        captures: kind ``fusion``, by title; in the right panel layers differ by dash and marker.

    Raises:
        CaptureError: another kind.
    """
    tables = {title: fusion_table(capture) for title, capture in captures.items()}
    every = pd.concat(tables.values())
    slots = ["image"] if (every["shown"] == "images").any() else []
    slots += [str(n) for n in sorted(every.loc[every["shown"] == "videos", "frames"].unique())]
    figure = make_subplots(
        rows=1, cols=2, horizontal_spacing=0.1,
        subplot_titles=["Change |TFF(x) − x| / |x|, whole stack", "Frames that memory effectively holds"],
    )  # fmt: skip
    look = inside.styles(list(captures))
    for i, (title, rows) in enumerate(tables.items()):
        layers = sorted(layer for layer in rows["layer"].unique() if layer != WHOLE)
        offset = inside.beside(i, len(tables))
        wanted = [(1, "update", WHOLE)] + [(2, "effective_frames", layer) for layer in layers]
        for column, number, layer in wanted:
            part = rows[(rows["number"] == number) & (rows["layer"] == layer)].sort_values("frames")
            part = part.dropna(subset=["estimate"])
            x = [
                slots.index("image" if s == "images" else str(n)) + offset
                for s, n in zip(part["shown"], part["frames"], strict=True)
            ]
            if not len(part):
                continue
            trace = inside.estimates(title, look[title], part, x, column == 1)
            trace.update(
                line={"dash": "solid" if column == 1 else ("solid", "dash", "dot", "dashdot")[layer % 4]}
            )
            if (
                column == 2 and len(layers) > 1
            ):  # shape and dash: the layer; open or filled, and colour: the checkpoint
                hollow = "-open" if i < len(tables) - 1 else ""
                name = f"{title}, layer {layer}"
                trace.update(name=name, showlegend=True, legendgroup=f"{title}/{layer}")
                trace.update(marker={"symbol": MARKERS[layer % len(MARKERS)] + hollow})
            trace.update(
                customdata=[f"n = {n}" for n in part["n"]],
                hovertemplate="%{y:.3g} (%{customdata})<extra>%{fullData.name}</extra>",
            )
            figure.add_trace(trace, row=1, col=column)
    n = {
        s: int(every.loc[every["shown"] == s, "n"].max())
        for s in ("images", "videos")
        if (every["shown"] == s).any()
    }
    said = ", ".join(f"n = {count} {what}" for what, count in n.items())
    figure.update_xaxes(title_text=f"frames ({said})", tickvals=list(range(len(slots))), ticktext=slots)
    figure.update_yaxes(title_text="share of the input's norm", rangemode="tozero", col=1)
    figure.update_yaxes(title_text="effective frames", rangemode="tozero", col=2)
    return inside.layout(figure, 420)
