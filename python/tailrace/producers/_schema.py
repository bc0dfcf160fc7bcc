"""The file of a durable queue: its tables, how it is made, recognised and opened.

A queue file is a SQLite database in WAL mode with its own `application_id`, the schema's version in
`user_version` and exactly the tables below. A file that is anything else is refused and stays as it
is, byte for byte: it is first looked at through an *immutable* connection, which takes no lock,
replays no journal and writes nothing. (Reading the header with `open()` instead would not do:
closing any descriptor of a file drops all POSIX locks that this process has on it, SQLite's among
them.)

A new file is made complete under a temporary name and then linked to its own, so that nobody, not
even after a crash, ever meets a half-made queue, and two makers cannot overwrite each other.

The tables
    item     what was put, never changed until it is deleted; ids are given out in put order and
             never again
    counter  one row: the id of the next item
    ready    runs `first..last` of ids that wait for a consumer. A million items put one after the
             other are one row, so a put appends to `item` only, and counting is cheap
    delayed  items that wait for a time, `due`
    leased   items delivered and not acknowledged; `until` ends the lease, and with the id it names
             this one delivery
    owner    the processes that hold leases
    dead     items given up, and why

Each item is in exactly one of ready, delayed, leased, dead. Times are seconds since the epoch: the
clock that all processes of a machine share and that survives a restart.
"""

from __future__ import annotations

import functools
import os
import sqlite3
import stat
from pathlib import Path
from typing import Final

from tailrace._errors import QueueError

APPLICATION_ID: Final = 0x7461696C  # "tail"
VERSION: Final = 1

_TABLES: Final = """
CREATE TABLE item(id INTEGER PRIMARY KEY, enqueued_at REAL NOT NULL, data BLOB NOT NULL);
CREATE TABLE counter(next_id INTEGER NOT NULL);
CREATE TABLE ready(
    first INTEGER PRIMARY KEY, last INTEGER NOT NULL, attempts INTEGER NOT NULL);
CREATE TABLE delayed(id INTEGER PRIMARY KEY, attempts INTEGER NOT NULL, due REAL NOT NULL);
CREATE INDEX delayed_due ON delayed(due);
CREATE TABLE leased(
    id INTEGER PRIMARY KEY, attempts INTEGER NOT NULL, until REAL NOT NULL, owner INTEGER NOT NULL);
CREATE INDEX leased_until ON leased(until);
CREATE TABLE owner(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE);
CREATE TABLE dead(
    id INTEGER PRIMARY KEY, attempts INTEGER NOT NULL, reason TEXT NOT NULL,
    failed_at REAL NOT NULL);
INSERT INTO counter VALUES(1);
"""

# A burst may leave a long WAL behind; a checkpoint cuts it back to this many bytes.
_WAL_BYTES: Final = 64 * 1024 * 1024


def failure(path: str, error: Exception) -> QueueError:
    """Return the QueueError for what SQLite or the system said about the file at `path`."""
    if is_busy(error):
        return QueueError(f"{path}: the queue's file is locked by another connection: {error}")
    return QueueError(f"{path}: {error}")


def is_busy(error: BaseException) -> bool:
    """Tell whether `error` says that another connection has the file locked."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def identity(path: str) -> tuple[int, int]:
    """Return device and inode of the file at `path`: the same for all its names. Raises OSError."""
    info = os.stat(path)
    return info.st_dev, info.st_ino


def ensure(path: str) -> None:
    """Make the queue file at `path` unless something is there already.

    Raises QueueError when it cannot be made, or when it is missing beside its own WAL, which holds
    items that a new file would silently replace.
    """
    if os.path.lexists(path):
        return
    for leftover in (f"{path}-wal", f"{path}-journal"):
        if os.path.lexists(leftover) and not os.path.lexists(path):
            raise QueueError(f"{path}: no such file, although {leftover} is there; not made anew")
    try:
        _make(path)
    except FileExistsError:
        pass  # another process was faster
    except (sqlite3.Error, OSError) as error:
        raise QueueError(f"{path}: the queue's file cannot be made: {error}") from error


def _make(path: str) -> None:
    parent = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    draft = f"{path}.{os.getpid()}-{os.urandom(6).hex()}.new"
    try:
        _make_tables(draft)
        os.link(draft, path)
        os.fsync(parent)
    finally:
        os.close(parent)
        for leftover in (draft, f"{draft}-journal", f"{draft}-wal", f"{draft}-shm"):
            Path(leftover).unlink(missing_ok=True)


def _make_tables(path: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.executescript(_TABLES)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("PRAGMA journal_mode = WAL")
    finally:
        connection.close()


def connect(path: str) -> sqlite3.Connection:
    """Open the queue file at `path` after making sure that it is one.

    The connection may be used by any thread, one at a time; it is in autocommit mode and never
    waits for a lock. Raises QueueError when the file is no queue, sqlite3.Error when it cannot be
    read now.
    """
    _recognise(path)
    connection = sqlite3.connect(
        f"{Path(path).as_uri()}?mode=rw",
        uri=True,
        timeout=0,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA fullfsync = ON")  # where fsync alone does not reach the disk
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
        if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
            raise QueueError(f"{path}: the queue's file cannot be used with a write-ahead log")
        if _tables(connection) != _expected_tables():
            raise QueueError(f"{path}: not a queue of this version: other tables are in it")
    except BaseException:
        connection.close()
        raise
    return connection


def _recognise(path: str) -> None:
    try:
        info = os.stat(path)
    except OSError as error:
        raise failure(path, error) from error
    if stat.S_ISDIR(info.st_mode):
        cause = IsADirectoryError("a folder, not a queue's file")
        raise QueueError(f"{path}: {cause}") from cause
    if not stat.S_ISREG(info.st_mode):
        raise QueueError(f"{path}: not a regular file")
    if info.st_size == 0:
        raise QueueError(f"{path}: not a queue: the file is empty (0 bytes)")
    application, version = _header(path)
    if application != APPLICATION_ID:
        raise QueueError(f"{path}: not a queue: its application id is {application}")
    if version != VERSION:
        raise QueueError(
            f"{path}: schema version {version}; this version of tailrace knows {VERSION} only"
        )


def _header(path: str) -> tuple[int, int]:
    """Read application id and schema version without any trace on the file."""
    try:
        connection = sqlite3.connect(f"{Path(path).as_uri()}?mode=ro&immutable=1", uri=True)
        try:
            application = connection.execute("PRAGMA application_id").fetchone()[0]
            version = connection.execute("PRAGMA user_version").fetchone()[0]
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise failure(path, error) from error
    return application, version


def _tables(connection: sqlite3.Connection) -> tuple[tuple[str, str], ...]:
    query = "SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite^_%' ESCAPE '^'"
    return tuple(sorted(connection.execute(query)))


@functools.cache
def _expected_tables() -> tuple[tuple[str, str], ...]:
    connection = sqlite3.connect(":memory:")
    try:
        connection.executescript(_TABLES)
        return _tables(connection)
    finally:
        connection.close()
