"""The end of a pipeline: pipeline.md section 15, finite sources, signals, and what does not end."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from pipelines import Log, Pushed, messages
from support import LIMIT, eventually

import tailrace as tr


def data(log):
    return sorted(d for _, good, _ in log.calls for d in good)


class Gate(Pushed):
    """Its handler waits until the test lets it go on."""

    def __init__(self):
        self.started = threading.Event()
        self.go_on = threading.Event()

    def handle_message(self, message):
        self.started.set()
        assert self.go_on.wait(LIMIT)
        return message


def gated(**options):
    """A gated pipeline with its gate."""
    made = []

    class Here(Gate):
        def __init__(self):
            super().__init__()
            made.append(self)

    pipeline = Here.start_link(**options)
    return pipeline, made[0]


# ---- Draining


def test_p164_p26_when_stop_returns_everything_is_gone():
    before = set(tr.processes())
    pipeline = Pushed.start_link(batchers={"a": {}, "b": {"concurrency": 2}})
    pipeline.stop()
    assert not pipeline.pid.alive
    assert [p for p in tr.processes() if p.alive and p not in before] == []
    assert [name for name in tr.registered() if name.startswith("Pushed")] == []
    pipeline.stop()  # a second time does nothing


def test_p170_what_waits_in_the_producer_is_finished():
    log, (pipeline, gate) = Log(), gated(processors=tr.Processors(concurrency=1, max_demand=2))
    pipeline.push(messages(log, [1, 2, 3, 4, 5, 6]))
    assert gate.started.wait(LIMIT)
    threading.Timer(0.01, gate.go_on.set).start()
    pipeline.stop()
    assert log.calls == [("r", [n], []) for n in range(1, 7)]


def test_p171_an_incomplete_batch_leaves_at_once():
    class Batches(Pushed):
        def handle_batch(self, batcher, messages, info):
            self.context.append(info.trigger)
            return messages

    log, triggers = Log(), []
    pipeline = Batches.start_link(
        context=triggers, batchers={"default": {"batch_size": 4, "batch_timeout": 1000.0}}
    )
    pipeline.push(messages(log, [1, 2]))
    pipeline.stop()
    assert log.calls == [("r", [1, 2], [])]
    assert triggers == ["flush"]  # P90


@pytest.mark.parametrize("batchers", [{}, {"default": {"batch_size": 7, "batch_timeout": 1000.0}}])
@pytest.mark.parametrize("concurrency", [1, 4])
def test_everything_pushed_before_stop_is_acknowledged_once(batchers, concurrency):
    log = Log()
    pipeline = Pushed.start_link(
        batchers=batchers, processors=tr.Processors(concurrency=concurrency)
    )
    for n in range(20):
        pipeline.push(messages(log, range(n * 50, n * 50 + 50)))
    pipeline.stop()
    assert data(log) == list(range(1000))


def test_p41_p166_prepare_for_draining():
    class Last(tr.Producer):
        def init(self, log):
            self.log = log

        def handle_demand(self, demand):
            return []

        def prepare_for_draining(self):
            return messages(self.log, ["last", "words"])

    log = Log()
    pipeline = Pushed.start_link(producer=tr.Produce(Last, log, concurrency=2))
    pipeline.stop()
    assert data(log) == ["last", "last", "words", "words"]


def test_p172_p173_a_handler_that_never_returns(caplog):
    log, (pipeline, gate) = Log(), gated(drain_timeout=0.001)
    pipeline.push(messages(log, [1, 2]))
    assert gate.started.wait(LIMIT)
    ref = tr.monitor(pipeline)
    pipeline.stop()
    assert tr.receive(ref, timeout=LIMIT).reason == "normal"
    assert log.calls == []
    text = "drain_timeout of 0.001 s is over, 2 messages"
    assert any(text in record.getMessage() for record in caplog.records)
    gate.go_on.set()


def test_p172_busy_workers_share_one_further_limit():
    """Thirty stuck workers cost two limits, not thirty-one."""
    log, (pipeline, gate) = (
        Log(),
        gated(drain_timeout=0.3, processors=tr.Processors(concurrency=30, max_demand=1)),
    )
    pipeline.push(messages(log, range(30)))
    eventually(lambda: pipeline.stats().in_flight == 30)
    began = time.monotonic()
    pipeline.stop()
    assert time.monotonic() - began < 30 * 0.3
    gate.go_on.set()


def test_p172_a_callback_that_finishes_in_the_further_limit_is_not_killed():
    log, (pipeline, gate) = Log(), gated(drain_timeout=LIMIT)
    pipeline.push(messages(log, range(5)))
    assert gate.started.wait(LIMIT)
    stop = threading.Thread(target=pipeline.stop, kwargs={"drain": False})
    stop.start()
    eventually(lambda: pipeline._shared.ledger.halted)
    assert pipeline.pid.alive
    gate.go_on.set()
    stop.join(LIMIT)
    assert not pipeline.pid.alive


def test_p176_stop_past_its_timeout_raises_and_goes_on():
    log, (pipeline, gate) = Log(), gated()
    pipeline.push(messages(log, [1]))
    assert gate.started.wait(LIMIT)
    with pytest.raises(tr.CallTimeout):
        pipeline.stop(timeout=0.01)
    gate.go_on.set()
    eventually(lambda: not pipeline.pid.alive)
    assert data(log) == [1]


def test_without_a_drain_no_further_callback_starts():
    seen, log = [], Log()
    pipeline, gate = gated()

    class Counting(Gate):
        def handle_message(self, message):
            seen.append(message.data)
            return super().handle_message(message)

        def __init__(self):
            super().__init__()
            gates.append(self)

    pipeline.stop()
    gates = []
    pipeline = Counting.start_link()
    pipeline.push(messages(log, range(10)))
    assert gates[0].started.wait(LIMIT)
    stop = threading.Thread(target=pipeline.stop, kwargs={"drain": False})
    stop.start()
    eventually(lambda: pipeline._shared.ledger.halted)
    gates[0].go_on.set()
    stop.join(LIMIT)
    assert seen == [0]
    assert log.calls == []
    del gate


def test_p177_stop_from_a_callback_is_refused():
    class Stops(Pushed):
        def handle_message(self, message):
            self.context[0].stop()
            return message

    context = []
    pipeline = Stops.start_link(context=context)
    context.append(pipeline)
    ref = pipeline.test_message(1)
    _, _, _, [bad] = tr.receive(ref, timeout=LIMIT)
    assert isinstance(bad.reason, RuntimeError)
    assert "own callbacks" in str(bad.reason)
    pipeline.stop()


def test_bad_arguments_of_stop():
    pipeline = Pushed.start_link()
    with pytest.raises(TypeError, match="drain: expected a bool"):
        pipeline.stop(drain=1)
    with pytest.raises(ValueError, match="timeout: expected seconds >= 0"):
        pipeline.stop(timeout=-1)
    pipeline.stop()


def test_a_parents_stop_drains():
    log = Log()
    supervisor = tr.Supervisor.start_link(
        [Pushed.child_spec(batchers={"default": {"batch_timeout": 1000.0}})]
    )
    tr.call("Pushed.Producer_0", _push(messages(log, [1, 2, 3])))
    supervisor.stop()
    assert data(log) == [1, 2, 3]
    assert tr.whereis("Pushed") is None


def _push(batch):
    from tailrace._pipeline_producer import Push

    return Push(batch)


# ---- Finite sources


def test_run_returns_a_summary():
    class Mixed(Pushed):
        producer = tr.producers.Iterable(range(100))
        processors = tr.Processors(concurrency=3)

        def handle_message(self, message):
            return message.fail("no") if message.data % 10 == 0 else message

    summary = Mixed.run()
    assert (summary.successful, summary.failed, summary.retried, summary.dead) == (90, 10, 0, 0)
    assert summary.reason == "normal"
    assert summary.duration > 0
    assert Mixed.run().successful == 90  # a second run begins anew


@pytest.mark.parametrize("count", [0, 1, 4, 5, 9, 10, 11, 99])
@pytest.mark.parametrize("batchers", [{}, {"default": {"batch_size": 3, "batch_timeout": 1000.0}}])
def test_every_length_of_a_finite_source_ends(count, batchers):
    summary = Pushed.run(producer=tr.producers.Iterable(range(count)), batchers=batchers)
    assert summary.successful == count


def test_a_finite_source_ends_a_linked_pipeline_with_normal():
    tr.trap_exit()
    pipeline = Pushed.start_link(producer=tr.producers.Iterable(range(5)))
    assert tr.receive(timeout=LIMIT) == tr.Exit(pipeline.pid, "normal")


def test_an_exception_of_the_iterable_ends_the_intake_and_run_raises_it():
    log = Log()

    def items():
        yield from messages(log, range(7))
        raise KeyError("source")

    source = tr.Produce(tr.producers.Iterable(items()), transformer=lambda message: message)
    with pytest.raises(KeyError, match="source"):
        Pushed.run(producer=source)
    assert data(log) == list(range(7))


def test_several_workers_share_one_iterator():
    seen = []

    class Several(Pushed):
        producer = tr.Produce(tr.producers.Iterable(iter(range(1000))), concurrency=4)
        processors = tr.Processors(concurrency=4)

        def handle_message(self, message):
            seen.append(message.data)
            return message

    assert Several.run().successful == 1000
    assert sorted(seen) == list(range(1000))


def test_a_producer_that_is_exhausted():
    class Once(tr.Producer):
        def init(self):
            self.left = 3

        def handle_demand(self, demand):
            if not self.left:
                return tr.Stop("normal")
            self.left -= 1
            return [tr.Message(self.left)]

        def handle_info(self, message):
            pass

    class Eager(Once):
        def handle_demand(self, demand):
            return super().handle_demand(demand) if demand else []

    summary = Pushed.run(
        producer=tr.Produce(Eager, concurrency=2),
        processors=tr.Processors(concurrency=1, max_demand=1),
    )
    assert summary.successful == 6


def test_run_in_another_thread():
    found = []
    thread = threading.Thread(
        target=lambda: found.append(Pushed.run(producer=tr.producers.Iterable(range(5))))
    )
    thread.start()
    thread.join(LIMIT)
    assert found[0].successful == 5


def test_run_says_why_a_pipeline_died():
    class Crashes(tr.Producer):
        def handle_demand(self, demand):
            raise ValueError("again and again")

    with pytest.raises(tr.CallExit) as caught:
        Pushed.run(producer=Crashes, max_restarts=0)
    assert caught.value.reason == "shutdown"
    assert "again and again" in str(caught.value)
    assert isinstance(caught.value.__cause__, ValueError)


def test_an_unknown_call_does_not_end_a_pipeline(caplog):
    pipeline = Pushed.start_link()
    with pytest.raises(tr.CallTimeout):
        tr.call(pipeline, "hello", timeout=0.01)
    tr.cast(pipeline, "hello")
    pipeline.stop()
    assert "unexpected call 'hello'" in caplog.text


def test_memory_is_bounded_by_demand_not_by_the_source():
    """A source without end behind a handler that does not come back is not drawn from."""
    drawn = []

    def endless():
        while True:
            drawn.append(None)
            yield bytes(1000)

    pipeline, gate = gated(
        producer=tr.producers.Iterable(endless()), processors=tr.Processors(concurrency=2)
    )
    assert gate.started.wait(LIMIT)
    pipeline.push([tr.Message(1)])  # answered by the producer: its work is done
    assert len(drawn) <= 2 * 10
    gate.go_on.set()
    pipeline.stop()


# ---- Signals

PROGRAM = """
    import os, sys, threading, time
    import tailrace as tr

    class Endless(tr.Pipeline):
        processors = tr.Processors(concurrency=2)
        batchers = {"default": tr.Batcher(batch_size=7, batch_timeout=0.05)}
        drain_timeout = 20.0

        def handle_message(self, message):
            if self.context == "stuck":
                os.write(1, b"started\\n")
                time.sleep(1000)
            return message

        def handle_batch(self, batcher, messages, info):
            if not self.context:
                self.context = "seen"
                os.write(1, b"started\\n")
            return messages

    def items():
        while True:
            for n in range(100):
                yield n
            time.sleep(0.001)

    summary = Endless.run(producer=tr.producers.Iterable(items()), context=sys.argv[1])
    print(summary.reason, summary.failed, summary.successful > 0, flush=True)
"""


def program(context):
    environment = dict(os.environ, PYTHONPATH=os.path.dirname(os.path.dirname(tr.__file__)))
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), context],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout.readline() == "started\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_drains_and_run_returns(number):
    process = program("")
    process.send_signal(number)
    out, err = process.communicate(timeout=LIMIT)
    assert (out, process.returncode) == ("shutdown 0 True\n", 0), err


def test_a_second_signal_kills_the_workers_at_once():
    process = program("stuck")
    process.send_signal(signal.SIGTERM)
    time.sleep(0.05)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, err
    assert out.splitlines()[-1] == "shutdown 0 False"
    assert time.monotonic() - began < 20.0, "it waited for the drain"


@pytest.mark.parametrize("signals", [1, 2])
def test_signals_while_a_pipeline_starts_end_it_as_later_ones_do(signals):
    class Impatient(tr.Producer):
        def init(self):
            for _ in range(signals):
                signal.raise_signal(signal.SIGTERM)

        def handle_demand(self, demand):
            return []

    summary = Pushed.run(producer=Impatient)
    assert (summary.successful, summary.failed, summary.reason) == (0, 0, "shutdown")


def test_former_signal_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    Pushed.run(producer=tr.producers.Iterable(range(3)))
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
