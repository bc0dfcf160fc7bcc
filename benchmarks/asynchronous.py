"""Event loops: calls from async code, one by one and ten thousand in flight; beside plain asyncio.

    python benchmarks/asynchronous.py [--quick] [--json FILE]

The peer is a server of plain asyncio: a task that takes requests from a queue and answers futures,
asked with the same limit of five seconds (`asyncio.timeout`). A server on the core is on another
thread: the second peer, which is asyncio's way to ask another thread, does as much.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from harness import Row, main, row, timed

import tailrace as tr


class Echo(tr.GenServer):
    """Answers calls, on the core."""

    def handle_call(self, request: object, caller: tr.From) -> object:
        return request


class AsyncEcho(tr.GenServer):
    """Answers calls, on the engine's event loop."""

    async def handle_call(self, request: object, caller: tr.From) -> object:
        return request


class Peer:
    """The same in plain asyncio."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[tuple[asyncio.Future[object], object]] = asyncio.Queue()
        self.loop = asyncio.get_running_loop()
        self.task = self.loop.create_task(self.serve())

    async def serve(self) -> None:
        while True:
            future, request = await self.queue.get()
            if not future.done():
                future.set_result(request)

    async def call(self, request: object) -> object:
        future: asyncio.Future[object] = self.loop.create_future()
        async with asyncio.timeout(5.0):
            self.queue.put_nowait((future, request))
            return await future


Call = Callable[[object], Awaitable[object]]


async def one_by_one(call: Call, n: int) -> None:
    for item in range(n):
        await call(item)


async def in_flight(call: Call, n: int) -> None:
    await asyncio.gather(*(call(item) for item in range(n)))


def peers(work: Callable[[Call, int], Awaitable[None]], n: int) -> float:
    async def run() -> None:
        peer = Peer()
        await work(peer.call, n)
        peer.task.cancel()

    return timed(lambda: asyncio.run(run()), n)


def to_thread(n: int) -> float:
    def answer(request: object) -> object:
        return request

    return timed(lambda: asyncio.run(one_by_one(partial(asyncio.to_thread, answer), n)), n)


def from_own_loop(work: Callable[[Call, int], Awaitable[None]], kind: Any, n: int) -> float:
    """The caller is a task of the program's own event loop."""
    server = kind.start()

    async def run() -> None:
        await work(server.acall, n)

    seconds = timed(lambda: asyncio.run(run()), n)
    server.stop()
    return seconds


def from_process(work: Callable[[Call, int], Awaitable[None]], kind: Any, n: int) -> float:
    """The caller is a process on the engine's event loop."""
    server = kind.start()

    async def run() -> None:
        await work(server.acall, n)

    def whole() -> None:
        _, ref = tr.spawn_monitor(run)
        assert tr.receive(ref).reason == "normal"

    seconds = timed(whole, n)
    server.stop()
    return seconds


def async_spawn(n: int) -> float:
    me = tr.self()

    async def process() -> None:
        me.send(None)

    def work() -> None:
        for _ in range(n):
            tr.spawn(process)
        for _ in range(n):
            tr.receive()

    return timed(work, n)


def task_spawn(n: int) -> float:
    async def run() -> None:
        queue: asyncio.Queue[None] = asyncio.Queue()

        async def process() -> None:
            queue.put_nowait(None)

        tasks = [asyncio.create_task(process()) for _ in range(n)]
        for _ in range(n):
            await queue.get()
        await asyncio.wait(tasks)

    return timed(lambda: asyncio.run(run()), n)


def rows(quick: bool) -> list[Row]:
    n = 1_000 if quick else 10_000
    runs = 3 if quick else 5
    group = "asyncio"
    peer = {"asyncio": partial(peers, in_flight, n)}
    single = {"asyncio": partial(peers, one_by_one, n)}

    def echo(name: str, ours: Callable[[], float], beside: dict[str, Callable[[], float]]) -> Row:
        return row(group, name, ours, beside, runs=runs)

    return [
        echo(f"echo, {n:,} in flight, own loop", partial(from_own_loop, in_flight, Echo, n), peer),
        echo(
            f"echo, {n:,} in flight, async server",
            partial(from_own_loop, in_flight, AsyncEcho, n),
            peer,
        ),
        echo(
            f"echo, {n:,} in flight, all on the engine",
            partial(from_process, in_flight, AsyncEcho, n),
            peer,
        ),
        echo(
            "call + reply, async process", partial(from_process, one_by_one, AsyncEcho, n), single
        ),
        echo(
            "call + reply, own loop",
            partial(from_own_loop, one_by_one, Echo, n),
            {**single, "asyncio.to_thread": partial(to_thread, n)},
        ),
        echo(
            "spawn + exit, async function",
            partial(async_spawn, n),
            {"task": partial(task_spawn, n)},
        ),
    ]


if __name__ == "__main__":
    main(rows)
