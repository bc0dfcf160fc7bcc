"""The durable queue: put, lease and acknowledge, with 100 and with a million items waiting.

    python benchmarks/durable_queue.py [--quick] [--json FILE]

The peer does the same by hand with `sqlite3`: one table with an index on what is free, a commit
with `synchronous=FULL` per call, a lock between threads. Both sides pickle. (Not `queue.py`: beside
a file of that name nothing could import the standard library's `queue`.)
"""

from __future__ import annotations

import pickle
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from harness import Row, main, row, timed

from tailrace.producers import Queue

DATA = "python3.11/site-packages/some/file/or/other.py"
THREADS = 16


class ByHand:
    """A queue as one writes it in an afternoon."""

    def __init__(self, path: Path) -> None:
        self.sql = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.lock = threading.Lock()
        self.sql.execute("PRAGMA journal_mode = WAL")
        self.sql.execute("PRAGMA synchronous = FULL")
        self.sql.execute("CREATE TABLE item(id INTEGER PRIMARY KEY, taken INTEGER, data BLOB)")
        self.sql.execute("CREATE INDEX free ON item(id) WHERE taken = 0")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        with self.lock:
            self.sql.execute("BEGIN IMMEDIATE")
            yield self.sql
            self.sql.execute("COMMIT")

    def put(self, data: object) -> None:
        self.put_many([data])

    def put_many(self, items: list[object]) -> None:
        rows = [(pickle.dumps(data, 5),) for data in items]
        with self.transaction() as sql:
            sql.executemany("INSERT INTO item(taken, data) VALUES(0, ?)", rows)

    def take(self, n: int) -> None:
        with self.transaction() as sql:
            query = "SELECT id, data FROM item WHERE taken = 0 ORDER BY id LIMIT ?"
            found = sql.execute(query, (n,)).fetchall()
            ids = [(id,) for id, _ in found]
            sql.executemany("UPDATE item SET taken = 1 WHERE id = ?", ids)
        for _, blob in found:
            pickle.loads(blob)
        with self.transaction() as sql:
            sql.executemany("DELETE FROM item WHERE id = ?", ids)

    def close(self) -> None:
        self.sql.close()


class Durable(Queue):
    """The package's queue, with the peer's `take`."""

    def take(self, n: int) -> None:
        self._acknowledge(self._lease(n), [])


Side = ByHand | Durable


def one_by_one(side: Side, n: int) -> float:
    return timed(lambda: [side.put(DATA) for _ in range(n)], n)


def in_hundreds(side: Side, n: int) -> float:
    hundred: list[object] = [DATA] * 100
    return timed(lambda: [side.put_many(hundred) for _ in range(n // 100)], n)


def by_threads(side: Side, n: int) -> float:
    def put() -> None:
        for _ in range(n // THREADS):
            side.put(DATA)

    def work() -> None:
        threads = [threading.Thread(target=put) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return timed(work, n)


def take(batch: int, side: Side, n: int) -> float:
    """Take what was put before the clock started, so that the backlog stays."""
    side.put_many([DATA] * n)
    return timed(lambda: [side.take(batch) for _ in range(n // batch)], n)


def rows(quick: bool = False) -> list[Row]:
    few, many = (100, 1_000) if quick else (500, 10_000)
    work: list[tuple[str, Callable[[Side, int], float], int]] = [
        ("put, one by one", one_by_one, few),
        (f"put, {THREADS} threads", by_threads, few * 4),
        ("put_many, hundreds", in_hundreds, many),
        ("lease and acknowledge, one by one", partial(take, 1), few),
        ("lease and acknowledge, hundreds", partial(take, 100), many),
    ]
    measured = []
    with tempfile.TemporaryDirectory() as folder:
        sides = Durable(Path(folder, "durable.db")), ByHand(Path(folder, "by_hand.db"))
        waiting = 0
        for backlog in (100, 1_000_000):
            for side in sides:
                side.put_many([DATA] * (backlog - waiting))
            waiting = backlog
            ours, hand = sides
            measured += [
                row(
                    f"Durable queue, {backlog:,} waiting",
                    name,
                    partial(function, ours, n),
                    {"by hand": partial(function, hand, n)},
                )
                for name, function, n in work
            ]
        for side in sides:
            side.close()
    return measured


if __name__ == "__main__":
    main(rows)
