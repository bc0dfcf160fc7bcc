"""What several test files need."""

import contextlib
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from types import FunctionType

GIL: bool = getattr(sys, "_is_gil_enabled", lambda: True)()
"""Whether one lock lets Python code run one thread at a time."""

LIMIT = 60.0
"""Seconds for what takes a few milliseconds: a wait that reaches it is a failure."""


def is_inside(thread: int | None, function: FunctionType) -> bool:
    """Whether the thread of this identifier is in a call of the function; under the GIL only."""
    frame = sys._current_frames().get(thread or 0)
    while frame is not None and frame.f_code is not function.__code__:
        frame = frame.f_back
    return frame is not None


def eventually(condition: Callable[[], object], limit: float = LIMIT) -> None:
    """Wait until a condition holds that nobody announces."""
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.001)


def opened() -> Counter[str]:
    """Open files; not the descriptors that wake event loops, which the core keeps for the next."""
    found: Counter[str] = Counter()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the folder itself
            found[os.readlink(f"/proc/self/fd/{name}")] += 1
    del found["anon_inode:[eventfd]"]
    return found
