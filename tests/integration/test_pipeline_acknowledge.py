"""Who is told how messages ended: pipeline.md section 10."""

import logging

import pytest
from pipelines import Log, Pushed, messages
from support import LIMIT

import tailrace as tr


class Failing(Pushed):
    def handle_message(self, message):
        return message.fail("no") if message.data < 0 else message


@pytest.fixture
def pipeline():
    pipeline = Failing.start_link()
    yield pipeline
    pipeline.stop()


def test_p104_p105_one_call_per_acknowledger_and_ref(pipeline):
    log = Log()
    batch = messages(log, [1, -2, -3, 4])
    for message, ref in zip(batch, "ABAB", strict=True):
        message.acknowledger = (log, ref, message.data)  # ack_data apart
    pipeline.push(batch)
    assert sorted(log.wait(4)) == [("A", [1], [-3]), ("B", [4], [-2])]


def test_p104_refs_are_compared_by_value_and_may_be_unhashable(pipeline):
    log = Log()
    batch = messages(log, [1, 2, 3, 4])
    shared = ["unhashable"]
    for message, ref in zip(batch, [(1, "a"), (1, "a"), shared, shared], strict=True):
        message.acknowledger = (log, ref, None)
    pipeline.push(batch)
    assert sorted(log.wait(4), key=repr) == [((1, "a"), [1, 2], []), (shared, [3, 4], [])]


def test_messages_without_an_acknowledger_are_nobodys(pipeline):
    log = Log()
    batch = [*messages(log, [1]), tr.Message(2), *messages(log, [3])]
    pipeline.push(batch)
    assert log.wait(2) == [("r", [1, 3], [])]
    ref = pipeline.test_message(1)  # whatever came before it has been counted
    tr.receive(ref, timeout=LIMIT)
    assert pipeline.stats().successful >= 3


def test_p116_p117_an_acknowledger_that_raises_or_is_none(pipeline, caplog):
    class Raises:
        def ack(self, ref, successful, failed):
            raise OSError("gone")

    log = Log()
    batch = messages(log, [1, 2, 3, 4])
    batch[0].acknowledger = (Raises(), "a", None)
    batch[1].acknowledger = (object(), "b", None)
    pipeline.push(batch)
    assert log.wait(2) == [("r", [3, 4], [])]  # P117: the others are told
    pipeline.push(messages(log, [5]))
    log.wait(3)
    errors = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert len(errors) == 2
    assert any("gone" in str(r.exc_info[1]) for r in errors)


def test_p109_ack_now_in_a_callback_is_the_only_acknowledgement():
    class Early(Pushed):
        def handle_message(self, message):
            message.ack_now()
            return message.fail("later")

    log = Log()
    pipeline = Early.start_link()
    pipeline.push(messages(log, [1]))
    assert log.wait(1) == [("r", [1], [])]
    pipeline.stop()
    assert log.calls == [("r", [1], [])]


def test_p108_a_message_returned_twice_is_acknowledged_once(caplog):
    class Twice(Pushed):
        def handle_batch(self, batcher, messages, info):
            return messages + messages

    log = Log()
    pipeline = Twice.start_link(batchers={"default": {"batch_size": 2}})
    pipeline.push(messages(log, [1, 2]))
    assert log.wait(2) == [("r", [1, 2], [])]
    pipeline.stop()
    assert log.count() == 2
    assert "got 2 messages and returned 4" in caplog.text


@pytest.mark.parametrize("fails", [False, True])
def test_p108_another_message_takes_the_acknowledger_over(fails):
    class Other(Pushed):
        def handle_message(self, message):
            other = tr.Message(message.data * 10)
            return other.fail("no") if fails else other

    log = Log()
    pipeline = Other.start_link()
    pipeline.push(messages(log, [1]))
    assert log.wait(1) == [("r", [], [10]) if fails else ("r", [10], [])]
    pipeline.stop()


def test_p107_acknowledged_messages_carry_what_they_became():
    class Changes(Pushed):
        def handle_message(self, message):
            message.data = "new"
            message.metadata["by"] = "me"
            return message

    pipeline = Changes.start_link()
    ref = pipeline.test_message("old")
    _, _, [message], _ = tr.receive(ref, timeout=LIMIT)
    assert (message.data, message.metadata, message.status) == ("new", {"by": "me"}, "ok")
    assert message.acknowledger[1] == (tr.self(), ref)
    pipeline.stop()
