"""The durable queue between threads and processes: sharing, fork, the end of the interpreter."""

from __future__ import annotations

import collections
import ctypes
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from marks import under_the_gil

import tailrace as tr
from tailrace.producers import Queue

PATIENCE = 60.0

# From 3.12 on Python warns of a fork in a process with threads, which is what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def run(code: str, *arguments: object) -> str:
    """Run a program in a new interpreter and return what it printed."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def in_child(function: Callable[[], None]) -> int:
    """Run `function` in a forked child; returns its exit status, 0 if it did not raise."""
    pid = os.fork()
    if pid == 0:
        try:
            function()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


PUT = """
import sys
from tailrace.producers import Queue
with Queue(sys.argv[1], busy_timeout=60) as queue:
    for i in range(int(sys.argv[3])):
        queue.put((sys.argv[2], i))
"""

TAKE = """
import sys
from tailrace.producers import Queue
with Queue(sys.argv[1], busy_timeout=60) as queue:
    while items := queue._lease(7):
        queue._acknowledge(items, [])
        for item in items:
            print(item.data)
"""


def test_processes_put_into_one_file_each_in_its_order(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    processes = [start(PUT, path, name, 60) for name in "abc"]
    for process in processes:
        assert process.wait(PATIENCE) == 0
        assert process.stdout is not None
        process.stdout.close()
    with Queue(path) as queue:
        items = queue.items()
    assert [item.id for item in items] == list(range(1, 181))
    for name in "abc":
        assert [i for who, i in (item.data for item in items) if who == name] == list(range(60))


def test_processes_take_from_one_file_each_item_once(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    with Queue(path) as queue:
        queue.put_many(range(400))
        processes = [start(TAKE, path) for _ in range(3)]
        taken: list[int] = []
        for process in processes:
            out, _ = process.communicate(timeout=PATIENCE)
            assert process.returncode == 0
            taken += map(int, out.split())
        assert sorted(taken) == list(range(400))
        assert sum(queue.stats()) == 0


def test_threads_put_and_take_each_item_once(tmp_path: Path) -> None:
    with Queue(tmp_path / "queue.db") as queue:
        taken: collections.Counter[int] = collections.Counter()
        lock = threading.Lock()
        left = threading.Semaphore(0)

        def put(start: int) -> None:
            for i in range(start, start + 100, 2):
                queue.put(i)
                queue.put_many([i + 1])

        def take() -> None:
            while sum(taken.copy().values()) < 400:
                items = queue._lease(5)
                queue._acknowledge(items, [])
                with lock:
                    taken.update(item.data for item in items)
            left.release()

        threads = [threading.Thread(target=put, args=(k * 100,)) for k in range(4)]
        threads += [threading.Thread(target=take) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        assert taken == collections.Counter(range(400))
        assert sum(queue.stats()) == 0


# ---- Fork ----------------------------------------------------------------------------------------


def test_parent_and_forked_child_use_the_same_object(tmp_path: Path) -> None:
    with Queue(tmp_path / "queue.db") as queue:
        queue.put("parent, before")
        leased = queue._lease(1)
        assert in_child(lambda: queue.put("child") and None) == 0
        queue.put("parent, after")
        assert [i.data for i in queue.items()] == ["parent, before", "child", "parent, after"]
        queue._acknowledge(leased, [])
        assert queue.stats().ready == 2


def test_a_forked_child_opens_the_file_anew(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"

    def child() -> None:
        with Queue(path) as other:
            other.put("child")
        queue.close()

    with Queue(path) as queue:
        assert in_child(child) == 0
        assert queue.stats().ready == 1


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no list of open files")
def test_no_connection_is_carried_into_a_forked_child(tmp_path: Path) -> None:
    def is_open() -> bool:
        links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
        return any(os.readlink(link).startswith(path) for link in links if os.path.lexists(link))

    def child() -> None:
        assert not is_open()

    path = str(tmp_path / "queue.db")
    with Queue(path) as queue:
        queue.put(1)
        queue.stats()
        assert is_open()
        assert in_child(child) == 0


def test_the_child_of_a_closed_queue_says_closed(tmp_path: Path) -> None:
    queue = Queue(tmp_path / "queue.db")
    queue.close()

    def child() -> None:
        with pytest.raises(tr.QueueError, match="closed"):
            queue.put(1)

    assert in_child(child) == 0


def test_forks_under_load_lose_nothing(tmp_path: Path) -> None:
    with Queue(tmp_path / "queue.db", busy_timeout=PATIENCE) as queue:
        stop = threading.Event()
        put: list[int] = []

        def churn() -> None:
            while not stop.is_set():
                put.append(queue.put("thread"))

        threads = [threading.Thread(target=churn) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(20):
                assert in_child(lambda: queue.put("child") and None) == 0
        finally:
            stop.set()
            for thread in threads:
                thread.join(PATIENCE)
        data = {item.id: item.data for item in queue.items()}
        assert sum(value == "child" for value in data.values()) == 20
        assert sorted(put) == [id for id, value in data.items() if value == "thread"]


def test_a_child_made_behind_pythons_back_is_refused(tmp_path: Path) -> None:
    """Without the hooks of os.fork the child would share SQLite's locks with its parent."""
    code = """
import ctypes, os, sys
import tailrace as tr
from tailrace.producers import Queue
queue = Queue(sys.argv[1])
pid = ctypes.CDLL(None).fork()
if pid == 0:
    try:
        queue.put(1)
    except tr.QueueError as error:
        os._exit(0 if "not made by os.fork" in str(error) else 1)
    os._exit(2)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
print(queue.put(2))
"""
    if not hasattr(ctypes.CDLL(None), "fork"):
        pytest.skip("no fork in the C library")
    assert run(code, tmp_path / "queue.db") == "1\n"


