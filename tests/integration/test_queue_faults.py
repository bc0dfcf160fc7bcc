"""The durable queue on a full disk, a locked file, and files that are no queue or are spoilt."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from marks import under_the_gil
from support import is_inside

import tailrace as tr
from tailrace.producers import Queue
from tailrace.producers._store import Store

PATIENCE = 60.0


def digest(folder: Path) -> dict[str, str]:
    """Return a hash of every file in `folder`."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.is_file()
    }


# ---- Locked --------------------------------------------------------------------------------------


@contextlib.contextmanager
def locked(path: Path, begin: str = "BEGIN IMMEDIATE") -> Iterator[None]:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute(begin)
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


@pytest.mark.parametrize("begin", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
@pytest.mark.parametrize(
    "call",
    [
        lambda q: q.put(2),
        lambda q: q.put_many([2, 3]),
        lambda q: q.requeue(),
        lambda q: q.purge(),
        lambda q: q._lease(1),
    ],
)
def test_a_locked_file_raises_after_the_busy_timeout(
    tmp_path: Path, begin: str, call: Callable[[Queue], object]
) -> None:
    path = tmp_path / "queue.db"
    with Queue(path, busy_timeout=0.05) as queue:
        queue.put(1)
        with locked(path, begin):
            before = time.monotonic()
            with pytest.raises(tr.QueueError, match=f"{path}: .*locked") as caught:
                call(queue)
            assert time.monotonic() - before >= 0.05
            assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
            assert queue.stats() == (1, 0, 0, 0)  # looking does not need the lock
        assert [item.data for item in queue.items()] == [1]
        call(queue)


def test_a_busy_timeout_of_zero_raises_at_once(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    with Queue(path, busy_timeout=0) as queue, locked(path), pytest.raises(tr.QueueError):
        queue.put(1)


def test_a_put_goes_on_as_soon_as_the_lock_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    with Queue(path, busy_timeout=PATIENCE) as queue:
        ids: list[int] = []
        thread = threading.Thread(target=lambda: ids.append(queue.put(1)))
        with locked(path):
            thread.start()
        thread.join(PATIENCE)
        assert ids == [1]


def test_a_failed_acknowledgement_can_be_made_again(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    with Queue(path, busy_timeout=0.01) as queue:
        queue.put_many("ab")
        a, b = queue._lease(2)
        with locked(path), pytest.raises(tr.QueueError):
            queue._acknowledge([a], [(b, "no")])
        assert queue.stats() == (0, 0, 2, 0)
        queue._acknowledge([a], [(b, "no")])
        assert queue.stats() == (0, 1, 0, 0)


def test_a_file_held_exclusively_cannot_be_opened(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    Queue(path).close()
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(tr.QueueError, match="locked"):
        Queue(path, busy_timeout=0.05)
    holder.close()
    Queue(path).close()


# ---- Full ----------------------------------------------------------------------------------------

# Puts until the file cannot grow, then says what was confirmed and what the object does after it.
FULL = """
import os, resource, sqlite3, sys
import tailrace as tr
from tailrace.producers import Queue
path = sys.argv[1]
queue = Queue(path)
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))
confirmed = []
try:
    for i in range(1000):
        queue.put((i, b"x" * 10_000))
        confirmed.append(i)
except tr.QueueError as error:
    assert path in str(error) and isinstance(error.__cause__, sqlite3.Error), repr(error)
else:
    raise SystemExit("the file never was full")
try:
    queue.put_many([("many", b"x" * 10_000)] * 100)
except tr.QueueError:
    pass
else:
    raise SystemExit("a transaction beyond the limit was taken")
assert [item.data[0] for item in queue.items()] == confirmed
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
assert queue.put(("after", b"")) > 0
leased = queue._lease(1000)
assert [item.data[0] for item in leased] == [*confirmed, "after"]
queue._acknowledge(leased, [])
queue.close()
with Queue(path) as queue:
    assert sum(queue.stats()) == 0
print(len(confirmed))
"""


def test_after_a_file_size_limit_confirmed_items_are_there_and_the_object_works(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", FULL, str(tmp_path / "queue.db")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 5


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a small file system cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_after_a_full_disk_confirmed_items_are_there_and_the_object_works(small_disk: Path) -> None:
    path = small_disk / "queue.db"
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"\0" * 500_000)
    with Queue(path) as queue:
        confirmed: list[int] = []
        with pytest.raises(tr.QueueError, match=str(path)) as caught:
            for i in range(1000):
                queue.put((i, b"x" * 5_000))
                confirmed.append(i)
        assert isinstance(caught.value.__cause__, sqlite3.Error)
        with pytest.raises(tr.QueueError):
            queue.put_many([("many", b"x" * 5_000)] * 200)
        assert [item.data[0] for item in queue.items()] == confirmed
        ballast.unlink()
        queue.put(("after", b""))
    with Queue(path) as queue:
        assert [item.data[0] for item in queue.items()] == [*confirmed, "after"]


def test_a_queue_cannot_be_made_on_a_full_disk_and_nothing_is_left(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(b"\0" * 4096)
    path = small_disk / "queue.db"
    with pytest.raises(tr.QueueError, match=str(path)):
        Queue(path)
    assert list(small_disk.iterdir()) == [ballast]
    ballast.unlink()
    with Queue(path) as queue:
        assert queue.put(1) == 1


def waits(thread: threading.Thread) -> bool:
    """Tell whether a thread has asked the worker for something and waits for the answer."""
    return is_inside(thread.ident, Store._answer)


@under_the_gil
def test_a_put_too_large_for_the_disk_does_not_fail_its_neighbours(small_disk: Path) -> None:
    """Grouped into one transaction, each still gets his own verdict."""
    path = small_disk / "queue.db"
    with Queue(path, busy_timeout=PATIENCE) as queue:
        outcomes: list[object] = []

        def put(data: bytes) -> None:
            try:
                queue.put(data)
                outcomes.append("stored")
            except tr.QueueError:
                outcomes.append("refused")

        sizes = [10, 10, 5_000_000, 10, 10]
        threads = [threading.Thread(target=put, args=(b"x" * size,)) for size in sizes]
        with locked(path):
            for thread in threads:
                thread.start()
            deadline = time.monotonic() + PATIENCE
            while not all(map(waits, threads)):
                assert time.monotonic() < deadline
                time.sleep(0.001)
        for thread in threads:
            thread.join(PATIENCE)
        assert sorted(map(str, outcomes)) == ["refused"] + ["stored"] * 4
        assert queue.stats().ready == 4


# ---- No queue ------------------------------------------------------------------------------------


def text(path: Path) -> None:
    path.write_text("dear diary\n" * 1000)


def short(path: Path) -> None:
    path.write_bytes(b"\0" * 10)


def empty(path: Path) -> None:
    path.touch()


def foreign(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as sql:
        sql.execute("CREATE TABLE item(id INTEGER PRIMARY KEY, data BLOB)")
        sql.execute("PRAGMA user_version = 1")


def foreign_in_use(path: Path) -> None:
    """Leave a WAL with committed changes and no one who has it open."""
    code = (
        "import os, sqlite3, sys; sql = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "sql.execute('PRAGMA journal_mode = WAL'); sql.execute('CREATE TABLE t(a)'); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    assert path.with_name(path.name + "-wal").stat().st_size > 0


def empty_database(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as sql:
        sql.execute("PRAGMA user_version = 1")


def newer(path: Path) -> None:
    change(path, "PRAGMA user_version = 2")


def other_tables(path: Path) -> None:
    change(path, "ALTER TABLE item ADD COLUMN more")


def missing_table(path: Path) -> None:
    change(path, "DROP TABLE dead")


def change(path: Path, statement: str) -> None:
    with Queue(path) as queue:
        queue.put(1)
    with contextlib.closing(sqlite3.connect(path)) as sql:
        sql.execute(statement)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (text, "not a database"),
        (short, "not a"),
        (empty, "the file is empty"),
        (foreign, "not a queue"),
        (foreign_in_use, "not a queue"),
        (empty_database, "not a queue"),
        (newer, "schema version 2"),
        (other_tables, "not a queue of this version"),
        (missing_table, "not a queue of this version"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_file_that_is_no_queue_is_refused_and_never_changed(
    tmp_path: Path, make: Callable[[Path], None], says: str
) -> None:
    path = tmp_path / "other.db"
    make(path)
    before = digest(tmp_path)
    for _ in range(2):
        with pytest.raises(tr.QueueError, match=f"{path}: .*{says}"):
            Queue(path)
    assert digest(tmp_path) == before


def test_looking_at_another_applications_file_does_not_take_its_locks_away(tmp_path: Path) -> None:
    """Closing a descriptor drops a process's POSIX locks, so that a second writer could come in."""
    path = tmp_path / "other.db"
    foreign(path)
    write = f"import sqlite3; sqlite3.connect({str(path)!r}, timeout=0).execute('BEGIN IMMEDIATE')"
    command = [sys.executable, "-c", write]
    with locked(path):
        with pytest.raises(tr.QueueError):
            Queue(path)
        done = subprocess.run(command, capture_output=True, text=True)
        assert "database is locked" in done.stderr


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(tr.QueueError, match=f"{tmp_path}: .*folder") as caught:
        Queue(tmp_path)
    assert isinstance(caught.value.__cause__, OSError)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_parent_is_refused_and_not_made(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "queue.db"
    with pytest.raises(tr.QueueError, match=str(path)) as caught:
        Queue(path)
    assert isinstance(caught.value.__cause__, FileNotFoundError)
    assert list(tmp_path.iterdir()) == []


def test_a_file_as_parent_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(tr.QueueError) as caught:
        Queue(tmp_path / "file" / "queue.db")
    assert isinstance(caught.value.__cause__, NotADirectoryError)


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(tr.QueueError, match="not a regular file"):
        Queue(tmp_path / "pipe")


def test_a_wal_without_its_file_is_not_replaced_by_a_new_queue(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    wal = tmp_path / "queue.db-wal"
    wal.write_bytes(b"what was committed last")
    with pytest.raises(tr.QueueError, match="-wal is there"):
        Queue(path)
    assert list(tmp_path.iterdir()) == [wal]


def test_a_file_removed_or_replaced_while_open_takes_no_more_puts(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    with Queue(path) as queue:
        queue.put(1)
        path.rename(tmp_path / "moved.db")
        with pytest.raises(tr.QueueError, match="No such file"):
            queue.put(2)
        path.write_bytes(b"another")
        with pytest.raises(tr.QueueError, match="another file"):
            queue.put(3)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for the superuser")
def test_a_read_only_file_is_refused_for_writing(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    Queue(path).close()
    path.chmod(0o400)
    with pytest.raises(tr.QueueError, match=str(path)):
        Queue(path).put(1)


def test_a_read_only_file_system_is_refused_for_writing(small_disk: Path) -> None:
    path = small_disk / "queue.db"
    with Queue(path) as queue:
        queue.put(1)
    before = digest(small_disk)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(tr.QueueError, match=str(path)), Queue(path) as queue:
        queue.put(2)
    assert digest(small_disk) == before


# ---- Spoilt --------------------------------------------------------------------------------------


def fill(path: Path) -> None:
    with Queue(path) as queue:
        queue.put_many([b"x" * 500] * 1000)


def test_a_file_cut_short_is_refused_and_never_changed(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    fill(path)
    os.truncate(path, 4096)
    before = digest(tmp_path)
    with pytest.raises(tr.QueueError, match=f"{path}: .*malformed") as caught:
        Queue(path)
    assert isinstance(caught.value.__cause__, sqlite3.DatabaseError)
    assert digest(tmp_path) == before


def test_spoilt_pages_raise_and_what_was_read_before_stands(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    fill(path)
    size = path.stat().st_size
    with path.open("r+b") as file:  # the later half of the items
        file.seek(size // 2)
        file.write(b"\xff" * (size // 2))
    with Queue(path) as queue:
        assert len(queue._lease(5)) == 5
        with pytest.raises(tr.QueueError, match=f"{path}: .*malformed"):
            queue.items()
        with pytest.raises(tr.QueueError, match=f"{path}: .*malformed"):
            queue.put(1)
        assert queue.stats().leased == 5


def test_a_spoilt_header_is_refused_and_never_changed(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    fill(path)
    with path.open("r+b") as file:
        file.write(b"\0" * 100)
    before = digest(tmp_path)
    with pytest.raises(tr.QueueError):
        Queue(path)
    assert digest(tmp_path) == before
