"""scheduler_info(): what is counted, from anywhere, beside whatever runs (O82, O90, O96)."""

import dataclasses
import os
import threading

import pytest
from support import GIL, LIMIT, eventually

import tailrace as tr


class Held(tr.GenServer):
    """A server whose calls last until they are let go."""

    def init(self, entered: threading.Event, go_on: threading.Event) -> None:
        self.entered, self.go_on = entered, go_on

    def handle_call(self, request: object, caller: tr.From) -> object:
        return request

    def handle_cast(self, request: object) -> None:
        self.entered.set()
        assert self.go_on.wait(LIMIT)


def test_callbacks_and_slices_are_counted() -> None:
    server = Held.start_link(threading.Event(), threading.Event())
    before = tr.scheduler_info()
    for n in range(50):
        assert server.call(n) == n
    eventually(lambda: tr.scheduler_info().callbacks >= before.callbacks + 50)
    after = tr.scheduler_info()
    assert after.slices > before.slices
    assert after.uptime > before.uptime
    assert after.busy > 0.0
    assert after.steals == 0 or not GIL


def test_the_event_loop_is_a_thread_of_its_own() -> None:
    class Awaiting(tr.GenServer):
        async def handle_call(self, request: object, caller: tr.From) -> object:
            return request

    assert Awaiting.start_link().call("here") == "here"
    info = tr.scheduler_info()
    assert info.threads["loop"] == 1
    assert info.loop_queue == 0


def test_a_callback_that_blocks_is_a_detached_thread_O90() -> None:
    before = tr.scheduler_info()
    go_on = threading.Event()
    for _ in range(before.parallel):  # every worker of the core
        entered = threading.Event()
        server, other = Held.start_link(entered, go_on), Held.start_link(entered, go_on)
        server.cast("block")
        assert entered.wait(LIMIT)
    assert other.call("still there", timeout=LIMIT) == "still there"
    info = tr.scheduler_info()
    assert info.threads["detached"] >= 1
    assert info.handoffs > before.handoffs
    assert sum(info.threads.values()) <= info.thread_limit
    go_on.set()
    assert server.call("back", timeout=LIMIT) == "back"
    eventually(lambda: tr.scheduler_info().threads["detached"] == 0)


@pytest.mark.skipif(not GIL, reason="without an interpreter lock nothing is handed off")
def test_a_wait_in_the_engine_is_a_timed_hand_off() -> None:
    class Asker(tr.GenServer):
        def handle_call(self, request: tr.Pid, caller: tr.From) -> object:
            return request.call("question")

    server = Held.start_link(threading.Event(), threading.Event())
    asker = Asker.start_link()
    before = tr.scheduler_info().handoff_latency

    def asked() -> bool:
        assert asker.call(server) == "question"
        return tr.scheduler_info().handoff_latency.count > before.count

    eventually(asked)
    latency = tr.scheduler_info().handoff_latency
    assert 0.0 < latency.mean <= latency.longest <= latency.total


def test_it_answers_while_a_callback_computes_O82() -> None:
    entered, stop = threading.Event(), threading.Event()

    class Spinner(tr.GenServer):
        def handle_cast(self, request: object) -> None:
            entered.set()
            while not stop.is_set():
                pass

    server = Spinner.start_link()
    server.cast("spin")
    assert entered.wait(LIMIT)
    first = tr.scheduler_info()
    assert sum(first.threads.values()) > 0
    eventually(lambda: tr.scheduler_info().ticks > first.ticks)
    stop.set()


def test_timers_are_counted_until_they_fire_or_are_cancelled() -> None:
    before = tr.scheduler_info().timers
    timer = tr.send_after(tr.self(), "never", 3600)
    assert tr.scheduler_info().timers == before + 1
    timer.cancel()
    assert tr.scheduler_info().timers == before
    tr.send_after(tr.self(), "soon", 0)
    assert tr.receive(timeout=LIMIT) == "soon"
    assert tr.scheduler_info().timers == before


def test_an_idle_engine_has_nothing_queued_and_no_core_worker() -> None:
    eventually(lambda: tr.scheduler_info().threads["core"] == 0)
    info = tr.scheduler_info()
    assert set(info.run_queue) == {"low", "normal", "high", "max"}
    assert sum(info.run_queue.values()) == 0
    assert info.thread_queue == 0
    assert 0.0 <= info.busy_recent <= 1.0


def test_processes_may_ask_too_and_nobody_can_change_the_answer() -> None:
    def ask() -> None:
        parent.send(tr.scheduler_info())

    parent = tr.self()
    tr.spawn(ask)
    info = tr.receive(timeout=LIMIT)
    assert info.threads["elastic"] >= 1
    assert info.spawned >= info.processes > 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        info.callbacks = 0


def test_a_stopped_engine_has_no_schedulers() -> None:
    tr.shutdown()
    with pytest.raises(tr.EngineStopped):
        tr.scheduler_info()
    with tr.Engine(max_threads=5):
        assert tr.scheduler_info().thread_limit == 5
        assert tr.scheduler_info().spawned == 0
    tr.Engine()


def test_schedulers_online_is_the_number_of_usable_cores_O96() -> None:
    assert tr.schedulers_online() == len(os.sched_getaffinity(0))
    assert tr.scheduler_info().parallel in (1, tr.schedulers_online())
