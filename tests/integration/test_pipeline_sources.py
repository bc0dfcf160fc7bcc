"""Producers of pipelines: pipeline.md section 4, and the finite sources Iterable and Files."""

import itertools
import os
import threading

import pytest
from pipelines import Log, Pushed, messages
from support import LIMIT, eventually

import tailrace as tr


class Relay(tr.Producer):
    """Emits what it is sent, by whatever way it comes."""

    def init(self, log=None, **options):
        self.log = log
        if log is not None:
            log.append(("init", options))

    def handle_demand(self, demand):
        return []

    def handle_info(self, events):
        return tr.NoReply(events=events)

    def handle_cast(self, events):
        return tr.NoReply(events=events)

    def handle_call(self, request, caller):
        if request == "plain":
            return "answer"
        return tr.Reply("emitted", events=request)

    def terminate(self, reason):
        if self.log is not None:
            self.log.append(("terminate", reason))


def double(event):
    return tr.Message(event * 2)


def seen_by(cls, **options):
    """A pipeline that writes down the data of what it handles."""
    seen = []

    class Seeing(cls):
        def handle_message(self, message):
            seen.append(message.data)
            return message

    return Seeing.start_link(name="Seeing", **options), seen


def test_p34_p35_every_callback_may_emit_through_the_transformer():
    pipeline, seen = seen_by(Pushed, producer=tr.Produce(Relay, transformer=double))
    tr.send("Seeing.Producer_0", [1])
    tr.cast("Seeing.Producer_0", [2])
    assert tr.call("Seeing.Producer_0", [3]) == "emitted"
    assert tr.call("Seeing.Producer_0", "plain") == "answer"
    eventually(lambda: len(seen) == 3)
    assert seen == [2, 4, 6]
    pipeline.stop()


def test_p36_arguments_of_init_and_the_reason_of_terminate():
    log = []
    pipeline = Pushed.start_link(producer=tr.Produce(Relay, log, color="red", concurrency=2))
    assert log == [("init", {"color": "red"})] * 2
    pipeline.stop()
    assert log[2:] == [("terminate", "shutdown")] * 2


def test_an_instance_is_copied_for_each_worker():
    class Counting(tr.Producer):
        def __init__(self, step):
            self.step, self.number = step, 0

        def handle_demand(self, demand):
            self.number += self.step
            return [tr.Message(self.number)] if self.number <= 3 * self.step else []

    pipeline, seen = seen_by(
        Pushed,
        producer=tr.Produce(Counting(10), concurrency=2),
        processors=tr.Processors(concurrency=1, max_demand=1),
    )
    eventually(lambda: len(seen) == 6)
    assert sorted(seen) == [10, 10, 20, 20, 30, 30]
    pipeline.stop()


def test_p46_events_that_are_no_messages_say_what_to_do():
    class Bare(tr.Producer):
        def handle_demand(self, demand):
            return [1]

    tr.trap_exit()
    pipeline = Pushed.start_link(producer=Bare, max_restarts=0)
    assert tr.receive(timeout=LIMIT) == tr.Exit(pipeline.pid, "shutdown")


def test_p46_the_text_suggests_a_transformer(caplog):
    pipeline = Pushed.start_link(producer=Relay, max_restarts=100)
    tr.send("Pushed.Producer_0", ["bare"])
    eventually(lambda: any("transformer" in str(r.exc_info) for r in caplog.records if r.exc_info))
    pipeline.stop()


def test_p47_a_raising_transformer_loses_the_emission_it_raised_in():
    def transform(event):
        return tr.Message(10 // event)

    pipeline, seen = seen_by(
        Pushed,
        producer=tr.Produce(Relay, transformer=transform),
        max_restarts=100,
        resubscribe_interval=0,
    )
    first = tr.whereis("Seeing.Producer_0")
    tr.send(first, [5])
    eventually(lambda: seen == [2])
    tr.send(first, [5, 0])
    eventually(lambda: tr.whereis("Seeing.Producer_0") not in (None, first))
    tr.send("Seeing.Producer_0", [1])
    eventually(lambda: len(seen) == 2)
    assert seen == [2, 10]
    pipeline.stop()


@pytest.mark.parametrize("result", [5, "text", tr.StageOptions(dispatcher=tr.DemandDispatcher())])
def test_p44_p45_a_bad_result_of_init_fails_the_start(result):
    class Bad(tr.Producer):
        def init(self):
            return result

        def handle_demand(self, demand):
            return []

    with pytest.raises(tr.StartError):
        Pushed.start_link(producer=Bad)
    assert tr.whereis("Pushed") is None


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3)])
def test_an_init_that_raises_fails_the_start(error):
    class Bad(tr.Producer):
        def init(self):
            raise error

        def handle_demand(self, demand):
            return []

    with pytest.raises(tr.StartError) as caught:
        Pushed.start_link(producer=Bad)
    assert caught.value.reason is error or not isinstance(error, ValueError)
    with pytest.raises(tr.StartError):
        Pushed.run(producer=Bad)
    assert tr.whereis("Pushed") is None


