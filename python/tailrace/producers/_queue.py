"""The durable queue: what users call, and what a pipeline's producer uses of it.

The producer's side, for the adapter that makes a stage of a queue. All of it may be called from any
thread, waits for SQLite only, and raises QueueError when the file is locked or fails; the adapter
then tries again, and logs the first failure, until its drain ends.

    _lease(n) -> list[Item]        up to n items, each leased to this process from now; [] if none
    _acknowledge(done, failed)     done: items; failed: (item, reason) pairs. Returns after commit
    _release(items)                gives leased items back without counting the attempt
    _wait_hint() -> float | None   seconds until an item is or may be ready; 0.0 now, None never
    _exhausted() -> bool           nothing ready, delayed or leased: the end, for `until_empty`
    _subscribe(fn)                 fn() is called after every commit of this process that may have
                                   changed `_wait_hint()`; in any thread, so it must be short
    _unsubscribe(fn)               ends that
    _poll_interval, _until_empty   the options of those names

An `Item` stands for one delivery: handed back to `_acknowledge`, it completes the item even after
its lease, while its failure counts only as long as its own lease lasts.
"""

from __future__ import annotations

import logging
import os
import pickle
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final

from tailrace import _validate
from tailrace.producers._changes import Delivery, Failure
from tailrace.producers._store import Counts, Store

_logger: Final = logging.getLogger("tailrace")
_PROTOCOL: Final = 5
_DEFAULT_RETRY_DELAY: Final = 1.0


@dataclass(frozen=True, slots=True)
class Item:
    """One delivery of an item; its lease lasts to `until`, in seconds since the epoch."""

    id: int
    data: Any
    attempts: int
    enqueued_at: float
    until: float


@dataclass(frozen=True, slots=True)
class _Stored:
    """An item as it lies in the file. Its data is unpickled when it is looked at."""

    id: int
    _pickle: bytes
    attempts: int

    @property
    def data(self) -> Any:
        """What was put: a fresh copy each time. Raises what unpickling it raises."""
        return pickle.loads(self._pickle)

    def __repr__(self) -> str:
        shown = (name for name in self._fields() if not name.startswith("_"))
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
        return f"{type(self).__name__}({fields})"

    @classmethod
    def _fields(cls) -> Iterator[str]:
        for kind in reversed(cls.__mro__):
            yield from getattr(kind, "__slots__", ())


@dataclass(frozen=True, slots=True, repr=False)
class StoredItem(_Stored):
    """An item that waits or is being worked on; `state` is "ready", "delayed" or "leased"."""

    state: str


@dataclass(frozen=True, slots=True, repr=False)
class DeadLetter(_Stored):
    """An item given up: `reason` is text, `failed_at` in seconds since the epoch."""

    reason: str
    failed_at: float


