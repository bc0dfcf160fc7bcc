"""What a pipeline can be told, and how bad options are refused: pipeline.md section 2 (P6 to P19).

A refusal raises in the caller and starts nothing (P10).
"""

import pytest

import tailrace as tr
from tailrace._pipeline_options import make_plan


class Good(tr.Pipeline):
    producer = tr.producers.Iterable(())

    def handle_message(self, message):
        return message

    def handle_batch(self, batcher, messages, info):
        return messages


def refused(error, text, **options):
    """The start is refused with this error, whose message holds `text`, and starts nothing."""
    before = set(tr.processes())
    with pytest.raises(error) as caught:
        Good.start_link(**options)
    assert text in str(caught.value)
    assert set(tr.processes()) == before  # P10


# ---- The option classes check themselves


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: tr.Batcher(batch_size=0), ValueError, "batch_size: expected an int >= 1"),
        (lambda: tr.Batcher(batch_size=True), TypeError, "batch_size: expected an int >= 1"),
        (lambda: tr.Batcher(batch_size=lambda m: m), TypeError, "or a pair"),  # P15
        (lambda: tr.Batcher(batch_size=(0, len), max_demand=1), TypeError, "of 2 arg"),  # P16
        (lambda: tr.Batcher(batch_size=(0, lambda m, a: m)), ValueError, "max_demand"),  # P17
        (lambda: tr.Batcher(batch_size=(0,), max_demand=1), ValueError, "or a pair"),
        (lambda: tr.Batcher(batch_timeout=0), ValueError, "batch_timeout: expected seconds > 0"),
        (lambda: tr.Batcher(batch_timeout=True), TypeError, "batch_timeout: expected seconds > 0"),
        (lambda: tr.Batcher(concurrency=0), ValueError, "concurrency: expected an int >= 1"),
        (lambda: tr.Batcher(max_demand=0), ValueError, "max_demand: expected an int >= 1"),
        (lambda: tr.Batcher(size=1), TypeError, "valid are concurrency, batch_size"),
        (lambda: tr.Processors(concurrency=1.5), TypeError, "concurrency: expected an int >= 1"),
        (
            lambda: tr.Processors(max_demand=0),
            ValueError,
            "max_demand: expected an int >= 1",
        ),  # P19
        (lambda: tr.Processors(max_demand=2, min_demand=2), ValueError, "an int 0 .. 1"),
        (lambda: tr.Processors(partition_by=hash), TypeError, "unknown keyword"),
        (lambda: tr.RateLimit(0, 1), ValueError, "allowed: expected an int >= 1"),
        (lambda: tr.RateLimit(1, 0), ValueError, "interval: expected seconds > 0"),
        (lambda: tr.RateLimit(1, float("nan")), ValueError, "interval"),
        (lambda: tr.RateLimit(1, 1, burst=2), TypeError, "valid are allowed, interval"),
        (lambda: tr.Retry(max_attempts=0), ValueError, "max_attempts: expected an int >= 1"),
        (lambda: tr.Retry(backoff=-1), ValueError, "backoff: expected seconds >= 0"),
        (lambda: tr.Retry(backoff=lambda: 1), TypeError, "backoff: expected a function of 1"),
        (lambda: tr.Retry(on=ValueError), TypeError, "on: expected a tuple of exception classes"),
        (lambda: tr.Retry(jitter=2), ValueError, "jitter: expected a number 0 .. 1"),
        (lambda: tr.Produce(3), TypeError, "producer: expected a Producer class or instance"),
        (lambda: tr.Produce(tr.Producer, concurrency=0), ValueError, "concurrency"),
        (lambda: tr.Produce(tr.Producer, rate_limit=5), TypeError, "rate_limit: expected"),
        (lambda: tr.Produce(tr.Producer, transformer=lambda: 1), TypeError, "transformer"),
        (lambda: tr.Produce(tr.producers.Iterable([]), 3), TypeError, "arguments are for a class"),
        (lambda: tr.producers.Iterable(3), TypeError, "iterable: expected an iterable, got 3"),
        (lambda: tr.producers.Files("/no/such/folder"), ValueError, "/no/such/folder"),
        (lambda: tr.producers.Files(3), TypeError, "folder: expected a str or PathLike"),
    ],
)
def test_option_classes_check_themselves(make, error, text):
    with pytest.raises(error) as caught:
        make()
    assert text in str(caught.value)


def test_defaults():  # P6
    plan = make_plan(Good, {})
    assert plan.produce.concurrency == 1
    assert plan.processors.concurrency >= 2
    assert plan.processors.concurrency % 2 == 0
    assert (plan.processors.max_demand, plan.processors.lower) == (10, 5)
    assert plan.drain_timeout == 30.0
    assert (plan.max_restarts, plan.max_seconds, plan.resubscribe_interval) == (3, 5.0, 0.1)
    batcher = make_plan(Good, {"batchers": {"b": tr.Batcher()}}).batchers["b"]
    assert (batcher.concurrency, batcher.batch_size, batcher.batch_timeout) == (1, 100, 1.0)
    assert tr.Batcher(batch_size=123).upper == 123  # P55


def test_times_that_are_too_long_are_cut():
    pipeline = Good.start_link(
        producer=tr.Produce(tr.producers.Dummy, rate_limit=tr.RateLimit(1, 1e300)),
        batchers={"b": tr.Batcher(batch_timeout=1e300)},
        retry=tr.Retry(backoff=1e300),
        drain_timeout=1e300,
        resubscribe_interval=1e300,
    )
    pipeline.update_rate_limit(interval=1e300, reset=True)
    pipeline.stop()


