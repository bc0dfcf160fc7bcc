"""Crashes and restarts: pipeline.md section 14; and nothing durable is lost by them."""

import contextlib
import random
import threading

import pytest
from pipelines import Log, Pushed, acks, messages, next_ack
from support import LIMIT, eventually

import tailrace as tr

ONE_BY_ONE = tr.Processors(concurrency=1, max_demand=2)


def pid(base, name="Pushed"):
    return tr.whereis(f"{name}.{base}")


def replaced(base, old, name="Pushed"):
    """Wait until another process holds this name."""
    eventually(lambda: pid(base, name) not in (None, old))


class Killing(Pushed):
    """A message `kill` waits in its handler until the test has killed the worker."""

    def __init__(self):
        self.reached = threading.Event()

    def handle_message(self, message):
        if message.data == "kill":
            self.reached.set()
            tr.sleep(LIMIT)
        return message

    def handle_batch(self, batcher, messages, info):
        if any(m.data == "stop" for m in messages):
            self.reached.set()
            tr.sleep(LIMIT)
        return messages


def killing(**options):
    made = []

    class Here(Killing):
        def __init__(self):
            super().__init__()
            made.append(self)

    pipeline = Here.start_link(name="Pushed", max_restarts=100, **options)
    return pipeline, made[0].reached


def test_p158_a_crashed_producer_is_replaced_and_flows_again():
    class Crashing(tr.Producer):
        def handle_demand(self, demand):
            return []

        def handle_info(self, message):
            if message == "crash":
                raise ValueError("crash")
            return tr.NoReply(events=[message])

    log = Log()
    pipeline = Pushed.start_link(producer=Crashing, resubscribe_interval=0)
    first, processor = pid("Producer_0"), pid("Processor_default_0")
    for message in messages(log, [1, 2]):
        tr.send(first, message)
    log.wait(2)
    tr.send(first, "crash")
    replaced("Producer_0", first)
    tr.send("Pushed.Producer_0", messages(log, [3])[0])
    assert [d for _, good, _ in log.wait(3) for d in good] == [1, 2, 3]  # P159
    assert pid("Processor_default_0") == processor
    pipeline.stop()


def test_p160_a_crashed_processor_loses_what_it_held_and_takes_those_after_it_along():
    log, (pipeline, reached) = (
        Log(),
        killing(processors=ONE_BY_ONE, batchers={"default": {"batch_size": 2}}),
    )
    before = {base: pid(base) for base in ("Producer_0", "Batcher_default", "Terminator")}
    pipeline.push(messages(log, [1, 2, "kill", 3, 4, 5]))
    assert reached.wait(LIMIT)
    tr.exit(pid("Processor_default_0"), "kill")
    assert log.wait(4) == [("r", [1, 2], []), ("r", [4, 5], [])]
    assert pid("Producer_0") == before["Producer_0"]
    assert pid("Batcher_default") != before["Batcher_default"]
    eventually(lambda: pid("Terminator") not in (None, before["Terminator"]))
    pipeline.stop()
    assert log.count() == 4  # P162: what was lost is acknowledged neither way


def test_p161_a_crashed_batcher_takes_only_its_batch_processors_along():
    pipeline = Pushed.start_link(batchers={"a": {}, "b": {}}, max_restarts=0)
    bases = ["Batcher_a", "Batcher_b", "BatchProcessor_a_0", "BatchProcessor_b_0"]
    before = {base: pid(base) for base in [*bases, "Processor_default_0", "Terminator"]}
    tr.exit(before["Batcher_a"], "kill")
    replaced("Batcher_a", before["Batcher_a"])
    replaced("BatchProcessor_a_0", before["BatchProcessor_a_0"])
    for base in ("Batcher_b", "BatchProcessor_b_0", "Processor_default_0", "Terminator"):
        assert pid(base) == before[base]
    pipeline.stop()