# ---- The end of the interpreter ------------------------------------------------------------------


@pytest.mark.parametrize("end", ["", "sys.exit(0)", "raise SystemExit"])
def test_a_queue_left_open_at_the_end_is_closed(tmp_path: Path, end: str) -> None:
    code = f"""
import sys
from tailrace.producers import Queue
queue = Queue(sys.argv[1])
queue.put(1)
{end}
"""
    run(code, tmp_path / "queue.db")
    assert os.listdir(tmp_path) == ["queue.db"]


def test_a_queue_can_be_used_in_atexit_functions(tmp_path: Path) -> None:
    code = """
import atexit, sys
from tailrace.producers import Queue
queue = Queue(sys.argv[1])
atexit.register(lambda: print(queue.put("at exit")))
"""
    assert run(code, tmp_path / "queue.db") == "1\n"


def test_daemon_threads_that_put_at_the_end_do_no_harm(tmp_path: Path) -> None:
    code = """
import sys, threading
from tailrace.producers import Queue
queue = Queue(sys.argv[1])
started = threading.Semaphore(0)
def churn():
    started.release()
    try:
        while True:
            queue.put("x")
    except Exception:
        pass
for _ in range(4):
    threading.Thread(target=churn, daemon=True).start()
    started.acquire()
"""
    for _ in range(5):
        run(code, tmp_path / "queue.db")
    with Queue(tmp_path / "queue.db") as queue:
        items = queue.items()
    assert [item.data for item in items] == ["x"] * len(items)


@under_the_gil
def test_ctrl_c_interrupts_a_put_that_waits_for_a_locked_file(tmp_path: Path) -> None:
    code = """
import os, signal, sqlite3, sys, threading
from tailrace.producers import Queue
queue = Queue(sys.argv[1], busy_timeout=1000)
queue.put("before")
other = sqlite3.connect(sys.argv[1], isolation_level=None)
other.execute("BEGIN IMMEDIATE")
def interrupt():
    while "_answer" not in names(sys._current_frames()[threading.main_thread().ident]):
        pass
    os.kill(os.getpid(), signal.SIGINT)
def names(frame):
    found = []
    while frame:
        found.append(frame.f_code.co_name)
        frame = frame.f_back
    return found
threading.Thread(target=interrupt).start()
try:
    queue.put("waits")
except KeyboardInterrupt:
    print("interrupted")
other.execute("ROLLBACK")
queue.put("after")
print([item.data for item in queue.items()])
"""
    out = run(code, tmp_path / "queue.db").splitlines()
    assert out == ["interrupted", "['before', 'waits', 'after']"]
