"""The storage of the durable queue: tables, leases, group commit, who owns a lease."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import pickle
import random
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

from tailrace.producers import Queue, _owner, _schema
from tailrace.producers._changes import Changes, Delivery, Failure
from tailrace.producers._store import Store

PATIENCE = 30.0  # seconds after which something awaited is taken for lost


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.001)


# ---- The tables, on a clock of the test's --------------------------------------------------------


class Tables:
    """A queue's tables; every change is a transaction at `now`."""

    def __init__(self, path: Path) -> None:
        _schema.ensure(str(path))
        self.sql = _schema.connect(str(path))
        self.now = 1000.0

    @contextlib.contextmanager
    def change(self) -> Iterator[Changes]:
        self.sql.execute("BEGIN IMMEDIATE")
        changes = Changes(self.sql, self.now)
        yield changes
        changes.flush()
        self.sql.execute("COMMIT")

    def put(self, n: int, delay: float = 0.0) -> list[int]:
        with self.change() as changes:
            return list(changes.put([b"x"] * n, delay))

    def lease(
        self, n: int, seconds: float = 60.0, owner: str = "me", limit: int | None = 5
    ) -> list[Delivery]:
        with self.change() as changes:
            return changes.lease(n, seconds, owner, limit)

    def complete(self, *ids: int) -> None:
        with self.change() as changes:
            changes.complete(ids)

    def fail(self, *deliveries: Delivery, delay: float | None = 0.0, limit: int | None = 5) -> None:
        with self.change() as changes:
            changes.fail([Failure(d.id, d.until, "Error: why", delay) for d in deliveries], limit)

    def release(self, *deliveries: Delivery) -> None:
        with self.change() as changes:
            changes.release([(d.id, d.until) for d in deliveries])

    def ids(self, table: str) -> list[int]:
        return [row[0] for row in self.sql.execute(f"SELECT id FROM {table} ORDER BY id")]

    def runs(self) -> list[tuple[int, int, int]]:
        return self.sql.execute("SELECT first, last, attempts FROM ready ORDER BY first").fetchall()

    def state(self) -> dict[int, tuple[str, int]]:
        """Return state and attempts of every item; fails if an item is not in exactly one state."""
        rows: list[tuple[int, str, int]] = []
        for first, last, attempts in self.runs():
            rows += ((id, "ready", attempts) for id in range(first, last + 1))
        for table in ("delayed", "leased", "dead"):
            query = f"SELECT id, '{table}', attempts FROM {table}"
            rows += self.sql.execute(query).fetchall()
        found = {id: (state, attempts) for id, state, attempts in rows}
        assert len(found) == len(rows)
        assert sorted(found) == self.ids("item")
        return found


@pytest.fixture
def tables(tmp_path: Path) -> Iterator[Tables]:
    made = Tables(tmp_path / "queue.db")
    yield made
    made.sql.close()


def ids(deliveries: list[Delivery]) -> list[int]:
    return [delivery.id for delivery in deliveries]


def test_items_are_leased_in_put_order(tables: Tables) -> None:
    assert tables.put(3) + tables.put(2) == [1, 2, 3, 4, 5]
    assert ids(tables.lease(2)) == [1, 2]
    assert ids(tables.lease(10)) == [3, 4, 5]
    assert tables.lease(1) == []


def test_an_id_is_never_given_out_again(tables: Tables) -> None:
    tables.put(3)
    tables.lease(3)
    tables.complete(1, 2, 3)
    assert tables.ids("item") == []
    assert tables.put(1) == [4]


def test_puts_of_any_number_of_transactions_are_one_run(tables: Tables) -> None:
    for _ in range(10):
        tables.put(7)
    assert tables.runs() == [(1, 70, 0)]
    tables.lease(5)
    tables.put(1)
    assert tables.runs() == [(6, 71, 0)]


def test_a_lease_counts_the_attempt_and_a_release_takes_it_back(tables: Tables) -> None:
    tables.put(1)
    (delivery,) = tables.lease(1)
    assert delivery.attempts == 1
    tables.release(delivery)
    assert tables.state() == {1: ("ready", 0)}
    assert tables.lease(1)[0].attempts == 1


def test_a_delayed_item_is_leased_when_due_and_before_the_backlog(tables: Tables) -> None:
    tables.put(3)
    assert tables.put(1, delay=10.0) == [4]
    assert ids(tables.lease(1)) == [1]
    tables.now += 10.0
    assert ids(tables.lease(2)) == [4, 2]


