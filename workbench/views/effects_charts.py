"""Curves of the effect view: attention against effect, a point a cell; deletion and insertion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.captures import Capture
from workbench.views.effects_data import signed
from workbench.views.theme import BASE_COLOUR, DASHES, MARKERS, PALETTE, ZERO, layout

if TYPE_CHECKING:
    from workbench.views.effects import EffectView
    from workbench.views.effects_data import Looked

MOST_POINTS = 2000  # cells drawn as points; beyond, only those of the widest window


def scatter_figure(view: EffectView, looked: Looked) -> go.Figure:
    """Attention mass against effect; the widest window stands out, a click picks the cell."""
    figure = go.Figure()
    few = view.deltas.size <= MOST_POINTS
    for w, name in enumerate(view.windows):
        widest = w == view.widest
        if not (widest or few):
            continue
        agreement = looked.by_window[w]
        rho = "" if np.isnan(agreement.rho) else f", Spearman {signed(agreement.rho)}"
        texts = [column["name"] for column in view.columns]
        figure.add_scatter(
            x=looked.mass[w],
            y=-view.deltas[w],
            mode="markers",
            name=f"{name}{rho} (n = {agreement.blocks})",
            customdata=[{"cell": [w, k]} for k in range(len(view.blocks))],
            text=texts,
            hovertemplate="%{text}<br>attention %{x:.2%}<br>effect %{y:.3g} nats<extra></extra>",
            marker={
                "color": PALETTE[w % len(PALETTE)],
                "symbol": MARKERS[w % len(MARKERS)],
                "size": 11 if widest else 7,
                "opacity": 1.0 if widest else 0.6,
            },
        )
    figure.add_hline(y=0, line={"color": ZERO, "width": 1})
    layout(
        figure,
        380,
        showlegend=True,
        xaxis={"title": {"text": "attention mass of the cell"}, "tickformat": ".2~%"},
        yaxis={"title": {"text": "effect: −change of log p(answer), nats"}, "exponentformat": "power"},
    )
    return figure


def curves_figure(attribution: Capture) -> go.Figure:
    """log p(answer) while the highest ranked blocks are replaced (deletion) or given back first (insertion)."""
    meta, arrays = attribution.meta, attribution.arrays
    fractions = np.asarray(arrays["fractions"])
    curves, auc = np.asarray(arrays["curves"]), np.asarray(arrays["auc"])
    scale = list(meta["scales"]).index("log_probability")
    blocks = len(meta["blocks"])
    titles = {
        "deletion": "Deletion: a good ranking falls early",
        "insertion": "Insertion: a good ranking rises early",
    }
    figure = make_subplots(
        1, 2, shared_yaxes=True, horizontal_spacing=0.05, subplot_titles=[titles[m] for m in meta["modes"]]
    )
    for c, name in enumerate(meta["curve_names"]):
        random = name == "random"
        style: dict[str, Any] = {
            "color": BASE_COLOUR if random else PALETTE[c % len(PALETTE)],
            "dash": "dash" if random else DASHES[0],
        }
        areas = ", ".join(f"{auc[c, m, scale]:.3g} {mode}" for m, mode in enumerate(meta["modes"]))
        draws = len(arrays["auc_random"])
        label = f"random, mean of {draws}" if random else name
        for m in range(len(meta["modes"])):
            figure.add_scatter(
                x=fractions, y=curves[c, m], mode="lines+markers", row=1, col=m + 1, name=f"{label} (area {areas})",
                legendgroup=name, showlegend=m == 0, line=style,
                marker={"symbol": "circle" if random else MARKERS[c % len(MARKERS)], "size": 5},
            )  # fmt: skip
    layout(figure, 400, margin={"l": 64, "r": 24, "t": 76, "b": 56})
    figure.update_xaxes(title={"text": f"share of the {blocks} blocks"}, tickformat=".0%")
    figure.update_yaxes(title={"text": "log p(answer), nats"}, col=1)
    return figure
