"""Running messages again, and dead letters: the Pipelines part of the decisions."""

from pipelines import Log, Pushed, messages, next_ack
from support import LIMIT, eventually

import tailrace as tr


class Flaky(Pushed):
    """Raises until a message has been run as often as its data says."""

    def __init__(self):
        self.runs = []

    def handle_message(self, message):
        self.runs.append(message.data)
        message.metadata["runs"] = runs = message.metadata.get("runs", 0) + 1
        wanted, message.data = message.data, "spoilt"
        if runs < wanted:
            raise ValueError(f"run {runs}")
        message.data = wanted
        return message


FAST = tr.Retry(max_attempts=4, backoff=0.001)


def test_a_message_is_run_again_on_its_original_data_and_acknowledged_once():
    log = Log()
    pipeline = Flaky.start_link(retry=FAST)
    pipeline.push(messages(log, [1, 3, 2, 4]))
    log.wait(4)
    assert sorted(d for _, good, _ in log.calls for d in good) == [1, 2, 3, 4]
    assert pipeline.stats().retried == 6
    pipeline.stop()
    assert log.count() == 4


def test_after_the_last_run_it_has_failed():
    pipeline = Flaky.start_link(retry=FAST)
    ref = pipeline.test_message(9)
    _, _, good, [bad] = tr.receive(ref, timeout=LIMIT)
    assert (good, bad.data, str(bad.reason)) == ([], 9, "run 4")
    pipeline.stop()


def test_other_exceptions_are_not_tried_again():
    pipeline = Flaky.start_link(retry=tr.Retry(on=(KeyError,), backoff=0.001))
    _, _, _, [bad] = tr.receive(pipeline.test_message(2), timeout=LIMIT)
    assert str(bad.reason) == "run 1"
    pipeline.stop()


def test_a_waiting_message_does_not_hold_the_worker():
    log = Log()
    pipeline = Flaky.start_link(retry=tr.Retry(backoff=1000.0), drain_timeout=0.001)
    pipeline.push(messages(log, [2, 1, 1]))
    log.wait(2)
    eventually(lambda: pipeline.stats().in_flight == 1)
    pipeline.stop()
    assert log.count() == 2


def test_waiting_messages_keep_their_place_in_the_demand():
    """A source whose every message fails is drawn from no faster than they are done with."""
    drawn = []

    def endless():
        while True:
            drawn.append(None)
            yield 9

    pipeline = Flaky.start_link(
        producer=tr.producers.Iterable(endless()),
        retry=tr.Retry(backoff=1000.0),
        drain_timeout=0.001,
    )
    eventually(lambda: pipeline.stats().in_flight == 10)
    pipeline.push([])
    assert len(drawn) == 10
    pipeline.stop()


def test_a_drain_counts_waiting_messages_as_in_flight():
    log = Log()
    pipeline = Flaky.start_link(retry=FAST, batchers={"default": {"batch_timeout": 1000.0}})
    pipeline.push(messages(log, [4, 4, 4]))
    pipeline.stop()
    assert sorted(d for _, good, _ in log.calls for d in good) == [4, 4, 4]


def test_the_pause_comes_from_a_function_of_the_failed_runs_number():
    numbers = []

    def pause(number):
        numbers.append(number)
        return 0.001

    summary = Flaky.run(
        producer=tr.producers.Iterable([3, 1]), retry=tr.Retry(max_attempts=3, backoff=pause)
    )
    assert (summary.successful, summary.retried) == (2, 2)
    assert numbers == [1, 2]


def test_a_pause_that_cannot_be_had_fails_the_message():
    pipeline = Flaky.start_link(retry=tr.Retry(backoff=lambda n: 1 / 0))
    assert next_ack(pipeline.test_message(2)) == ([], [2])
    pipeline.stop()


# ---- Dead letters


class Hopeless(Pushed):
    def handle_message(self, message):
        raise ValueError("no")


def test_what_the_dead_letter_takes_is_done_with():
    taken, log = [], Log()
    pipeline = Hopeless.start_link(dead_letter=taken.append)
    pipeline.push(messages(log, [1, 2]))
    log.wait(2)
    assert sorted(d for _, good, _ in log.calls for d in good) == [1, 2]
    assert sorted(m.data for m in taken) == [1, 2]
    eventually(lambda: pipeline.stats().dead == 2)
    assert (pipeline.stats().successful, pipeline.stats().failed) == (2, 0)
    pipeline.stop()


def test_what_it_refuses_has_failed():
    def refuse(message):
        if message.data == 2:
            raise OSError("full")

    log = Log()
    pipeline = Hopeless.start_link(dead_letter=refuse)
    pipeline.push(messages(log, [1, 2]))
    log.wait(2)
    assert sorted(log.calls) == [("r", [], [2]), ("r", [1], [])]
    pipeline.stop()


def test_handle_failed_comes_before_the_dead_letter():
    order = []

    class Settling(Hopeless):
        def handle_failed(self, messages):
            order.append("handle_failed")
            return messages

    summary = Settling.run(
        producer=tr.producers.Iterable([1]),
        dead_letter=lambda message: order.append("dead_letter"),
    )
    assert order == ["handle_failed", "dead_letter"]
    assert (summary.successful, summary.failed, summary.dead) == (1, 0, 1)


def test_a_queue_as_dead_letter(tmp_path):
    with tr.producers.Queue(tmp_path / "dead.db") as queue:
        Hopeless.run(producer=tr.producers.Iterable(["a"]), dead_letter=queue)
        assert [item.data for item in queue.items()] == ["a"]


def test_a_plain_function_in_the_class_body_is_called_with_the_message_alone():
    seen = []

    class Body(Hopeless):
        producer = tr.producers.Iterable([1])

        def dead_letter(message):
            seen.append(message.data)

    assert Body.run().dead == 1
    assert seen == [1]


def test_batches_too():
    class Batches(Pushed):
        producer = tr.producers.Iterable(range(5))
        batchers = {"default": tr.Batcher(batch_size=5)}

        def handle_batch(self, batcher, messages, info):
            raise ValueError("no")

    taken = []
    assert Batches.run(dead_letter=taken.append).dead == 5
    assert len(taken) == 5
