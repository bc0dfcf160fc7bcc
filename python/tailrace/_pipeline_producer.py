"""Producers of a pipeline: a stage around the user's producer object.

The worker forwards demand, calls, casts and messages to the object and takes the events it answers
through the transformer and the rate limit. The object is made anew for each worker, and for each
restart: of a class, by `init` with the arguments of `Produce`; of an instance, as a copy.

A gate that is closed (the window's allowance is used up) keeps demand away from the object; what it
emits all the same waits here, in order. When the gate opens the waiting messages go first, then the
demand that waited (P123 to P125).

Messages pushed from outside pass neither transformer nor gate.
"""

from __future__ import annotations

import copy
from collections import deque
from itertools import islice
from typing import Any, NamedTuple

from . import _core
from ._actions import NOREPLY, UNSET, NoReply, Reply, Stop
from ._core import Message
from ._errors import BadReturn
from ._pipeline_state import Shared
from ._pipeline_worker import CUT, Drain, Quiet, Worker
from ._rate_limit import OPENED
from ._stages import Producer, StageOptions
from .producers._source import SourceFailed

MOST_IN_ADVANCE = 10_000
"""How many events, beyond its demand, are drawn from an iterable that a callback returns."""

HELPER = -1
"""The number of the producer that helps the others out, where the source has one."""


class Push(NamedTuple):
    """A call: emit these messages."""

    messages: list[Message]


class Exhausted(NamedTuple):
    """To the process above: this producer (its number) has nothing more to give."""

    producer: int


class Broken(NamedTuple):
    """To the process above: the source failed for good."""

    error: BaseException


def make_source(shared: Shared, index: int) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """Make the user's producer for one worker; with the arguments of its init."""
    producer, produce = shared.source, shared.plan.produce
    if index == HELPER:
        return producer.open_helper(), (), {}
    if isinstance(producer, type):
        return producer(), produce.args, produce.kwargs
    return copy.copy(producer), (), {}


