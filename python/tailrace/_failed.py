"""What becomes of messages that failed, before they are acknowledged.

Runs in the worker where they failed. What the user's code raises here is contained: it is logged,
and the messages are acknowledged as failed all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import _core
from ._acknowledge import acknowledge
from ._companion import Companion
from ._core import Message
from ._errors import CallExit
from ._log import logger, short

GOES_ON = (_core.Killed,)
"""What interrupts the code of a killed process: never contained."""


def is_exit(error: BaseException) -> bool:
    """Whether an exception is a request to end, or the death of something waited for."""
    return not isinstance(error, Exception) or isinstance(error, CallExit)


def fail(messages: list[Message], error: BaseException) -> None:
    """Mark messages as exceptions."""
    exit = is_exit(error)
    for message in messages:
        _core.set_exception(message, error, exit)


class Settler:
    """Settles the failed messages of one worker: `handle_failed`, then the dead letter."""

    def __init__(
        self,
        pipeline: object,
        name: str,
        dead_letter: Callable[[Message], Any] | None,
        ledger: _core.Ledger,
        companion: Companion,
    ) -> None:
        self._name = name
        self._handle_failed = companion.plain(getattr(pipeline, "handle_failed", None))
        self._dead_letter = dead_letter
        self._ledger = ledger

    def settle(self, failed: list[Message]) -> list[Message]:
        """Return what is to be acknowledged as failed."""
        if self._handle_failed is not None:
            failed = self._call(failed)
        return failed if self._dead_letter is None else self._bury(failed)

    def _call(self, failed: list[Message]) -> list[Message]:
        originals = failed.copy()
        try:
            returned: list[Message] = self._handle_failed(failed)
            _core.split(returned)  # raises for anything but a list of messages
        except GOES_ON:
            raise
        except BaseException:
            logger.exception("%s: handle_failed raised, or returned no messages", self._name)
            return originals
        if len(returned) != len(originals):
            logger.error(
                "%s: handle_failed got %d messages and returned %d; only those are acknowledged",
                self._name,
                len(originals),
                len(returned),
            )
        return returned

    def _bury(self, failed: list[Message]) -> list[Message]:
        """Hand messages to the dead letter: those it takes are done with, successfully."""
        taken, left = [], []
        for message in failed:
            try:
                self._dead_letter(message)  # type: ignore[misc]
            except GOES_ON:
                raise
            except BaseException:
                logger.exception("%s: dead_letter raised for %s", self._name, short(message))
                left.append(message)
            else:
                taken.append(message)
        acknowledge(taken, [])
        self._ledger.add(successful=len(taken), dead=len(taken))
        return left