def test_a_failed_item_waits_and_others_pass_meanwhile(tables: Tables) -> None:
    tables.put(3)
    tables.fail(*tables.lease(1), delay=5.0)
    assert tables.state()[1] == ("delayed", 1)
    assert ids(tables.lease(1)) == [2]
    tables.now += 5.0
    (delivery,) = tables.lease(1)
    assert (delivery.id, delivery.attempts) == (1, 2)


def test_a_failure_after_the_last_attempt_makes_a_dead_letter(tables: Tables) -> None:
    tables.put(1)
    for _ in range(2):
        tables.fail(*tables.lease(1), limit=2)
    assert tables.state() == {1: ("dead", 2)}
    row = tables.sql.execute("SELECT reason, failed_at FROM dead").fetchone()
    assert row == ("Error: why", tables.now)
    assert tables.lease(1) == []


def test_without_a_limit_an_item_is_tried_for_ever(tables: Tables) -> None:
    tables.put(1)
    for _ in range(50):
        tables.fail(*tables.lease(1, limit=None), limit=None)
    assert tables.state() == {1: ("delayed", 50)}


def test_an_ended_lease_returns_the_item_with_its_attempt_counted(tables: Tables) -> None:
    tables.put(2)
    tables.lease(1, seconds=10.0)
    tables.now += 10.0
    again = tables.lease(2)
    assert [(d.id, d.attempts) for d in again] == [(1, 2), (2, 1)]


def test_an_item_that_ends_its_process_becomes_a_dead_letter_too(tables: Tables) -> None:
    tables.put(1)
    for _ in range(3):
        assert len(tables.lease(1, seconds=1.0, limit=3)) == 1
        tables.now += 1.0
    assert tables.lease(1, limit=3) == []
    assert tables.state() == {1: ("dead", 3)}


def test_an_object_with_a_lower_limit_gives_up_what_was_tried_so_often(tables: Tables) -> None:
    tables.put(2)
    tables.fail(*tables.lease(1))
    assert ids(tables.lease(5, limit=1)) == [2]
    assert tables.state() == {1: ("dead", 1), 2: ("leased", 1)}


@pytest.mark.parametrize("where", ["ready", "run", "delayed", "dead", "leased"])
def test_a_late_success_completes_the_item_wherever_it_is(tables: Tables, where: str) -> None:
    tables.put(1)
    limit = 1 if where == "dead" else 5
    (late,) = tables.lease(1, seconds=1.0)
    tables.now += 1.0
    with tables.change() as changes:
        changes.end_leases(limit)
    if where == "run":
        tables.put(2)
    if where == "leased":
        tables.lease(1)
    if where == "delayed":
        tables.fail(*tables.lease(1), delay=9.0)
    state = tables.state()[1][0]
    assert state == ("ready" if where == "run" else where)
    tables.complete(late.id)
    assert 1 not in tables.state()


def test_a_late_success_is_cut_out_of_the_middle_of_a_run(tables: Tables) -> None:
    tables.put(5)
    tables.lease(5, seconds=1.0)
    tables.now += 1.0
    with tables.change() as changes:
        changes.end_leases(5)
    assert tables.runs() == [(1, 5, 1)]
    tables.complete(3)
    assert tables.runs() == [(1, 2, 1), (4, 5, 1)]
    assert ids(tables.lease(9)) == [1, 2, 4, 5]


def test_a_late_failure_is_ignored(tables: Tables) -> None:
    tables.put(1)
    (late,) = tables.lease(1, seconds=1.0)
    tables.now += 1.0
    tables.fail(late, delay=None)
    assert tables.state() == {1: ("leased", 1)}  # until somebody looks
    (second,) = tables.lease(1)
    assert second.attempts == 2
    tables.fail(late, delay=None)
    assert tables.state() == {1: ("leased", 2)}


def test_a_late_release_is_ignored(tables: Tables) -> None:
    tables.put(1)
    (late,) = tables.lease(1, seconds=1.0)
    tables.now += 1.0
    tables.lease(1)
    tables.release(late)
    assert tables.state() == {1: ("leased", 2)}


def test_leases_of_an_owner_that_is_gone_are_ended_and_no_others(tables: Tables) -> None:
    tables.put(3)
    tables.lease(2, owner="gone")
    tables.lease(1, owner="alive")
    with tables.change() as changes:
        changes.end_owners(["gone", "never seen"], 5)
    assert tables.state() == {1: ("ready", 1), 2: ("ready", 1), 3: ("leased", 1)}
    assert tables.sql.execute("SELECT name FROM owner").fetchall() == [("alive",)]


