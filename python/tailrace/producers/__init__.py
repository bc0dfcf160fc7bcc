"""Producers of pipelines: where messages come from."""

from __future__ import annotations

from tailrace.producers._queue import Queue

__all__ = ["Queue"]
