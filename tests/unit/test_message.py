"""Message: pipeline.md section 1, and the loops over messages in C."""

import copy
import gc
import threading
import weakref

import pytest

import tailrace as tr
from tailrace import _core
from tailrace._core import Message


class Recorder:
    """An acknowledger that writes down what it is told."""

    def __init__(self):
        self.acks = []

    def ack(self, ref, successful, failed):
        self.acks.append((ref, [m.data for m in successful], [m.data for m in failed]))

    def configure(self, ref, data, options):
        return (data, options)


# ---- The type


def test_defaults():
    message = Message(1)
    assert (message.data, message.metadata, message.acknowledger) == (1, {}, None)
    assert (message.batcher, message.batch_key) == ("default", "default")
    assert message.batch_mode == "bulk"
    assert (message.status, message.reason, message.kind) == ("ok", None, None)


def test_data_is_required():  # P4
    with pytest.raises(TypeError, match="data"):
        Message()


def test_keywords():
    triple = (object(), "ref", "data")
    message = Message(data=1, metadata={"a": 1}, acknowledger=triple)
    assert message.metadata == {"a": 1}
    assert message.acknowledger is triple
    with pytest.raises(TypeError):
        Message(1, color=2)


def test_metadata_is_made_when_somebody_looks_and_kept():
    message = Message(1)
    message.metadata["seen"] = True
    assert message.metadata == {"seen": True}


@pytest.mark.parametrize("bad", [3, "text", [1]])
def test_metadata_must_be_a_mapping(bad):
    with pytest.raises(TypeError, match="metadata: expected a mapping"):
        Message(1, bad)
    with pytest.raises(TypeError, match="metadata: expected a mapping"):
        Message(1).metadata = bad


@pytest.mark.parametrize("bad", [3, (1, 2), [1, 2, 3], object()])
def test_acknowledger_must_be_a_triple(bad):
    with pytest.raises(TypeError, match="acknowledger: expected None or a triple"):
        Message(1, None, bad)
    with pytest.raises(TypeError, match="acknowledger: expected None or a triple"):
        Message(1).acknowledger = bad


def test_to_names_a_batcher_and_returns_the_message():
    message = Message(1)
    assert message.to("s3") is message
    assert message.batcher == "s3"
    for bad in (3, None, ""):
        with pytest.raises(TypeError, match="batcher"):
            message.to(bad)
    assert message.batcher == "s3"


def test_p5_bad_values_are_refused_at_the_call():
    message = Message(1)
    with pytest.raises(ValueError, match='"bulk" or "flush"'):
        message.batch_mode = "later"
    with pytest.raises(TypeError, match='"bulk" or "flush"'):
        message.batch_mode = 3
    with pytest.raises(TypeError, match="hashable"):
        message.batch_key = []
    for name in ("metadata", "acknowledger", "batcher", "batch_key", "batch_mode"):
        with pytest.raises(TypeError, match="cannot be deleted"):
            delattr(message, name)


def test_p2_fail():
    message = Message(1)
    assert message.fail("why") is message
    assert (message.status, message.reason, message.kind) == ("failed", "why", None)


@pytest.mark.parametrize("name", ["status", "reason", "kind"])
def test_status_is_read_only(name):
    with pytest.raises(AttributeError):
        setattr(Message(1), name, "ok")


def test_no_attributes_of_the_users():
    with pytest.raises(AttributeError):
        Message(1).color = "red"


def test_repr_says_data_and_fate():
    assert repr(Message("x")) == "<Message 'x'>"
    assert repr(Message(1).fail("why")) == "<Message 1 failed: 'why'>"
    loop = Message([])
    loop.data.append(loop)
    assert "<Message ...>" in repr(loop)


def test_deleted_data_is_an_attribute_error():
    message = Message(1)
    del message.data
    with pytest.raises(AttributeError):
        message.data
    assert repr(message)