def test_requeue_resets_the_attempts_and_purge_removes(tables: Tables) -> None:
    tables.put(4)
    tables.fail(*tables.lease(4), delay=None)
    with tables.change() as changes:
        assert changes.requeue([1, 99, 1]) == 1
        assert changes.purge([2, 99]) == 1
        assert changes.requeue(None) == 2
        assert changes.purge(None) == 0
    assert tables.state() == {1: ("ready", 0), 3: ("ready", 0), 4: ("ready", 0)}


@pytest.mark.parametrize("seed", range(8))
def test_any_sequence_of_calls_does_what_a_plain_model_does(tables: Tables, seed: int) -> None:
    chance = random.Random(seed)
    model: dict[int, tuple[str, int]] = {}  # state and attempts
    times: dict[int, float] = {}  # when a delayed or leased item's time comes
    known: list[Delivery] = []  # deliveries, late ones too
    limit = 3

    def give_up_or(id: int, state: str, attempts: int) -> None:
        model[id] = ("dead" if attempts >= limit else state, attempts)

    for _ in range(150):
        action = chance.choice(["put", "put", "lease", "lease", "done", "fail", "release", "time"])
        some = chance.sample(known, min(len(known), chance.randint(1, 4)))
        if action == "put":
            delay = chance.choice([0.0, 0.0, 2.0])
            for id in tables.put(chance.randint(1, 5), delay):
                model[id] = ("delayed" if delay else "ready", 0)
                times[id] = tables.now + delay
        elif action == "lease":
            n = chance.randint(1, 6)
            for id, (state, attempts) in sorted(model.items()):
                if state == "leased" and times[id] <= tables.now:
                    give_up_or(id, "ready", attempts)
            due = [i for i, (s, _) in model.items() if s == "delayed" and times[i] <= tables.now]
            due.sort(key=lambda id: (times[id], id))
            ready = sorted(id for id, (state, _) in model.items() if state == "ready")
            deliveries = tables.lease(n, 3.0, limit=limit)
            assert ids(deliveries) == (due + ready)[:n]
            for delivery in deliveries:
                model[delivery.id] = ("leased", delivery.attempts)
                times[delivery.id] = delivery.until
            known += deliveries
        elif action == "done":
            tables.complete(*{d.id for d in some})
            for delivery in some:
                model.pop(delivery.id, None)
        elif action in ("fail", "release"):
            fail = action == "fail"
            for d in some:
                (tables.fail(d, delay=1.0, limit=limit) if fail else tables.release(d))
                state, attempts = model.get(d.id, ("gone", 0))
                if state != "leased" or times[d.id] != d.until:
                    continue
                if not fail:
                    model[d.id] = ("ready", attempts - 1)
                elif d.until > tables.now:
                    give_up_or(d.id, "delayed", attempts)
                    times[d.id] = tables.now + 1.0
        else:
            tables.now += chance.choice([0.5, 1.0, 4.0])
        assert tables.state() == model


def test_cost_does_not_depend_on_the_backlog(tables: Tables) -> None:
    """The work of put, lease and acknowledge, counted in SQLite's own steps, stays the same."""

    def steps() -> int:
        count = itertools.count()
        tables.sql.set_progress_handler(lambda: next(count) * 0, 1)
        tables.put(10)
        tables.complete(*ids(tables.lease(10)))
        tables.sql.set_progress_handler(None, 1)
        return next(count)

    tables.put(100)
    small = steps()
    tables.put(50_000)
    with tables.change() as changes:  # and thousands of runs
        for _ in range(5_000):
            changes.put([b"x"], 0.0)
            changes.put([b"x"], 1000.0)
    assert steps() <= 1.2 * small


# ---- The store: group commit, callers that fail or are killed ------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(str(tmp_path / "queue.db"), busy_timeout=PATIENCE, max_attempts=5)
    yield made
    made.close()


