"""The package's exceptions."""

from __future__ import annotations


class EngineError(Exception):
    """Base of all errors that the package raises itself."""


class QueueError(EngineError):
    """A durable queue's file is locked, full, broken or no queue; the text begins with its path.

    The cause, where there is one, is the `sqlite3.Error` or `OSError`.
    """