def test_p39_p40_the_buffer_of_the_producer_is_bounded(caplog):
    class Small(Relay):
        def init(self):
            super().init()
            return tr.StageOptions(buffer_size=3)

    class Held(Pushed):
        def __init__(self):
            self.go_on = threading.Event()
            made.append(self)

        def handle_message(self, message):
            assert self.go_on.wait(LIMIT)
            seen.append(message.data)
            return message

    made, seen = [], []
    pipeline = Held.start_link(
        producer=Small, processors=tr.Processors(concurrency=1, max_demand=1)
    )
    tr.call("Held.Producer_0", [tr.Message(0)])
    eventually(lambda: pipeline.stats().in_flight == 1)
    tr.call("Held.Producer_0", [tr.Message(n) for n in range(1, 7)])
    made[0].go_on.set()
    pipeline.stop()
    assert seen == [0, 4, 5, 6]
    assert any("discarded 3 events" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("endless", [itertools.count(), iter(int, 1)])
def test_a_producer_that_allocates_without_end_is_stopped(endless, caplog):
    class Endless(tr.Producer):
        def handle_demand(self, demand):
            return endless

    with pytest.raises(tr.CallExit, match="expected at most"):
        Pushed.run(producer=tr.Produce(Endless, transformer=tr.Message), max_restarts=0)


def test_sys_exit_in_a_producer_is_a_crash_and_nothing_more():
    asked = []

    class Exits(tr.Producer):
        def handle_demand(self, demand):
            asked.append(demand)
            if len(asked) == 1:
                raise SystemExit(0)
            return messages(log, [1]) if len(asked) == 2 else []

    log = Log()
    pipeline = Pushed.start_link(producer=Exits, resubscribe_interval=0)
    assert log.wait(1) == [("r", [1], [])]
    pipeline.stop()


def test_pushed_messages_wait_for_a_producer_that_blocks():
    asked, release = threading.Event(), threading.Event()

    class Blocks(tr.Producer):
        def handle_demand(self, demand):
            asked.set()
            release.wait(LIMIT)
            return []

    log = Log()
    pipeline = Pushed.start_link(producer=Blocks)
    assert asked.wait(LIMIT)
    threading.Timer(0.01, release.set).start()
    pipeline.push(messages(log, [1]))
    log.wait(1)
    pipeline.stop()


# ---- Iterable


def test_a_slow_iterable_does_not_wait_for_a_full_demand():
    gate, seen = threading.Event(), []

    def slowly():
        yield 1
        gate.wait(LIMIT)  # longer than the patience of a worker
        yield 2

    class Sees(Pushed):
        def handle_message(self, message):
            seen.append(message.data)
            if message.data == 1:
                first.set()
            return message

    first = threading.Event()
    pipeline = Sees.start_link(producer=tr.producers.Iterable(slowly()))
    threading.Timer(0.05, gate.set).start()
    eventually(lambda: seen == [1, 2] or not pipeline.pid.alive)
    eventually(lambda: not pipeline.pid.alive)
    assert seen == [1, 2]


def test_an_iterable_whose_iter_raises_fails_in_the_caller():
    class Bad:
        def __iter__(self):
            raise KeyError("no")

    with pytest.raises(KeyError):
        Pushed.run(producer=tr.producers.Iterable(Bad()))


def test_a_transformer_gets_the_bare_items():
    summary = Pushed.run(producer=tr.Produce(tr.producers.Iterable([1, 2]), transformer=double))
    assert summary.successful == 2


def test_a_killed_workers_replacement_goes_on_with_the_iterator():
    seen, reached, go_on = [], threading.Event(), threading.Event()

    class Sees(Pushed):
        def handle_message(self, message):
            if message.data == 1000:
                reached.set()
                go_on.wait(LIMIT)
            seen.append(message.data)
            return message

    tr.trap_exit()
    pipeline = Sees.start_link(
        producer=tr.producers.Iterable(iter(range(3000))), resubscribe_interval=0.001
    )
    assert reached.wait(LIMIT)
    first = tr.whereis("Sees.Producer_0")
    tr.exit(first, "kill")
    eventually(lambda: tr.whereis("Sees.Producer_0") not in (None, first))
    go_on.set()
    assert tr.receive(timeout=LIMIT) == tr.Exit(pipeline.pid, "normal")
    assert seen == sorted(seen)
    assert seen[-1] == 2999
    assert len(seen) >= 3000 - 10  # what was on its way to a processor may be lost


def test_an_iterable_whose_own_code_was_interrupted_by_a_kill_is_not_taken_for_ended():
    waiting, go_on = threading.Event(), threading.Event()

    def items():
        yield 1
        waiting.set()
        while not go_on.wait(0.001):
            pass
        yield 2

    tr.trap_exit()
    pipeline = Pushed.start_link(
        producer=tr.producers.Iterable(items()), resubscribe_interval=0.001
    )
    assert waiting.wait(LIMIT)
    tr.exit(tr.whereis("Pushed.Producer_0"), "kill")
    end = tr.receive(timeout=LIMIT)
    assert end.pid == pipeline.pid
    assert isinstance(end.reason, tr.EngineError)
    assert "interrupted" in str(end.reason)
    go_on.set()


# ---- Files


def test_files(tmp_path):
    for name in ("b/2.txt", "a.txt", "b/c/3.txt", "z/4.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "link.txt").symlink_to(tmp_path / "a.txt")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    found = []

    class Reads(Pushed):
        def handle_message(self, message):
            found.append(message.data.relative_to(tmp_path).as_posix())
            return message

    assert Reads.run(producer=tr.producers.Files(tmp_path)).successful == 5
    assert found == ["a.txt", "link.txt", "b/2.txt", "b/c/3.txt", "z/4.txt"]


def test_a_folder_that_vanishes_ends_the_intake_with_its_error(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    files = tr.producers.Files(folder)
    folder.rmdir()
    with pytest.raises(FileNotFoundError, match="folder"):
        Pushed.run(producer=files)


# ---- A source that blocks with something in hand


def test_what_was_handed_out_does_not_wait_for_what_comes_next():
    go_on, log = threading.Event(), Log()

    def items():
        yield from messages(log, [1, 2, 3])
        go_on.wait(LIMIT)
        yield from messages(log, [4, 5])

    source = tr.Produce(tr.producers.Iterable(items()), transformer=lambda message: message)
    pipeline = Pushed.start_link(producer=source, batchers={"default": {"batch_timeout": 0.01}})
    log.wait(3)
    assert sorted(d for _, good, _ in log.calls for d in good) == [1, 2, 3]
    go_on.set()
    log.wait(5)
    eventually(lambda: not pipeline.pid.alive)
    assert log.count() == 5


def test_a_drain_finishes_what_a_blocked_source_has_handed_out_and_ends_it():
    blocked, log = threading.Event(), Log()

    def items():
        yield from messages(log, [1, 2, 3])
        blocked.set()
        while True:
            tr.sleep(0.01)

    source = tr.Produce(tr.producers.Iterable(items()), transformer=lambda message: message)
    pipeline = Pushed.start_link(producer=source, drain_timeout=LIMIT)
    assert blocked.wait(LIMIT)
    pipeline.stop()
    assert sorted(d for _, good, _ in log.calls for d in good) == [1, 2, 3]


def test_an_idle_iterable_costs_nothing():
    """The clock that looks after a draw stops when nobody draws."""

    class Stuck(Pushed):
        def __init__(self):
            self.go_on = threading.Event()
            made.append(self)

        def handle_message(self, message):
            assert self.go_on.wait(LIMIT)
            return message

    made = []
    pipeline = Stuck.start_link(producer=tr.producers.Iterable(iter(range(1000))))
    eventually(lambda: pipeline.stats().in_flight > 0)
    shared = pipeline._shared.source._shared
    eventually(lambda: not shared.watched)
    made[0].go_on.set()
    eventually(lambda: not pipeline.pid.alive)