@contextlib.contextmanager
def locked(path: str) -> Iterator[None]:
    """Hold the write lock of a queue's file, so that requests pile up."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


def start(*functions: Callable[[], object]) -> list[threading.Thread]:
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    return threads


def join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def waits(thread: threading.Thread) -> bool:
    """Tell whether a thread has asked the worker for something and waits for the answer."""
    return is_inside(thread.ident, Store._answer)


def worker_has_all(store: Store) -> bool:
    """Tell whether the worker serves what was asked for so far; what comes now comes after it."""
    worker = store._worker
    return store._inbox.empty() and is_inside(worker and worker.ident, Store._serve)


def commits(store: Store) -> list[str]:
    """Return a list to which every commit of the store is added from now on."""
    seen: list[str] = []
    connection = store._connection
    assert connection is not None
    connection.set_trace_callback(lambda sql: seen.append(sql) if sql == "COMMIT" else None)
    return seen


def test_callers_who_wait_together_share_a_commit(store: Store) -> None:
    store.put([b"first"], 0.0)
    done = commits(store)
    results: list[range] = []
    with locked(store.path):
        threads = start(*[lambda: results.append(store.put([b"x"], 0.0))] * 20)
        wait_until(lambda: all(map(waits, threads)))
    join(threads)
    assert sorted(ids[0] for ids in results) == list(range(2, 22))
    assert len(done) <= 2


def test_leases_and_acknowledgements_of_many_callers_share_commits(store: Store) -> None:
    store.put([b"x"] * 40, 0.0)
    done = commits(store)
    leased: list[list[Delivery]] = []
    with locked(store.path):
        threads = start(*[lambda: leased.append(store.lease(2, 60.0))] * 20)
        wait_until(lambda: all(map(waits, threads)))
    join(threads)
    assert sorted(d.id for some in leased for d in some) == list(range(1, 41))
    assert len(done) <= 2
    with locked(store.path):
        calls = [lambda some=some: store.acknowledge(ids(some), []) for some in leased]
        threads = start(*calls)
        wait_until(lambda: all(map(waits, threads)))
    join(threads)
    assert sum(store.counts()) == 0
    assert len(done) <= 4


def test_a_request_that_fails_fails_alone(store: Store) -> None:
    store.put([b"first"], 0.0)
    outcomes: list[object] = []

    def call(work: Callable[[Changes], object]) -> None:
        try:
            outcomes.append(store._change(work))
        except RuntimeError as error:
            outcomes.append(str(error))

    def broken(changes: Changes) -> None:
        changes.put([b"half"], 0.0)
        raise RuntimeError("broken")

    good = [lambda: call(lambda changes: changes.put([b"good"], 0.0))] * 5
    with locked(store.path):
        threads = start(*good, lambda: call(broken), *good)
        wait_until(lambda: all(map(waits, threads)))
    join(threads)
    assert outcomes.count("broken") == 1
    assert len(outcomes) == 11
    assert store.counts().ready == 11
    assert b"half" not in [data for _, data, _, _ in store.items()]


class Killed(BaseException):
    """What the engine does to a process that is killed."""


def kill(thread: threading.Thread) -> None:
    ident = ctypes.c_ulong(thread.ident or 0)
    assert ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(Killed)) == 1


@contextlib.contextmanager
def killed_while(store: Store, call: Callable[[], object]) -> Iterator[None]:
    """Kill a thread while it waits in `call` for the worker; the rest of the block runs after."""
    ends: list[str] = []

    def run() -> None:
        try:
            call()
        except Killed:
            ends.append("killed")

    with locked(store.path):
        (thread,) = start(run)
        wait_until(lambda: waits(thread))
        kill(thread)
    join([thread])
    assert ends == ["killed"]
    yield


@under_the_gil
def test_a_caller_killed_in_put_holds_up_nobody(store: Store) -> None:
    with killed_while(store, lambda: store.put([b"x"], 0.0)):
        store.put([b"y"], 0.0)
    assert store.counts().ready == 2  # both were asked for


@under_the_gil
def test_what_a_killed_caller_leased_is_given_back(store: Store) -> None:
    store.put([b"x"] * 3, 0.0)
    with killed_while(store, lambda: store.lease(3, 60.0)):
        wait_until(lambda: store.counts().ready == 3)
    assert [attempts for _, _, attempts, _ in store.items()] == [0, 0, 0]


@under_the_gil
def test_what_a_killed_caller_would_have_leased_is_given_back_in_the_same_commit(
    store: Store,
) -> None:
    """He was killed before the worker came to his request: it meets lease and release together."""
    store.put([b"x"], 0.0)
    with locked(store.path):
        threads = start(lambda: store.put([b"y"], 0.0))
        wait_until(lambda: waits(threads[0]) and worker_has_all(store))

        def lease() -> None:
            with contextlib.suppress(Killed):
                store.lease(2, 60.0)

        (killed,) = start(lease)
        wait_until(lambda: waits(killed))
        kill(killed)
        join([killed])
        assert store._inbox.qsize() == 2  # lease and release, behind what it has in hand
    join(threads)
    wait_until(lambda: store.counts() == (2, 0, 0, 0))


def test_what_a_caller_killed_while_unpickling_leased_is_given_back(tmp_path: Path) -> None:
    with Queue(tmp_path / "queue.db") as queue:
        queue.put_many([Bomb(), Bomb()])
        with pytest.raises(Killed):
            queue._lease(2)
        wait_until(lambda: queue.stats().ready == 2)


def explode() -> None:
    raise Killed


class Bomb:
    """Pickles well and raises a BaseException when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return explode, ()


