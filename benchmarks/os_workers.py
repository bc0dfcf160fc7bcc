"""Work that computes, in operating-system workers; beside concurrent.futures' process pool.

    python benchmarks/os_workers.py [--quick] [--json FILE]

Both sides have as many processes as there are cores, started and warm before the clock runs. The
pool is measured item by item, which is its default, and with the same chunks as ours. The messages
are sent into a pipeline that runs, and the time ends with the last acknowledgement; the pool
gives its last result.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from typing import Any

from harness import Measured, Row, main, row, timed

import tailrace as tr

CORES = len(os.sched_getaffinity(0))


def compute(rounds: int) -> int:
    """Take about 30 ns a round."""
    total = 0
    for i in range(rounds):
        total += i * i
    return total


def measure(rounds: int) -> float:
    """Microseconds that `compute` takes here."""
    return min(timed(lambda: compute(rounds), 1) for _ in range(20)) / 1e3


def rounds_for(microseconds: float) -> int:
    """How many rounds take so long."""
    return max(1, round(microseconds / measure(1000) * 1000))


class Source(tr.Producer):
    """Emits the messages that it is sent, as they are asked for."""

    def init(self) -> None:
        self.messages: Iterator[tr.Message] = iter(())
        self.wanted = 0

    def handle_demand(self, demand: int) -> list[tr.Message]:
        self.wanted += demand
        taken = list(islice(self.messages, self.wanted))
        self.wanted -= len(taken)
        return taken

    def handle_info(self, messages: list[tr.Message]) -> tr.NoReply:
        self.messages = iter(messages)
        return tr.NoReply(events=self.handle_demand(0))


class Computing(tr.Pipeline):
    """Computes."""

    producer = Source

    def handle_message(self, message: tr.Message) -> tr.Message:
        message.data = compute(message.data)
        return message


class Measuring(Computing):
    """Looks at large data."""

    def handle_message(self, message: tr.Message) -> tr.Message:
        message.data = len(message.data)
        return message


class Counter:
    """An acknowledger that counts, and wakes who waits for a number."""

    def __init__(self) -> None:
        self.left = 0
        self.done = threading.Event()

    def expect(self, count: int) -> None:
        self.left = count
        self.done.clear()

    def ack(self, ref: Any, successful: list[tr.Message], failed: list[tr.Message]) -> None:
        assert not failed, failed[0].reason
        with LOCK:
            self.left -= len(successful)
            if not self.left:
                self.done.set()


LOCK = threading.Lock()


class Ours:
    """A pipeline that runs, and its counter."""

    def __init__(self, kind: type[tr.Pipeline], chunk: int) -> None:
        self.counter = Counter()
        self.handle = kind.start_link(
            processors=tr.Processors(
                concurrency=CORES, max_demand=2 * chunk, min_demand=chunk, scheduler="process"
            )
        )

    def run(self, items: list[Any]) -> None:
        self.counter.expect(len(items))
        acknowledger = (self.counter, None, None)
        messages = [tr.Message(item, None, acknowledger) for item in items]
        tr.send(f"{self.handle.name}.Producer_0", messages)
        assert self.counter.done.wait(600)


class Pool:
    """A process pool that runs."""

    def __init__(self, fn: Callable[[Any], Any]) -> None:
        self.fn = fn
        # Never by fork: this program has threads.
        self.pool = ProcessPoolExecutor(CORES, multiprocessing.get_context("spawn"))

    def run(self, items: list[Any], chunk: int) -> None:
        for _ in self.pool.map(self.fn, items, chunksize=chunk):
            pass


def measured(run: Callable[[], None], items: int) -> Measured:
    """Warm up, then measure."""
    run()
    time.sleep(0.1)
    return lambda: timed(run, items)


def compared(
    group: str, name: str, kind: type[tr.Pipeline], fn: Any, items: list[Any], chunk: int, runs: int
) -> Row:
    """One row: the pipeline beside the pool, by chunks and item by item."""
    ours, pool = Ours(kind, chunk), Pool(fn)
    n = len(items)
    try:
        peers = {
            f"pool, chunks of {chunk}": measured(lambda: pool.run(items, chunk), n),
            "pool": measured(lambda: pool.run(items, 1), n),
        }
        return row(group, name, measured(lambda: ours.run(items), n), peers, runs=runs)
    finally:
        pool.pool.shutdown()
        ours.handle.stop()


def rows(quick: bool = False) -> list[Row]:
    n = 1_000 if quick else 10_000
    runs = 2 if quick else 3
    group = f"Map over {CORES} operating-system processes, per item"
    long, short = rounds_for(100), rounds_for(5)
    large = [bytearray(1 << 20) for _ in range(n // 50)]
    return [
        compared(group, f"{n:,} of 100 us", Computing, compute, [long] * n, 20, runs),
        compared(group, f"{5 * n:,} of 5 us", Computing, compute, [short] * (5 * n), 500, runs),
        compared(group, f"{n // 50} of 1 MiB, looked at", Measuring, len, large, 4, runs),
    ]


if __name__ == "__main__":
    main(rows)
