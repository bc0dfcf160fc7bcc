"""The rate limit of a pipeline: one window counter, and the process that wakes whoever waits for
it.

The counter (`_core.RateWindow`) is taken from by the producers themselves, without a message. Only
a producer that finds the gate closed tells the limiter, which sets one timer for the end of the
window and then opens all gates; while nobody waits it does nothing at all.
"""

from __future__ import annotations

from typing import Any

from . import _core
from ._pipeline_options import RateLimit
from ._server import GenServer

NANOSECONDS = 1_000_000_000


class Opened:
    """To a producer: a new window has begun."""


class WindowEnds:
    """To oneself: the window that somebody waited for is over."""


OPENED = Opened()
WINDOW_ENDS = WindowEnds()


def new_window(limit: RateLimit) -> _core.RateWindow:
    """Make the counter; its first window begins now."""
    return _core.RateWindow(limit.allowed, _nanoseconds(limit.interval), _core.now())


def _nanoseconds(interval: float) -> int:
    return max(1, int(interval * NANOSECONDS))  # the check of intervals bounds them


class RateLimiter(GenServer):
    """Opens gates. Casts: the pid of a producer whose gate is closed. Calls: new settings."""

    def init(self, window: _core.RateWindow) -> None:
        """Begin with nobody waiting."""
        self.window = window
        self.waiting: set[Any] = set()
        self.timer: Any = None

    def handle_cast(self, producer: Any) -> None:
        """Note a producer that waits, unless a window has begun since it found its gate closed."""
        if self.window.left(_core.now()):
            _core.send(producer, OPENED)
            return
        self.waiting.add(producer)
        if self.timer is None:
            self.set_timer()

    def handle_call(self, request: tuple[int | None, float | None, bool], caller: Any) -> bool:
        """Change the settings (P126 to P128)."""
        allowed, interval, reset = request
        self.window.update(
            allowed or 0, 0 if interval is None else _nanoseconds(interval), reset, _core.now()
        )
        if reset:
            self.open_all()
        return True

    def handle_info(self, message: Any) -> None:
        """End of a window."""
        if message is WINDOW_ENDS:
            self.timer = None
            if self.window.left(_core.now()):
                self.open_all()
            elif self.waiting:
                self.set_timer()

    def set_timer(self) -> None:
        """Wake up when the next window begins."""
        now = _core.now()
        delay = (self.window.reopens(now) - now) / NANOSECONDS
        self.timer = _core.send_after(_core.self(), WINDOW_ENDS, delay)

    def open_all(self) -> None:
        """Open all gates; who finds his closed again waits again."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        waiting, self.waiting = self.waiting, set()
        for producer in waiting:
            _core.send(producer, OPENED)