def test_a_put_within_a_put_does_not_hang(store: Store) -> None:
    """As by a signal handler, or a `__del__` that the garbage collector runs in between."""
    with store._gate:
        assert store.put([b"x"], 0.0) == range(1, 2)


def test_close_finishes_what_was_asked_for(store: Store) -> None:
    store.put([b"x"], 0.0)
    with locked(store.path):
        threads = start(*[lambda: store.put([b"x"], 0.0)] * 5)
        wait_until(lambda: all(map(waits, threads)))
        threads += start(store.close)
        wait_until(lambda: store._closed)
    join(threads)
    with Queue(store.path) as again:
        assert again.stats().ready == 6


def test_a_queue_dropped_without_close_leaves_no_thread(tmp_path: Path) -> None:
    queue = Queue(tmp_path / "queue.db")
    queue.put(1)
    worker = queue._store._worker
    assert worker is not None
    del queue
    worker.join(PATIENCE)
    assert not worker.is_alive()
    assert sorted(tmp_path.iterdir()) == [tmp_path / "queue.db"]


# ---- Owners --------------------------------------------------------------------------------------


def test_this_process_is_not_gone() -> None:
    assert not _owner.is_gone(_owner.name())


def test_a_process_that_ended_is_gone_reaped_or_not() -> None:
    code = "from tailrace.producers import _owner; print(_owner.name(), flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        name = process.stdout.readline().strip()
        assert not _owner.is_gone(name)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie now
        assert _owner.is_gone(name)
    assert _owner.is_gone(name)


@pytest.mark.parametrize(
    ("part", "value", "gone"),
    [(0, "another boot", True), (1, "pid:[1]", False), (3, "1", True)],
    ids=["another boot", "another container", "the process id given out again"],
)
def test_an_owner_is_judged_by_all_of_its_name(part: int, value: str, gone: bool) -> None:
    parts = _owner.name().split("|")
    parts[part] = value
    assert _owner.is_gone("|".join(parts)) is gone


@pytest.mark.parametrize("name", ["", "who", "a|b|c|d", "a|b|1"])
def test_an_owner_of_another_form_is_not_judged(name: str) -> None:
    assert not _owner.is_gone(name)


def test_a_process_that_is_gone_loses_its_leases_when_the_queue_is_opened(tmp_path: Path) -> None:
    path = str(tmp_path / "queue.db")
    lease_in_another_process(path)
    with Queue(path) as queue:
        assert queue.stats() == (2, 0, 0, 0)
        assert [item.attempts for item in queue.items()] == [1, 1]


def test_and_while_polling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tailrace.producers._store._OWNER_INTERVAL", 0.0)
    path = str(tmp_path / "queue.db")
    with Queue(path) as queue:
        lease_in_another_process(path)
        assert [item.attempts for item in queue._lease(10)] == [2, 2]


def lease_in_another_process(path: str) -> None:
    code = (
        "import os, sys; from tailrace.producers import Queue; queue = Queue(sys.argv[1])\n"
        "queue.put_many('ab'); assert len(queue._lease(2)) == 2; os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, path], check=True)


# ---- The file ------------------------------------------------------------------------------------


def test_a_new_file_says_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    Queue(path).close()
    with contextlib.closing(sqlite3.connect(path)) as sql:
        assert sql.execute("PRAGMA user_version").fetchone() == (1,)
        assert sql.execute("PRAGMA application_id").fetchone() == (_schema.APPLICATION_ID,)
        assert sql.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert list(tmp_path.iterdir()) == [path]


def test_makers_at_the_same_time_make_one_file(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    barrier = threading.Barrier(8)

    def make() -> None:
        barrier.wait(PATIENCE)
        with Queue(path) as queue:
            queue.put(1)

    join(start(*[make] * 8))
    with Queue(path) as queue:
        assert queue.stats().ready == 8
    assert list(tmp_path.iterdir()) == [path]


def test_connections_commit_with_an_fsync_each(tmp_path: Path) -> None:
    path = str(tmp_path / "queue.db")
    _schema.ensure(path)
    with contextlib.closing(_schema.connect(path)) as sql:
        assert sql.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


def test_data_is_pickled_with_protocol_5(store: Store, tmp_path: Path) -> None:
    with Queue(store.path) as queue:
        queue.put({"a": 1})
    assert store.items()[0][1] == pickle.dumps({"a": 1}, 5)
