"""Iterable: a producer that hands out the items of an iterable.

All workers of a pipeline draw from one iterator, one at a time, also a worker that replaces a
killed one. An iterator that takes its time does not hold the worker up for a whole demand: after a
moment it emits what there is and goes on with a message to itself, so that pushed messages and the
end of the pipeline get their turn.
"""

from __future__ import annotations

import collections.abc
import copy
import threading
from typing import Any, Final

from tailrace import _core
from tailrace._actions import NoReply, Stop
from tailrace._errors import EngineError
from tailrace._stages import Producer
from tailrace.producers._source import SourceFailed

_PATIENCE: Final = 10_000_000  # ns for one demand
_INTERRUPTED: Final = (
    "the iterable's own code was interrupted when its producer was killed: what it would have "
    "handed out next is unknown"
)


class _More:
    """To oneself: go on with the demand that is left."""


_MORE = _More()


class _Shared:
    """The one iterator that the workers of a pipeline draw from."""

    def __init__(self, iterable: collections.abc.Iterable[Any]) -> None:
        self.source = _core.Source(iterable)
        self.lock = threading.Lock()  # iterators are for one thread at a time

    def pull(self, count: int, as_messages: bool) -> tuple[list[Any], Stop | None]:
        """Give up to `count` items, fewer when they take long; and the end, if this is it."""
        source = self.source
        with self.lock:
            events = source.pull(count, as_messages, _PATIENCE)
            if source.error is not None:
                return events, Stop(SourceFailed(source.error))
            if source.interrupted:
                return events, Stop(SourceFailed(EngineError(_INTERRUPTED)))
            return events, Stop("normal") if source.ended else None


class Iterable(Producer):
    """Hands out the items of `iterable`, each as the data of a message.

    The pipeline ends when the iterable does. An exception in it ends the intake: what was handed
    out is finished, then `run` raises the exception. With a transformer, that gets the bare items.

    >>> import tailrace as tr
    >>> tr.producers.Iterable(["a", "b"])
    Iterable(['a', 'b'])
    """

    def __init__(self, iterable: collections.abc.Iterable[Any]) -> None:
        if not isinstance(iterable, collections.abc.Iterable):
            raise TypeError(f"iterable: expected an iterable, got {iterable!r}")
        self._iterable = iterable
        self._shared: _Shared | None = None
        self._as_messages = True
        self._owed = 0
        self._ended = False  # all is handed out, and the pipeline does not know it yet

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._iterable!r})"

    def open_source(self, transformed: bool) -> Iterable:
        """Begin a pipeline: what its workers copy, with the iterator they share."""
        source = copy.copy(self)
        source._shared = _Shared(self._iterable)
        source._as_messages = not transformed
        return source

    def init(self) -> None:
        """Begin a worker."""
        self._owed = 0

    def handle_demand(self, demand: int) -> list[Any] | Stop:
        """Emit what there is of what is owed."""
        self._owed += demand
        return self._pull()

    def handle_info(self, message: Any) -> NoReply | Stop | None:
        """Go on."""
        if message is not _MORE or not (self._owed or self._ended):
            return None
        events = self._pull()
        return events if isinstance(events, Stop) else NoReply(events=events)

    def _pull(self) -> list[Any] | Stop:
        shared = self._shared
        assert shared is not None
        events, end = shared.pull(self._owed, self._as_messages)
        self._owed -= len(events)
        if end is not None and not events:
            return end
        if end is not None or self._owed:
            _core.send(_core.self(), _MORE)
            self._ended = end is not None
        return events
