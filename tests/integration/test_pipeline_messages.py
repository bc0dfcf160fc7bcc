"""What happens to messages in processors and batch processors: pipeline.md sections 5, 6, 8, 9,
13.
"""

import logging

import pytest
from pipelines import Pushed, acks, next_ack
from support import LIMIT

import tailrace as tr


def start(cls=Pushed, **options):
    return cls.start_link(**options)


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.INFO, logger="tailrace")
    return caplog


def errors(log):
    return [r for r in log.records if r.levelno >= logging.ERROR]


# ---- Pushing and testing


def test_p146_p148_test_message_answers_without_waiting():
    pipeline = start(batchers={"default": tr.Batcher(batch_size=100, batch_timeout=1000)})
    ref = pipeline.test_message(1)
    assert isinstance(ref, tr.Ref)
    assert next_ack(ref) == ([1], [])
    pipeline.stop()


def test_p151_p51_chunks():
    pipeline = start()
    assert acks(pipeline.test_batch([1, 2]), 2) == [([1, 2], [])]
    pipeline.stop()
    pipeline = start(processors=tr.Processors(concurrency=1, max_demand=2))
    assert acks(pipeline.test_batch([1, 2]), 2) == [([1], []), ([2], [])]
    pipeline.stop()


@pytest.mark.parametrize(
    ("high", "low", "largest"), [(10, 5, 5), (4, 1, 3), (2, 1, 1), (10, 0, 10)]
)
def test_p50_the_size_of_chunks(high, low, largest):
    pipeline = start(processors=tr.Processors(concurrency=1, max_demand=high, min_demand=low))
    sizes = [len(good) for good, _ in acks(pipeline.test_batch(list(range(40))), 40)]
    assert max(sizes) == largest
    pipeline.stop()


def test_p147_a_test_batch_has_one_ref_and_its_options():
    class Seen(Pushed):
        def handle_message(self, message):
            message.data = (message.data, message.metadata["by"], message.batch_mode)
            return message

    pipeline = start(Seen)
    ref = pipeline.test_batch([1, 2], metadata={"by": "me"}, batch_mode="flush")
    assert acks(ref, 2) == [([(1, "me", "flush"), (2, "me", "flush")], [])]
    pipeline.stop()


def test_p150_the_acknowledger_of_a_test_message():
    given = []

    def make(data, caller):
        given.append((data, caller))
        return

    pipeline = start()
    ref = pipeline.test_message(5, acknowledger=make)
    assert given == [(5, (tr.self(), ref))]
    pipeline.stop()


def test_p153_bad_arguments_of_the_test_calls():
    pipeline = start()
    with pytest.raises(TypeError, match="batch_mode"):
        pipeline.test_message(1, batch_mode="bulk")
    with pytest.raises(ValueError, match="batch_mode: expected one of 'bulk', 'flush'"):
        pipeline.test_batch([1], batch_mode="other")
    with pytest.raises(TypeError, match="metadata: expected a mapping"):
        pipeline.test_message(1, metadata=5)
    with pytest.raises(TypeError, match="batch: expected a list"):
        pipeline.test_batch(5)
    with pytest.raises(TypeError, match="messages: expected a list of Message"):
        pipeline.push([1])
    with pytest.raises(TypeError, match="messages: expected a list of Message"):
        pipeline.push(tr.Message(1))
    pipeline.push([])
    pipeline.stop()
    with pytest.raises(tr.NoProcess):
        pipeline.push([tr.Message(1)])
    with pytest.raises(tr.NoProcess):
        pipeline.test_message(1)
    with pytest.raises(tr.NoProcess):
        pipeline.topology()


# ---- Processors


