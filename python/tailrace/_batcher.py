"""Batchers: group messages by batch key; batch processors: run `handle_batch` on the groups.

One batcher per key of the pipeline's `batchers`. It emits each batch as one event, a triple
(messages, batch_key, trigger), which a batch processor asks for one at a time; while all of them
are busy the batcher takes no messages in, but batches still leave when their time is over.

The time of batches is kept with one timer at most: it runs for the batch that expires first when it
is set, and is set anew when it fires. A batch that left before is not looked for.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from . import _core
from ._acknowledge import acknowledge
from ._actions import NoReply
from ._companion import Companion
from ._core import Message
from ._failed import Settler, fail
from ._log import logger, short
from ._os_pipeline import Remote
from ._pipeline_options import BatchInfo
from ._pipeline_state import Shared
from ._pipeline_worker import Forwarder, Subscriber
from ._stages import Consumer, ProducerConsumer

NANOSECONDS = 1_000_000_000


class Expire:
    """To oneself: some batch may have expired."""


EXPIRE = Expire()


def once(messages: list[Message]) -> list[Message]:
    """Leave each message in the list once (P108)."""
    return list({id(message): message for message in messages}.values())


class BatcherWorker(Forwarder, ProducerConsumer):
    """The one batcher of a key."""

    user_callbacks = ("handle_failed",)
    _runs_coroutines = True

    def init(self, shared: Shared, base: str, key: str) -> None:
        """Open for messages."""
        self.begin(shared, base)
        options = shared.plan.batchers[key]
        size, timeout = options.batch_size, int(options.batch_timeout * NANOSECONDS)
        if isinstance(size, tuple):
            initial, splitter = size
            self.batches = _core.Batches(0, timeout, splitter, initial)
        else:
            self.batches = _core.Batches(size, timeout)
        self.timed = False
        self.settler = Settler(
            shared.instance,
            shared.name(base),
            shared.plan.dead_letter,
            shared.ledger,
            Companion(),
        )
        upper = options.upper
        self.begin_subscribing(
            shared.processors(),
            {"max_demand": upper, "min_demand": upper // 2, "partition": key},
        )

    def handle_events(self, messages: list[Message], sender: Any) -> Any:
        """Put messages into their batches."""
        left, refused = self.batches.add(messages, _core.now())
        self.held.number = self.batches.waiting
        if refused is not None:
            self.refuse(refused)
        if not self.timed:
            self.set_timer()
        return left

    def refuse(self, refused: list[tuple[Message, BaseException]]) -> None:
        """Fail the messages that the splitter raised for, or whose key cannot be hashed."""
        for message, error in refused:
            logger.error(
                "%s: %s cannot be put into a batch",
                self.shared.name(self.base),
                short(message),
                exc_info=error,
            )
            fail([message], error)
        failed = self.settler.settle([message for message, _ in refused])
        acknowledge([], failed)
        self.shared.ledger.add(failed=len(failed))

    def set_timer(self) -> None:
        """Wake up when the first of the open batches expires."""
        deadline = self.batches.deadline
        self.timed = deadline is not None
        if deadline is not None:
            delay = max(0, deadline - _core.now()) / NANOSECONDS
            _core.send_after(_core.self(), EXPIRE, delay)

    def handle_info(self, message: Any) -> Any:
        """Let expired batches leave."""
        if message is not EXPIRE:
            return super().handle_info(message)
        left = self.batches.expire(_core.now())
        self.held.number = self.batches.waiting
        self.set_timer()
        return NoReply(events=left) if left else None

    def last_events(self) -> list[Any] | None:
        """Everything leaves."""
        self.held.number = 0
        return self.batches.flush()


class BatchProcessor(Subscriber, Consumer):
    """Runs `handle_batch`."""

    user_callbacks = ("handle_batch", "handle_failed")
    _runs_coroutines = True

    def init(self, shared: Shared, base: str, key: str) -> None:
        """Ask for the first batch."""
        self.begin(shared, base)
        self.key = key
        companion = Companion()
        handle_batch = companion.plain(shared.instance.handle_batch)
        self.run_batch: Any = partial(_core.run_batch, handle_batch)
        if shared.plan.batchers[key].scheduler == "process":
            self.remote = Remote(shared.instance, shared.name(base))
            self.run_batch = self.remote.run_batch
        self.settler = Settler(
            shared.instance, shared.name(base), shared.plan.dead_letter, shared.ledger, companion
        )
        self.begin_subscribing([f"Batcher_{key}"], {"max_demand": 1, "min_demand": 0})

    def handle_events(self, batches: list[tuple[list[Message], Any, str]], sender: Any) -> None:
        """Run batches, one at a time."""
        for messages, batch_key, trigger in batches:
            if not self.shared.ledger.halted:
                info = BatchInfo(self.key, batch_key, None, len(messages), trigger)
                self.held.number = info.size
                self.run(messages, info)
                self.held.number = 0

    def run(self, messages: list[Message], info: BatchInfo) -> None:
        """Run one batch, settle what failed, acknowledge."""
        error, ok, failed, told, returned = self.run_batch(self.key, messages, info)
        name = self.shared.name(self.base)
        if error is not None:
            logger.error("%s: handle_batch raised for %r", name, info, exc_info=error)
            fail(failed, error)
        elif returned != info.size:
            logger.error(
                "%s: handle_batch of %s got %d messages and returned %d; only those are "
                "acknowledged",
                name,
                type(self.shared.instance).__qualname__,
                info.size,
                returned,
            )
            ok, failed = once(ok), once(failed)
        _core.check_alive()
        if failed:
            failed = self.settler.settle(failed)
        if told:
            acknowledge(ok, failed)
        self.shared.ledger.add(successful=len(ok), failed=len(failed))
        if self.remote is not None:
            self.remote.revive()
