"""The storage of a durable queue: one file, one thread at it, group commit.

Who works. The store's own thread, the *worker*, is the only one that has the file open. It takes
all requests that are there, makes the changes among them one transaction, and answers them after
the one fsync of its commit: the more callers, the fewer commits per change. A thread of its own,
because callers may be killed at any bytecode (a process of the engine, Ctrl-C): no caller ever
holds a transaction or a lock that the others need; at worst he does not see the answer.

Who fails. A group that fails is rolled back and each of its requests tried alone, so that everybody
gets his own verdict. A file locked by another connection is asked for again until the deadline of
the requests has passed.

Who reads. A short look (counts, the next time) is a request too, outside of any transaction. A
listing of everything uses a connection for itself in the caller's thread, so that it holds nobody
up. Every read is one statement, hence one snapshot.

Fork. SQLite must never be carried into a child: not a connection, nor a thread inside the library,
whose global locks the child would inherit locked; and opening the same file anew would not help
while the parent's connections are there, since SQLite keeps its file locks per process and inode.
So `os.fork` first waits until the worker has closed its connection and stands still. It does that
itself, because in a free-threaded interpreter an object closed by another thread may be freed
later. Afterwards parent and child each open the file when they need it. A child made without
Python's `os.fork` is refused.

Lock order: `_registry_lock`, `_gate`, `_listing`. No user code runs under any of them, but a signal
handler or a `__del__` may come in between: they are reentrant.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import queue
import signal
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from tailrace._errors import QueueError
from tailrace.producers import _owner, _schema
from tailrace.producers._changes import Changes, Delivery, Failure

T = TypeVar("T")

# Pauses between two tries at a locked file: seconds at first, doubled up to the second.
_FIRST_PAUSE: Final = 0.0005
_LONGEST_PAUSE: Final = 0.005

# A signal that arrives just before a wait does not end it: a wait looks up after so many seconds.
_SIGNAL_INTERVAL: Final = 0.1

# How long the end of the interpreter waits for a store's last requests, in seconds.
_EXIT_TIMEOUT: Final = 10.0

# How often a busy store looks whether owners of leases are gone, in seconds.
_OWNER_INTERVAL: Final = 1.0


class Counts(NamedTuple):
    """How many items are in which state, at one moment."""

    ready: int
    delayed: int
    leased: int
    dead: int


class _Request:
    """Something that somebody waits for: a change, or a look. Answered by releasing `done`."""

    __slots__ = ("changes", "deadline", "done", "error", "result", "work")

    def __init__(self, work: Callable[[Any], Any], changes: bool, deadline: float) -> None:
        self.work = work
        self.changes = changes
        self.deadline = deadline
        self.result: Any = None
        self.error: Exception | None = None
        self.done = threading.Lock()
        self.done.acquire()


class _Pause:
    """Asks the worker to let go of the file and stand still, from `standing` until `go_on`."""

    __slots__ = ("go_on", "standing")

    def __init__(self) -> None:
        self.standing = threading.Lock()
        self.standing.acquire()
        self.go_on = threading.Lock()
        self.go_on.acquire()


class Store:
    """The queue file at `path`, made if there is none. All methods may be called from any thread.

    They raise QueueError, `close` excepted. `busy_timeout` is how many seconds they wait for a
    locked file. Leases of owners that are gone are ended here, with `max_attempts` as the limit.
    """

    def __init__(self, path: str, busy_timeout: float, max_attempts: int | None) -> None:
        self.path = path
        self.max_attempts = max_attempts
        self._busy_timeout = busy_timeout
        self._closed = False
        self._reset()
        with _registry_lock:  # no fork while the file is made, nor before it is known
            _schema.ensure(path)
            _stores.add(self)
        try:
            self.limit: int = self._look(_examine) - 1024
            self.file = _schema.identity(path)
            self.end_owners()
        except BaseException:
            self.close()
            raise

    def _reset(self) -> None:
        """Set what belongs to this process alone."""
        self._pid = os.getpid()
        self._owner = _owner.name()
        self._owners_seen = time.monotonic()
        self._inbox: queue.SimpleQueue[_Request | _Pause | None] = queue.SimpleQueue()
        self._worker: threading.Thread | None = None
        self._connection: sqlite3.Connection | None = None  # the worker's
        self._pause: _Pause | None = None
        self._gate = threading.RLock()  # guards _closed and _worker
        self._listing = threading.RLock()  # held while a caller has a connection

    # Changes

    def put(self, blobs: Sequence[bytes], delay: float) -> range:
        """Add items, all or none; returns their ids when they are on the disk."""
        return self._change(lambda changes: changes.put(blobs, delay))

    def lease(self, n: int, seconds: float) -> list[Delivery]:
        """Lease up to `n` items."""
        if time.monotonic() - self._owners_seen >= _OWNER_INTERVAL:
            self.end_owners()
        request = self._submit(
            lambda changes: changes.lease(n, seconds, self._owner, self.max_attempts)
        )
        try:
            deliveries: list[Delivery] = self._answer(request)
        except Exception:
            raise
        except BaseException:
            # The caller was killed while he waited: give back what he will never see. The worker
            # serves in order, so the lease has been made or has failed by then.
            self._submit(lambda changes: changes.release(_leases(request.result or ())))
            raise
        return deliveries

    def acknowledge(self, done: Sequence[int], failed: Sequence[Failure]) -> None:
        """Remove the items `done`, and delay or give up the deliveries `failed`."""

        def work(changes: Changes) -> None:
            changes.complete(done)
            changes.fail(failed, self.max_attempts)

        self._change(work)

    def release(self, deliveries: Iterable[tuple[int, float]], *, wait: bool = True) -> None:
        """Make the deliveries (id, until) ready again without counting them."""
        leases = list(deliveries)
        request = self._submit(lambda changes: changes.release(leases))
        if wait:
            self._answer(request)

    def requeue(self, ids: Sequence[int] | None) -> int:
        """Make dead letters ready again; returns how many."""
        return self._change(lambda changes: changes.requeue(ids))

    def purge(self, ids: Sequence[int] | None) -> int:
        """Remove dead letters; returns how many."""
        return self._change(lambda changes: changes.purge(ids))

    def end_owners(self) -> None:
        """End the leases of processes that are gone."""
        self._owners_seen = time.monotonic()
        names = self._look(lambda sql: sql.execute("SELECT name FROM owner").fetchall())
        gone = [name for (name,) in names if _owner.is_gone(name)]
        if gone:
            self._change(lambda changes: changes.end_owners(gone, self.max_attempts))

    # Reads

    def counts(self) -> Counts:
        """Count the items by state. A time that has come counts: due, or its lease ended, is ready.

        O(runs of ready items) and a count of the small rows of the other tables, not of the items.
        """
        return Counts(*self._look(lambda sql: sql.execute(_COUNTS, _now()).fetchone()))

    def next_time(self) -> float | None:
        """Return the seconds until an item is or may be ready: 0.0 now, None never. O(log n)."""
        (due,) = self._look(lambda sql: sql.execute(_NEXT_TIME).fetchone())
        return None if due is None else max(0.0, due - time.time())

    def items(self) -> list[tuple[int, bytes, int, str]]:
        """Return (id, data, attempts, state) of all items that are not dead, oldest first."""
        return self._list(_ITEMS)

    def dead(self) -> list[tuple[int, bytes, int, str, float]]:
        """Return (id, data, attempts, reason, failed_at) of all dead letters, oldest first."""
        return self._list(_DEAD)

    # The end

    def close(self, timeout: float | None = None) -> None:
        """Refuse further calls, finish what was asked for and close the file. Never raises.

        The last connection to the file folds its WAL into it. Waits for that up to `timeout`
        seconds.
        """
        with self._gate:
            already, self._closed = self._closed, True
            worker = self._worker
            if worker is not None and not already:
                self._inbox.put(None)
        if worker is not None:
            worker.join(timeout)

    def abandon(self) -> None:
        """Close without waiting, for a store that nobody can call any more.

        Takes no lock: the garbage collector runs this in any thread, at any point.
        """
        self._closed = True
        self._inbox.put(None)

    # The caller's side

    def _change(self, work: Callable[[Changes], T]) -> T:
        result: T = self._answer(self._submit(work))
        return result

    def _look(self, query: Callable[[sqlite3.Connection], T]) -> T:
        result: T = self._answer(self._submit(query, changes=False))
        return result

    def _submit(self, work: Callable[[Any], Any], *, changes: bool = True) -> _Request:
        request = _Request(work, changes, time.monotonic() + self._busy_timeout)
        with self._gate:
            self._check()
            if self._worker is None:
                self._start_worker()
            self._inbox.put(request)
        return request

    def _answer(self, request: _Request) -> Any:
        while not request.done.acquire(timeout=_SIGNAL_INTERVAL):
            pass
        if request.error is not None:
            try:
                raise request.error
            finally:
                request.error = None  # the error holds this frame: leave no cycle
        return request.result

    def _list(self, query: str) -> list[Any]:
        for left in _patience(time.monotonic() + self._busy_timeout):
            try:
                with self._listing:
                    self._check()
                    with contextlib.closing(_schema.connect(self.path)) as sql:
                        return sql.execute(query, _now()).fetchall()
            except sqlite3.Error as error:
                if left <= 0 or not _schema.is_busy(error):
                    raise _schema.failure(self.path, error) from error
        raise AssertionError("unreachable: the last look returns or raises")

    def _check(self) -> None:
        if self._closed:
            raise QueueError(f"{self.path}: the queue is closed")
        if self._pid != os.getpid():
            raise QueueError(
                f"{self.path}: the queue was opened by process {self._pid}, and this child of it"
                " was not made by os.fork: open the queue after starting the process"
            )

    # The worker's side

    def _start_worker(self) -> None:
        worker = threading.Thread(
            target=self._work, name=f"tailrace queue {self.path}", daemon=True
        )
        try:
            worker.start()
        except RuntimeError as error:
            raise QueueError(f"{self.path}: the queue cannot start its thread: {error}") from error
        self._worker = worker

    def _work(self) -> None:
        # Signals are for the threads of the program, a SIGINT above all for its main one.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        stopping = False
        while not stopping:
            group = [self._inbox.get()]
            with contextlib.suppress(queue.Empty):
                while True:
                    group.append(self._inbox.get_nowait())
            stopping = None in group  # the last one: nothing is submitted to a closed store
            requests = [request for request in group if isinstance(request, _Request)]
            self._serve([request for request in requests if not request.changes], self._read)
            self._serve([request for request in requests if request.changes], self._transact)
            self._stand_if_asked()
        self._disconnect()

    def _serve(self, requests: list[_Request], act: Callable[[list[_Request]], None]) -> None:
        """Let `act` find the results of `requests` together, and answer them."""
        if not requests:
            return
        for left in _patience(max(request.deadline for request in requests)):
            try:
                act(requests)
            except Exception as error:
                if _schema.is_busy(error) and left > 0:
                    self._stand_if_asked()
                    continue
                if len(requests) == 1 or _schema.is_busy(error):
                    self._refuse(requests, error)
                else:
                    for request in requests:
                        self._serve([request], act)
                return
            for request in requests:
                request.done.release()
            return

    def _read(self, requests: list[_Request]) -> None:
        sql = self._connect()
        for request in requests:
            request.result = request.work(sql)

    def _transact(self, requests: list[_Request]) -> None:
        sql = self._connect()
        sql.execute("BEGIN IMMEDIATE")
        try:
            changes = Changes(sql, time.time())
            for request in requests:
                request.result = request.work(changes)
            changes.flush()
            self._check_file()
            sql.execute("COMMIT")
        except BaseException:
            if sql.in_transaction:
                sql.execute("ROLLBACK")
            raise

    def _check_file(self) -> None:
        """Refuse to write into a file that no longer has the queue's name: it would be lost."""
        if _schema.identity(self.path) != self.file:
            raise QueueError(f"{self.path}: another file was put in the place of the queue's")

    def _refuse(self, requests: list[_Request], error: Exception) -> None:
        for request in requests:
            if isinstance(error, (sqlite3.Error, OSError)):
                request.error = _schema.failure(self.path, error)
                request.error.__cause__ = error.with_traceback(None)  # its frames hold connections
            else:
                request.error = error
            request.done.release()

    def _connect(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = _schema.connect(self.path)
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _stand_if_asked(self) -> None:
        pause, self._pause = self._pause, None
        if pause is not None:
            self._disconnect()
            pause.standing.release()
            pause.go_on.acquire()

    # Fork: see the top of this file

    def _before_fork(self) -> _Pause:
        self._gate.acquire()
        self._listing.acquire()
        pause = _Pause()
        worker = self._worker
        if worker is not None:
            self._pause = pause
            self._inbox.put(pause)  # wakes it
            while not pause.standing.acquire(timeout=_SIGNAL_INTERVAL) and worker.is_alive():
                pass
        return pause

    def _after_fork_in_parent(self, pause: _Pause) -> None:
        pause.go_on.release()
        self._listing.release()
        self._gate.release()


def _patience(deadline: float) -> Iterator[float]:
    """Yield the seconds left before each try, with pauses between; the last is not above 0."""
    pause = _FIRST_PAUSE
    while (left := deadline - time.monotonic()) > 0:
        yield left
        time.sleep(min(pause, max(0.0, deadline - time.monotonic())))
        pause = min(2 * pause, _LONGEST_PAUSE)
    yield left


def _now() -> dict[str, float]:
    return {"now": time.time()}


_COUNTS: Final = """
WITH due(delayed, leased) AS (SELECT
    (SELECT count(*) FROM delayed WHERE due <= :now),
    (SELECT count(*) FROM leased WHERE until <= :now))
SELECT (SELECT coalesce(sum(last - first + 1), 0) FROM ready) + due.delayed + due.leased,
       (SELECT count(*) FROM delayed) - due.delayed,
       (SELECT count(*) FROM leased) - due.leased,
       (SELECT count(*) FROM dead)
FROM due
"""

_ITEMS: Final = """
SELECT item.id, item.data,
       coalesce(delayed.attempts, leased.attempts, (SELECT ready.attempts FROM ready
           WHERE ready.first <= item.id ORDER BY ready.first DESC LIMIT 1)),
       CASE WHEN due > :now THEN 'delayed' WHEN until > :now THEN 'leased' ELSE 'ready' END
FROM item LEFT JOIN delayed USING(id) LEFT JOIN leased USING(id)
WHERE item.id NOT IN (SELECT id FROM dead)
ORDER BY item.id
"""

_DEAD: Final = """
SELECT dead.id, data, attempts, reason, failed_at FROM dead JOIN item USING(id) ORDER BY dead.id
"""

# Any time that is past means "now", and 0 is.
_NEXT_TIME: Final = """
SELECT min(time) FROM (
    SELECT 0.0 AS time WHERE EXISTS (SELECT 1 FROM ready)
    UNION ALL SELECT min(due) FROM delayed
    UNION ALL SELECT min(until) FROM leased)
"""


def _examine(sql: sqlite3.Connection) -> int:
    """Read a little of every table, so that a file cut short is refused when it is opened.

    Returns how many bytes a row can hold.
    """
    for table in ("item", "counter", "ready", "delayed", "leased", "owner", "dead"):
        sql.execute(f"SELECT * FROM {table} LIMIT 1").fetchall()
    return sql.getlimit(sqlite3.SQLITE_LIMIT_LENGTH)


def _leases(deliveries: Iterable[Delivery]) -> list[tuple[int, float]]:
    return [(delivery.id, delivery.until) for delivery in deliveries]


# All stores of this process that may have the file open, for fork and for the interpreter's end.
_stores: weakref.WeakSet[Store] = weakref.WeakSet()
_registry_lock = threading.RLock()
_standing: list[tuple[Store, _Pause]] = []


def _before_fork() -> None:
    _registry_lock.acquire()
    _standing[:] = [(store, store._before_fork()) for store in list(_stores)]


def _after_fork_in_parent() -> None:
    for store, pause in _standing:
        store._after_fork_in_parent(pause)
    _standing.clear()
    _registry_lock.release()


def _after_fork_in_child() -> None:
    global _registry_lock
    _registry_lock = threading.RLock()
    for store, _ in _standing:
        store._reset()
    _standing.clear()


def _close_all() -> None:
    with _registry_lock:
        stores = list(_stores)
    for store in stores:
        store.close(_EXIT_TIMEOUT)


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
atexit.register(_close_all)