def test_p65_p68_a_failure_leaves_its_neighbours_alone(log):
    class Raises(Pushed):
        def handle_message(self, message):
            if message.data == "raise":
                message.data = "half done"
                raise ValueError("no")
            return message

    pipeline = start(Raises)
    ref = pipeline.test_batch([1, "raise", 4])
    _, _, good, bad = tr.receive(ref, timeout=LIMIT)
    assert [m.data for m in good] == [1, 4]
    assert [m.data for m in bad] == ["raise"]  # P66
    assert (bad[0].status, bad[0].kind) == ("exception", "error")
    assert isinstance(bad[0].reason, ValueError)
    [record] = errors(log)
    assert record.exc_info[1] is bad[0].reason
    pipeline.stop()


@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt(), tr.ProcessExit("bye"), tr.CallExit("dead")]
)
def test_p68_p71_exits_fail_the_message_with_kind_exit(error):
    class Exits(Pushed):
        def handle_message(self, message):
            raise error

    pipeline = start(Exits)
    for _ in range(2):  # the worker survives
        _, _, good, bad = tr.receive(pipeline.test_message(1), timeout=LIMIT)
        assert good == []
        assert (bad[0].status, bad[0].kind) == ("exception", "exit")
    pipeline.stop()


@pytest.mark.parametrize("result", [None, 5, [tr.Message(1)]])
def test_p69_a_bad_result(result):
    class Bad(Pushed):
        def handle_message(self, message):
            return result

    pipeline = start(Bad)
    _, _, _, [bad] = tr.receive(pipeline.test_message(1), timeout=LIMIT)
    assert isinstance(bad.reason, RuntimeError)
    assert repr(result) in str(bad.reason)
    pipeline.stop()


def test_p60_p62_p64_p70_what_a_batcher_gets():
    class Sorting(Pushed):
        def handle_message(self, message):
            if message.data == 2:
                return message.fail("no")
            if message.data == 3:
                return message.to("nowhere")
            if message.data == 4:
                return message.to("nowhere").fail("no")
            return message

    pipeline = start(Sorting, batchers={"default": {}})
    ref = pipeline.test_batch([1, 2, 3, 4, 5], batch_mode="flush")
    found = sorted(acks(ref, 5))
    assert found == [([], [2, 3, 4]), ([1, 5], [])]
    pipeline.stop()


def test_p57_p59_prepare_messages():
    class Prepares(Pushed):
        def prepare_messages(self, messages):
            messages[0].fail("early")
            for message in messages:
                message.data *= 10
            return messages

        def handle_message(self, message):
            message.metadata["seen"] = message.status
            return message

    pipeline = start(Prepares)
    ref = pipeline.test_batch([1, 2])
    _, _, good, bad = tr.receive(ref, timeout=LIMIT)
    assert [m.data for m in good] == [20]
    assert [(m.data, m.metadata["seen"]) for m in bad] == [(10, "failed")]
    pipeline.stop()


@pytest.mark.parametrize("prepare", [lambda m: 1 / 0, lambda m: m[1:], lambda m: None, tuple])
def test_p67_prepare_messages_goes_wrong(prepare, log):
    handled = []

    class Prepares(Pushed):
        def prepare_messages(self, messages):
            return prepare(messages)

        def handle_message(self, message):
            handled.append(message)
            return message

    pipeline = start(Prepares)
    assert acks(pipeline.test_batch([1, 2, 3, 4]), 4) == [([], [1, 2, 3, 4])]
    assert handled == []
    assert len(errors(log)) == 1
    pipeline.stop()


def test_the_log_shows_only_the_beginning_of_large_data(log):
    class Raises(Pushed):
        def handle_message(self, message):
            raise ValueError("no")

    pipeline = start(Raises)
    for data in ("x" * 10_000_000, b"x" * 10_000_000, bytearray(10_000_000)):
        assert acks(pipeline.test_message(data), 1) == [([], [data])]
        assert len(errors(log)[-1].getMessage()) < 2000



