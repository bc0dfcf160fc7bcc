"""A subscription, as the two stages it connects see it."""

from __future__ import annotations

from typing import Any, Final

from . import _core
from . import _validate as check
from ._core import Pid, Ref

_MOST: Final = 2**63 - 1  # what the core counts to


class Subscription:
    """One subscription, as one of its ends sees it.

    `pid` is the peer at the other end, `tag` a Ref that is the same at both ends. Made by the
    engine; any thread may use it. Subscriptions with equal tags are equal.

    >>> import tailrace as tr
    >>> class Numbers(tr.Producer):
    ...     def handle_demand(self, demand):
    ...         return range(demand)
    >>> class Sink(tr.Consumer):
    ...     def handle_events(self, events, sender):
    ...         pass
    >>> numbers, sink = Numbers.start_link(), Sink.start_link()
    >>> subscription = tr.subscribe(sink, numbers, cancel="temporary", max_demand=10)
    >>> subscription.pid == numbers
    True
    >>> subscription.cancel("normal")
    >>> sink.stop(); numbers.stop()
    """

    __slots__ = ("_producer", "pid", "tag")

    def __init__(self, pid: Any, tag: Ref, producer: Pid | None) -> None:
        """Name the peer, the tag and the producing end; None there makes one that does nothing."""
        self.pid = pid
        self.tag = tag
        self._producer = producer

    def ask(self, n: int) -> None:
        """Ask the producer for `n` more events (int >= 0), for the subscribed consumer.

        For subscriptions whose `handle_subscribe` chose "manual"; on others they come in excess.

        Raises:
            TypeError, ValueError: `n` is no int, or negative.
        """
        check.integer("n", n, 0)
        if n and self._producer is not None:
            _core.stage_ask(self._producer, self.tag, min(n, _MOST))

    def cancel(self, reason: Any) -> None:
        """Ask the producing end to end the subscription with `reason`; returns at once."""
        if self._producer is not None:
            _core.stage_cancel(self._producer, self.tag, reason)

    def __eq__(self, other: object) -> bool:
        """Compare the tags."""
        return isinstance(other, Subscription) and self.tag == other.tag

    def __hash__(self) -> int:
        """Hash the tag."""
        return hash(self.tag)

    def __repr__(self) -> str:
        """Show the peer and the tag."""
        return f"<Subscription {self.tag!r} with {self.pid!r}>"
