"""Live curves of a job in a notebook or a terminal, from any kernel at any time.

Line and figure are rebuilt from the job's files with every look. They are shown as plain pictures, not as a
widget: they pass any gateway, and a saved notebook keeps them.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from workbench.machines.attached import Attached
from workbench.study.live import FASTEST_S, PLOTLY_MIME, StoppedWatching, in_notebook

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

SMOOTH, POINTS = 11, 400  # steps of the moving mean; points of one curve at most


def watch(attached: Attached, every_s: float = 1.0, until_step: int | None = None) -> dict[str, Any]:
    """Show how far a job or run is and its loss, until it has ended; returns its status.

    Args:
        every_s: seconds between two looks, at least a quarter.
        until_step: stop looking at this step already; the training goes on.

    Raises:
        StoppedWatching: the kernel was interrupted; the training goes on.
    """
    notebook, printed = in_notebook(), ""
    try:
        while True:
            status = attached.status()  # asked first: what a job that has ended wrote is in the rows below
            text = describe(attached, status)
            if notebook:
                from IPython.display import clear_output, display

                # shown anew: JupyterLab does not redraw a plotly picture whose display is updated
                picture = json.loads(loss_figure(attached.metrics()).to_json())
                clear_output(wait=True)
                display({"text/plain": text}, raw=True)
                display({PLOTLY_MIME: picture, "text/plain": "loss"}, raw=True)
            elif text != printed:
                print(text, flush=True)
            printed = text
            over = attached.machine.status(attached.address.job)["reason"] is not None
            seen = until_step is not None and (status["step"] or 0) >= until_step
            if seen or (over and status == attached.status()):
                return status
            time.sleep(max(FASTEST_S, every_s))
    except KeyboardInterrupt:
        again = "Run the cell again to see it, `.stop()` to end it."
        raise StoppedWatching(f"Stopped watching; the training goes on. {again}") from None


def describe(attached: Attached, status: dict[str, Any]) -> str:
    """One line: where, what it does, how far, how long still."""
    parts = [str(attached.address), status["state"]]
    if status.get("step") is not None and status.get("total"):
        parts.append(f"step {status['step']} of {status['total']}")
    if status.get("eta_s") is not None:
        parts.append(f"about {status['eta_s']:.0f} s left")
    if status.get("error"):
        parts.append(status["error"])
    return " · ".join(parts)


def loss_figure(metrics: pd.DataFrame) -> go.Figure:
    """The loss over the steps, smoothed, a curve a run and stage; of the columns ``run``, ``stage``, ``step``,
    ``loss``.
    """
    import plotly.graph_objects as go

    from workbench.views.theme import DASHES, PALETTE, layout

    figure = go.Figure()
    keys = [key for key in ("run", "stage") if key in metrics]
    groups: Any = metrics.groupby(keys, sort=False) if keys and "loss" in metrics else []
    for i, (names, rows) in enumerate(groups):
        mean = rows["loss"].rolling(SMOOTH, min_periods=1, center=True).mean()
        every = max(1, len(rows) // POINTS)
        look = {"color": PALETTE[i % len(PALETTE)], "dash": DASHES[(i // len(PALETTE)) % len(DASHES)]}
        x, y = [int(s) for s in rows["step"][::every]], [round(float(v), 4) for v in mean[::every]]
        name = ", ".join(map(str, names))
        figure.add_trace(go.Scatter(x=x, y=y, mode="lines", name=name, showlegend=True, line=look))
    figure.update_xaxes(title_text="training step", rangemode="tozero")
    figure.update_yaxes(title_text="loss, nats per answer token", rangemode="tozero")
    return layout(figure, 340, autosize=True)