class Queue:
    """A durable queue in one SQLite file, and a producer of a pipeline.

    Any number of objects, threads and processes of one machine may share the file. What `put`
    returned for survives a crash; an item is removed when its message was acknowledged as
    successful, and comes again otherwise: at least once.

    Args:
        path: The file, on a local disk; made when it is missing, with `-wal` and `-shm` beside it.
        lease: Seconds > 0 for which nobody else gets an item after its delivery.
        max_attempts: Deliveries before an item becomes a dead letter; None for no limit.
        retry_delay: Seconds >= 0 until a failed item is delivered again, or a function that gives
            them for the number of attempts made.
        busy_timeout: Seconds >= 0 to wait for a locked file before raising.
        poll_interval: Seconds > 0 between two looks, while idle, for what other processes put.
        until_empty: As a producer, end when nothing is ready, delayed or leased.

    Raises:
        TypeError, ValueError: An option is wrong. Nothing was opened.
        QueueError: The file cannot be made, read or written, or is no queue; then it is left alone.

    All methods may be called from any thread. After `os.fork` the object works in the child too.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> with Queue(f"{folder.name}/jobs.db") as queue:
    ...     queue.put({"job": 1})
    ...     queue.put_many(["a", "b"], delay=60)
    ...     queue.stats()
    1
    [2, 3]
    Counts(ready=1, delayed=2, leased=0, dead=0)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        lease: float = 60.0,
        max_attempts: int | None = 5,
        retry_delay: float | Callable[[int], float] = 1.0,
        busy_timeout: float = 5.0,
        poll_interval: float = 0.2,
        until_empty: bool = False,
    ) -> None:
        self._path = _file_path(path)
        self._lease_seconds = _validate.seconds("lease", lease, zero=False)
        if max_attempts is not None:
            _validate.integer("max_attempts", max_attempts, 1)
        self._max_attempts = max_attempts
        self._retry_delay = _retry_delay(retry_delay)
        self._poll_interval = _validate.seconds("poll_interval", poll_interval, zero=False)
        self._until_empty = _validate.boolean("until_empty", until_empty)
        self._store = Store(
            self._path, _validate.seconds("busy_timeout", busy_timeout), max_attempts
        )
        # A queue that is dropped without `close` must not keep its thread and its file.
        weakref.finalize(self, self._store.abandon).atexit = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._path!r})"

    # Putting

    def put(self, data: Any, *, delay: float = 0.0) -> int:
        """Add one item and return its id once it is safely on the disk (commit and fsync).

        Args:
            data: Anything that pickles. What does not, raises pickle's error, and nothing is
            stored. delay: Seconds >= 0 before it may be delivered.

        Raises:
            QueueError: The file is locked, full or broken, or the queue closed. Nothing was stored.

        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> queue = Queue(f"{folder.name}/jobs.db")
        >>> queue.put("first")
        1
        """
        seconds = _validate.seconds("delay", delay)
        return self._put([self._pickled(data, "data")], seconds)[0]

    def put_many(self, items: Iterable[Any], *, delay: float = 0.0) -> list[int]:
        """Add items in one transaction, all or none, and return their ids in order.

        Args and errors as for `put`; `items` is any iterable.

        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> queue = Queue(f"{folder.name}/jobs.db")
        >>> queue.put_many(["a", "b"])
        [1, 2]
        """
        seconds = _validate.seconds("delay", delay)
        if not isinstance(items, Iterable):
            raise _validate.wrong_type("items", "an iterable", items)
        blobs = [self._pickled(data, f"items[{i}]") for i, data in enumerate(items)]
        return list(self._put(blobs, seconds)) if blobs else []

    def _put(self, blobs: list[bytes], delay: float) -> range:
        ids = self._store.put(blobs, delay)
        self._notify()
        return ids

    def _pickled(self, data: Any, path: str) -> bytes:
        try:
            blob = pickle.dumps(data, _PROTOCOL)
        except Exception as error:
            error.add_note(f"{path}: expected something that pickles, got {type(data).__name__}")
            raise
        if len(blob) > self._store.limit:
            limit = self._store.limit
            raise ValueError(f"{path}: expected at most {limit} bytes pickled, got {len(blob)}")
        return blob

    # Looking

    def items(self) -> list[StoredItem]:
        """Return all items that are not dead, oldest first, as they are at one moment.

        Each has `id`, `data`, `attempts` and `state`: "ready", "delayed" or "leased". Raises
        QueueError.

        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> queue = Queue(f"{folder.name}/jobs.db")
        >>> _ = queue.put("a")
        >>> [(item.id, item.data, item.attempts, item.state) for item in queue.items()]
        [(1, 'a', 0, 'ready')]
        """
        return [StoredItem(*row) for row in self._store.items()]

    def stats(self) -> Counts:
        """Return how many items are `ready`, `delayed`, `leased` and `dead` at one moment.

        An item whose time has come, or whose lease has ended, is ready. Raises QueueError.

        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> Queue(f"{folder.name}/jobs.db").stats().ready
        0
        """
        return self._store.counts()

    # Dead letters

    def dead_letters(self) -> list[DeadLetter]:
        """Return the items given up, oldest first, as they are at one moment.

        Each has `id`, `data`, `attempts`, `reason` (text) and `failed_at` (seconds since the
        epoch). Raises QueueError.

        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> Queue(f"{folder.name}/jobs.db").dead_letters()
        []
        """
        return [DeadLetter(*row) for row in self._store.dead()]

    def requeue(self, ids: Iterable[int] | None = None) -> int:
        """Make dead letters ready again, with their attempts reset; returns how many.

        Args:
            ids: Which; None for all. Ids of no dead letter are passed over.

        Raises QueueError.

        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> Queue(f"{folder.name}/jobs.db").requeue()
        0
        """
        count = self._store.requeue(_ids(ids))
        self._notify()
        return count

    def purge(self, ids: Iterable[int] | None = None) -> int:
        """Remove dead letters for good; returns how many. `ids` and errors as for `requeue`.

        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> Queue(f"{folder.name}/jobs.db").purge([7])
        0
        """
        return self._store.purge(_ids(ids))

    # The end

    def close(self) -> None:
        """Finish the calls under way and close the file; later calls raise QueueError.

        The last object to close the file folds the WAL into it. Closing twice does nothing.

        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> Queue(f"{folder.name}/jobs.db").close()
        """
        self._store.close()

    def __enter__(self) -> Queue:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # The producer's side: see the top of this file

    def _lease(self, n: int) -> list[Item]:
        while deliveries := self._store.lease(n, self._lease_seconds):
            try:
                items, spoilt = _unpickled(deliveries)
            except BaseException:  # killed: nobody will see these
                self._store.release(_leases(deliveries), wait=False)
                raise
            if spoilt:
                self._store.acknowledge([], spoilt)
            if items:
                return items
        return []

    def _acknowledge(self, done: Iterable[Item], failed: Iterable[tuple[Item, str]]) -> None:
        failures = [
            Failure(item.id, item.until, reason, self._delay_after(item.attempts))
            for item, reason in failed
        ]
        self._store.acknowledge([item.id for item in done], failures)
        if failures:
            self._notify()

    def _release(self, items: Iterable[Item]) -> None:
        self._store.release(_leases(items))
        self._notify()

    def _wait_hint(self) -> float | None:
        return self._store.next_time()

    def _exhausted(self) -> bool:
        return self._store.next_time() is None

    def _delay_after(self, attempts: int) -> float:
        if not callable(self._retry_delay):
            return self._retry_delay
        try:
            return _validate.seconds("retry_delay(attempts)", self._retry_delay(attempts))
        except Exception:
            _logger.exception(
                "%s: retry_delay failed for attempt %d; the item is delayed by %s s",
                self._path, attempts, _DEFAULT_RETRY_DELAY,
            )  # fmt: skip
            return _DEFAULT_RETRY_DELAY

    def _subscribe(self, listener: Callable[[], None]) -> None:
        with _listeners_lock:
            _listeners[self._store.file] = (*_listeners.get(self._store.file, ()), listener)

    def _unsubscribe(self, listener: Callable[[], None]) -> None:
        with _listeners_lock:
            old = _listeners.pop(self._store.file, ())
            if rest := tuple(other for other in old if other != listener):
                _listeners[self._store.file] = rest

    def _notify(self) -> None:
        for listener in _listeners.get(self._store.file, ()):
            try:
                listener()
            except Exception:
                _logger.exception("%s: waking a producer failed", self._path)


# Who is woken in this process, by the file's identity: any object of the file wakes the producers
# of all.
_listeners: dict[tuple[int, int], tuple[Callable[[], None], ...]] = {}
_listeners_lock = threading.Lock()


def _forget_listeners() -> None:
    """Drop the parent's listeners in a forked child."""
    global _listeners_lock
    _listeners_lock = threading.Lock()
    _listeners.clear()


