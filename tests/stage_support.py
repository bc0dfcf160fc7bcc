"""Stages for tests: they tell the test's process what their callbacks were called with."""

from __future__ import annotations

from typing import Any

from support import LIMIT

import tailrace as tr


class Counter(tr.Producer):
    """Counts from 0; tells `watcher` each demand if there is one. Emits the lists it is sent."""

    def init(self, watcher: tr.Pid | None = None, limit: int | None = None) -> Any:
        self.watcher = watcher
        self.limit = limit
        self.next = 0

    def handle_demand(self, demand: int) -> Any:
        if self.watcher is not None:
            self.watcher.send(("demand", demand))
        if self.limit is not None:
            demand = min(demand, self.limit - self.next)
        events = list(range(self.next, self.next + demand))
        self.next += demand
        return events

    def handle_info(self, message: Any) -> Any:
        return tr.NoReply(events=message)

    def handle_call(self, request: Any, caller: tr.From) -> Any:
        return tr.Reply(len(request), events=request)


class Silent(Counter):
    """A producer that emits only what it is sent; tells `watcher` about consumers and infos."""

    def handle_demand(self, demand: int) -> Any:
        if self.watcher is not None:
            self.watcher.send(("demand", demand))
        return None

    def handle_cancel(self, reason: Any, sender: tr.Subscription) -> Any:
        if self.watcher is not None:
            self.watcher.send(("lost", reason))

    def handle_info(self, message: Any) -> Any:
        if isinstance(message, list):
            return tr.NoReply(events=message)
        assert self.watcher is not None
        self.watcher.send(("info", message))
        return None


class Sink(tr.Consumer):
    """Tells `watcher` what it gets; `mode` is what it answers for subscriptions."""

    def init(self, watcher: tr.Pid, mode: str = "automatic") -> Any:
        self.watcher = watcher
        self.mode = mode

    def handle_subscribe(self, role: str, options: Any, sender: tr.Subscription) -> Any:
        self.watcher.send(("subscribed", role, options, sender))
        return self.mode

    def handle_events(self, events: list[Any], sender: tr.Subscription) -> Any:
        self.watcher.send(events)

    def handle_cancel(self, reason: Any, sender: tr.Subscription) -> Any:
        self.watcher.send(("cancelled", reason))

    def handle_info(self, message: Any) -> Any:
        self.watcher.send(("info", message))


class Doubler(tr.ProducerConsumer):
    """Emits each event twice."""

    def handle_events(self, events: list[Any], sender: tr.Subscription) -> Any:
        return [event for event in events for _ in range(2)]


def options(**given: Any) -> tr.StageOptions:
    """Stage options; a short name."""
    return tr.StageOptions(**given)


def received() -> Any:
    """The next message of the test's process."""
    return tr.receive(timeout=LIMIT)


def received_kind(kind: str) -> Any:
    """The next message that begins with `kind`; others before it are dropped."""
    while True:
        message = received()
        if isinstance(message, tuple) and message[0] == kind:
            return message


def events(count: int) -> list[Any]:
    """The next events that a Sink tells of, `count` of them; other messages are dropped."""
    got: list[Any] = []
    while len(got) < count:
        message = received()
        if isinstance(message, list):
            got += message
    return got


def batches(count: int) -> list[list[Any]]:
    """The next `count` batches."""
    got: list[list[Any]] = []
    while len(got) < count:
        message = received()
        if isinstance(message, list):
            got.append(message)
    return got


class Watch:
    """Watches a process from now on."""

    def __init__(self, pid: tr.Pid) -> None:
        self.ref = tr.monitor(pid)

    def reason(self) -> Any:
        """Wait for its end; the reason."""
        return tr.receive(self.ref, timeout=LIMIT).reason
