"""Pipelines with scheduler="process": handlers in operating-system workers."""

import importlib.util
import logging
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import LIMIT, eventually
from worker_support import SEGFAULT, Batched, Breaks, Custom, Handlers, Prepared, Told, living

import tailrace as tr

HAS_CLOUDPICKLE = importlib.util.find_spec("cloudpickle") is not None


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The failures are wanted."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


class Origin:
    """An acknowledger that keeps the messages."""

    def __init__(self):
        self.good, self.bad = [], []
        self.changed = threading.Condition()

    def ack(self, ref, successful, failed):
        with self.changed:
            self.good += successful
            self.bad += failed
            self.changed.notify_all()

    def wait(self, count):
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.good + self.bad) >= count, LIMIT)


def results(pipeline, data, **options):
    """Run data through a pipeline: what succeeded and what failed, as messages, by data order."""
    origin = Origin()
    messages = [tr.Message(each, None, (origin, None, None)) for each in data]
    handle = pipeline.start_link(producer=tr.producers.Dummy, **options)
    handle.push(messages)
    origin.wait(len(data))
    handle.stop()
    assert len(origin.good + origin.bad) == len(data)
    order = {id(message): index for index, message in enumerate(messages)}
    for side in (origin.good, origin.bad):
        side.sort(key=lambda message: order.get(id(message), -1))
    return origin.good, origin.bad


def test_handle_message_runs_in_another_operating_system_process():
    good, bad = results(Handlers, ["pid", 1, "pid"])
    assert bad == [] and good[0].data == good[2].data != os.getpid() and good[1].data == 1


def test_what_a_handler_sets_on_a_message_comes_back():
    good, bad = results(Handlers, ["meta", "fail", "new", bytearray(b"a"), [1]])
    assert [m.data for m in good] == ["meta", "made anew", bytearray(b"*"), [42]]
    assert good[0].metadata == {"seen": True} and good[1].metadata == {"by": "worker"}
    assert [(m.data, m.status, m.reason) for m in bad] == [("fail", "failed", "said so")]


def test_an_exception_fails_its_message_alone_and_brings_its_traceback():
    good, [custom, awkward] = results(Handlers, [1, ("raise", Custom("x")), "awkward", 2])
    assert [m.data for m in good] == [1, 2]
    assert isinstance(custom.reason, Custom) and custom.status == "exception"
    assert "worker_support.py" in str(custom.reason.__cause__)
    assert isinstance(awkward.reason, tr.RemoteError)
    assert awkward.reason.kind == "worker_support.Awkward" and "1 2" in str(awkward.reason)


def test_an_answer_that_is_no_message_fails_its_message():
    [bad] = results(Handlers, ["nothing"])[1]
    assert "expected the message to be returned, got None" in str(bad.reason)


def test_what_does_not_pickle_fails_alone_on_either_way():
    lock = threading.Lock()
    good, [back, there] = results(Handlers, [1, "lock", lock, 2])
    assert [m.data for m in good] == [1, 2]
    assert isinstance(back.reason, tr.Unpicklable) and isinstance(there.reason, tr.Unpicklable)
    assert (back.data, there.data) == ("lock", lock)
    assert isinstance(back.reason, pickle.PicklingError)


@pytest.mark.parametrize("how", ["exit", "kill", "segfault"])
def test_a_dying_worker_fails_its_batch_only_and_is_replaced(how):
    data = ["pid", 1, 2, 3, 4, ("crash", how), 6, 7, "pid", 9]
    good, bad = results(Handlers, data)
    assert [m.data for m in bad] == data[4:8]
    assert [m.data for m in good[1:4] + good[5:]] == [1, 2, 3, 9]
    assert good[0].data != good[4].data
    for message in bad:
        assert isinstance(message.reason, tr.WorkerDied), message.reason
        died = message.reason
        assert (died.exitcode, died.signal) == {
            "exit": (3, None),
            "kill": (-9, "SIGKILL"),
            "segfault": SEGFAULT,
        }[how]
        assert (died.signal or f"exit status {died.exitcode}") in str(died)


