"""What one transaction does to the tables of a queue.

A `Changes` lives for one transaction, on the connection of the store that opened it, and sees one
time, `now`. Several callers' requests share it: what they put is gathered and written together by
`flush`.

Cost: a put is one append to `item` per item and a few statements per transaction; leasing or
acknowledging n items is O(n log leased). Neither depends on how many items wait, because `ready` is
kept as runs of consecutive ids (see `_schema`) and the delayed and the leased are found by index.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

# A run of items, first to last inclusive, that were delivered equally often.
_Run = tuple[int, int, int]


class Delivery(NamedTuple):
    """One item handed out. `id` and `until`, the end of its lease, tell it from any other."""

    id: int
    data: bytes
    attempts: int
    enqueued_at: float
    until: float


class Failure(NamedTuple):
    """A delivery that failed; retried after `delay` seconds, or given up when that is None."""

    id: int
    until: float
    reason: str
    delay: float | None


LEASE_ENDED: Final = "the lease ended without an acknowledgement"
OWNER_GONE: Final = "the process that had it ended without an acknowledgement"
WORN_OUT: Final = "it was delivered as often as max_attempts allows"


class Changes:
    """The changes of one transaction. Not thread-safe; the store calls it from its writer."""

    def __init__(self, connection: sqlite3.Connection, now: float) -> None:
        self._sql = connection
        self._now = now
        self._next_id: int | None = None
        self._items: list[tuple[int, float, bytes]] = []
        self._delayed: list[tuple[int, int, float]] = []
        self._fresh: list[tuple[int, int]] = []

    # Putting

    def put(self, blobs: Sequence[bytes], delay: float) -> range:
        """Add an item for each of `blobs`, ready after `delay` seconds; returns their ids."""
        if self._next_id is None:
            self._next_id = self._sql.execute("SELECT next_id FROM counter").fetchone()[0]
        first = self._next_id
        ids = range(first, first + len(blobs))
        self._next_id = ids.stop
        self._items += zip(ids, itertools.repeat(self._now), blobs)
        if delay > 0:
            due = self._now + delay
            self._delayed += ((id, 0, due) for id in ids)
        elif self._fresh and self._fresh[-1][1] == first - 1:
            self._fresh[-1] = (self._fresh[-1][0], ids[-1])
        else:
            self._fresh.append((first, ids[-1]))
        return ids

    def flush(self) -> None:
        """Write what was put so far. Must be called before the transaction is committed."""
        if not self._items:
            return
        self._sql.executemany("INSERT INTO item VALUES(?, ?, ?)", self._items)
        self._sql.executemany("INSERT INTO delayed VALUES(?, ?, ?)", self._delayed)
        for first, last in self._fresh:
            self._append_run(first, last)
        self._sql.execute("UPDATE counter SET next_id = ?", (self._next_id,))
        self._items, self._delayed, self._fresh = [], [], []

    def _append_run(self, first: int, last: int) -> None:
        """Add a run behind all others, joined to the last one where they meet."""
        joined = self._sql.execute(
            "UPDATE ready SET last = ? WHERE attempts = 0 AND last = ?"
            " AND first = (SELECT max(first) FROM ready)",
            (last, first - 1),
        )
        if joined.rowcount == 0:
            self._sql.execute("INSERT INTO ready VALUES(?, ?, 0)", (first, last))

    # Leasing

    def lease(self, n: int, seconds: float, owner: str, max_attempts: int | None) -> list[Delivery]:
        """Hand out up to `n` items: those whose time has come, then the others in put order."""
        self.flush()
        self.end_leases(max_attempts)
        until = self._now + seconds
        owner_id: int | None = None
        deliveries: list[Delivery] = []
        for first, last, attempts in self._take(n, max_attempts):
            attempts += 1
            if owner_id is None:
                owner_id = self._owner_id(owner)
            self._sql.execute(
                "INSERT INTO leased SELECT id, ?, ?, ? FROM item WHERE id BETWEEN ? AND ?",
                (attempts, until, owner_id, first, last),
            )
            deliveries += (
                Delivery(id, data, attempts, enqueued_at, until)
                for id, data, enqueued_at in self._sql.execute(
                    "SELECT id, data, enqueued_at FROM item WHERE id BETWEEN ? AND ? ORDER BY id",
                    (first, last),
                )
            )
        return deliveries

    def _take(self, n: int, max_attempts: int | None) -> Iterator[_Run]:
        """Remove up to `n` items from the delayed and the ready ones and yield them as runs."""
        for take in (self._take_due, self._take_ready):
            while n > 0 and (run := take(n)) is not None:
                first, last, attempts = run
                if max_attempts is not None and attempts >= max_attempts:
                    self._bury([(id, attempts, WORN_OUT) for id in range(first, last + 1)])
                    continue
                n -= last - first + 1
                yield run

    def _take_due(self, n: int) -> _Run | None:
        row = self._sql.execute(
            "SELECT id, attempts FROM delayed WHERE due <= ? ORDER BY due, id LIMIT 1",
            (self._now,),
        ).fetchone()
        if row is None:
            return None
        id, attempts = row
        self._sql.execute("DELETE FROM delayed WHERE id = ?", (id,))
        return id, id, attempts

    def _take_ready(self, n: int) -> _Run | None:
        run: _Run | None = self._sql.execute(
            "SELECT first, last, attempts FROM ready ORDER BY first LIMIT 1"
        ).fetchone()
        if run is None:
            return None
        first, last, attempts = run
        end = min(last, first + n - 1)
        self._cut_run(run, first, end)
        return first, end, attempts

    def _owner_id(self, name: str) -> int:
        row = self._sql.execute("SELECT id FROM owner WHERE name = ?", (name,)).fetchone()
        if row is not None:
            known: int = row[0]
            return known
        made = self._sql.execute("INSERT INTO owner(name) VALUES(?)", (name,)).lastrowid
        assert made is not None
        return made

    # Acknowledging

    def complete(self, ids: Sequence[int]) -> None:
        """Remove the items `ids`, whoever has them now."""
        self.flush()
        rows = [(id,) for id in ids]
        leased = self._sql.executemany("DELETE FROM leased WHERE id = ?", rows).rowcount
        removed = self._sql.executemany("DELETE FROM item WHERE id = ?", rows).rowcount
        if leased == removed:
            return
        # A late success: the lease had ended, and the item waits again or was given up.
        self._sql.executemany("DELETE FROM delayed WHERE id = ?", rows)
        self._sql.executemany("DELETE FROM dead WHERE id = ?", rows)
        for id in ids:
            run = self._sql.execute(
                "SELECT first, last, attempts FROM ready WHERE first <= ?"
                " ORDER BY first DESC LIMIT 1",
                (id,),
            ).fetchone()
            if run is not None and run[1] >= id:
                self._cut_run(run, id, id)

    def fail(self, failures: Iterable[Failure], max_attempts: int | None) -> None:
        """Delay or give up the deliveries that failed within their lease; ignore the others."""
        for id, until, reason, delay in failures:
            attempts = self._end_lease(id, until) if until > self._now else None
            if attempts is None:
                continue
            if delay is None or (max_attempts is not None and attempts >= max_attempts):
                self._bury([(id, attempts, reason)])
            else:
                due = self._now + delay
                self._sql.execute("INSERT INTO delayed VALUES(?, ?, ?)", (id, attempts, due))

    def release(self, leases: Iterable[tuple[int, float]]) -> None:
        """Make the deliveries (id, until) ready again as if they had not been made."""
        rows = []
        for id, until in leases:
            attempts = self._end_lease(id, until)
            if attempts is not None:
                rows.append((id, attempts - 1))
        self._make_ready(rows)

    def _end_lease(self, id: int, until: float) -> int | None:
        """End one delivery's lease; returns its attempts, or None if it had ended already."""
        row = self._sql.execute(
            "SELECT attempts FROM leased WHERE id = ? AND until = ?", (id, until)
        ).fetchone()
        if row is None:
            return None
        self._sql.execute("DELETE FROM leased WHERE id = ?", (id,))
        attempts: int = row[0]
        return attempts

    # Leases that end by themselves

    def end_leases(self, max_attempts: int | None) -> None:
        """Make the items ready whose lease has ended, or give them up after the last attempt."""
        self._return("until <= ?", self._now, LEASE_ENDED, max_attempts)

    def end_owners(self, names: Iterable[str], max_attempts: int | None) -> None:
        """End the leases of processes that are gone."""
        for name in names:
            row = self._sql.execute("SELECT id FROM owner WHERE name = ?", (name,)).fetchone()
            if row is not None:
                self._return("owner = ?", row[0], OWNER_GONE, max_attempts)
                self._sql.execute("DELETE FROM owner WHERE id = ?", row)

    def _return(self, which: str, value: float, reason: str, max_attempts: int | None) -> None:
        rows = self._sql.execute(
            f"SELECT id, attempts FROM leased WHERE {which}", (value,)
        ).fetchall()
        if not rows:
            return
        self._sql.execute(f"DELETE FROM leased WHERE {which}", (value,))
        limit = float("inf") if max_attempts is None else max_attempts
        self._make_ready([(id, attempts) for id, attempts in rows if attempts < limit])
        self._bury([(id, attempts, reason) for id, attempts in rows if attempts >= limit])

    # Dead letters

    def requeue(self, ids: Iterable[int] | None) -> int:
        """Make the dead letters `ids`, or all, ready with no attempts; returns how many."""
        found = self._unbury(ids)
        self._make_ready([(id, 0) for id in found])
        return len(found)

    def purge(self, ids: Iterable[int] | None) -> int:
        """Remove the dead letters `ids`, or all, for good; returns how many."""
        found = self._unbury(ids)
        self._sql.executemany("DELETE FROM item WHERE id = ?", ((id,) for id in found))
        return len(found)

    def _bury(self, rows: Sequence[tuple[int, int, str]]) -> None:
        self._sql.executemany(
            "INSERT INTO dead VALUES(?, ?, ?, ?)", ((*row, self._now) for row in rows)
        )

    def _unbury(self, ids: Iterable[int] | None) -> list[int]:
        if ids is None:
            rows = self._sql.execute("SELECT id FROM dead").fetchall()
            self._sql.execute("DELETE FROM dead")
            return [id for (id,) in rows]
        delete = "DELETE FROM dead WHERE id = ?"
        return [id for id in ids if self._sql.execute(delete, (id,)).rowcount == 1]

    # Runs

    def _make_ready(self, rows: Iterable[tuple[int, int]]) -> None:
        """Add items (id, attempts) to the ready ones, neighbours as one run."""
        runs: list[_Run] = []
        for id, attempts in sorted(rows):
            if runs and runs[-1][1] == id - 1 and runs[-1][2] == attempts:
                runs[-1] = (runs[-1][0], id, attempts)
            else:
                runs.append((id, id, attempts))
        self._sql.executemany("INSERT INTO ready VALUES(?, ?, ?)", runs)

    def _cut_run(self, run: _Run, first: int, last: int) -> None:
        """Cut first..last out of `run`; what is left of it before and behind stays ready."""
        start, end, attempts = run
        self._sql.execute("DELETE FROM ready WHERE first = ?", (start,))
        if start < first:
            self._sql.execute("INSERT INTO ready VALUES(?, ?, ?)", (start, first - 1, attempts))
        if last < end:
            self._sql.execute("INSERT INTO ready VALUES(?, ?, ?)", (last + 1, end, attempts))
