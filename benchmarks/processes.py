"""Processes: messages, calls, spawn, idle servers; beside asyncio, threads and an executor.

    python benchmarks/processes.py [--quick] [--json FILE]
"""

from __future__ import annotations

import asyncio
import queue
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from harness import Row, main, row, timed

import tailrace as tr


class Sink(tr.GenServer):
    """Counts what it is sent."""

    def init(self) -> None:
        self.n = 0

    def handle_cast(self, item: object) -> None:
        self.n += 1

    def handle_call(self, request: object, caller: tr.From) -> int:
        return self.n


class Player(tr.GenServer):
    """Plays ping-pong with a peer until its count is used up."""

    def init(self) -> None:
        self.peer = tr.self()
        self.left = 0
        self.done = tr.self()

    def handle_call(self, request: tuple[tr.Pid, int, tr.Pid], caller: tr.From) -> None:
        self.peer, self.left, self.done = request

    def handle_cast(self, ball: object) -> None:
        left = self.left
        if left:
            self.left = left - 1
            self.peer.cast(ball)
        else:
            self.done.send("done")


# ---- send and handle --------------------------------------------------------------------------


def cast_and_handle(n: int) -> float:
    server = Sink.start()
    cast = server.cast

    def work() -> None:
        for i in range(n):
            cast(i)
        server.call("how many", timeout=None)

    cost = timed(work, n)
    server.stop()
    return cost


def asyncio_queue(n: int) -> float:
    async def work() -> None:
        items: asyncio.Queue[int] = asyncio.Queue(maxsize=1000)

        async def consume() -> None:
            for _ in range(n):
                await items.get()

        task = asyncio.create_task(consume())
        for i in range(n):
            await items.put(i)
        await task

    return timed(lambda: asyncio.run(work()), n)


def thread_queue(n: int, make: type) -> float:
    items = make()

    def consume() -> None:
        for _ in range(n):
            items.get()

    def work() -> None:
        thread = threading.Thread(target=consume)
        thread.start()
        for i in range(n):
            items.put(i)
        thread.join()

    return timed(work, n)


# ---- ping-pong ----------------------------------------------------------------------------------


