"""Iterable: a producer that hands out the items of an iterable.

All workers of a pipeline draw from one iterator, one at a time, also a worker that replaces a
killed one. A worker draws for the demand it has and emits what it got; after a moment it emits
what there is and goes on with a message to itself, so that pushed messages and the end of the
pipeline get their turn.

An iterator may block with items already handed out to the worker, which cannot emit them while it
waits inside the iterator. So there is one more producer, the *handover*: the first draw after a
pause starts its clock, and each time that it finds a draw that has lasted for more than a moment it
takes what was drawn so far and emits that itself, for demand of its own. When the intake ends, it
also ends workers that go on waiting inside the iterator.
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

_PATIENCE: Final = 10_000_000  # ns that a draw may last before what it has is taken
_INTERVAL: Final = 0.02  # seconds between two looks of the handover while somebody draws
_GRACE: Final = 1_000_000_000  # ns that a draw may last once the intake has ended
_INTERRUPTED: Final = (
    "the iterable's own code was interrupted when its producer was killed: what it would have "
    "handed out next is unknown"
)


class _More:
    """To oneself: go on with the demand that is left."""


_MORE = _More()


class _Look:
    """To the handover, by itself or by a worker that begins to draw: look after the draw."""


_LOOK = _Look()


class _Shared:
    """The one iterator that the workers of a pipeline draw from."""

    def __init__(self, iterable: collections.abc.Iterable[Any], as_messages: bool) -> None:
        self.source = _core.Source(iterable)
        self.as_messages = as_messages
        self.lock = threading.Lock()  # iterators are for one thread at a time
        self.drawing: Any = None  # the process that draws, or drew last
        self.handover: Any = None  # the process that looks after it
        self.watched = False  # whether the handover's clock runs
        self.touched = False  # whether somebody has drawn since it looked; set before looking

    def pull(self, count: int) -> tuple[list[Any], Stop | None]:
        """Give up to `count` items, fewer when they take long; and the end, if this is it."""
        source = self.source
        self.touched = True
        if not self.watched and self.handover is not None:
            self.watched = True
            _core.send(self.handover, _LOOK)
        with self.lock:
            self.drawing = _core.self()
            events = source.pull(count, self.as_messages, _PATIENCE)
            if source.error is not None:
                return events, Stop(SourceFailed(source.error))
            if source.interrupted:
                return events, Stop(SourceFailed(EngineError(_INTERRUPTED)))
            return events, Stop("normal") if source.ended else None


class _Handover(Producer):
    """Emits what was drawn by a worker that waits inside the iterator."""

    def __init__(self, shared: _Shared) -> None:
        self._shared = shared
        self._draining_since: int | None = None

    def init(self) -> None:
        """Be there for the workers."""
        self._shared.handover = _core.self()
        self._shared.watched = False

    def handle_demand(self, demand: int) -> None:
        """Nothing is made here: demand waits until something is taken over."""

    def handle_info(self, message: Any) -> NoReply | None:
        """Look after the draw in progress."""
        if message is not _LOOK:
            return None
        events = self._shared.source.rescue(_PATIENCE)
        self._end_who_waits()
        self._look_again()
        return None if events is None else NoReply(events=events)

    def _look_again(self) -> None:
        """Let the clock run on, unless nobody draws.

        Whoever begins to draw sets `touched`, then looks at `watched`: so either he sees that the
        clock has stopped, or it is seen here that it must not.
        """
        shared = self._shared
        busy = shared.touched or shared.source.age > 0
        shared.touched = False
        if not busy:
            shared.watched = False
            busy = shared.touched
        if busy:
            shared.watched = True
            _core.send_after(_core.self(), _LOOK, _INTERVAL)

    def prepare_for_draining(self) -> list[Any] | None:
        """Take over what is there, and go on looking."""
        self._draining_since = _core.now()
        _core.send(_core.self(), _LOOK)
        return self._shared.source.rescue(0)

    def _end_who_waits(self) -> None:
        """In a drain, kill a worker that keeps waiting inside the iterator: nobody wants more."""
        if self._draining_since is None or not self._shared.source.age:
            return
        if min(_core.now() - self._draining_since, self._shared.source.age) > _GRACE:
            _core.exit(self._shared.drawing, "kill")


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
        self._owed = 0
        self._ended = False  # all is handed out, and the pipeline does not know it yet

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._iterable!r})"

    def open_source(self, transformed: bool) -> Iterable:
        """Begin a pipeline: what its workers copy, with the iterator they share."""
        source = copy.copy(self)
        source._shared = _Shared(self._iterable, as_messages=not transformed)
        return source

    def open_helper(self) -> _Handover:
        """Make what one more worker of the pipeline runs."""
        assert self._shared is not None
        return _Handover(self._shared)

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
        events, end = shared.pull(self._owed)
        self._owed -= len(events)
        if end is not None and not events:
            return end
        if end is not None or self._owed:
            _core.send(_core.self(), _MORE)
            self._ended = end is not None
        return events
