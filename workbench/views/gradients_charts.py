"""The gradient view's plotly figure: does the inner product predict what a real step does? Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping

import plotly.graph_objects as go

from workbench.captures import Capture
from workbench.probes.gradients.read import step_check
from workbench.views.charts import inside
from workbench.views.theme import ZERO


def step_scatter(captures: Mapping[str, Capture]) -> go.Figure | None:
    """Measured against predicted change of the image loss, a mark a pair and frame count; None without a check.

    Filled: measured after the step. Open: its first-order part (half the difference of a step forth and a step back), which
    the prediction is about; what lies between the two is what the step's length adds.

    Args:
        captures: kind ``gradients``, by title.

    Raises:
        CaptureError: another kind.
    """
    taken = {title: steps for title, c in captures.items() if (steps := step_check(c)) is not None}
    if not taken:
        return None
    figure, look = go.Figure(), inside.styles(list(captures))
    ends = [0.0]
    for title, steps in taken.items():
        ends += [*steps["predicted"].dropna(), *steps["measured"].dropna(), *steps["first_order"].dropna()]
        said = [f"pair {p + 1}, {n} frames" for p, n in zip(steps["pair"], steps["frames"], strict=True)]
        for column, name, suffix in (
            ("measured", "measured", ""),
            ("first_order", "first-order part", "-open"),
        ):
            figure.add_trace(
                go.Scatter(
                    x=steps["predicted"].tolist(),
                    y=steps[column].tolist(),
                    mode="markers",
                    name=f"{title}: {name} (n = {int(steps[column].notna().sum())})",
                    text=said,
                    hovertemplate="%{text}<br>predicted %{x:.3g}, measured %{y:.3g}<extra>%{fullData.name}</extra>",
                    marker={"symbol": look[title].marker + suffix, "size": 9, "color": look[title].colour},
                )
            )
    low, high = min(ends), max(ends)
    room = 0.06 * ((high - low) or 1.0)
    figure.add_trace(
        go.Scatter(
            x=[low - room, high + room], y=[low - room, high + room], mode="lines", name="measured = predicted",
            hoverinfo="skip", line={"color": ZERO, "width": 1, "dash": "dash"},
        )
    )  # fmt: skip
    figure.update_xaxes(
        title_text="predicted: −η⟨g_I, g_V⟩, nats per answer token (above 0: the image loss rises)"
    )
    figure.update_yaxes(title_text="measured change, nats per answer token")
    heading: dict[str, object] = {
        "text": "One-step check: a real step on each video batch",
        "font": {"size": 14},
    }
    heading |= {"x": 0, "xanchor": "left", "y": 0.8, "yref": "container"}
    return inside.layout(figure, 460, title=heading)
