"""Producers of pipelines: where messages come from."""

from __future__ import annotations

from tailrace.producers._dummy import Dummy
from tailrace.producers._files import Files
from tailrace.producers._iterable import Iterable
from tailrace.producers._queue import Queue

__all__ = ["Dummy", "Files", "Iterable", "Queue"]
