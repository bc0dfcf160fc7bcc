"""A durable queue as the producer of a pipeline.

Items are leased for demand only, as many as are asked for. While there are fewer, the worker waits:
for a commit of this process (it is told), for the time at which the next item is due, at most for
`poll_interval`, after which it looks for what other processes put.

The acknowledger completes or fails items with the commit it waits for. When the file is locked or
the disk is full, leasing and acknowledging try again until they succeed or their process is
stopped; the first failure is logged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from tailrace import _core
from tailrace._actions import NoReply, Stop
from tailrace._core import Message
from tailrace._errors import QueueError
from tailrace._stages import Producer

if TYPE_CHECKING:
    from ._queue import Queue

T = TypeVar("T")

logger: Final = logging.getLogger("tailrace")

_PAUSE: Final = 0.2  # seconds between two tries on a queue that fails
_SHORTEST: Final = 0.001  # seconds until the next look, also if an item seems to be due now


class _Wake:
    """To oneself: there may be items."""


_WAKE: Final = _Wake()


class QueueAcknowledger:
    """Completes items, or fails them, which delays or buries them. ack_data is the item."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    def __repr__(self) -> str:
        return f"QueueAcknowledger({self._queue!r})"

    def ack(self, ack_ref: Any, successful: list[Message], failed: list[Message]) -> None:
        """Return after the commit."""
        done = [item_of(message) for message in successful]
        lost = [(item_of(message), reason_of(message)) for message in failed]
        persist(self._queue, "acknowledging", lambda: self._queue._acknowledge(done, lost))


def item_of(message: Message) -> Any:
    """Give the item that a message carries."""
    assert message.acknowledger is not None
    return message.acknowledger[2]


def reason_of(message: Message) -> str:
    """Say why a message failed: for an exception its type and text."""
    reason = message.reason
    if isinstance(reason, BaseException):
        return f"{type(reason).__name__}: {reason}"
    return str(reason)


def is_closed(queue: Queue) -> bool:
    """Whether no try can succeed any more."""
    return queue._store._closed


def persist(queue: Queue, what: str, attempt: Callable[[], T]) -> T:
    """Try until it succeeds, or this process is stopped; only a closed queue is final."""
    logged = False
    while True:
        try:
            return attempt()
        except QueueError as error:
            if is_closed(queue):
                raise
            if not logged:
                logger.error("%s fails, trying again: %s", what, error)
                logged = True
        _core.sleep(_PAUSE)


class QueueSource(Producer):
    """One worker that leases items."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._acknowledger = QueueAcknowledger(queue)
        self._owed = 0
        self._hungry = False  # whether a commit is worth a message
        self._failing = False
        self._timer: Any = None

    def init(self) -> None:
        """Ask to be woken by this process's own puts."""
        self._me = _core.self()
        self._queue._subscribe(self._woken)

    def terminate(self, reason: Any) -> None:
        """Be woken no more."""
        self._queue._unsubscribe(self._woken)

    def prepare_for_draining(self) -> None:
        """Take no more."""
        self._owed = 0
        self._hungry = False

    def _woken(self) -> None:
        """Called after a commit, in any thread."""
        if self._hungry:
            self._hungry = False
            _core.send(self._me, _WAKE)

    def handle_demand(self, demand: int) -> list[Message] | Stop:
        """Lease what there is for what is owed."""
        self._owed += demand
        return self._take()

    def handle_info(self, message: Any) -> NoReply | Stop | None:
        """Look again."""
        if message is not _WAKE or not self._owed:
            return None
        events = self._take()
        return events if isinstance(events, Stop) else NoReply(events=events)

    def _take(self) -> list[Message] | Stop:
        self._hungry = True  # before looking: what is committed from here on wakes
        try:
            items = self._queue._lease(self._owed)
            exhausted = not items and self._queue._until_empty and self._queue._exhausted()
            pause = 0.0 if items else self._pause()
        except QueueError as error:
            if is_closed(self._queue):
                raise
            self._failed(error)
            return []
        self._failing = False
        if exhausted:
            return Stop("normal")
        self._owed -= len(items)
        if not self._owed:
            self._hungry = False
        else:
            self._look_again(pause)
        return [self._message(item) for item in items]

    def _message(self, item: Any) -> Message:
        facts = {"id": item.id, "attempts": item.attempts, "enqueued_at": item.enqueued_at}
        return Message(item.data, facts, (self._acknowledger, None, item))

    def _pause(self) -> float:
        """Give the seconds until it is worth looking again."""
        hint = self._queue._wait_hint()
        interval = self._queue._poll_interval
        return interval if hint is None else max(_SHORTEST, min(hint, interval))

    def _failed(self, error: QueueError) -> None:
        if not self._failing:
            logger.error("leasing fails, trying again: %s", error)
        self._failing = True
        self._look_again(_PAUSE)

    def _look_again(self, pause: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if pause > 0:
            self._timer = _core.send_after(_core.self(), _WAKE, pause)
        else:
            _core.send(_core.self(), _WAKE)
