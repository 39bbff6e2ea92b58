"""What a view's widgets send when they are made: every buffer would break a notebook behind a gateway."""

from __future__ import annotations

import json
from typing import Any

from ipywidgets.widgets import widget as core


def messages(box: Any) -> list[tuple[str, dict[str, Any], list[Any]]]:
    """(class, state, buffers) of a widget and all widgets that it refers to, as the comm messages hold them."""
    registry = {f"IPY_MODEL_{w.model_id}": w for w in core._instances.values()}
    waiting, seen, found = [box], set(), []
    while waiting:
        widget = waiting.pop()
        if widget.model_id in seen:
            continue
        seen.add(widget.model_id)
        state, _, buffers = core._remove_buffers(widget.get_state())
        found.append((type(widget).__name__, state, buffers))
        text = json.dumps(state, default=str)
        waiting += [other for name, other in registry.items() if name in text]
    return found


def assert_text_only(box: Any) -> int:
    """No widget of the tree sends bytes, and every state is JSON. The bytes of all states."""
    found = messages(box)
    for name, state, buffers in found:
        assert not buffers, f"{name} sends {len(buffers)} binary buffers"
        json.dumps(state, allow_nan=False)
    assert len(found) > 1, "nothing was looked at"
    return sum(len(json.dumps(state)) for _, state, _ in found)
