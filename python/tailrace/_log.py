"""What the engine logs: crashes, once each, through the standard library's `logging`."""

from __future__ import annotations

import logging
import reprlib
from typing import Any

from ._core import Message, Pid

logger = logging.getLogger("tailrace")


class _Short(reprlib.Repr):
    """Looks at no more of large data than it shows."""

    def repr_Message(self, message: Message, level: int) -> str:
        return f"<Message {self.repr1(message.data, level - 1)}>"

    def repr_bytes(self, data: bytes, level: int) -> str:
        shown = self.maxstring // 4
        return repr(data[:shown]) + "..." if len(data) > shown else repr(data)

    repr_bytearray = repr_bytes


_short = _Short()
_short.maxstring = _short.maxother = 500


def short(value: object) -> str:
    """A representation that is never very long and never raises."""
    try:
        return _short.repr(value)
    except Exception as error:
        return f"<{type(value).__name__} whose repr raised {type(error).__name__}>"


def crash(pid: Pid, what: str, message: Any, cause: Any) -> None:
    """Log the end of a process: who, in which callback, with which message, why.

    Not that one used the engine while it was stopping, or waited for one that was shut down with
    it: everything ends then.
    """
    from ._engine import is_stopping  # which use this module
    from ._errors import CallExit, EngineStopped

    if isinstance(cause, EngineStopped):
        return
    if isinstance(cause, CallExit) and cause.reason == "shutdown" and is_stopping():
        return
    traceback = cause if isinstance(cause, BaseException) else None
    about = "" if message is None else f", message {short(message)}"
    who = repr(pid)  # now: it loses its name before a slow handler looks at it
    logger.error("process %s ended in %s%s: %s", who, what, about, short(cause), exc_info=traceback)
