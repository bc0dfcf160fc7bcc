"""Coroutines on the core: messages, calls, sleeps, parked ones; beside tasks of asyncio.

    python benchmarks/coroutines.py [--quick] [--json FILE]
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from harness import Row, main, row, timed

import tailrace as tr


def run_core(body: Callable[..., Awaitable[object]], *args: Any) -> None:
    """Run a coroutine on the core to its end."""
    _, ref = tr.spawn_monitor(body, *args, scheduler="core")
    reason = tr.receive(ref).reason
    assert reason == "normal", reason


# ---- Ping-pong: two that answer each other -----------------------------------------------------


async def play(n: int, done: tr.Pid) -> None:
    peer = await tr.areceive()
    for _ in range(n):
        peer.send(await tr.areceive())
    done.send("done")


def ping_pong(n: int) -> float:
    one, other = (tr.spawn(play, n // 2, tr.self(), scheduler="core") for _ in range(2))
    one.send(other)
    other.send(one)

    def work() -> None:
        one.send("ball")
        for _ in range(2):
            tr.receive()

    return timed(work, n)


def asyncio_ping_pong(n: int) -> float:
    async def bat(inbox: asyncio.Queue[str], outbox: asyncio.Queue[str]) -> None:
        for _ in range(n // 2):
            outbox.put_nowait(await inbox.get())

    async def work() -> None:
        one: asyncio.Queue[str] = asyncio.Queue()
        other: asyncio.Queue[str] = asyncio.Queue()
        one.put_nowait("ball")
        await asyncio.gather(bat(one, other), bat(other, one))

    return timed(lambda: asyncio.run(work()), n)


# ---- Calls -------------------------------------------------------------------------------------


class Echo(tr.GenServer):
    """Answers what it is asked."""

    def handle_call(self, request: object, caller: tr.From) -> object:
        return request


def call(n: int) -> float:
    server = Echo.start()

    async def ask() -> None:
        for i in range(n):
            await tr.acall(server, i)

    cost = timed(lambda: run_core(ask), n)
    server.stop()
    return cost


def asyncio_call(n: int) -> float:
    """A queue of requests, each with a future for the answer."""

    async def work() -> None:
        requests: asyncio.Queue[tuple[int, asyncio.Future[int]]] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        async def serve() -> None:
            while True:
                request, answer = await requests.get()
                answer.set_result(request)

        task = asyncio.create_task(serve())
        for i in range(n):
            answer = loop.create_future()
            requests.put_nowait((i, answer))
            await answer
        task.cancel()

    return timed(lambda: asyncio.run(work()), n)


# ---- Spawn and end, sleep ----------------------------------------------------------------------


async def nothing() -> None:
    pass


def spawn(n: int) -> float:
    def work() -> None:
        for _ in range(n):
            tr.spawn(nothing, scheduler="core")
        run_core(nothing)

    return timed(work, n)


def asyncio_spawn(n: int) -> float:
    async def work() -> None:
        await asyncio.gather(*(asyncio.create_task(nothing()) for _ in range(n)))

    return timed(lambda: asyncio.run(work()), n)


def sleep(n: int) -> float:
    """As many sleepers as that, of a millisecond each."""

    async def nap() -> None:
        await tr.asleep(0.001)

    def work() -> None:
        pids = [tr.spawn(nap, scheduler="core") for _ in range(n)]
        for pid in pids[-1:]:
            tr.receive(tr.monitor(pid))

    return timed(work, n)


def asyncio_sleep(n: int) -> float:
    async def work() -> None:
        await asyncio.gather(*(asyncio.create_task(asyncio.sleep(0.001)) for _ in range(n)))

    return timed(lambda: asyncio.run(work()), n)


# ---- Parked, each in a program of its own ------------------------------------------------------

RESIDENT = """
import os, sys, time
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
n = int(sys.argv[1])
"""

PARKED = """
import tailrace as tr
async def park():
    await tr.areceive()
tr.spawn(park, scheduler="core").send(1)
before, start = resident(), time.perf_counter()
pids = [tr.spawn(park, scheduler="core") for _ in range(n)]
while tr.process_info(pids[-1]).status != "waiting":
    time.sleep(0.001)
print((time.perf_counter() - start) / n * 1e9, (resident() - before) / n, flush=True)
assert len(tr.processes()) > n
os._exit(0)
"""

ASYNCIO_PARKED = """
import asyncio
async def park(future):
    await future
async def main():
    loop = asyncio.get_running_loop()
    before, start = resident(), time.perf_counter()
    tasks = [asyncio.create_task(park(loop.create_future())) for _ in range(n)]
    await asyncio.sleep(0)
    print((time.perf_counter() - start) / n * 1e9, (resident() - before) / n, flush=True)
    os._exit(0)
asyncio.run(main())
"""


def parked(program: str, n: int) -> tuple[float, float]:
    """Nanoseconds to start and park one, and the bytes it takes."""
    output = subprocess.run(
        [sys.executable, "-c", RESIDENT + program, str(n)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    return float(output[0]), float(output[1])


def rows(quick: bool = False) -> list[Row]:
    scale = 10 if quick else 1
    many, few = 1_000_000 // scale, 100_000 // scale
    start, size = parked(PARKED, many)
    task_start, task_size = parked(ASYNCIO_PARKED, many)
    group = "Coroutines on the core"
    return [
        row(
            group,
            "ping-pong, per message",
            lambda: ping_pong(few),
            {"asyncio queues": lambda: asyncio_ping_pong(few)},
        ),
        row(
            group,
            "acall a server and its answer",
            lambda: call(few),
            {"asyncio queue and future": lambda: asyncio_call(few)},
        ),
        row(
            group, "spawn + end", lambda: spawn(few), {"asyncio tasks": lambda: asyncio_spawn(few)}
        ),
        row(
            group,
            "start, sleep 1 ms, end",
            lambda: sleep(few),
            {"asyncio tasks": lambda: asyncio_sleep(few)},
        ),
        Row(group, f"start and park one of {many:,}", "ns", start, {"asyncio task": task_start}),
        Row(group, f"bytes per one of {many:,} parked", "B", size, {"asyncio task": task_size}),
    ]


if __name__ == "__main__":
    main(rows)
