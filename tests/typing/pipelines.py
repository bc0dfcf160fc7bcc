"""Supervisors, pipelines and the queue as a type checker sees them. Checked, never run."""

from pathlib import Path
from typing import assert_type

import tailrace as tr


class Archive(tr.Pipeline):
    producer = tr.producers.Files(Path("in"))
    processors = tr.Processors(concurrency=8, max_demand=10)
    batchers = {"s3": tr.Batcher(batch_size=100, batch_timeout=1.0, concurrency=2)}
    retry = tr.Retry(max_attempts=3, backoff=0.1)
    drain_timeout = 10.0

    def handle_message(self, message: tr.Message) -> tr.Message:
        message.data = str(message.data)
        if not message.data:
            return message.fail("empty")
        return message.to("s3")

    def handle_batch(
        self, batcher: str, messages: list[tr.Message], info: tr.BatchInfo
    ) -> list[tr.Message]:
        assert_type(info.size, int)
        return messages


def run() -> None:
    summary = Archive.run(drain_timeout=1.0)
    assert_type(summary.successful, int)
    assert_type(summary.duration, float)


def handle() -> None:
    archive = Archive.start_link(
        producer=tr.Produce(
            tr.producers.Iterable(range(3)), concurrency=2, rate_limit=tr.RateLimit(10, 1.0)
        )
    )
    assert_type(archive.pid, tr.Pid)
    archive.push([tr.Message("a", {"from": "here"})])
    archive.stop(drain=False, timeout=1.0)
    assert_type(archive.stats().in_flight, int)
    archive.push("a")  # type: ignore[arg-type]
    tr.RateLimit("10", 1.0)  # type: ignore[arg-type]


def queue(path: Path) -> None:
    with tr.producers.Queue(path, lease=30.0, max_attempts=None, until_empty=True) as queue:
        assert_type(queue.put({"id": 1}, delay=0.5), int)
        assert_type(queue.put_many([1, 2]), list[int])
        assert_type(queue.requeue(), int)
        queue.put(1, delay="soon")  # type: ignore[arg-type]


def supervisors() -> None:
    supervisor = tr.Supervisor.start_link(
        [Archive, tr.ChildSpec("other", (Archive.start_link, (), {"name": "other"}))],
        strategy="rest_for_one",
        max_restarts=5,
    )
    assert_type(supervisor.pid, tr.Pid)
    supervisor.terminate_child("other")
    supervisor.stop()