def ping_pong(n: int) -> float:
    one, other = Player.start(), Player.start()
    one.call((other, n // 2, tr.self()))
    other.call((one, n // 2, tr.self()))

    def work() -> None:
        one.cast("ball")
        tr.receive(timeout=600)

    cost = timed(work, n)
    one.stop()
    other.stop()
    return cost


def asyncio_ping_pong(n: int) -> float:
    async def work() -> None:
        there: asyncio.Queue[int] = asyncio.Queue()
        back: asyncio.Queue[int] = asyncio.Queue()

        async def play(inbox: asyncio.Queue[int], outbox: asyncio.Queue[int]) -> None:
            for _ in range(n // 2):
                outbox.put_nowait(await inbox.get())

        there.put_nowait(1)
        await asyncio.gather(play(there, back), play(back, there))

    return timed(lambda: asyncio.run(work()), n)


def thread_ping_pong(n: int) -> float:
    there: queue.SimpleQueue[int] = queue.SimpleQueue()
    back: queue.SimpleQueue[int] = queue.SimpleQueue()

    def play(inbox: queue.SimpleQueue[int], outbox: queue.SimpleQueue[int]) -> None:
        for _ in range(n // 2):
            outbox.put(inbox.get())

    def work() -> None:
        threads = [
            threading.Thread(target=play, args=pair) for pair in ((there, back), (back, there))
        ]
        for thread in threads:
            thread.start()
        there.put(1)
        for thread in threads:
            thread.join()

    return timed(work, n)


# ---- call ---------------------------------------------------------------------------------------


def call(n: int) -> float:
    server = Sink.start()

    def work() -> None:
        for _ in range(n):
            server.call("how many")

    cost = timed(work, n)
    server.stop()
    return cost


def asyncio_call(n: int) -> float:
    """A request with a future for the answer, the usual way in asyncio."""

    async def work() -> None:
        requests: asyncio.Queue[asyncio.Future[int]] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        async def serve() -> None:
            for i in range(n):
                (await requests.get()).set_result(i)

        task = asyncio.create_task(serve())
        for _ in range(n):
            answer: asyncio.Future[int] = loop.create_future()
            requests.put_nowait(answer)
            await answer
        await task

    return timed(lambda: asyncio.run(work()), n)


def executor_call(n: int) -> float:
    with ThreadPoolExecutor(1) as executor:

        def work() -> None:
            for _ in range(n):
                executor.submit(int).result()

        return timed(work, n)


# ---- spawn --------------------------------------------------------------------------------------


def nothing() -> None:
    pass


def spawn(n: int, scheduler: str) -> float:
    me = tr.self()

    def work() -> None:
        for _ in range(n):
            tr.spawn(nothing, scheduler=scheduler)
        tr.spawn(me.send, "last", scheduler=scheduler)
        tr.receive(timeout=600)

    return timed(work, n + 1)


def asyncio_tasks(n: int) -> float:
    async def nothing_async() -> None:
        pass

    async def work() -> None:
        for _ in range(n // 1000):
            await asyncio.gather(*[asyncio.create_task(nothing_async()) for _ in range(1000)])

    return timed(lambda: asyncio.run(work()), n // 1000 * 1000)


def threads(n: int) -> float:
    def work() -> None:
        for _ in range(n):
            thread = threading.Thread(target=nothing)
            thread.start()
            thread.join()

    return timed(work, n)


# ---- idle servers, each in a program of its own ------------------------------------------------

IDLE = """
import sys, time
import tailrace as tr

class Idle(tr.GenServer):
    def init(self):
        self.n = 0

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

n = int(sys.argv[1])
Idle.start().stop()
before, start = resident(), time.perf_counter()
servers = [Idle.start() for _ in range(n)]
print((time.perf_counter() - start) / n * 1e9, (resident() - before) / n)
assert servers[0].alive and servers[-1].alive and len(tr.processes()) >= n
import os
os._exit(0)
"""


def idle_servers(n: int) -> tuple[float, float]:
    output = subprocess.run(
        [sys.executable, "-c", IDLE, str(n)], check=True, capture_output=True, text=True
    ).stdout.split()
    return float(output[0]), float(output[1])


def asyncio_idle(n: int) -> tuple[float, float]:
    """A task that waits on a queue of its own."""
    program = """
import asyncio, sys, time
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
async def idle(items):
    while True:
        await items.get()
async def main(n):
    before, start = resident(), time.perf_counter()
    tasks = [asyncio.create_task(idle(asyncio.Queue())) for _ in range(n)]
    await asyncio.sleep(0)
    print((time.perf_counter() - start) / n * 1e9, (resident() - before) / n, flush=True)
    import os
    os._exit(0)
asyncio.run(main(int(sys.argv[1])))
"""
    output = subprocess.run(
        [sys.executable, "-c", program, str(n)], check=True, capture_output=True, text=True
    ).stdout.split()
    return float(output[0]), float(output[1])


def rows(quick: bool = False) -> list[Row]:
    scale = 10 if quick else 1
    n = 1_000_000 // scale
    few = n // 10
    servers, tasks = 1_000_000 // scale, 100_000 // scale
    start, size = idle_servers(servers)
    task_start, task_size = asyncio_idle(tasks)
    group = "Processes"
    return [
        row(
            group,
            "cast + handle, one server",
            partial(cast_and_handle, n),
            {
                "asyncio.Queue": partial(asyncio_queue, few),
                "SimpleQueue": partial(thread_queue, few, queue.SimpleQueue),
                "queue.Queue": partial(thread_queue, few, queue.Queue),
            },
        ),
        row(
            group,
            "ping-pong, per message",
            partial(ping_pong, n),
            {
                "asyncio.Queue": partial(asyncio_ping_pong, few),
                "threads": partial(thread_ping_pong, few // 2),
            },
        ),
        row(
            group,
            "call + reply, from a thread",
            partial(call, few),
            {
                "asyncio": partial(asyncio_call, few),
                "ThreadPoolExecutor": partial(executor_call, few),
            },
        ),
        row(
            group,
            'spawn + exit, scheduler "thread"',
            partial(spawn, n // 5, "thread"),
            {
                "asyncio.Task": partial(asyncio_tasks, n // 5),
                "Thread": partial(threads, few // 20),
            },
        ),
        row(
            group,
            'spawn + exit, scheduler "core"',
            partial(spawn, n // 5, "core"),
            {"asyncio.Task": partial(asyncio_tasks, n // 5)},
        ),
        Row(
            group, f"start an idle server ({servers:,} alive)", "ns", start, {"asyncio": task_start}
        ),
        Row(group, "resident memory of an idle server", "bytes", size, {"asyncio": task_size}),
    ]


if __name__ == "__main__":
    main(rows)
