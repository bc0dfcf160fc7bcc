"""The durable queue as its users see it: options, calls, snapshots, what the producer gets."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import pickle
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tailrace as tr
from tailrace.producers import Queue

PATIENCE = 30.0  # seconds after which something awaited is taken for lost


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture
def queue(path: Path) -> Iterator[Queue]:
    with Queue(path, retry_delay=0.0) as made:
        yield made


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.001)


# ---- Putting and looking -------------------------------------------------------------------------


def test_put_returns_ids_in_put_order(queue: Queue) -> None:
    assert queue.put("a") == 1
    assert queue.put_many(x for x in "bc") == [2, 3]
    assert queue.put_many([]) == []
    assert [(item.id, item.data) for item in queue.items()] == [(1, "a"), (2, "b"), (3, "c")]


@dataclasses.dataclass
class Job:
    name: str
    parts: list[bytes]


@pytest.mark.parametrize(
    "data", [None, 0, "", b"\0" * 100_000, {"k": [1, (2, 3)]}, Job("j", [b"x"]), Path("/tmp"), len]
)
def test_data_is_anything_that_pickles(queue: Queue, data: object) -> None:
    queue.put(data)
    assert queue.items()[0].data == data
    assert queue._lease(1)[0].data == data


def test_what_was_put_is_there_when_the_file_is_opened_again(path: Path) -> None:
    with Queue(path) as queue:
        queue.put_many(range(3))
    with Queue(str(path)) as queue:
        assert [item.data for item in queue.items()] == [0, 1, 2]
        assert queue.put("next") == 4


def test_items_says_the_state_and_leaves_the_dead_apart(queue: Queue) -> None:
    queue.put_many(["dead", "leased", "ready"])
    queue.put("delayed", delay=1000)
    for _ in range(5):
        queue._acknowledge([], [(queue._lease(1)[0], "ValueError: no")])
    queue._lease(1)
    assert [(i.id, i.data, i.attempts, i.state) for i in queue.items()] == [
        (2, "leased", 1, "leased"),
        (3, "ready", 0, "ready"),
        (4, "delayed", 0, "delayed"),
    ]
    stats = queue.stats()
    assert (stats.ready, stats.delayed, stats.leased, stats.dead) == (1, 1, 1, 1)


def test_a_time_that_has_come_counts_at_once(path: Path) -> None:
    with Queue(path, lease=0.01) as queue:
        queue.put("leased")
        queue._lease(1)
        queue.put("delayed", delay=0.01)
        wait_until(lambda: queue.stats() == (2, 0, 0, 0))
        assert [item.state for item in queue.items()] == ["ready", "ready"]


def test_snapshots_are_consistent_while_others_change_the_queue(queue: Queue) -> None:
    queue.put_many(range(50))
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            leased = queue._lease(10)
            queue._acknowledge([], [(item, "no") for item in leased[:3]])
            queue._release(leased[3:])

    threads = [threading.Thread(target=churn) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(200):
            assert sum(queue.stats()) == 50
            assert len(queue.items()) + len(queue.dead_letters()) in range(50, 100)
    finally:
        stop.set()
        for thread in threads:
            thread.join(PATIENCE)
    assert sum(queue.stats()) == 50


# ---- Dead letters --------------------------------------------------------------------------------


def give_up(queue: Queue, *data: object) -> list[int]:
    ids = queue.put_many(data)
    for _ in range(5):
        queue._acknowledge([], [(item, f"ValueError: {item.data}") for item in queue._lease(99)])
    return ids


def test_dead_letters_say_why_and_when(queue: Queue) -> None:
    before = time.time()
    ids = give_up(queue, "a", "b")
    letters = queue.dead_letters()
    assert [(d.id, d.data, d.attempts, d.reason) for d in letters] == [
        (ids[0], "a", 5, "ValueError: a"),
        (ids[1], "b", 5, "ValueError: b"),
    ]
    assert all(before <= letter.failed_at <= time.time() for letter in letters)


def test_requeue_and_purge_touch_dead_letters_only(queue: Queue) -> None:
    ids = give_up(queue, *"abcd")
    live = queue.put("live")
    assert queue.requeue([ids[0], live, 999]) == 1
    assert queue.purge([ids[1], live, 999]) == 1
    assert [letter.id for letter in queue.dead_letters()] == ids[2:]
    assert queue.requeue() == 2
    assert queue.purge() == 0
    assert [(i.id, i.attempts) for i in queue.items()] == [
        (ids[0], 0), (ids[2], 0), (ids[3], 0), (live, 0)
    ]  # fmt: skip


# ---- The producer's side -------------------------------------------------------------------------


def test_a_delivery_has_what_the_message_needs(queue: Queue) -> None:
    before = time.time()
    queue.put("a")
    (item,) = queue._lease(10)
    assert (item.id, item.data, item.attempts) == (1, "a", 1)
    assert before <= item.enqueued_at <= time.time()
    assert queue.stats() == (0, 0, 1, 0)
    queue._acknowledge([item], [])
    assert queue.stats() == (0, 0, 0, 0)


def test_a_release_gives_back_without_counting(queue: Queue) -> None:
    queue.put_many("abc")
    leased = queue._lease(3)
    queue._acknowledge(leased[:1], [])
    queue._release(leased[1:])
    assert [(item.data, item.attempts) for item in queue._lease(3)] == [("b", 1), ("c", 1)]


def test_retry_delay_may_be_a_function_of_attempts(path: Path) -> None:
    seen: list[int] = []

    def delay(attempts: int) -> float:
        seen.append(attempts)
        return 0.0 if attempts == 1 else 1000.0

    with Queue(path, retry_delay=delay) as queue:
        queue.put("a")
        for _ in range(2):
            queue._acknowledge([], [(queue._lease(1)[0], "no")])
        assert seen == [1, 2]
        assert queue.stats() == (0, 1, 0, 0)
        hint = queue._wait_hint()
        assert hint is not None and 900 < hint <= 1000


@pytest.mark.parametrize("result", [-1, "soon", None, math.nan, True])
def test_a_retry_delay_that_gives_nonsense_is_logged_and_loses_nothing(
    path: Path, caplog: pytest.LogCaptureFixture, result: Any
) -> None:
    with Queue(path, retry_delay=lambda attempts: result) as queue:
        queue.put("a")
        queue._acknowledge([], [(queue._lease(1)[0], "no")])
        assert sum(queue.stats()) == 1
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_the_wait_hint_is_the_next_time_something_may_be_ready(queue: Queue) -> None:
    assert queue._wait_hint() is None and queue._exhausted()
    queue.put("later", delay=100)
    hint = queue._wait_hint()
    assert hint is not None and 99 < hint <= 100
    queue.put("now")
    assert queue._wait_hint() == 0.0
    queue._lease(1)
    hint = queue._wait_hint()  # the lease of "now" ends first
    assert hint is not None and 59 < hint <= 60
    assert not queue._exhausted()


def test_a_queue_with_nothing_but_dead_letters_is_exhausted(queue: Queue) -> None:
    give_up(queue, "a")
    assert queue._exhausted()


def test_a_put_by_any_object_of_the_file_wakes_at_once(queue: Queue, path: Path) -> None:
    woken: list[str] = []

    def wake() -> None:
        woken.append("!")

    queue._subscribe(wake)
    with Queue(path) as other, Queue(path.with_name("other.db")) as stranger:
        stranger.put(1)
        assert len(woken) == 0
        other.put(1)
        assert len(woken) == 1
        other.put_many([1, 2])
        assert len(woken) == 2
    leased = queue._lease(3)
    queue._release(leased[:1])
    queue._acknowledge([], [(leased[1], "no")])
    assert len(woken) == 4
    queue._unsubscribe(wake)
    queue.put(1)
    assert len(woken) == 4


def test_a_listener_that_raises_is_logged_and_the_put_succeeds(
    queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise RuntimeError("broken")

    queue._subscribe(broken)
    try:
        assert queue.put(1) == 1
    finally:
        queue._unsubscribe(broken)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def vanish() -> None:
    raise ModuleNotFoundError("no module named 'gone'")


class Unreadable:
    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return vanish, ()


def test_data_that_cannot_be_unpickled_becomes_a_dead_letter(
    queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    queue.put_many([Unreadable(), Unreadable(), "good"])
    assert [item.data for item in queue._lease(2)] == ["good"]
    letters = queue.dead_letters()
    assert [(d.id, d.attempts, d.reason) for d in letters] == [
        (1, 1, "ModuleNotFoundError: no module named 'gone'"),
        (2, 1, "ModuleNotFoundError: no module named 'gone'"),
    ]
    with pytest.raises(ModuleNotFoundError):
        letters[0].data
    assert "cannot be unpickled" in caplog.text


# ---- Bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"lease": 0}, ValueError, "lease: expected seconds > 0, got 0"),
        ({"lease": "1"}, TypeError, "lease: "),
        ({"lease": True}, TypeError, "lease: "),
        ({"lease": math.inf}, ValueError, "lease: "),
        ({"lease": math.nan}, ValueError, "lease: "),
        ({"max_attempts": 0}, ValueError, "max_attempts: expected an int >= 1, got 0"),
        ({"max_attempts": 1.5}, TypeError, "max_attempts: "),
        ({"max_attempts": True}, TypeError, "max_attempts: "),
        ({"retry_delay": -1}, ValueError, "retry_delay: "),
        ({"retry_delay": "1"}, TypeError, "retry_delay: "),
        ({"retry_delay": None}, TypeError, "retry_delay: "),
        ({"retry_delay": False}, TypeError, "retry_delay: "),
        ({"busy_timeout": -0.1}, ValueError, "busy_timeout: "),
        ({"busy_timeout": None}, TypeError, "busy_timeout: "),
        ({"poll_interval": 0}, ValueError, "poll_interval: expected seconds > 0, got 0"),
        ({"until_empty": 1}, TypeError, "until_empty: expected a bool, got 1"),
        ({"durable": True}, TypeError, "durable"),
    ],
)
def test_a_bad_option_is_refused_by_name_and_nothing_is_made(
    path: Path, options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        Queue(path, **options)
    assert not path.exists()


@pytest.mark.parametrize(
    ("bad", "error"),
    [(None, TypeError), (1, TypeError), (b"a.db", TypeError), ("", ValueError), ("\0", ValueError)],
)
def test_a_bad_path_is_refused(bad: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="path: "):
        Queue(bad)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda q: q.put(1, delay=-1), ValueError, "delay: "),
        (lambda q: q.put(1, delay="1"), TypeError, "delay: "),
        (lambda q: q.put(1, delay=True), TypeError, "delay: "),
        (lambda q: q.put(1, delay=math.nan), ValueError, "delay: "),
        (lambda q: q.put_many([1], delay=None), TypeError, "delay: "),
        (lambda q: q.put_many(7), TypeError, "items: "),
        (lambda q: q.requeue(7), TypeError, "ids: "),
        (lambda q: q.requeue(["1"]), TypeError, r"ids\[0\]: "),
        (lambda q: q.purge([1, True]), TypeError, r"ids\[1\]: "),
        (lambda q: q.purge([-1]), ValueError, r"ids\[0\]: "),
    ],
)
def test_a_bad_argument_is_refused_by_name_and_nothing_is_stored(
    queue: Queue, call: Callable[[Queue], object], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        call(queue)
    assert sum(queue.stats()) == 0


@pytest.mark.parametrize("bad", [lambda: None, threading.Lock(), (x for x in "")])
def test_data_that_does_not_pickle_raises_and_stores_nothing(queue: Queue, bad: object) -> None:
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)) as caught:
        queue.put_many(["good", bad])
    assert any(note.startswith("items[1]: ") for note in caught.value.__notes__)
    assert queue.items() == []


def test_data_beyond_what_a_row_can_hold_is_refused(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue._store, "limit", 1000)
    with pytest.raises(ValueError, match="data: expected at most 1000 bytes"):
        queue.put(b"x" * 1000)
    assert queue.items() == []


# ---- The end -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda q: q.put(1),
        lambda q: q.put_many([1]),
        lambda q: q.items(),
        lambda q: q.stats(),
        lambda q: q.dead_letters(),
        lambda q: q.requeue(),
        lambda q: q.purge(),
        lambda q: q._lease(1),
        lambda q: q._acknowledge([], []),
        lambda q: q._wait_hint(),
    ],
)
def test_a_closed_queue_refuses_every_call(path: Path, call: Callable[[Queue], object]) -> None:
    queue = Queue(path)
    queue.close()
    queue.close()
    with pytest.raises(tr.QueueError, match=f"{path}: the queue is closed"):
        call(queue)


def test_the_last_close_folds_the_wal_into_the_file(path: Path) -> None:
    first, second = Queue(path), Queue(path)
    first.put("a")
    first.close()
    assert os.path.exists(f"{path}-wal")
    second.close()
    assert os.listdir(path.parent) == [path.name]
    with sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True) as sql:
        assert sql.execute("SELECT count(*) FROM item").fetchone() == (1,)
    sql.close()


def test_a_queue_error_is_an_engine_error() -> None:
    assert issubclass(tr.QueueError, tr.EngineError)
    assert not issubclass(tr.QueueError, OSError)


def test_the_path_is_fixed_when_the_queue_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Queue("jobs #1?.db") as queue:
        monkeypatch.chdir("/")
        queue.put(1)
        assert queue.stats().ready == 1
    assert os.listdir(tmp_path) == ["jobs #1?.db"]


def test_a_path_that_cannot_be_encoded_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="path: expected a name that can be encoded"):
        Queue("\ud800")


def test_an_id_that_no_item_can_have_is_refused_by_name(queue: Queue) -> None:
    with pytest.raises(ValueError, match=r"ids\[0\]: expected an int 0 \.\. 9223372036854775807"):
        queue.purge([2**70])