def test_p72_a_linked_helper_that_dies_fails_no_message(log):
    class Helped(Pushed):
        def handle_message(self, message):
            def die():
                raise tr.ProcessExit(message.data)

            tr.spawn_link(die)
            return message

    pipeline = start(Helped)
    assert next_ack(pipeline.test_message("shutdown")) == (["shutdown"], [])
    assert next_ack(pipeline.test_message("broken")) == (["broken"], [])
    while not errors(log):
        assert next_ack(pipeline.test_message("shutdown")) == (["shutdown"], [])
    assert "broken" in errors(log)[0].getMessage()
    pipeline.stop()


# ---- Batch processors


def test_p92_p96_batch_results(log):
    class Batches(Pushed):
        def handle_batch(self, batcher, messages, info):
            assert (batcher, info.batcher, info.partition) == ("default", "default", None)
            assert info.size == len(messages)
            if info.batch_key == "few":
                return messages[:1]
            messages[0].fail("no")
            return messages[::-1]

        def handle_message(self, message):
            message.batch_key = "few" if message.data > 10 else "all"
            return message

    pipeline = start(Batches, batchers={"default": {}})
    assert acks(pipeline.test_batch([1, 2, 3], batch_mode="flush"), 3) == [([3, 2], [1])]
    assert not errors(log)
    assert next_ack(pipeline.test_batch([11, 12], batch_mode="flush")) == ([11], [])
    [record] = errors(log)
    assert "Batches" in record.getMessage()
    assert "2 messages and returned 1" in record.getMessage()
    pipeline.stop()


@pytest.mark.parametrize("result", ["raise", "exit", None, (), [1]])
def test_p94_p95_a_whole_batch_fails(result, log):
    class Batches(Pushed):
        def handle_batch(self, batcher, messages, info):
            messages[0].data = "changed"
            messages.pop()
            if result == "raise":
                raise ValueError("no")
            if result == "exit":
                raise SystemExit(1)
            return result

    pipeline = start(Batches, batchers={"default": {}})
    ref = pipeline.test_batch([1, 2, 3, 4], batch_mode="flush")
    _, _, good, bad = tr.receive(ref, timeout=LIMIT)
    assert good == []
    assert [m.data for m in bad] == [1, 2, 3, 4]
    assert {m.kind for m in bad} == {"exit" if result == "exit" else "error"}
    assert len(errors(log)) == 1
    pipeline.stop()


# ---- handle_failed


def test_p97_to_p100_handle_failed():
    calls = []

    class Failing(Pushed):
        def handle_message(self, message):
            return message.fail("no") if message.data < 0 else message

        def handle_batch(self, batcher, messages, info):
            for message in messages:
                if message.data == 0:
                    message.fail("zero")
            return messages

        def handle_failed(self, messages):
            calls.append([m.data for m in messages])
            for message in messages:
                message.data = ("failed", message.data)
            return messages

    pipeline = start(Failing, batchers={"default": {}})
    ref = pipeline.test_batch([1, -1, -2, 2, 0], batch_mode="flush")
    found = sorted(acks(ref, 5), key=repr)
    assert found == [
        ([1, 2], [("failed", 0)]),
        ([], [("failed", -1), ("failed", -2)]),
    ]
    assert sorted(calls) == [[-1, -2], [0]]
    pipeline.stop()


@pytest.mark.parametrize("result", ["raise", None, (), "exit"])
def test_p102_p103_handle_failed_goes_wrong(result, log):
    class Failing(Pushed):
        def handle_message(self, message):
            return message.fail("no")

        def handle_failed(self, messages):
            messages.pop()
            if result == "raise":
                raise ValueError("no")
            if result == "exit":
                raise SystemExit(3)
            return result

    pipeline = start(Failing)
    assert acks(pipeline.test_batch([1, 2]), 2) == [([], [1, 2])]
    assert len(errors(log)) == 1
    pipeline.stop()