class ProducerWorker(Worker, Producer):
    """One producer of a pipeline."""

    def init(
        self, shared: Shared, base: str, index: int, window: _core.RateWindow | None
    ) -> Any:
        """Start the user's producer."""
        self.begin(shared, base)
        self.index = index
        self.window = window
        self.transformer = shared.plan.produce.transformer
        self.gated: deque[Message] = deque()  # released when the gate opens
        self.owed: deque[int] = deque()  # demand that waits for the gate
        self.closed = False
        self.draining = shared.draining  # nobody wants more of one that is restarted in a drain
        self.exhausted = False
        self.debt = shared.owed[base] = _core.Held()
        self.source, args, kwargs = make_source(shared, index)
        options = self.source.init(*args, **kwargs)
        if isinstance(options, Stop) or options is None:
            return options
        if not isinstance(options, StageOptions):
            raise BadReturn(options, f"{type(self.source).__qualname__}.init")
        if options.dispatcher is not None:
            raise ValueError(
                "dispatcher: a pipeline dispatches its producers' events itself, got "
                f"{options.dispatcher!r}"
            )
        return options

    # Callbacks, forwarded

    def handle_demand(self, demand: int) -> Any:
        """Ask the user's producer, unless intake has ended."""
        self.debt.add(demand)
        if self.draining or self.exhausted:
            return None
        if self.window is None:
            return self.emit(self.source.handle_demand(demand), demand)
        self.owed.append(demand)
        return self.serve()

    def handle_call(self, request: Any, caller: Any) -> Any:
        """Emit pushed messages; anything else is for the user's producer."""
        if isinstance(request, Push):
            return Reply(None, events=request.messages)
        return self.act(self.source.handle_call(request, caller))

    def handle_cast(self, request: Any) -> Any:
        """Forward a cast."""
        return self.act(self.source.handle_cast(request))

    def handle_continue(self, token: Any) -> Any:
        """Forward a continue."""
        return self.act(self.source.handle_continue(token))

    def handle_timeout(self) -> Any:
        """Forward a timeout."""
        return self.act(self.source.handle_timeout())

    def handle_info(self, message: Any) -> Any:
        """Open the gate; end the intake; anything else is for the user's producer."""
        if message is OPENED:
            return self.open()
        if isinstance(message, Drain):
            return self.drain()
        forward = getattr(self.source, "handle_info", None)
        if message is CUT or isinstance(message, Quiet) or forward is None:
            return super().handle_info(message)
        return self.act(forward(message))

    def terminate(self, reason: Any) -> None:
        """Forward the end."""
        super().terminate(reason)
        terminate = getattr(self.source, "terminate", None)
        if terminate is not None:
            terminate(reason)

    def format_discarded(self, count: int) -> Any:
        """Forward the question whether a discard is worth a line."""
        ask = getattr(self.source, "format_discarded", None)
        return True if ask is None else ask(count)

    # Events

    def emit(self, answer: Any, demand: int = 0) -> Any:
        """Translate what `handle_demand` answered: events, or as the other callbacks."""
        if isinstance(answer, list):
            return self.release(answer)
        if answer is None or isinstance(answer, Stop | NoReply | Reply) or answer is NOREPLY:
            return self.act(answer)
        return self.release(drawn(answer, demand + MOST_IN_ADVANCE, self.source))

    def act(self, answer: Any) -> Any:
        """Translate what another callback answered: actions; a plain value is the server's."""
        if isinstance(answer, Stop):
            return self.stop(answer)
        if isinstance(answer, NoReply | Reply):
            events = drawn(answer.events or [], MOST_IN_ADVANCE, self.source)
            return copy_action(answer, self.release(events))
        return answer

    def stop(self, stop: Stop) -> Any:
        """The source is at its end, or the worker."""
        if isinstance(stop.reason, SourceFailed):
            _core.send(self.shared.top, Broken(stop.reason.error))
        elif stop.reason == "normal":
            _core.send(self.shared.top, Exhausted(self.index))
        else:
            return stop
        self.exhausted = True
        return None if stop.reply is UNSET else Reply(stop.reply)

    def release(self, events: list[Any]) -> list[Message]:
        """Make messages of events, and let them pass as far as the gate is open."""
        if self.transformer is not None:
            events = [self.transformer(event) for event in events]
            checked = events
        else:
            checked = events[:1]
        for message in checked:
            if not isinstance(message, Message):
                raise RuntimeError(
                    f"expected the producer to emit messages, got {message!r}; a transformer "
                    "(Produce(..., transformer=)) can make them"
                )
        if self.window is not None and events:
            events = self.gate(events)
        self.debt.number = max(0, self.debt.number - len(events))
        return events

    # The gate

    def gate(self, messages: list[Message]) -> list[Message]:
        """Let messages pass as far as the window allows; the rest is held."""
        window = self.window
        assert window is not None
        if self.closed:
            self.gated.extend(messages)
            return []
        now = _core.now()
        granted = window.take(len(messages), now)
        self.gated.extend(messages[granted:])
        if granted < len(messages) or not window.left(now):
            self.close()
        return messages[:granted]

    def close(self) -> None:
        """Wait for the next window."""
        self.closed = True
        _core.cast(self.shared.name("RateLimiter"), _core.self())

    def serve(self) -> Any:
        """Ask the user's producer for what is owed, while the gate is open."""
        assert self.window is not None
        events: list[Message] = []
        while self.owed and not self.closed:
            left = self.window.left(_core.now())
            if not left:
                self.close()
                break
            demand = self.owed.popleft()
            if demand > left:
                self.owed.appendleft(demand - left)
            demand = min(demand, left)
            answer = self.emit(self.source.handle_demand(demand), demand)
            if isinstance(answer, Stop):
                return answer
            events.extend(self.events_of(answer))
        return events

    @staticmethod
    def events_of(answer: Any) -> list[Message]:
        """Give the events of a translated answer."""
        if answer is None or answer is NOREPLY:
            return []
        return answer if isinstance(answer, list) else list(answer.events or ())

    def open(self) -> Any:
        """A window has begun: what is held goes first."""
        self.closed = False
        waiting = list(self.gated)
        self.gated.clear()
        events = self.gate(waiting) if waiting else []
        self.debt.number = max(0, self.debt.number - len(events))
        if self.draining:
            self.cut_if_released()
        else:
            more = self.serve()
            if isinstance(more, Stop):
                return more
            events.extend(more)
        return NoReply(events=events) if events else None

    # The end

    def drain(self) -> Any:
        """End the intake: what was emitted leaves, then the consumers are cut (P165, P166)."""
        if self.draining:
            return None
        self.draining = True
        self.owed.clear()
        prepare = getattr(self.source, "prepare_for_draining", None)
        answer = self.emit(prepare()) if prepare is not None else None
        if isinstance(answer, Stop):
            return answer
        self.cut_if_released()
        events = self.events_of(answer)
        return NoReply(events=events) if events else None

    def cut_if_released(self) -> None:
        """Cut the consumers unless messages wait for the gate."""
        if not self.gated:
            self.cut_when_empty()

    def handle_subscribe(self, role: str, options: dict[str, Any], sender: Any) -> str:
        """Note a consumer; one that comes after the cut is cut at once."""
        mode = super().handle_subscribe(role, options, sender)
        if self.draining:
            self.cut_if_released()
        return mode


def drawn(events: Any, most: int, source: object) -> list[Any]:
    """Make a list of the events of a callback of `source`, of no more than `most` of them."""
    if isinstance(events, list):
        return events
    try:
        found = list(islice(events, most + 1))
    except TypeError:
        raise BadReturn(events, f"a callback of {type(source).__qualname__}") from None
    if len(found) > most:
        raise ValueError(f"events: expected at most {most} at a time, got more from {events!r}")
    return found


def copy_action(action: Any, events: list[Message]) -> Any:
    """Make the same action with other events."""
    changed = copy.copy(action)
    changed.events = events
    return changed
