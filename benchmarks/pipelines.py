"""Two processors, with and without a batcher; beside a plain loop, asyncio and an executor.

    python benchmarks/pipelines.py [--quick] [--json FILE]

The handler is the same function everywhere: it takes a message, changes its data, returns it. The
plain loop calls it on messages that are there already; everything beyond that is the price of a
pipeline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from harness import Measured, Row, main, row, timed

import tailrace as tr


def handle(message: tr.Message) -> tr.Message:
    message.data = message.data + 1
    return message


class Plain(tr.Pipeline):
    """Handles messages."""

    def handle_message(self, message: tr.Message) -> tr.Message:
        message.data = message.data + 1
        return message


class Batched(Plain):
    """Handles them, and then batches of a hundred."""

    def handle_batch(
        self, batcher: str, messages: list[tr.Message], info: tr.BatchInfo
    ) -> list[tr.Message]:
        return messages


def pipeline(n: int, make: Callable[[], dict[str, Any]], kind: type[tr.Pipeline] = Plain) -> float:
    def work() -> None:
        summary = kind.run(producer=tr.producers.Iterable(range(n)), **make())
        assert summary.successful == n, summary

    return timed(work, n)


def plain_loop(n: int) -> float:
    messages = [tr.Message(i) for i in range(n)]

    def work() -> None:
        for message in messages:
            handle(message)

    return timed(work, n)


def loop_that_makes_messages(n: int) -> float:
    def work() -> None:
        for i in range(n):
            handle(tr.Message(i))

    return timed(work, n)


def asyncio_workers(n: int) -> float:
    """Two workers behind one bounded queue."""

    async def work() -> None:
        items: asyncio.Queue[tr.Message | None] = asyncio.Queue(20)

        async def worker() -> None:
            while (message := await items.get()) is not None:
                handle(message)

        workers = [asyncio.create_task(worker()) for _ in range(2)]
        for i in range(n):
            await items.put(tr.Message(i))
        for _ in workers:
            await items.put(None)
        await asyncio.gather(*workers)

    return timed(lambda: asyncio.run(work()), n)


def executor(n: int) -> float:
    def work() -> None:
        with ThreadPoolExecutor(2) as pool:
            for _ in pool.map(handle, (tr.Message(i) for i in range(n))):
                pass

    return timed(work, n)


def rows(quick: bool = False) -> list[Row]:
    n = 50_000 if quick else 500_000
    few = n // 10
    peers: dict[str, Measured] = {
        "plain loop": partial(plain_loop, n),
        "+ Message": partial(loop_that_makes_messages, n),
        "asyncio": partial(asyncio_workers, few),
        "executor": partial(executor, few),
    }
    two = {"concurrency": 2}

    def processors(**options: int) -> Callable[[], dict[str, Any]]:
        return lambda: {"processors": tr.Processors(**two, **options)}

    def batched() -> dict[str, Any]:
        return {
            "processors": tr.Processors(**two),
            "batchers": {"default": tr.Batcher(batch_size=100)},
        }

    group = "Pipeline with 2 processors, per message"
    return [
        row(group, "default demand", partial(pipeline, n, processors()), peers, runs=3),
        row(
            group,
            "max_demand 1,000",
            partial(pipeline, n, processors(max_demand=1000)),
            peers,
            runs=3,
        ),
        row(
            group,
            "default demand, batcher of 100",
            partial(pipeline, n, batched, Batched),
            peers,
            runs=3,
        ),
        row(
            group,
            f"max_demand 1,000, {n * 5:,} messages",
            partial(pipeline, n * 5, processors(max_demand=1000)),
            {"plain loop": partial(plain_loop, n)},
            runs=2,
        ),
    ]


if __name__ == "__main__":
    main(rows)