def test_running_out_of_memory_fails_a_message_or_its_batch():
    good, bad = results(Handlers, [("crash", "memory"), 1, 2, 3, 4])
    assert 4 in [m.data for m in good]
    assert isinstance(bad[0].reason, MemoryError | tr.WorkerDied)


def test_a_message_whose_worker_died_is_tried_again(tmp_path):
    data = [1, ("once", str(tmp_path / "died")), 2]
    good, bad = results(Handlers, data, retry=tr.Retry(backoff=0.001, on=(tr.WorkerDied,)))
    assert bad == [] and sorted(str(m.data) for m in good) == ["1", "2", "again"]


def test_a_worker_that_is_killed_while_it_waits_is_replaced_and_nothing_fails():
    origin = Origin()
    handle = Handlers.start_link(producer=tr.producers.Dummy)
    handle.push([tr.Message("pid", None, (origin, None, None))])
    origin.wait(1)
    first = origin.good[0].data
    os.kill(first, signal.SIGKILL)
    eventually(lambda: not living(first))
    handle.push([tr.Message("pid", None, (origin, None, None))])
    origin.wait(2)
    handle.stop()
    assert origin.bad == [] and origin.good[1].data != first


def test_a_processor_that_is_killed_between_two_chunks_takes_its_worker_along():
    origin = Origin()
    handle = Handlers.start_link(producer=tr.producers.Dummy, name="taken")
    handle.push([tr.Message("pid", None, (origin, None, None))])
    origin.wait(1)
    worker = origin.good[0].data
    tr.exit(tr.whereis("taken.Processor_default_0"), "kill")
    eventually(lambda: not Path(f"/proc/{worker}").exists())  # not even as a zombie
    handle.push([tr.Message("pid", None, (origin, None, None))])
    origin.wait(2)
    handle.stop()
    assert origin.bad == [] and origin.good[1].data != worker


def test_messages_that_failed_in_a_worker_are_settled_here():
    buried = []
    options = {"context": tr.self(), "dead_letter": buried.append}
    results(Told, [("raise", Custom("x"))], **options)
    [(data, reason)] = tr.receive(timeout=LIMIT)[1]
    assert data[0] == "raise" and isinstance(reason, Custom)
    assert [m.data for m in buried] == [data]


@pytest.mark.parametrize("what", ["ack_now", "configure_ack"])
def test_acknowledgers_stay_here_and_a_worker_says_so(what):
    [bad] = results(Handlers, [what])[1]
    assert what in str(bad.reason) and "operating-system worker" in str(bad.reason)


def test_prepare_messages_runs_in_the_worker_too():
    good, _ = results(Prepared, [1, "pid", 3], processors={**PROCESS, "max_demand": 3})
    assert {m.metadata["prepared"] for m in good} == {good[1].data}


def test_prepare_messages_that_raises_fails_the_chunk():
    good, bad = results(Prepared, [1, "bad", 3], processors={**PROCESS, "max_demand": 3})
    assert good == [] and [m.data for m in bad] == [1, "bad", 3]
    assert all(isinstance(m.reason, Custom) for m in bad)


PROCESS = {"concurrency": 1, "min_demand": 0, "scheduler": "process"}


def test_handle_batch_runs_in_a_worker():
    good, bad = results(Batched, ["info", 2, "fail"])
    batcher, info, pid = good[0].data
    assert (batcher, info, pid != os.getpid()) == (
        "default",
        tr.BatchInfo("default", "default", None, 3, "size"),
        True,
    )
    assert [m.data for m in good[1:]] == [2] and [m.reason for m in bad] == ["said so"]


def test_a_batch_fails_when_its_worker_dies_or_its_handler_raises():
    data = [1, ("crash", "kill"), 3, 4, ("raise", Custom("x")), 6, 7, 8, 9]
    good, bad = results(Batched, data)
    assert [m.data for m in good] == [7, 8, 9]
    assert [type(m.reason) for m in bad] == [tr.WorkerDied] * 3 + [Custom] * 3


def test_what_does_not_pickle_does_not_spoil_its_batch():
    lock = threading.Lock()
    good, [bad] = results(Batched, [1, lock, 3])
    assert [m.data for m in good] == [1, 3]
    assert bad.data is lock and isinstance(bad.reason, tr.Unpicklable)