os.register_at_fork(after_in_child=_forget_listeners)


def _file_path(path: object) -> str:
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise _validate.wrong_type("path", "a str or PathLike of str", path)
    text: str = os.fspath(path)
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise _validate.wrong_value("path", "a name that can be encoded", path) from None
    if not text or "\0" in text:
        raise _validate.wrong_value("path", "a non-empty path without null bytes", path)
    return os.path.abspath(text)


def _retry_delay(value: object) -> float | Callable[[int], float]:
    if callable(value):
        return value
    if not isinstance(value, int | float):
        raise _validate.wrong_type("retry_delay", "seconds >= 0 or a function of attempts", value)
    return _validate.seconds("retry_delay", value)


_LARGEST_ID = 2**63 - 1
"""What SQLite can hold."""


def _ids(ids: object) -> list[int] | None:
    if ids is None:
        return None
    if not isinstance(ids, Iterable):
        raise _validate.wrong_type("ids", "an iterable of int, or None", ids)
    return [_validate.integer(f"ids[{i}]", id, 0, _LARGEST_ID) for i, id in enumerate(ids)]


def _unpickled(deliveries: Iterable[Delivery]) -> tuple[list[Item], list[Failure]]:
    """Split deliveries into items and those whose data cannot be unpickled, which are given up."""
    items = []
    spoilt = []
    for id, blob, attempts, enqueued_at, until in deliveries:
        try:
            data = pickle.loads(blob)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            _logger.error("item %d cannot be unpickled, a dead letter now: %s", id, reason)
            spoilt.append(Failure(id, until, reason, delay=None))
        else:
            items.append(Item(id, data, attempts, enqueued_at, until))
    return items, spoilt


def _leases(items: Iterable[Item | Delivery]) -> list[tuple[int, float]]:
    return [(item.id, item.until) for item in items]
