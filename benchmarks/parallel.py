"""CPU-bound work on all cores: what an interpreter without its lock gains beside a pool of threads.

    python benchmarks/parallel.py [--quick] [--json FILE]

The same function of pure Python is applied to each item: by as many servers as there are cores, by
as many consumers of one producer, by a ThreadPoolExecutor with as many threads, and by a plain
loop. With the interpreter lock nobody can be faster than the loop; without it all may be, up to the
number of cores.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from harness import Row, main, row, timed

import tailrace as tr

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def work(item: int) -> int:
    """About 50 us of arithmetic."""
    total = 0
    for i in range(600):
        total += (item ^ i) & 7
    return total


class Worker(tr.GenServer):
    """Computes what it is sent and sends the result on."""

    def init(self, sink: tr.Pid) -> None:
        self.sink = sink

    def handle_cast(self, item: int) -> None:
        self.sink.send(work(item))


def by_servers(n: int) -> float:
    workers = [Worker.start(tr.self()) for _ in range(CORES)]

    def run() -> None:
        for item in range(n):
            workers[item % CORES].cast(item)
        for _ in range(n):
            tr.receive(timeout=600)

    cost = timed(run, n)
    for worker in workers:
        worker.stop()
    return cost


class Items(tr.Producer):
    """Counts up to n."""

    def init(self, n: int) -> None:
        self.at, self.end = 0, n

    def handle_demand(self, demand: int) -> Any:
        first, self.at = self.at, min(self.at + demand, self.end)
        return list(range(first, self.at))


class Workers(tr.Consumer):
    """Computes each event and tells how many it has done."""

    def init(self, sink: tr.Pid) -> None:
        self.sink = sink

    def handle_events(self, events: list[int], sender: object) -> None:
        for event in events:
            work(event)
        self.sink.send(len(events))


def by_stages(n: int) -> float:
    items = Items.start(n)
    workers = [Workers.start(tr.self()) for _ in range(CORES)]

    def run() -> None:
        for worker in workers:
            tr.subscribe(worker, items, max_demand=20, cancel="temporary")
        left = n
        while left > 0:
            left -= tr.receive(timeout=600)

    cost = timed(run, n)
    for stage in (items, *workers):
        stage.stop()
    return cost


def by_threads(n: int) -> float:
    with ThreadPoolExecutor(CORES) as pool:
        return timed(lambda: sum(pool.map(work, range(n))), n)


def by_loop(n: int) -> float:
    return timed(lambda: sum(map(work, range(n))), n)


def rows(quick: bool) -> list[Row]:
    n = 600 if quick else 6_000
    peers = {"threads": partial(by_threads, n), "loop": partial(by_loop, n)}
    return [
        row("Parallel", f"CPU-bound map, {CORES} servers", partial(by_servers, n), peers),
        row("Parallel", f"CPU-bound map, {CORES} consumers", partial(by_stages, n), peers),
    ]


if __name__ == "__main__":
    main(rows)
