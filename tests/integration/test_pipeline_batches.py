"""Batches of running pipelines: pipeline.md section 7; and P54 to P56. More in
unit/test_message.py.
"""

import threading

import pytest
from pipelines import Log, Pushed, acks, messages, settled
from support import LIMIT

import tailrace as tr


class Parity(Pushed):
    """Batches of odd and of even numbers, and what is known about them."""

    def handle_message(self, message):
        odd = message.data % 2
        message.batch_key = "odd" if odd else "even"
        return message.to("odd" if odd else "even")

    def handle_batch(self, batcher, messages, info):
        self.context.append((batcher, [m.data for m in messages], info.trigger))
        return messages


def parity(odd, even, **options):
    seen = []
    batchers = {"odd": tr.Batcher(**odd), "even": tr.Batcher(**even)}
    return Parity.start_link(context=seen, batchers=batchers, **options), seen


def test_p74_size():
    pipeline, seen = parity({"batch_size": 10}, {"batch_size": 5})
    acks(pipeline.test_batch(list(range(1, 41))), 40)
    assert sorted((key, len(data), trigger) for key, data, trigger in seen) == [
        *[("even", 5, "size")] * 4,
        *[("odd", 10, "size")] * 2,
    ]
    pipeline.stop()


def test_p77_timeout():
    pipeline = Pushed.start_link(batchers={"default": tr.Batcher(batch_size=2, batch_timeout=0.02)})
    found = acks(pipeline.test_batch([1, 2, 3, 4, 5]), 5)
    assert found == [([1, 2], []), ([3, 4], []), ([5], [])]
    pipeline.stop()


def test_p80_flush_at_the_end_of_a_run():
    pipeline, seen = parity({"batch_size": 10, "batch_timeout": 1000}, {"batch_size": 10})
    acks(pipeline.test_batch([1, 2, 3, 4, 5], batch_mode="flush"), 5)
    assert sorted(seen) == [("even", [2, 4], "flush"), ("odd", [1, 3, 5], "flush")]
    pipeline.stop()


def test_p85_splitters():
    def even(message, left):
        left -= 2 * message.data
        return ("emit", 24) if left <= 0 else ("cont", left)

    def odd(message, left):
        left -= message.data
        return ("emit", 16) if left <= 0 else ("cont", left)

    options = {"max_demand": 10, "batch_timeout": 0.02}
    pipeline, seen = parity(
        {"batch_size": (16, odd), **options}, {"batch_size": (24, even), **options}
    )
    acks(pipeline.test_batch(list(range(1, 11))), 10)
    sizes = sorted((key, len(data), trigger) for key, data, trigger in seen)
    assert sizes[0] == ("even", 2, "timeout") or ("even", 3, "size") in sizes
    assert ("odd", 4, "size") in sizes
    assert ("odd", 1, "timeout") in sizes
    pipeline.stop()


def test_p91_a_raising_splitter_fails_its_message_and_nothing_else():
    def splitter(message, left):
        if message.data == 2:
            raise KeyError("no")
        return ("cont", left)

    pipeline = Pushed.start_link(
        batchers={
            "default": tr.Batcher(batch_size=(0, splitter), max_demand=10, batch_timeout=0.01)
        }
    )
    found = acks(pipeline.test_batch([1, 2, 3]), 3)
    assert sorted(found) == [([], [2]), ([1, 3], [])]
    pipeline.stop()


def test_the_timeout_fires_while_the_source_blocks():
    """A source that never comes back does not keep a batch."""
    release, log = threading.Event(), Log()

    def items():
        yield from messages(log, range(3))
        release.wait(LIMIT)

    class Blocked(Pushed):
        producer = tr.Produce(tr.producers.Iterable(items()), transformer=lambda message: message)
        processors = tr.Processors(concurrency=2, max_demand=1)
        batchers = {"default": tr.Batcher(batch_size=100, batch_timeout=0.02)}

    pipeline = Blocked.start_link()
    calls = log.wait(3)
    assert sorted(d for _, good, _ in calls for d in good) == [0, 1, 2]
    release.set()
    pipeline.stop()


def test_p56_busy_batch_processors_hold_the_batcher_up_but_not_its_timer():
    release, started, log = threading.Event(), threading.Event(), Log()

    class Slow(Pushed):
        def handle_batch(self, batcher, messages, info):
            started.set()
            assert release.wait(LIMIT)
            return messages

    pipeline = Slow.start_link(
        batchers={"default": tr.Batcher(batch_size=2, batch_timeout=0.01, max_demand=2)}
    )
    pipeline.push(messages(log, range(20)))
    assert started.wait(LIMIT)
    assert log.count() == 0
    release.set()
    assert len([d for _, good, _ in log.wait(20) for d in good]) == 20
    pipeline.stop()


def test_p93_batches_of_one_batcher_run_in_parallel():
    together, log = threading.Barrier(3), Log()

    class Parallel(Pushed):
        def handle_batch(self, batcher, messages, info):
            together.wait(LIMIT)
            return messages

    pipeline = Parallel.start_link(batchers={"default": tr.Batcher(batch_size=1, concurrency=3)})
    pipeline.push(messages(log, range(3)))
    log.wait(3)
    pipeline.stop()


def test_p54_a_processor_whose_batchers_are_full_handles_nothing_more():
    """Memory stays bounded by demand behind a batch processor that does not come back."""
    release, handled, log = threading.Event(), [], Log()

    class Stuck(Pushed):
        def handle_message(self, message):
            handled.append(message.data)
            return message

        def handle_batch(self, batcher, messages, info):
            assert release.wait(LIMIT)
            return messages

    batchers = {"default": tr.Batcher(batch_size=5, max_demand=5)}
    source = tr.Produce(tr.producers.Iterable(iter(messages(log, range(10_000)))), transformer=same)
    pipeline = Stuck.start_link(producer=source, batchers=batchers)
    drain = threading.Thread(target=pipeline.stop)
    settled(handled)
    assert len(handled) < 200
    release.set()
    drain.start()
    drain.join(LIMIT)
    assert log.count() == len(handled)


def same(message):
    return message


@pytest.mark.parametrize("keys", [2, 7])
def test_every_message_of_several_batchers_arrives(keys):
    log = Log()

    class Many(Pushed):
        processors = tr.Processors(concurrency=3, max_demand=10)
        batchers = {
            str(n): tr.Batcher(batch_size=n + 1, batch_timeout=0.01, concurrency=2)
            for n in range(keys)
        }

        def handle_message(self, message):
            return message.to(str(message.data * 7919 % keys))

    source = tr.Produce(tr.producers.Iterable(messages(log, range(1000))), transformer=same)
    summary = Many.run(producer=source)
    assert summary.successful == 1000
    assert sorted(d for _, good, _ in log.calls for d in good) == list(range(1000))
