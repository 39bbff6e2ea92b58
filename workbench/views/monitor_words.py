"""What a monitor says in text: one line, a row a run, and sentences for those who do not see the curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from workbench.views.monitor_curves import Curve, title_of
from workbench.views.monitor_source import Source


def duration(seconds: float) -> str:
    """``75`` -> ``1 min 15 s``; two units at most."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def share_done(source: Source) -> float | None:
    """Share of the work that is behind, by the runs' relative costs where these are known."""
    if not source.runs:
        return None
    costs = {name: source.costs.get(name, 1.0) for name in source.runs}
    done = sum(costs[name] * (_share(source, name) or 0.0) for name in source.runs)
    whole = sum(costs.values()) + max(0, source.planned - len(source.runs)) * 1.0
    return done / whole if whole else None


def _share(source: Source, name: str) -> float | None:
    record = source.runs[name]
    if record.state == "finished":
        return 1.0
    return None if record.step is None or not record.total else min(1.0, record.step / record.total)


def headline(source: Source) -> str:
    """Where, how far, how long still."""
    parts = [source.address]
    runs = list(source.runs.values())
    if len(runs) == 1 and runs[0].step is not None:
        parts.append(f"step {runs[0].step} of {runs[0].total}")
        if runs[0].loss is not None:
            parts.append(f"loss {number(runs[0].loss)}")
    elif runs:
        done = sum(record.state == "finished" for record in runs)
        parts.append(f"{done} of {max(source.planned, len(runs))} runs finished")
    if source.eta_s is not None and not source.ended:
        parts.append(f"about {duration(source.eta_s)} left")
    return " · ".join(parts)


def number(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else str(value)


def runs_table(source: Source) -> list[dict[str, Any]]:
    """One row a run, for the browser."""
    return [
        {
            "name": name,
            "state": record.state,
            "share": _share(source, name),
            "step": "" if record.step is None else f"{record.step} of {record.total}",
            "loss": "" if record.loss is None else number(record.loss),
            "left": duration(record.eta_s) if record.eta_s is not None and record.state == "running" else "",
            "error": record.error,
        }
        for name, record in source.runs.items()
    ]


def words_of(source: Source, found: Sequence[Curve]) -> str:
    """What the panels show, in sentences."""
    said = [f"{headline(source)}; it is {source.state.replace('_', ' ')}."]
    if source.error:
        said.append(f"What went wrong: {source.error}")
    for curve in found:
        values = [y for y in curve.y if y is not None]
        if not values:
            continue
        last = f"{values[-1]:.4g}"
        if curve.panel == "loss":
            said.append(f"Loss of {curve.key}: from {values[0]:.4g} to {last} nats per answer token.")
        elif curve.panel == "scores" and curve.low and curve.high and curve.n:
            interval = f"[{curve.low[-1]:.1f}, {curve.high[-1]:.1f}]"
            arm = title_of(source, curve.group)
            said.append(
                f"{arm}, {curve.name}: {values[-1]:.1f}% right {interval} at step {curve.x[-1]}, n = {curve.n[-1]}."
            )
        elif curve.panel == "speed":
            said.append(f"{curve.name} trains on {last} tokens/s.")
        elif curve.panel == "padding":
            said.append(f"{last}% of its places are padding.")
        elif curve.panel == "rates":
            said.append(f"Learning rate of {curve.name}: {last}.")
        elif curve.panel == "frames":
            counts = ", ".join(f"{y:.0f}% at {x}" for x, y in zip(curve.x, values, strict=True))
            said.append(f"Frames planned by {title_of(source, curve.group)}: {counts}.")
    return " ".join(said)
