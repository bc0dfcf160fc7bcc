"""The durable queue as the producer of a pipeline: crashes, locks, leases, other processes."""

from __future__ import annotations

import contextlib
import logging
import random
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import eventually

import tailrace as tr
from tailrace.producers import Queue

# Works off a queue and says on a pipe what it has handled; with batches, from several processors.
WORKER = """
import os, sys
import tailrace as tr
class Work(tr.Pipeline):
    producer = tr.producers.Queue(sys.argv[1], max_attempts=None, until_empty=True)
    processors = tr.Processors(concurrency=3, max_demand=7)
    batchers = {"default": tr.Batcher(batch_size=5, batch_timeout=0.01)}
    def handle_message(self, message):
        return message
    def handle_batch(self, batcher, messages, info):
        os.write(1, "".join(f"{m.data}\\n" for m in messages).encode())
        return messages
Work.run()
"""


def worker(path: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WORKER, str(path)], stdout=subprocess.PIPE)


class Recorder(tr.Pipeline):
    """Notes what it handles in its context."""

    processors = tr.Processors(concurrency=1)

    def handle_message(self, message: tr.Message) -> tr.Message:
        self.context.append((message.data, message.metadata["attempts"]))
        return message


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


def test_a_pipeline_killed_again_and_again_does_every_item(tmp_path: Path) -> None:
    chance = random.Random(1)
    path = tmp_path / "queue.db"
    with Queue(path) as queue:
        queue.put_many(range(600))
    handled: Counter[int] = Counter()
    kills = 0
    while True:
        with worker(path) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(chance.randint(1, 120))]
            finished = lines[-1] == b""
            if not finished:
                process.kill()
                kills += 1
            lines += process.stdout.readlines()
        handled.update(int(line) for line in lines if line.endswith(b"\n"))
        if finished:
            break
    assert process.returncode == 0
    assert set(handled) == set(range(600))
    # Only what was being worked on when a kill came may be done again: 3 processors of 7, batches.
    assert handled.total() - 600 <= kills * 60
    with Queue(path) as queue:
        assert sum(queue.stats()) == 0