def test_p103_handle_failed_returns_fewer(log):
    class Failing(Pushed):
        def handle_message(self, message):
            return message.fail("no")

        def handle_failed(self, messages):
            return messages[:1]

    pipeline = start(Failing)
    assert next_ack(pipeline.test_batch([1, 2])) == ([], [1])
    assert "got 2 messages and returned 1" in errors(log)[0].getMessage()
    pipeline.stop()


def test_p101_configure_ack_in_handle_failed():
    class Failing(Pushed):
        def handle_message(self, message):
            return message.fail("no")

        def handle_failed(self, messages):
            return [message.configure_ack(on_failure="drop") for message in messages]

    pipeline = start(Failing)
    ref = pipeline.test_message(1)
    assert tr.receive(ref, timeout=LIMIT) == ("configure", ref, {"on_failure": "drop"})  # P113
    assert next_ack(ref) == ([], [1])
    pipeline.stop()


def test_p115_configure_ack_that_is_refused_fails_the_message():
    class Configures(Pushed):
        def handle_message(self, message):
            return message.configure_ack(a=1)

    class Plain:
        def __init__(self, pid):
            self.pid = pid

        def ack(self, ref, successful, failed):
            self.pid.send((ref, successful, failed))

    pipeline = start(Configures)
    ref = pipeline.test_message(1, acknowledger=lambda data, to: (Plain(to[0]), to[1], 0))
    _, good, [bad] = tr.receive(ref, timeout=LIMIT)
    assert good == []
    assert isinstance(bad.reason, RuntimeError)
    pipeline.stop()


# ---- What callbacks share


def test_context_and_one_instance():
    class Shared(Pushed):
        def __init__(self):
            self.count = 0

        def handle_message(self, message):
            self.count += 1
            message.data = (self.context, self.count)
            return message

    pipeline = start(Shared, context={"a": 1})
    assert next_ack(pipeline.test_message(0)) == ([({"a": 1}, 1)], [])
    assert next_ack(pipeline.test_message(0)) == ([({"a": 1}, 2)], [])
    pipeline.stop()


def test_stats_and_topology():
    class Failing(Pushed):
        def handle_message(self, message):
            return message.fail("no") if message.data < 0 else message

    pipeline = start(Failing, batchers={"a": tr.Batcher(concurrency=2), "default": {}})
    producers, processors, batchers = pipeline.topology()
    assert producers == [{"name": "Failing.Producer", "concurrency": 1}]
    assert processors == [
        {"name": "Failing.Processor_default", "concurrency": 1, "processor_key": "default"}
    ]
    assert batchers[0] == {
        "batcher_name": "Failing.Batcher_a",
        "name": "Failing.BatchProcessor_a",
        "batcher_key": "a",
        "concurrency": 2,
    }
    assert [b["batcher_key"] for b in batchers] == ["a", "default"]
    for worker in ("Producer_0", "Processor_default_0", "Batcher_a", "BatchProcessor_a_1"):
        assert tr.whereis(f"Failing.{worker}") is not None  # P21
    acks(pipeline.test_batch([1, -1, -2], batch_mode="flush"), 3)
    stats = pipeline.stats()
    while stats.successful < 1:
        stats = pipeline.stats()
    assert (stats.successful, stats.failed, stats.retried, stats.dead) == (1, 2, 0, 0)
    assert set(stats.queued) >= {"Failing.Producer_0", "Failing.Batcher_a"}
    pipeline.stop()


def test_p20_a_second_pipeline_under_a_live_name():
    pipeline = start()
    with pytest.raises(tr.AlreadyStarted) as caught:
        start()
    assert caught.value.pid == pipeline.pid
    other = start(name="Other")
    other.stop()
    pipeline.stop()
    start().stop()  # P26: the name is free when stop has returned


def test_handle_is_accepted_where_a_pid_is():
    pipeline = start()
    ref = tr.monitor(pipeline)
    tr.stop(pipeline)
    assert tr.receive(ref, timeout=LIMIT).reason == "normal"
