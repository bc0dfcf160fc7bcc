"""Processors: run `handle_message` on each message of a chunk.

Without batchers a processor is a consumer and acknowledges everything; with batchers it
acknowledges what failed and forwards the rest. The loop over a chunk is `_core.MessageLoop`. An
`async def handle_message` runs on all messages of a chunk at the same time, before the loop.

With a `Retry` the demand is manual: a message that waits for its next run keeps the place it took
in the demand of its source, so a worker never holds more than `max_demand` messages of a source.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from . import _core
from ._acknowledge import acknowledge
from ._actions import NoReply
from ._companion import Companion, Outcome
from ._core import Message
from ._failed import GOES_ON, Settler, fail
from ._log import logger, short
from ._os_pipeline import Remote
from ._pipeline_state import Shared
from ._pipeline_worker import Forwarder, Subscriber, Worker
from ._stages import Consumer, ProducerConsumer, StageOptions, Subscription


class Again(NamedTuple):
    """To oneself: run a message again."""

    message: Message
    run: int
    source: Subscription


class AsyncChunk:
    """Runs an async `handle_message` on all messages of a chunk at the same time.

    Then the loop over the chunk goes through what came of it, in order, as if it came just then.
    """

    loop: Callable[..., list[Message] | None]

    def __init__(self, handle_message: Any, companion: Companion) -> None:
        self._handle_message = handle_message
        self._companion = companion
        self._outcomes: Iterator[Outcome] = iter(())

    def handle(self, messages: list[Message], sender: Any = None) -> list[Message] | None:
        """Run a chunk, as a MessageLoop does."""
        self._outcomes = iter(self._companion.run_all(self._handle_message, messages))
        return self.loop(messages, sender)

    def handle_message(self, message: Message) -> Message:
        """Give or raise what came of the next message."""
        returned, value = next(self._outcomes)
        if not returned:
            raise value
        handled: Message = value
        return handled


class Processing(Subscriber):
    """What both kinds of processors do."""

    handle_events: Any
    user_callbacks = ("handle_message", "prepare_messages", "handle_failed")
    _runs_coroutines = True

    def init(self, shared: Shared, base: str) -> Any:
        """Start to subscribe."""
        self.begin(shared, base)
        plan, name = shared.plan, shared.name(base)
        companion = Companion()
        self.prepare = companion.plain(getattr(shared.instance, "prepare_messages", None))
        self.retry = plan.retry
        self.run = 1  # of the messages being handled
        self.waiting = 0  # messages that wait for another run
        self.parked = 0  # of them, those of the chunk being handled
        self.source: Any = None  # of the chunk being handled
        self.settler = Settler(shared.instance, name, plan.dead_letter, shared.ledger, companion)
        handler = shared.instance.handle_message
        chunk = None
        if plan.processors.scheduler == "process":
            self.remote = Remote(shared.instance, name)
            handler = self.remote.outcome
        elif inspect.iscoroutinefunction(handler):
            chunk = AsyncChunk(handler, companion)
            handler = chunk.handle_message
        self.loop: Callable[..., list[Message] | None] = _core.MessageLoop(
            handler,
            frozenset(plan.batchers) if plan.batchers else None,
            shared.ledger,
            self.held,
            self.raised,
            self.settler.settle,
            acknowledge,
        )
        if chunk is not None:
            chunk.loop, self.loop = self.loop, chunk.handle
        if self.retry is not None:
            self.handle_events = self.handle_retried
        else:
            self.handle_events = self.runner(1)
        self.begin_subscribing(
            shared.sources(),
            {"max_demand": plan.processors.max_demand, "min_demand": plan.processors.lower},
        )
        return self.stage_options()

    def stage_options(self) -> Any:
        """Choose the dispatcher."""
        return None

    def runner(self, run: int) -> Any:
        """Choose what handles messages in their `run`th run."""
        if self.remote is not None:
            return self.handle_remotely
        return self.loop if self.prepare is None or run > 1 else self.handle_prepared

    def handle_remotely(self, messages: list[Message], sender: Any) -> Any:
        """Have the worker run the callbacks, then go on with what became of each message."""
        size = len(messages)
        originals = messages.copy()
        self.held.number += size
        try:
            handled = self.remote.handle(messages, self.prepare is not None and self.run == 1)
        except GOES_ON:
            raise
        except BaseException as error:
            self.log("prepare_messages", originals, error)
            fail(originals, error)
            self.give_up(originals)
            forward = None
        else:
            forward = self.loop(handled, sender)
        finally:
            self.held.number -= size
        self.remote.revive()
        return forward

    def handle_prepared(self, messages: list[Message], sender: Any) -> Any:
        """Run `prepare_messages` first; if it goes wrong the whole chunk has failed (P67)."""
        originals = messages.copy()
        try:
            prepared = self.prepare(messages)
            _core.split(prepared)  # raises for anything but a list of messages
            if len(prepared) != len(originals):
                raise RuntimeError(
                    f"prepare_messages: expected {len(originals)} messages to be returned, "
                    f"got {len(prepared)}"
                )
        except GOES_ON:
            raise
        except BaseException as error:
            self.log("prepare_messages", originals, error)
            fail(originals, error)
            return self.give_up(originals)
        return self.loop(prepared.copy(), sender)

    def give_up(self, messages: list[Message]) -> None:
        """Settle and acknowledge failed messages."""
        failed = self.settler.settle(messages)
        acknowledge([], failed)
        self.shared.ledger.add(failed=len(failed))

    def raised(self, message: Message, error: BaseException) -> bool:
        """Judge an exception of `handle_message`: True keeps the message for another run."""
        retry = self.retry
        if retry and self.run < retry.max_attempts and isinstance(error, retry.on):
            try:
                delay = self.delay()
            except Exception:
                logger.exception("%s: backoff raised", self.shared.name(self.base))
            else:
                _core.send_after(_core.self(), Again(message, self.run + 1, self.source), delay)
                self.parked += 1
                return True
        self.log("handle_message", message, error)
        fail([message], error)
        return False

    def log(self, callback: str, what: object, error: BaseException) -> None:
        """Log what a callback raised."""
        logger.error(
            "%s: %s raised for %s",
            self.shared.name(self.base),
            callback,
            short(what),
            exc_info=error,
        )

    # Running again

    def delay(self) -> float:
        """Give the seconds until the next run."""
        retry = self.retry
        assert retry is not None
        backoff = retry.backoff
        if callable(backoff):
            delay = float(backoff(self.run))
        else:
            delay = backoff * 2 ** min(self.run - 1, 60)
        return max(0.0, delay) * (1 + random.random() * retry.jitter)

    def source_found(self, sender: Subscription) -> str:
        """With retries, ask by hand."""
        if self.retry is None:
            return "automatic"
        sender.ask(self.shared.plan.processors.max_demand)
        return "manual"

    def handle_retried(self, messages: list[Message], sender: Subscription) -> Any:
        """Run a chunk, and ask for as many as are done with."""
        size = len(messages)
        forward = self.attempt(messages, sender, 1)
        if size > self.parked:
            sender.ask(size - self.parked)
        return forward

    def attempt(self, messages: list[Message], sender: Subscription, run: int) -> Any:
        """Run messages for the `run`th time."""
        self.run, self.source, self.parked = run, sender, 0
        forward = self.runner(run)(messages, sender)
        self.waiting += self.parked
        self.held.number = self.waiting
        return forward

    def handle_info(self, message: Any) -> Any:
        """Run a message again."""
        if not isinstance(message, Again):
            return super().handle_info(message)
        self.waiting -= 1
        self.shared.ledger.add(retried=1)
        forward = self.attempt([message.message], message.source, message.run)
        if not self.parked and message.source.tag in self.live:
            message.source.ask(1)
        ended = self.end_if_drained()
        if forward:
            return NoReply(events=forward)  # the cut, if there is one, comes behind them
        return ended

    def idle(self) -> bool:
        """Nothing is kept back but messages that wait for another run."""
        return self.waiting == 0


class LastProcessor(Processing, Consumer):
    """A processor of a pipeline without batchers."""


class Processor(Processing, Forwarder, ProducerConsumer):
    """A processor of a pipeline with batchers."""

    def stage_options(self) -> StageOptions:
        """Send each message to its batcher."""
        batchers = list(self.shared.plan.batchers)
        if len(batchers) == 1:
            return StageOptions()
        return StageOptions(dispatcher=_core.RouteDispatcher(batchers))


__all__ = ["LastProcessor", "Processor", "Worker"]
