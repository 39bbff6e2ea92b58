"""Ctrl-C and TERM ask the loop to stop at the next step boundary; a second Ctrl-C stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_outer: list[StopRequest] = []


class StopRequest:
    """Context manager; ``asked`` turns True on one of ``signals``. Outside the main thread it only holds the
    flag.

    Inside another one it is that one, so that a request made while a model is still loading is not lost.
    """

    def __init__(self, signals: Iterable[int] = SIGNALS) -> None:
        self.asked = False
        self._signals = tuple(signals)
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is not threading.main_thread():
            return self
        if _outer:
            return _outer[0]
        for number in self._signals:
            self._previous[number] = signal.signal(number, self._ask)
        _outer.append(self)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()
        if self in _outer:
            _outer.remove(self)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True
