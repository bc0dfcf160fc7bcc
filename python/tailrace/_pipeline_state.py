"""What the workers of one pipeline share: its plan, its instance of the user's class, its counts.

Made before the workers start and read by all of them. What changes is the counts, which are atomic,
and a few marks, each set once, from False to True.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import _core
from ._pipeline_options import Plan, Produce
from .producers._queue import Queue
from .producers._queue_source import QueueSource

PROCESSOR = "default"
"""The key of the one group of processors."""


def open_source(produce: Produce) -> Any:
    """Give the producer class, or the instance of which each worker gets a copy."""
    producer = produce.producer
    if isinstance(producer, Queue):
        return QueueSource(producer)
    opened = getattr(producer, "open_source", None)  # workers of Iterable share an iterator
    if opened is None or isinstance(producer, type):
        return producer
    return opened(produce.transformer is not None)


class Shared:
    """One running pipeline, as its workers see it."""

    def __init__(self, plan: Plan, instance: Any) -> None:
        self.plan = plan
        self.instance = instance
        self.ledger = _core.Ledger()
        self.held: dict[str, _core.Held] = {}  # by worker: how many messages it has in hand
        self.owed: dict[str, _core.Held] = {}  # by producer: asked of it and not emitted
        self.source = open_source(plan.produce)
        self.top: Any = None  # pid of the process above everything
        self.draining = False  # intake has ended: nobody subscribes again
        self.stopping = False  # the workers are being stopped for good
        self.signalled = False  # a signal asked for the end
        self.reason: Any = "killed"  # it ended for, if it could say it
        self.crash: BaseException | None = None  # the last exception that ended a worker
        self.died = False  # the tree ended by itself, after too many restarts
        self.failure: BaseException | None = None  # what ended the intake

    def name(self, base: str) -> str:
        """Give the registered name of a worker."""
        return f"{self.plan.name}.{base}"

    def producers(self) -> list[str]:
        """Give the bases of the producers' names."""
        return [f"Producer_{i}" for i in range(self.plan.produce.concurrency)]

    def helpers(self) -> list[str]:
        """Give the base of the name of the producer that helps the others out, if there is one."""
        return ["Handover"] if hasattr(self.source, "open_helper") else []

    def sources(self) -> list[str]:
        """Give the bases of the names of all that processors draw from."""
        return [*self.producers(), *self.helpers()]

    def processors(self) -> list[str]:
        """Give the bases of the processors' names."""
        return [f"Processor_{PROCESSOR}_{i}" for i in range(self.plan.processors.concurrency)]

    def batchers(self) -> list[str]:
        """Give the bases of the batchers' names."""
        return [f"Batcher_{key}" for key in self.plan.batchers]

    def batch_processors(self, key: str) -> list[str]:
        """Give the bases of the names of one batcher's batch processors."""
        return [f"BatchProcessor_{key}_{i}" for i in range(self.plan.batchers[key].concurrency)]

    def last(self) -> list[str]:
        """Give the bases of the last layer: whoever acknowledges what went all the way."""
        if not self.plan.batchers:
            return self.processors()
        return [base for key in self.plan.batchers for base in self.batch_processors(key)]

    def workers(self) -> Iterator[str]:
        """Give the bases of all who run the user's code or hold messages, sources first."""
        yield from self.sources()
        yield from self.processors()
        yield from self.batchers()
        if self.plan.batchers:
            yield from self.last()

    def in_flight(self) -> int:
        """Count the messages that living workers have in hand."""
        return sum(held.number for held in list(self.held.values()))

    def topology(self) -> tuple[list[dict[str, Any]], ...]:
        """Describe the layers (P22 to P25)."""
        plan = self.plan
        producers = {"name": self.name("Producer"), "concurrency": plan.produce.concurrency}
        processors = {
            "name": self.name(f"Processor_{PROCESSOR}"),
            "concurrency": plan.processors.concurrency,
            "processor_key": PROCESSOR,
        }
        batchers = [
            {
                "batcher_name": self.name(f"Batcher_{key}"),
                "name": self.name(f"BatchProcessor_{key}"),
                "batcher_key": key,
                "concurrency": options.concurrency,
            }
            for key, options in plan.batchers.items()
        ]
        return [producers], [processors], batchers
