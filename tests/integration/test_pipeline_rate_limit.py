"""The rate limit of running pipelines: pipeline.md section 11. Windows:
tests/c/test_rate_limiter.c.

What is counted are messages released in one window, never how long something took.
"""

import pytest
from pipelines import Log, Pushed, messages
from support import LIMIT, eventually

import tailrace as tr

ONE_BY_ONE = tr.Processors(concurrency=1, max_demand=2)


class Relay(tr.Producer):
    """Emits what it is sent, and demand never."""

    def handle_demand(self, demand):
        return []

    def handle_info(self, batch):
        return tr.NoReply(events=batch)

    def handle_cast(self, batch):
        return tr.NoReply(events=batch)

    def handle_call(self, batch, caller):
        return tr.Reply("done", events=batch)


def limited(allowed, interval, producer=Relay, concurrency=1, **options):
    produce = tr.Produce(
        producer, concurrency=concurrency, rate_limit=tr.RateLimit(allowed, interval)
    )
    return Pushed.start_link(producer=produce, processors=ONE_BY_ONE, **options)


def test_p121_p127_p128_p126_the_gate():
    pipeline, log = limited(1, 1000.0), Log()
    tr.send("Pushed.Producer_0", messages(log, range(6)))
    assert log.wait(1) == [("r", [0], [])]
    pipeline.update_rate_limit(allowed=2)  # P127: the window in progress goes on
    assert log.count() == 1
    pipeline.update_rate_limit(allowed=3, reset=True)  # P128
    assert [d for _, [d], _ in log.wait(4)] == [0, 1, 2, 3]
    tr.call("Pushed.RateLimiter", (None, None, False))
    assert log.count() == 4  # exactly three
    pipeline.update_rate_limit(reset=True)
    assert [d for _, [d], _ in log.wait(6)] == [0, 1, 2, 3, 4, 5]
    pipeline.stop()


def test_p122_p119_windows_open_by_themselves_for_all_producers():
    pipeline, log = limited(2, 0.02, concurrency=2), Log()
    tr.send("Pushed.Producer_1", messages(log, range(5)))
    assert [d for _, good, _ in log.wait(5) for d in good] == [0, 1, 2, 3, 4]
    pipeline.stop()


@pytest.mark.parametrize("deliver", [tr.send, tr.cast, tr.call])
def test_p34_p124_whatever_emits_is_held(deliver):
    pipeline, log = limited(1, 1000.0), Log()
    for n in range(3):
        deliver("Pushed.Producer_0", messages(log, [n]))
    assert log.wait(1) == [("r", [0], [])]
    pipeline.update_rate_limit(allowed=9, reset=True)
    assert [d for _, [d], _ in log.wait(3)] == [0, 1, 2]
    pipeline.stop()


def test_p124_p125_demand_waits_while_the_gate_is_closed():
    asked = []

    class Counting(tr.Producer):
        def handle_demand(self, demand):
            asked.append(demand)
            return messages(log, range(demand))

    log = Log()
    pipeline = limited(3, 1000.0, producer=Counting)
    log.wait(3)
    assert sum(asked) == 3  # nothing is taken from the source that could not be released
    pipeline.update_rate_limit(reset=True)
    log.wait(6)
    assert sum(asked) == 6
    pipeline.stop()


def test_p129_push_and_test_messages_pass():
    pipeline, log = limited(1, 1000.0), Log()
    pipeline.push(messages(log, range(5)))
    log.wait(5)
    ref = pipeline.test_message(1)
    assert tr.receive(ref, timeout=LIMIT)
    pipeline.stop()


def test_p130_a_drain_waits_for_the_windows():
    pipeline, log = limited(2, 0.02), Log()
    tr.send("Pushed.Producer_0", messages(log, range(7)))
    log.wait(1)
    pipeline.stop()
    assert [d for _, good, _ in log.calls for d in good] == list(range(7))


def test_p131_a_restarted_producer_shares_the_counter():
    pipeline, log = limited(2, 1000.0), Log()
    tr.send("Pushed.Producer_0", messages(log, range(5)))
    log.wait(2)
    first = tr.whereis("Pushed.Producer_0")
    tr.exit(first, "kill")
    eventually(lambda: tr.whereis("Pushed.Producer_0") not in (None, first))
    tr.send("Pushed.Producer_0", messages(log, ["new"]))
    pipeline.update_rate_limit(reset=True)
    assert log.wait(3)[-1] == ("r", ["new"], [])
    pipeline.stop()


def test_a_restarted_limiter_forgets_nobody():
    pipeline, log = limited(1, 0.02, max_restarts=10), Log()
    tr.send("Pushed.Producer_0", messages(log, range(2)))
    log.wait(1)
    first = tr.whereis("Pushed.RateLimiter")
    tr.exit(first, "kill")
    eventually(lambda: tr.whereis("Pushed.RateLimiter") not in (None, first))
    eventually(lambda: tr.whereis("Pushed.Terminator"))
    tr.send("Pushed.Producer_0", messages(log, range(10, 13)))
    eventually(lambda: [d for _, good, _ in log.calls for d in good][-3:] == [10, 11, 12])
    pipeline.stop()


def test_a_finite_source_under_a_limit_ends():
    summary = Pushed.run(
        producer=tr.Produce(
            tr.producers.Iterable(range(10)), rate_limit=tr.RateLimit(4, 0.01), concurrency=2
        )
    )
    assert (summary.successful, summary.reason) == (10, "normal")


def test_p132_p133_bad_updates():
    pipeline = Pushed.start_link()
    with pytest.raises(ValueError, match="allowed: expected an int >= 1, got 0"):
        pipeline.update_rate_limit(allowed=0)
    with pytest.raises(TypeError, match="allowed"):
        pipeline.update_rate_limit(allowed=True)
    with pytest.raises(ValueError, match="interval: expected seconds > 0"):
        pipeline.update_rate_limit(interval=0)
    with pytest.raises(TypeError, match="reset: expected a bool"):
        pipeline.update_rate_limit(reset=1)
    with pytest.raises(RuntimeError, match="not enabled"):
        pipeline.update_rate_limit(allowed=5)
    pipeline.stop()
