"""What the workers of a pipeline have in common: subscribing, and the end of work in a drain.

A worker subscribes to its sources by name, with messages to itself, so that a source which is not
there yet, or not any more, is tried again after `resubscribe_interval`. It traps exits, so that a
callback under way is finished when the worker is stopped.

A drain cuts the pipeline from its source downwards: a producer whose events have all left cancels
its consumers; a worker that has been cut by all its sources finishes what it holds, lets it leave,
and cancels its own consumers; one of the last layer reports to the terminator (`Drain.to`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from . import _core
from ._actions import Exit, NoReply
from ._log import logger
from ._pipeline_state import Shared
from ._stages import Subscription, async_info, async_subscribe


class Drain(NamedTuple):
    """Intake ends. Sent to every worker; those of the last layer report to `to` when they are
    done.
    """

    to: Any


class Quiet(NamedTuple):
    """Sent to every worker, for an answer to `to`: nothing of the user's runs in it any more."""

    to: Any


class Drained(NamedTuple):
    """A worker of the last layer has nothing left to do, or a worker is quiet."""

    pid: Any


class Subscribe(NamedTuple):
    """To oneself: subscribe to the source of this name."""

    source: str


class Cut:
    """To oneself, behind all events: everything has left, cancel the consumers."""


CUT = Cut()


class Worker:
    """A mix-in for stages: the consumers' end of things."""

    shared: Shared
    base: str
    remote: Any = None  # a worker of the operating system's, see _os_pipeline

    @classmethod
    def _factory(cls, scheduler: str | None) -> Any:
        """Run here in any case: what runs elsewhere are the pipeline's handlers."""
        return cls

    def begin(self, shared: Shared, base: str) -> None:
        """Prepare; first thing in init."""
        _core.trap_exit(True)
        self.shared = shared
        self.base = base
        self.held = shared.held[base] = _core.Held()
        self.consumers: dict[Any, Subscription] = {}

    def handle_subscribe(self, role: str, options: dict[str, Any], sender: Subscription) -> str:
        """Note a consumer."""
        self.consumers[sender.tag] = sender
        return "automatic"

    def handle_cancel(self, reason: Any, sender: Subscription) -> Any:
        """Forget a consumer."""
        self.consumers.pop(sender.tag, None)

    def handle_info(self, message: Any) -> Any:
        """Take the worker's own messages, and ends of processes that were linked to it (P72)."""
        if message is CUT:
            self.cut()
        elif isinstance(message, Quiet):
            _core.send(message.to, Drained(_core.self()))
        elif isinstance(message, Exit):
            if message.reason not in ("normal", "shutdown"):
                logger.error(
                    "%s: linked process %r ended: %r",
                    self.shared.name(self.base),
                    message.pid,
                    message.reason,
                )
        else:
            logger.warning("%s: unexpected message %r", self.shared.name(self.base), message)

    def terminate(self, reason: Any) -> None:
        """Leave behind what `run` raises if too many restarts follow."""
        if isinstance(reason, BaseException):
            self.shared.crash = reason
        if self.remote is not None:
            self.remote.end()

    def _let_go(self) -> None:
        """End the worker of the operating system's if this one was killed."""
        if self.remote is not None:
            self.remote.kill()

    def cut(self) -> None:
        """Cancel all consumers."""
        for consumer in list(self.consumers.values()):
            consumer.cancel("shutdown")

    def cut_when_empty(self) -> None:
        """Cancel all consumers once everything emitted has left."""
        async_info(_core.self(), CUT)


class Subscriber(Worker):
    """A mix-in for stages that have sources."""

    demand: dict[str, Any]

    def begin_subscribing(self, sources: list[str], demand: dict[str, Any]) -> None:
        """Subscribe to sources (bases of names), with these subscription options."""
        self.demand = demand
        self.live: dict[Any, str] = {}  # tag of a subscription -> its source
        self.missing = set(sources)  # sources to subscribe to, also if a drain begins meanwhile
        self.underway: set[str] = set()  # sources asked, not yet subscribed to
        self.report: Any = None  # where the end of the drain is to be reported
        self.finished = False
        for source in sources:
            _core.send(_core.self(), Subscribe(source))

    def handle_subscribe(self, role: str, options: dict[str, Any], sender: Subscription) -> str:
        """Note a source or a consumer."""
        if role == "consumer":
            if self.finished:
                self.cut_when_empty()
            return super().handle_subscribe(role, options, sender)
        source = options["source"]
        self.underway.discard(source)
        self.missing.discard(source)
        self.live[sender.tag] = source
        return self.source_found(sender)

    def source_found(self, sender: Subscription) -> str:
        """Choose the mode of the demand."""
        return "automatic"

    def handle_cancel(self, reason: Any, sender: Subscription) -> Any:
        """Go after a lost source, or end."""
        source = self.live.pop(sender.tag, None)
        if source is None:
            return super().handle_cancel(reason, sender)
        if not self.shared.draining:
            self.missing.add(source)
            self._subscribe_later(source)
        return self.end_if_drained()

    def handle_info(self, message: Any) -> Any:
        """Subscribe; take note of the drain."""
        if isinstance(message, Subscribe):
            self._subscribe(message.source)
        elif isinstance(message, Drain):
            self.report = message.to
            for source in self.missing - self.underway:
                self._subscribe(source)
        else:
            return super().handle_info(message)
        return self.end_if_drained()

    def _subscribe(self, source: str) -> None:
        if source not in self.missing or source in self.underway:
            return
        pid = _core.whereis(self.shared.name(source))
        if pid is not None:
            self.underway.add(source)
            async_subscribe(_core.self(), pid, cancel="temporary", source=source, **self.demand)
        elif self.shared.draining:
            self.missing.discard(source)
        else:
            self._subscribe_later(source)

    def _subscribe_later(self, source: str) -> None:
        interval = self.shared.plan.resubscribe_interval
        _core.send_after(_core.self(), Subscribe(source), interval)

    def end_if_drained(self) -> Any:
        """Finish when all sources have cut this worker, and pass the cut on."""
        if (
            self.finished
            or not self.shared.draining
            or self.report is None
            or self.live
            or self.missing
            or self.underway
            or not self.idle()
        ):
            return None
        self.finished = True
        return self.finish()

    def idle(self) -> bool:
        """Whether the worker keeps nothing back."""
        return True

    def finish(self) -> Any:
        """End of work: emit what is left and cut, or report."""
        _core.send(self.report, Drained(_core.self()))


class Forwarder(Subscriber):
    """A mix-in for stages with sources and consumers."""

    def finish(self) -> Any:
        """Emit what is left, and cut the consumers behind it."""
        self.cut_when_empty()
        events = self.last_events()
        return NoReply(events=events) if events else None

    def last_events(self) -> list[Any] | None:
        """Give what the worker still holds."""
        return None
