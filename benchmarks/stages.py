"""Three stages in a row, and the plain loop, which is the physical limit of calling Python.

    python benchmarks/stages.py [--quick] [--json FILE]

A producer counts, a ProducerConsumer adds one to each number, a consumer counts what arrives: all
of it Python, per event. The peers do the same: with queues between tasks or threads, and with none
at all.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from functools import partial
from typing import Any

from harness import Measured, Row, main, row, timed

import tailrace as tr


def add_one(event: int) -> int:
    return event + 1


class Numbers(tr.Producer):
    """Counts up to n."""

    def init(self, n: int) -> None:
        self.at, self.end = 0, n

    def handle_demand(self, demand: int) -> Any:
        first, self.at = self.at, min(self.at + demand, self.end)
        return list(range(first, self.at))


class AddOne(tr.ProducerConsumer):
    """Adds one to each event."""

    def handle_events(self, events: list[int], sender: object) -> list[int]:
        return [add_one(event) for event in events]


class Count(tr.Consumer):
    """Tells `done` when n events have arrived."""

    def init(self, n: int, done: tr.Pid) -> None:
        self.left, self.done = n, done

    def handle_events(self, events: list[int], sender: object) -> None:
        self.left -= len(events)
        if self.left <= 0:
            self.done.send("done")


def three_stages(n: int, max_demand: int) -> float:
    numbers = Numbers.start(n)
    add = AddOne.start()
    count = Count.start(n, tr.self())

    def work() -> None:
        options = {"max_demand": max_demand, "cancel": "temporary"}
        tr.subscribe(count, add, **options)
        tr.subscribe(add, numbers, **options)
        tr.receive(timeout=600)

    cost = timed(work, n)
    for stage in (numbers, add, count):
        stage.stop()
    return cost


def plain_loop(n: int) -> float:
    def work() -> None:
        left = n
        for event in range(n):
            add_one(event)
            left -= 1

    return timed(work, n)


def asyncio_stages(n: int) -> float:
    async def work() -> None:
        first: asyncio.Queue[int] = asyncio.Queue(1000)
        second: asyncio.Queue[int] = asyncio.Queue(1000)

        async def produce() -> None:
            for event in range(n):
                await first.put(event)

        async def add() -> None:
            for _ in range(n):
                await second.put(add_one(await first.get()))

        async def consume() -> None:
            for _ in range(n):
                await second.get()

        await asyncio.gather(produce(), add(), consume())

    return timed(lambda: asyncio.run(work()), n)


def thread_stages(n: int) -> float:
    first: queue.Queue[int] = queue.Queue(1000)
    second: queue.Queue[int] = queue.Queue(1000)

    def produce() -> None:
        for event in range(n):
            first.put(event)

    def add() -> None:
        for _ in range(n):
            second.put(add_one(first.get()))

    def consume() -> None:
        for _ in range(n):
            second.get()

    def work() -> None:
        threads = [threading.Thread(target=part) for part in (produce, add, consume)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return timed(work, n)


def rows(quick: bool = False) -> list[Row]:
    n = 100_000 if quick else 1_000_000
    few = n // 10
    peers: dict[str, Measured] = {
        "plain loop": partial(plain_loop, n),
        "asyncio.Queue": partial(asyncio_stages, few),
        "queue.Queue": partial(thread_stages, few),
    }
    measured = [
        row(
            "Three stages, per event",
            f"max_demand {demand:,}",
            partial(three_stages, events, demand),
            peers,
            runs=3,
        )
        for demand, events in ((1000, n), (100, n // 2), (10, n // 5))
    ]
    longer = row(
        "Three stages, per event",
        f"max_demand 1,000, {n * 5:,} events",
        partial(three_stages, n * 5, 1000),
        {"plain loop": partial(plain_loop, n * 5)},
        runs=2,
    )
    return [*measured, longer]


if __name__ == "__main__":
    main(rows)
