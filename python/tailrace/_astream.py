"""astream: the events of producers, in an `async for` of any event loop.

A consumer on the engine subscribes for the iterator and asks by hand: it asks for as many events as
the iterator has taken, so there are never more than `max_demand` of a producer under way.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable
from typing import Any, NamedTuple

from . import _core
from . import _validate as check
from ._actions import NOREPLY, Down, Stop
from ._asynchronous import acall
from ._errors import EngineStopped, ProcessExit, make_error
from ._stages import Consumer, StageOptions, Subscription

_MODES = ("permanent", "transient", "temporary")


class _Ended(NamedTuple):
    """To the iterator: there is no more; why."""

    reason: Any


def _is_clean(reason: Any) -> bool:
    return reason in ("normal", "shutdown") or (
        isinstance(reason, tuple) and len(reason) == 2 and reason[0] == "shutdown"
    )


class _Reader(Consumer):
    """The consumer that reads for an iterator."""

    def init(self, sources: list[tuple[Any, dict[str, Any]]], owner: _core.Pid) -> StageOptions:
        """Subscribe."""
        _core.monitor(owner)
        self.owner = owner
        self.modes: dict[Any, str] = {}  # tag of a subscription -> when its end is the stream's
        self.events: list[Any] = []
        self.counts: dict[Any, tuple[Subscription, int]] = {}  # whose the events are
        self.caller: _core.From | None = None  # the iterator, which waits
        self.ended: _Ended | None = None
        return StageOptions(subscribe_to=sources)

    def handle_subscribe(self, role: str, options: dict[str, Any], sender: Subscription) -> str:
        """Ask for the first events."""
        self.modes[sender.tag] = options["ends_stream"]
        sender.ask(options["max_demand"])
        return "manual"

    def handle_events(self, events: list[Any], sender: Subscription) -> None:
        """Keep them for the iterator."""
        self.events += events
        count = self.counts[sender.tag][1] if sender.tag in self.counts else 0
        self.counts[sender.tag] = (sender, count + len(events))
        self.give()

    def handle_call(self, request: Any, caller: _core.From) -> Any:
        """Give the iterator the next events, when there are some."""
        self.caller = caller
        self.give()
        return NOREPLY

    def give(self) -> None:
        """Answer the iterator, and ask for as many as it takes."""
        if self.caller is None or not (self.events or self.ended):
            return
        caller, self.caller = self.caller, None
        if not self.events:
            _core.reply(caller, self.ended)
            return
        _core.reply(caller, self.events)
        self.events = []
        for sender, count in self.counts.values():
            sender.ask(count)
        self.counts.clear()

    def handle_cancel(self, reason: tuple[str, Any], sender: Subscription) -> None:
        """End the stream, or go on with the others."""
        mode, why = self.modes.pop(sender.tag, "permanent"), reason[1]
        self.counts.pop(sender.tag, None)
        ends = mode == "permanent" or (mode == "transient" and not _is_clean(why))
        if self.ended is None and (ends or not self.modes):
            self.ended = _Ended(why)
            self.give()

    def handle_info(self, message: Any) -> Any:
        """End with the process that iterates."""
        return Stop("shutdown") if isinstance(message, Down) else None


def _check(entries: Iterable[Any]) -> list[tuple[Any, dict[str, Any]]]:
    sources = []
    for index, entry in enumerate(entries):
        stage, given = entry if isinstance(entry, tuple) else (entry, {})
        options = dict(check.mapping(f"subscriptions[{index}]", given))
        mode = options.pop("cancel", "permanent")
        check.one_of(f"subscriptions[{index}].cancel", mode, _MODES)
        sources.append(
            (stage, {"max_demand": 1000, **options, "cancel": "temporary", "ends_stream": mode})
        )
    return sources


async def astream(subscriptions: Iterable[Any]) -> AsyncIterator[Any]:
    """Iterate over the events of producers, asynchronously, with demand.

    Leaving the loop early, or `aclose()`, ends the subscriptions.

    Args:
        subscriptions: producers, or tuples of a producer and a dict of subscription options. With
            `cancel="permanent"` (the default) the stream ends when this subscription does, with
            "transient" when it does so uncleanly, with "temporary" when all have.

    Yields:
        The events, in the order in which they come.

    Raises:
        CallExit: a subscription ended for another reason than "normal" or "shutdown".
        NoProcess: a producer does not run.
        TypeError, ValueError: a bad option.

    Tasks of any event loop, in any thread, may iterate.

    >>> import asyncio
    >>> import tailrace as tr
    >>> class Three(tr.Producer):
    ...     def init(self):
    ...         self.left = 3
    ...     def handle_demand(self, demand):
    ...         if not self.left:
    ...             return tr.Stop("normal")
    ...         self.left -= 1
    ...         tr.async_info(tr.self(), None)
    ...         return [self.left]
    ...     def handle_info(self, message):
    ...         if self.left:
    ...             self.left -= 1
    ...             tr.async_info(tr.self(), None)
    ...             return tr.NoReply(events=[self.left])
    ...         return tr.Stop("normal")
    >>> async def main():
    ...     return [event async for event in tr.astream([Three.start()])]
    >>> asyncio.run(main())
    [2, 1, 0]
    """
    sources = _check(subscriptions)
    if not sources:
        return
    reader = await _Reader.astart(sources, _core.self())
    try:
        while True:
            events = await acall(reader, None, None)
            if isinstance(events, _Ended):
                if events.reason == "noproc":
                    raise make_error("noproc", sources[0][0])
                if not _is_clean(events.reason):
                    raise make_error("call_exit", events.reason)
                return
            for event in events:
                yield event
    finally:
        # It ends with this process and with the engine, too.
        with contextlib.suppress(EngineStopped, ProcessExit, _core.Killed):
            _core.exit(reader, "shutdown")