def test_a_cycle_through_a_message_is_collected():
    class Thing:
        pass

    thing = Thing()
    thing.message = Message(thing)
    gone = weakref.ref(thing)
    del thing
    gc.collect()
    assert gone() is None


def test_a_chain_of_messages_is_freed_without_recursion():
    message = Message(0)
    for _ in range(200_000):
        message = Message(message)
    del message


def test_messages_made_and_dropped_in_threads():
    def work():
        for _ in range(50):
            [Message(i, {"i": i}).to("a").fail(i) for i in range(1000)]

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_attributes_of_a_shared_message_never_break_the_interpreter():
    message = Message(0)
    stop = threading.Event()

    def write(value):
        while not stop.is_set():
            message.metadata = {"v": value}
            message.batch_key = (value,)
            message.acknowledger = (value, value, value)
            message.fail([value])

    threads = [threading.Thread(target=write, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(20_000):
        _ = message.metadata, message.batch_key, message.acknowledger, message.reason
    stop.set()
    for thread in threads:
        thread.join()


# ---- Acknowledging early


def test_p109_ack_now_tells_by_status_and_nobody_later():
    recorder = Recorder()
    ok = Message(1, None, (recorder, "r", None))
    failed = Message(2, None, (recorder, "r", None)).fail("why")
    assert ok.ack_now() is ok
    assert failed.ack_now() is failed
    assert recorder.acks == [("r", [1], []), ("r", [], [2])]
    assert ok.acknowledger is None
    assert (ok.status, failed.status) == ("ok", "failed")  # P111
    ok.ack_now()
    assert len(recorder.acks) == 2


def test_p110_ack_now_of_a_list_is_one_call_per_group():
    recorder, other = Recorder(), Recorder()
    messages = [Message(n, None, (recorder, "r", None)) for n in range(4)]
    messages[1].fail("why")
    messages.append(Message(9, None, (other, "r", None)))
    assert tr.ack_now(messages) is messages
    assert recorder.acks == [("r", [0, 2, 3], [1])]
    assert other.acks == [("r", [9], [])]
    assert [m.acknowledger for m in messages] == [None] * 5


def test_p118_ack_now_errors():
    class Broken:
        def ack(self, ref, successful, failed):
            raise OSError("gone")

    with pytest.raises(ValueError, match="at least one"):
        tr.ack_now([])
    with pytest.raises(TypeError):
        tr.ack_now([1])
    message = Message(1, None, (Broken(), None, None))
    with pytest.raises(OSError, match="gone"):
        message.ack_now()
    with pytest.raises(OSError, match="gone"):
        tr.ack_now([message])


def test_p112_configure_ack():
    message = Message(1, None, (Recorder(), "r", "old"))
    assert message.configure_ack(on_failure="ack") is message
    assert message.acknowledger[1:] == ("r", ("old", {"on_failure": "ack"}))


def test_p115_configure_ack_refused():
    with pytest.raises(RuntimeError, match="no acknowledger"):
        Message(1).configure_ack(a=1)
    with pytest.raises(RuntimeError, match="cannot be configured"):
        Message(1, None, (object(), None, None)).configure_ack(a=1)


# ---- The loop over a chunk


class Loop:
    """A MessageLoop with everything it calls written down."""

    def __init__(self, handle, batchers=None):
        self.ledger, self.held = _core.Ledger(), _core.Held()
        self.errors, self.settled, self.acks = [], [], []
        self.park = set()
        names = None if batchers is None else frozenset(batchers)
        self.run = _core.MessageLoop(
            handle, names, self.ledger, self.held, self.raised, self.settle, self.acknowledge
        )

    def raised(self, message, error):
        self.errors.append((message.data, error))
        if message.data in self.park:
            return True
        _core.set_exception(message, error, False)
        return False

    def settle(self, failed):
        self.settled.append(list(failed))
        return failed

    def acknowledge(self, successful, failed):
        self.acks.append(([m.data for m in successful], [m.data for m in failed]))

    def __call__(self, *data):
        answer = self.run([Message(d) for d in data], None)
        return None if answer is None else [m.data for m in answer]


def test_without_batchers_everything_ends_here():
    loop = Loop(lambda message: message)
    assert loop(1, 2, 3) is None
    assert (loop.ledger.successful, loop.ledger.failed, loop.held.number) == (3, 0, 0)
    assert loop.acks == []  # nobody waits for it


def test_with_batchers_the_same_list_goes_on():
    loop = Loop(lambda message: message, ["default"])
    messages = [Message(1), Message(2)]
    assert loop.run(messages, None) is messages
    assert loop.ledger.successful == 0


def test_p65_one_failure_leaves_its_neighbours_alone():
    def handle(message):
        if message.data in (2, 3):
            message.data = "changed"
            raise ValueError("no")
        return message

    loop = Loop(handle, ["default"])
    assert loop(1, 2, 3, 4) == [1, 4]
    assert loop.acks == [([], [2, 3])]  # P62, and P66: with the data that came in
    assert [type(error) for _, error in loop.errors] == [ValueError, ValueError]
    assert len(loop.settled) == 1  # P98


def test_p69_p70_bad_results_are_runtime_errors():
    results = {1: None, 2: "text", 3: Message(9).to("nowhere")}
    loop = Loop(lambda message: results.get(message.data, message), ["default", "s3"])
    assert loop(1, 2, 3, 4) == [4]
    texts = [str(error) for _, error in loop.errors]
    assert "got None" in texts[0]
    assert "got 'text'" in texts[1]
    assert "'nowhere'" in texts[2]
    assert "['default', 's3']" in texts[2]


def test_p64_a_failed_message_may_name_any_batcher():
    loop = Loop(lambda message: message.to("nowhere").fail("why"), ["default"])
    assert loop(1) is None
    assert loop.errors == []
    assert loop.ledger.failed == 1


def test_another_message_may_come_back():
    loop = Loop(lambda message: Message(message.data * 10), ["default"])
    assert loop(1, 2) == [10, 20]


def test_a_message_that_is_taken_away_is_neither_ok_nor_failed():
    loop = Loop(lambda message: 1 / 0)
    loop.park = {2}
    loop(1, 2)
    assert (loop.ledger.successful, loop.ledger.failed) == (0, 1)


def test_a_halted_pipeline_starts_no_further_callback():
    seen = []

    def handle(message):
        seen.append(message.data)
        if message.data == 2:
            loop.ledger.halt()
        return message

    loop = Loop(handle)
    assert loop(1, 2, 3) is None
    assert seen == [1, 2]
    assert loop.ledger.successful == 0
    assert loop.ledger.halted


def test_system_exit_is_an_error_like_any_other():  # P68
    loop = Loop(lambda message: exit(3))
    loop(1)
    assert isinstance(loop.errors[0][1], SystemExit)


def test_loop_refuses_nonsense():
    loop = Loop(lambda message: message)
    with pytest.raises(TypeError):
        loop.run((), None)
    with pytest.raises(RuntimeError, match="expected a Message"):
        loop.run([1], None)
    with pytest.raises(TypeError):
        loop.run()


def test_a_list_that_shrinks_under_the_loop_is_survived():
    def handle(message):
        for found in gc.get_referrers(message):
            if type(found) is list and found and found[0] is message and len(found) > 1:
                del found[1:]
        return message

    loop = Loop(handle)
    loop.run([Message(n) for n in range(10)], None)


def test_callbacks_are_released():
    class Thing:
        def handle(self, message):
            return message

    thing = Thing()
    loop = Loop(thing.handle)
    thing.loop = loop
    gone = weakref.ref(thing)
    del thing, loop
    gc.collect()
    assert gone() is None


# ---- Functions


def test_pull_stops_at_n_at_the_end_and_at_an_exception():
    def items():
        yield from range(3)
        raise KeyError("end")

    source = _core.Source(items())
    assert source.pull(2, False, 10**12) == [0, 1]
    assert (source.ended, source.error) == (False, None)
    assert source.pull(9, False, 10**12) == [2]
    assert (source.ended, type(source.error)) == (False, KeyError)
    assert source.pull(9, False, 10**12) == []
    source = _core.Source([5])
    [message] = source.pull(10**9, True, 10**12)
    assert (message.data, source.ended, source.error) == (5, True, None)
    assert source.pull(1, True, 10**12) == []
    with pytest.raises(TypeError):
        _core.Source(5)


def test_pull_loses_patience():
    assert _core.Source(range(100)).pull(100, False, 0) == [0]


def test_run_batch_restores_what_was_received():  # P94
    def handle(batcher, messages, info):
        messages[0].data = "changed"
        del messages[1:]
        raise ValueError("no")

    messages = [Message(1), Message(2)]
    received = list(messages)
    error, ok, failed, told, returned = _core.run_batch(handle, "b", messages, None)
    assert isinstance(error, ValueError)
    assert (ok, failed, told, returned) == ([], received, True, 0)
    assert [m.data for m in failed] == [1, 2]


@pytest.mark.parametrize("bad", [None, (), 5, [1], iter([])])
def test_p95_a_batch_that_comes_back_as_anything_else(bad):
    error, _, failed, _, _ = _core.run_batch(lambda *a: bad, "b", [Message(1)], None)
    assert isinstance(error, RuntimeError)
    assert len(failed) == 1


def test_p92_a_batch_is_sorted_by_status_in_returned_order():
    def handle(batcher, messages, info):
        messages[1].fail("why")
        return messages[::-1]

    error, ok, failed, told, returned = _core.run_batch(
        handle, "b", [Message(n) for n in range(4)], None
    )
    assert error is None
    assert [m.data for m in ok] == [3, 2, 0]
    assert [m.data for m in failed] == [1]
    assert (told, returned) == (False, 4)


# ---- Open batches


def batch(batches, data, key=lambda d: "default", mode="bulk", now=0):
    messages = []
    for d in data:
        message = Message(d)
        message.batch_key = key(d)
        message.batch_mode = mode
        messages.append(message)
    left, refused = batches.add(messages, now)
    shown = [([m.data for m in found], k, trigger) for found, k, trigger in left or ()]
    return shown, refused


def parity(number):
    return "odd" if number % 2 else "even"


def test_p73_p75_each_key_has_its_own_batch():
    left, _ = batch(_core.Batches(2, 100), range(1, 11), parity)
    assert left[:2] == [([1, 3], "odd", "size"), ([2, 4], "even", "size")]


def test_p76_p77_the_timer_starts_with_the_first_message():
    batches = _core.Batches(3, 100)
    batch(batches, [1], now=5)
    batch(batches, [2], now=90)
    assert batches.deadline == 105
    assert batches.expire(104) is None
    [(messages, _, trigger)] = batches.expire(105)
    assert ([m.data for m in messages], trigger) == ([1, 2], "timeout")
    assert batches.expire(1000) is None  # P78: never an empty one
    assert batches.deadline is None


def test_p79_p80_flush_leaves_at_the_end_of_the_run():
    batches = _core.Batches(100, 100)
    left, _ = batch(batches, [1, 3, 5, 2, 4], parity, "flush")
    assert left == [([1, 3, 5], "odd", "flush"), ([2, 4], "even", "flush")]
    left, _ = batch(batches, range(1, 6), parity, "flush")
    assert [len(messages) for messages, _, _ in left] == [1] * 5


def test_p79_other_keys_keep_waiting():
    batches = _core.Batches(100, 100)
    batch(batches, [2], parity)
    batch(batches, [1], parity, "flush")
    assert batches.waiting == 1


def test_p82_a_full_batch_is_by_size_whatever_is_in_it():
    left, _ = batch(_core.Batches(2, 100), [1, 1, 1], mode="flush")
    assert [trigger for _, _, trigger in left] == ["size", "flush"]


def test_p83_a_splitter_that_counts_down_is_a_size():
    def count(message, left):
        return ("emit", 3) if left == 1 else ("cont", left - 1)

    by_size, _ = batch(_core.Batches(3, 100), range(10))
    by_splitter, _ = batch(_core.Batches(0, 100, count, 3), range(10))
    assert by_size == by_splitter


def test_p84_emit_includes_the_current_message():
    def split(message, accumulator):
        if message.data % 2 == 0:
            return ("emit", 16)
        rest = accumulator - message.data
        return ("emit", 16) if rest <= 0 else ("cont", rest)

    left, _ = batch(_core.Batches(0, 100, split, 16), [40, 1, 13, 3], parity)
    assert [len(messages) for messages, _, _ in left] == [1, 3]


def test_p87_the_next_batch_starts_from_the_accumulator_of_emit():
    seen = []

    def split(message, accumulator):
        seen.append(accumulator)
        return ("emit", accumulator + 1)

    batches = _core.Batches(0, 100, split, 0)
    batch(batches, [1, 2, 3])
    assert seen == [0, 1, 2]


def test_p88_timeout_and_flush_restart_it():
    seen = []

    def split(message, accumulator):
        seen.append(accumulator)
        return ("cont", accumulator + 1)

    batches = _core.Batches(0, 100, split, 0)
    batch(batches, [1, 2])
    batches.expire(100)
    batch(batches, [3])
    batches.flush()
    batch(batches, [4])
    assert seen == [0, 1, 0, 0]


@pytest.mark.parametrize("answer", [None, "emit", ("other", 1), ("emit",), 5])
def test_p91_a_malformed_splitter_fails_that_message_alone(answer):
    batches = _core.Batches(0, 100, lambda m, a: answer if m.data == 2 else ("cont", a), 0)
    left, refused = batch(batches, [1, 2, 3])
    assert left == []
    assert [(m.data, type(e)) for m, e in refused] == [(2, RuntimeError)]
    assert batches.waiting == 2


def test_p91_a_refused_message_leaves_no_empty_batch_behind():
    batches = _core.Batches(0, 100, lambda m, a: 1 / 0, 0)
    _, refused = batch(batches, [1])
    assert isinstance(refused[0][1], ZeroDivisionError)
    assert batches.deadline is None
    assert batches.flush() is None


def test_a_key_whose_hash_raises_later_fails_that_message_alone():
    class Fickle:
        good = True

        def __hash__(self):
            if not self.good:
                raise TypeError("not any more")
            return 1

    key = Fickle()
    message = Message(1)
    message.batch_key = key
    Fickle.good = False
    left, refused = _core.Batches(2, 100).add([message, Message(2)], 0)
    assert left is None
    assert [m.data for m, _ in refused] == [1]


def test_p90_flush_lets_everything_leave():
    batches = _core.Batches(100, 100)
    batch(batches, range(5), parity)
    assert sorted(len(messages) for messages, _, _ in batches.flush()) == [2, 3]


def test_open_batches_are_released():
    class Thing:
        pass

    thing = Thing()
    batches = _core.Batches(100, 100)
    batches.add([Message(thing)], 0)
    gone = weakref.ref(thing)
    del thing, batches
    gc.collect()
    assert gone() is None


# ---- The rate window


def test_rate_window():  # P120, P126, P128; more in tests/c/test_rate_limiter.c
    window = _core.RateWindow(2, 100, 0)
    assert window.take(3, 0) == 2
    assert (window.left(99), window.reopens(99)) == (0, 100)
    window.update(3, 0, True, 50)
    assert window.settings() == (3, 100)
    assert window.take(9, 50) == 3
    with pytest.raises(ValueError):
        _core.RateWindow(0, 1, 0)


def test_copying_a_message_is_refused_rather_than_half_done():
    with pytest.raises(TypeError):
        copy.copy(Message(1))