def test_large_buffers_come_and_go_whole():
    data = [bytearray(b"x" * 3_000_000), b"y" * 3_000_000, {"nested": bytearray(1_000_000)}]
    good, bad = results(Handlers, data)
    assert bad == [] and bytes(good[0].data) == b"*" + b"x" * 2_999_999
    assert good[1].data == b"y" * 3_000_000 and len(good[2].data["nested"]) == 1_000_000


@pytest.mark.parametrize("size", [1, 100_000, 3_000_000])
def test_what_cannot_be_loaded_there_fails_its_chunk_and_nothing_after_it(size):
    good, bad = results(Handlers, [Breaks(size), 1, 2, 3, 4])
    assert [m.data for m in good] == [4]
    assert all("cannot be loaded here" in str(m.reason) for m in bad) and len(bad) == 4


def test_buffers_out_of_band_are_not_copied_into_the_stream():
    data = [pickle.PickleBuffer(bytearray(b"z" * 1_000_000))]
    [good], _ = results(Handlers, data)
    assert bytes(good.data) == b"*" + b"z" * 999_999


def test_a_pipeline_that_does_not_pickle_does_not_start():
    with pytest.raises(tr.StartError) as caught:
        Handlers.start_link(producer=tr.producers.Dummy, context=threading.Lock())
    assert isinstance(caught.value.reason, tr.Unpicklable)
    assert "context" in str(caught.value.reason)


def test_a_worker_that_cannot_start_ends_the_pipeline_and_does_not_spin(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises((tr.CallExit, tr.StartError)) as caught:  # whoever notices first
        Handlers.run(producer=tr.producers.Iterable(range(100)))
    assert isinstance(caught.value.__cause__, tr.WorkerDied)
    assert "at its start" in str(caught.value.__cause__)


def test_workers_end_with_the_pipeline():
    good, _ = results(Handlers, ["pid"])
    assert not living(good[0].data)


def test_bad_schedulers_are_refused():
    with pytest.raises(ValueError, match=r"scheduler: expected one of 'core', 'thread', 'process'"):
        tr.Processors(scheduler="cpu")
    with pytest.raises(TypeError, match="scheduler"):
        tr.Batcher(scheduler=3)


def test_handlers_may_run_on_the_elastic_pool():
    good, _ = results(Handlers, ["pid"], processors={"scheduler": "thread"})
    assert good[0].data == os.getpid()


def script(text: str, *options: str, **keywords):
    """Run a program from standard input, as a notebook or `python - <<EOF` would."""
    return subprocess.run(
        [sys.executable, *options, "-"],
        input=textwrap.dedent(text),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
        **keywords,
    )


MAIN = """
    import logging, os
    import tailrace as tr
    logging.disable(logging.CRITICAL)
    factor = 3
    class Wrong(Exception): pass
    class Point:
        def __init__(self, x): self.x = x
    class Mine(tr.Pipeline):
        producer = tr.producers.Iterable([Point(1), Point(2), Point(0)])
        processors = tr.Processors(concurrency=1, scheduler="process")
        retry = tr.Retry(max_attempts=2, backoff=0.001, on=(Wrong,))
        def handle_message(self, message):
            if not message.data.x: raise Wrong
            message.data = (lambda p: Point(p.x * factor))(message.data)
            assert os.getpid() != parent
            return message
        def handle_failed(self, messages):
            print([type(m.reason) is Wrong for m in messages])
            return messages
    parent = os.getpid()
    summary = Mine.run()
    print(summary.successful, summary.failed, summary.retried)
"""


@pytest.mark.skipif(not HAS_CLOUDPICKLE, reason="needs cloudpickle")
def test_what_main_defines_works_with_cloudpickle():
    done = script(MAIN)
    assert done.stdout.splitlines() == ["[True]", "2 1 1"], done.stderr


def test_without_cloudpickle_the_error_says_what_to_do():
    hidden = "import sys; sys.modules['cloudpickle'] = None\n"
    done = script(hidden + textwrap.dedent(MAIN))
    assert done.returncode == 1
    assert "pip install 'tailrace[process]'" in done.stderr, done.stderr