def test_a_batch_processor_killed_in_the_middle():
    """Its batch is lost, unacknowledged; the batcher and what it holds live on."""
    log, (pipeline, reached) = (
        Log(),
        killing(batchers={"default": {"batch_size": 2, "batch_timeout": 0.01}}),
    )
    batcher, processor = pid("Batcher_default"), pid("BatchProcessor_default_0")
    pipeline.push(messages(log, ["stop", 1, 2, 3, 4, 5]))
    assert reached.wait(LIMIT)
    tr.exit(processor, "kill")
    log.wait(4)
    assert sorted(d for _, good, _ in log.calls for d in good) == [2, 3, 4, 5]
    assert pid("Batcher_default") == batcher
    assert pid("BatchProcessor_default_0") != processor
    pipeline.stop()
    assert log.count() == 4


def test_p157_beyond_the_limit_the_whole_pipeline_ends():
    tr.trap_exit()
    pipeline = Pushed.start_link(max_restarts=1)
    for _ in range(2):
        worker = pid("Processor_default_0")
        tr.exit(worker, "kill")
        eventually(lambda worker=worker: pid("Processor_default_0") != worker)
        if pid("Processor_default_0") is None:
            eventually(lambda: pid("Processor_default_0") or not pipeline.pid.alive)
    end = tr.receive(timeout=LIMIT)
    assert end == tr.Exit(pipeline.pid, "shutdown")
    with pytest.raises(tr.NoProcess):
        pipeline.stats()


def test_p163_the_death_of_the_supervisor_ends_the_pipeline_with_its_reason():
    tr.trap_exit()
    pipeline = Pushed.start_link()
    tr.exit(pid("Supervisor"), "kill")
    assert tr.receive(timeout=LIMIT) == tr.Exit(pipeline.pid, "killed")


def test_a_killed_pipeline_takes_its_workers_along():
    tr.trap_exit()
    pipeline = Pushed.start_link(batchers={"default": {}})
    workers = [pid(base) for base in pipeline._shared.workers()]
    tr.exit(pipeline.pid, "kill")
    assert tr.receive(timeout=LIMIT).reason == "killed"
    eventually(lambda: not any(worker.alive for worker in workers))


def test_a_worker_that_is_leftover_code_acknowledges_nothing():
    """A killed worker whose handler swallows everything: what it returns does not count."""
    reached, release, returned = threading.Event(), threading.Event(), threading.Event()

    class Stubborn(Pushed):
        def handle_message(self, message):
            if message.data == "kill":
                reached.set()
                try:
                    while not release.is_set():
                        with contextlib.suppress(BaseException):
                            release.wait(LIMIT)
                finally:  # an interrupt may come between two rounds, too
                    returned.set()
            return message

    log = Log()
    pipeline = Stubborn.start_link(name="Pushed", processors=ONE_BY_ONE)
    pipeline.push(messages(log, ["kill"]))
    assert reached.wait(LIMIT)
    old = pid("Processor_default_0")
    tr.exit(old, "kill")
    replaced("Processor_default_0", old)
    release.set()
    assert returned.wait(LIMIT)
    pipeline.push(messages(log, [1]))
    assert log.wait(1) == [("r", [1], [])]
    pipeline.stop()
    assert log.calls == [("r", [1], [])]


def test_a_stop_during_a_crash_ends():
    for _ in range(10):
        pipeline = Pushed.start_link(batchers={"default": {}}, max_restarts=100)
        pipeline.push([tr.Message(n) for n in range(100)])
        for base in ("Processor_default_0", "Batcher_default"):
            if worker := pid(base):
                tr.exit(worker, "kill")
        pipeline.stop()
        assert not pipeline.pid.alive


# ---- Durable sources


class Chaos(Pushed):
    """Writes down what it has handled: at least once each."""

    processors = tr.Processors(concurrency=3, max_demand=4)
    batchers = {"default": tr.Batcher(batch_size=5, batch_timeout=0.01, concurrency=2)}

    def handle_batch(self, batcher, messages, info):
        self.context.extend(m.data for m in messages)
        return messages