def test_p7_no_context_is_a_mark_of_its_own():
    assert make_plan(Good, {}).context is tr.NOT_SET
    assert not tr.NOT_SET


def test_keywords_win_over_class_attributes():
    class Named(Good):
        name = "one"
        drain_timeout = 1

    assert make_plan(Named, {"name": "two"}).name == "two"
    assert make_plan(Named, {}).drain_timeout == 1.0
    assert make_plan(Good, {}).name == "Good"


# ---- The start adds the path


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        (
            {"batchers": {"s3": {"batch_size": 0}}},
            ValueError,
            "batchers.s3.batch_size: expected an int >= 1, got 0",
        ),
        (
            {"batchers": {"sqs": {"size": 1}}},
            TypeError,
            "batchers.sqs: unknown keyword 'size'; valid are concurrency, batch_size, "
            "batch_timeout, max_demand",
        ),  # P12
        ({"batchers": {"b": 5}}, TypeError, "batchers.b: expected a Batcher or a mapping, got 5"),
        ({"batchers": 5}, TypeError, "batchers: expected a mapping"),
        ({"batchers": {5: {}}}, TypeError, "a key of batchers"),
        ({"processors": {"concurrency": 0}}, ValueError, "processors.concurrency: expected an int"),
        ({"processors": 4}, TypeError, "processors: expected a Processors or a mapping"),
        ({"retry": 5}, TypeError, "retry: expected a Retry or a mapping"),
        ({"name": 3}, TypeError, "name: expected a non-empty str"),  # P11
        ({"name": ""}, ValueError, "name: expected a non-empty str"),
        ({"drain_timeout": 0}, ValueError, "drain_timeout: expected seconds > 0"),
        ({"drain_timeout": "1"}, TypeError, "drain_timeout"),
        ({"max_restarts": -1}, ValueError, "max_restarts: expected an int >= 0"),
        ({"max_seconds": 0}, ValueError, "max_seconds: expected seconds > 0"),
        ({"resubscribe_interval": -1}, ValueError, "resubscribe_interval: expected seconds >= 0"),
        ({"producer": 5}, TypeError, "producer: expected a Producer class or instance"),
        ({"producer": [1, 2]}, TypeError, "producer: expected a Producer class or instance"),
        ({"producer": None}, ValueError, "producer: required"),  # P13
        ({"dead_letter": lambda: 1}, TypeError, "dead_letter: expected a function of 1 argument"),
        ({"partition_by": hash}, TypeError, "unknown keyword 'partition_by'"),
        ({"color": "red"}, TypeError, "unknown keyword 'color'; valid are name, "),
    ],
)
def test_bad_options_are_refused_by_path(options, error, text):
    refused(error, text, **options)


def test_p9_only_the_first_fault_is_reported_in_order():
    refused(TypeError, "unknown keyword", color=1, name=3)
    refused(TypeError, "name:", name=3, producer=None)


def test_missing_callbacks_are_refused_at_start():
    class Empty(tr.Pipeline):
        producer = tr.producers.Iterable(())

    class NoBatch(Empty):
        def handle_message(self, message):
            return message

    with pytest.raises(ValueError, match="handle_message: required"):
        Empty.start_link()
    with pytest.raises(ValueError, match=r"handle_batch: required because there are batchers"):
        NoBatch.start_link(batchers={"b": tr.Batcher()})


def test_async_generators_are_refused_at_start():
    class Async(Good):
        async def handle_message(self, message):
            yield message

    with pytest.raises(TypeError, match="handle_message: expected no generator"):
        Async.start_link()


def test_a_class_attribute_that_would_be_ignored_is_refused():
    class Partitioned(Good):
        def partition_by(message):
            return 0

    with pytest.raises(TypeError, match="unknown keyword 'partition_by'"):
        Partitioned.start_link()


@pytest.mark.parametrize(
    ("name", "callback"),
    [
        ("handle_message", lambda self, message, context: message),
        ("handle_message", lambda self: None),
        ("prepare_messages", lambda self: None),
        ("handle_batch", lambda self, messages: messages),
        ("handle_failed", lambda self, messages, info: messages),
    ],
)
def test_callbacks_with_other_arguments_are_refused_at_start(name, callback):
    other = type("Other", (Good,), {name: callback})
    with pytest.raises(TypeError, match=f"Other.{name}: expected a function of"):
        other.start_link(batchers={"b": {}})


def test_a_closed_queue_is_refused_at_start(tmp_path):
    queue = tr.producers.Queue(tmp_path / "q.db")
    queue.close()
    with pytest.raises(ValueError, match="producer: expected an open queue"):
        Good.start_link(producer=queue)


def test_a_class_that_cannot_be_made_raises_in_the_caller():
    class Picky(Good):
        def __init__(self, argument):
            pass

    with pytest.raises(TypeError, match="argument"):
        Picky.start_link()


def test_child_spec():  # P28
    spec = Good.child_spec(name="x")
    assert (spec.id, spec.restart) == (Good, "permanent")
    assert (spec.shutdown, spec.type) == (None, "supervisor")
    assert Good.child_spec(id="other", restart="transient").id == "other"
    with pytest.raises(TypeError, match="unknown keyword 'color'"):
        Good.child_spec(color=1)