def test_pipelines_in_several_processes_share_the_work(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    with Queue(path) as queue:
        queue.put_many(range(500))
        workers = [worker(path) for _ in range(2)]
        outputs = [process.communicate()[0] for process in workers]
        assert [process.returncode for process in workers] == [0, 0]
        assert sorted(int(line) for out in outputs for line in out.split()) == list(range(500))
        assert sum(queue.stats()) == 0


def test_the_message_has_the_items_facts(tmp_path: Path) -> None:
    seen: list[object] = []

    class Looks(tr.Pipeline):
        def handle_message(self, message: tr.Message) -> tr.Message:
            seen.append(message.metadata)
            return message

    with Queue(tmp_path / "queue.db", until_empty=True) as queue:
        id = queue.put("a")
        Looks.run(producer=queue)
    (metadata,) = seen
    assert metadata == {"id": id, "attempts": 1, "enqueued_at": metadata["enqueued_at"]}
    assert isinstance(metadata["enqueued_at"], float)


def test_what_another_process_puts_is_found_by_looking(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    done: list[tuple[str, int]] = []
    code = (
        "import sys; from tailrace.producers import Queue\n"
        "with Queue(sys.argv[1]) as queue: queue.put('theirs')"
    )
    with Queue(path, poll_interval=0.01) as queue:
        pipeline = Recorder.start_link(producer=queue, context=done)
        subprocess.run([sys.executable, "-c", code, str(path)], check=True)
        eventually(lambda: done == [("theirs", 1)])
        pipeline.stop()


def test_until_empty_waits_for_the_delayed_and_the_leased(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    done: list[tuple[str, int]] = []
    with Queue(path, until_empty=True) as queue, Queue(path, lease=0.1) as other:
        other.put("leased")
        other._lease(1)
        other.put("delayed", delay=0.1)
        Recorder.run(producer=queue, context=done)
        assert sorted(done) == [("delayed", 1), ("leased", 2)]
        assert sum(queue.stats()) == 0


def test_a_late_success_completes_the_item(tmp_path: Path) -> None:
    """The first delivery outlives its lease; the second is under way when the first succeeds."""
    attempts: list[int] = []
    second = threading.Event()
    release = threading.Event()

    class Slow(tr.Pipeline):
        processors = tr.Processors(concurrency=2, max_demand=1)

        def handle_message(self, message: tr.Message) -> tr.Message:
            attempts.append(message.metadata["attempts"])
            if message.metadata["attempts"] == 1:
                second.wait(60)
                return message
            second.set()
            release.wait(60)
            return message.fail("late, and its item is gone")

    with Queue(tmp_path / "queue.db", lease=0.1, poll_interval=0.01) as queue:
        queue.put("a")
        pipeline = Slow.start_link(producer=queue)
        eventually(lambda: sum(queue.stats()) == 0)  # the first has succeeded
        release.set()
        pipeline.stop()
        assert attempts == [1, 2]
        assert sum(queue.stats()) == 0


def test_a_late_failure_is_ignored(tmp_path: Path) -> None:
    release = threading.Event()
    deliveries: list[int] = []

    class Slow(tr.Pipeline):
        processors = tr.Processors(concurrency=2, max_demand=1)

        def handle_message(self, message: tr.Message) -> tr.Message:
            deliveries.append(message.metadata["attempts"])
            if message.metadata["attempts"] == 1:
                eventually(lambda: len(deliveries) == 2)
                return message.fail("too late")
            release.wait(60)
            return message

    with Queue(
        tmp_path / "queue.db", lease=1.0, poll_interval=0.01, retry_delay=0.0, max_attempts=2
    ) as queue:
        queue.put("a")
        pipeline = Slow.start_link(producer=queue)
        eventually(lambda: len(deliveries) == 2)
        eventually(lambda: pipeline.stats().failed == 1)
        assert queue.stats() == (0, 0, 1, 0)  # still the second delivery's
        release.set()
        pipeline.stop()
        assert sum(queue.stats()) == 0
    assert deliveries == [1, 2]


def test_a_locked_file_holds_the_pipeline_up_and_nothing_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Leasing and acknowledging try again, and the first failure of each is logged."""
    path = tmp_path / "queue.db"
    done: list[tuple[int, int]] = []
    handling = threading.Event()
    go_on = threading.Event()

    class Held(Recorder):
        def handle_message(self, message: tr.Message) -> tr.Message:
            handling.set()
            go_on.wait(60)
            return super().handle_message(message)

    with Queue(path, busy_timeout=0.01, poll_interval=0.01, until_empty=True) as queue:
        queue.put_many(range(20))
        pipeline = Held.start_link(
            producer=queue, context=done, processors=tr.Processors(concurrency=1, max_demand=4)
        )
        end = tr.monitor(pipeline.pid)
        handling.wait(60)
        with caplog.at_level(logging.WARNING, logger="tailrace"), locked(path):
            go_on.set()
            eventually(lambda: "acknowledging fails" in caplog.text)
        tr.receive(end, timeout=60)
        assert sorted(data for data, _ in done) == list(range(20))
        assert {attempts for _, attempts in done} == {1}
        assert sum(queue.stats()) == 0
    assert caplog.text.count("acknowledging fails") == 1


def test_a_drain_leaves_nothing_leased_and_counts_no_attempt_for_what_was_not_handled(
    tmp_path: Path,
) -> None:
    done: list[tuple[int, int]] = []
    with Queue(tmp_path / "queue.db") as queue:
        queue.put_many(range(500))
        pipeline = Recorder.start_link(producer=queue, context=done)
        eventually(lambda: done)
        pipeline.stop()
        stats = queue.stats()
        assert (stats.leased, stats.dead) == (0, 0)
        assert stats.ready == 500 - len(done)
        assert {item.attempts for item in queue.items()} <= {0}


def test_an_item_that_kills_its_process_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    code = """
import os, signal, sys
import tailrace as tr
class Deadly(tr.Pipeline):
    def handle_message(self, message):
        if message.data == "poison":
            os.kill(os.getpid(), signal.SIGKILL)
        return message
Deadly.run(producer=tr.producers.Queue(sys.argv[1], max_attempts=2, until_empty=True))
"""
    with Queue(path) as queue:
        queue.put("poison")
    command = [sys.executable, "-c", code, str(path)]
    ends = [subprocess.run(command, check=False).returncode for _ in range(3)]
    assert ends == [-9, -9, 0]
    with Queue(path) as queue:
        assert [letter.data for letter in queue.dead_letters()] == ["poison"]