@pytest.mark.parametrize("seed", range(3))
def test_killing_workers_loses_nothing_that_is_durable(tmp_path, seed):
    chance = random.Random(seed)
    done = []
    with tr.producers.Queue(
        tmp_path / "queue.db", lease=0.3, max_attempts=None, until_empty=True
    ) as queue:
        queue.put_many(list(range(300)))
        tr.trap_exit()
        pipeline = Chaos.start_link(
            producer=queue, context=done, max_restarts=1_000_000, resubscribe_interval=0.001
        )
        bases = list(pipeline._shared.workers())
        end = None
        for _ in range(12):
            if victim := pid(chance.choice(bases), "Chaos"):
                tr.exit(victim, "kill")
            end = tr.receive(timeout=0.02, default=None)
            if end is not None:
                break
        end = end or tr.receive(timeout=LIMIT)
        assert end.reason == "normal"
        assert set(done) == set(range(300))
        assert sum(queue.stats()) == 0


def test_retried_until_it_succeeds_by_the_queue(tmp_path):
    class Flaky(Pushed):
        def handle_message(self, message):
            if message.metadata["attempts"] < 3:
                raise ValueError("not yet")
            return message

    with tr.producers.Queue(tmp_path / "q.db", retry_delay=0.01, until_empty=True) as queue:
        queue.put_many(["a", "b"])
        summary = Flaky.run(producer=queue)
        assert (summary.successful, summary.failed) == (2, 4)
        assert sum(queue.stats()) == 0


def test_dead_letters_of_the_queue(tmp_path):
    class Hopeless(Pushed):
        def handle_message(self, message):
            raise ValueError(f"no {message.data}")

    with tr.producers.Queue(
        tmp_path / "q.db", retry_delay=0.0, max_attempts=2, until_empty=True
    ) as queue:
        queue.put("a")
        assert Hopeless.run(producer=queue).failed == 2
        [letter] = queue.dead_letters()
        assert (letter.data, letter.attempts, letter.reason) == ("a", 2, "ValueError: no a")


def test_put_wakes_an_idle_pipeline_and_stop_gives_leases_back(tmp_path):
    log = []

    class Writes(Pushed):
        def handle_message(self, message):
            log.append((message.data, message.metadata["attempts"]))
            return message

    with tr.producers.Queue(tmp_path / "q.db", poll_interval=1000.0) as queue:
        pipeline = Writes.start_link(producer=queue)
        queue.put("now")
        eventually(lambda: log)
        queue.put("later", delay=0.02)
        eventually(lambda: len(log) == 2)
        pipeline.stop()
        assert sum(queue.stats()) == 0
        queue.put("not taken")
        assert queue.stats().ready == 1
    assert log == [("now", 1), ("later", 1)]


def test_a_queue_under_a_rate_limit_leases_no_more_than_may_go(tmp_path):
    with tr.producers.Queue(tmp_path / "q.db") as queue:
        queue.put_many(list(range(20)))
        pipeline = Pushed.start_link(producer=tr.Produce(queue, rate_limit=tr.RateLimit(3, 1000.0)))
        eventually(lambda: queue.stats().ready == 17 and queue.stats().leased == 0)
        pipeline.stop()
        assert queue.stats().ready == 17


def test_a_test_message_after_every_kind_of_crash():
    pipeline = Pushed.start_link(
        batchers={"default": {}}, max_restarts=100, resubscribe_interval=0.001
    )
    for base in list(pipeline._shared.workers()):
        old = pid(base)
        tr.exit(old, "kill")
        replaced(base, old)
        eventually(lambda: pid("Terminator") and pid("BatchProcessor_default_0"))
        assert next_ack(pipeline.test_message(base)) == ([base], [])
    assert acks(pipeline.test_batch([1, 2], batch_mode="flush"), 2)
    pipeline.stop()
