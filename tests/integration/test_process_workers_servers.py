"""Servers and stages with scheduler="process": the instance lives in a process of the system."""

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from support import LIMIT, eventually
from worker_support import (
    Bare,
    Counter,
    Custom,
    Numbers,
    Sink,
    SlowStart,
    Squares,
    living,
    wait_for_pid,
)

import tailrace as tr
from tailrace._os_server import watch
from tailrace._os_worker import Function, Worker


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The failures are wanted."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def start(*args, **options):
    return Counter.start(*args, scheduler="process", **options)


def test_all_callbacks_run_in_one_operating_system_process_and_share_its_state():
    server = start(1)
    assert server.call("pid", LIMIT) == server.call("pid") != os.getpid()
    server.cast(2)
    assert server.call("get") == 3
    server.send("info")
    assert server.call("get") == "info"
    assert tr.process_info(server).scheduler == "process"
    server.stop()


def test_actions_come_back():
    server = start()
    assert (server.call("continue", LIMIT), server.call("get")) == ("went on", "token")
    assert server.call("timeout") == "soon"
    eventually(lambda: server.call("get") in ("timed out", "token"))
    assert server.call("stop") == "bye"
    eventually(lambda: not server.alive)


def test_terminate_runs_there_and_the_process_ends_with_the_server(tmp_path):
    file = tmp_path / "end"
    server = start(1, str(file))
    pid = server.call("pid", LIMIT)
    server.stop("shutdown")
    assert file.read_text() == f"'shutdown' in {pid}" and not living(pid)


def test_what_init_raises_fails_the_start():
    with pytest.raises(tr.StartError) as caught:
        start(Custom("x"))
    assert isinstance(caught.value.reason, Custom)
    assert "worker_support.py" in str(caught.value.reason.__cause__)


def test_init_may_refuse():
    assert start(tr.IGNORE) is tr.IGNORE
    with pytest.raises(tr.StartError) as caught:
        start(tr.Stop("no"))
    assert caught.value.reason == "no"


def test_a_start_that_takes_too_long_leaves_no_process_behind(tmp_path):
    file = tmp_path / "pid"
    start_link = partial(SlowStart.start_link, str(file), scheduler="process")
    starter, ref = tr.spawn_monitor(start_link)
    pid = wait_for_pid(file)
    assert starter.alive and living(pid)
    with pytest.raises(tr.StartError) as caught:
        SlowStart.start(str(tmp_path / "other"), scheduler="process", timeout=0.01)
    assert caught.value.reason == "timeout"
    starter.exit("kill")
    assert tr.receive(ref, timeout=LIMIT).reason == "killed"
    eventually(lambda: not living(pid))


def test_a_callback_that_raises_ends_the_server_after_terminate(tmp_path):
    file = tmp_path / "end"
    server = start(1, str(file))
    with pytest.raises(tr.CallExit) as caught:
        server.call(("raise", Custom("x")), LIMIT)
    assert isinstance(caught.value.reason, Custom)
    assert file.read_text().startswith("Custom('x') in ")


@pytest.mark.parametrize("how", ["exit", "kill", "segfault"])
def test_a_worker_that_dies_in_a_callback_ends_the_server(how):
    server = start()
    ref = tr.monitor(server)
    with pytest.raises(tr.CallExit) as caught:
        server.call(("crash", how), LIMIT)
    assert isinstance(caught.value.reason, tr.WorkerDied)
    assert tr.receive(ref, timeout=LIMIT).reason is caught.value.reason


def test_a_worker_that_dies_between_two_callbacks_ends_the_server():
    server = start()
    pid = server.call("pid", LIMIT)
    ref = tr.monitor(server)
    os.kill(pid, signal.SIGKILL)
    reason = tr.receive(ref, timeout=LIMIT).reason
    assert isinstance(reason, tr.WorkerDied)
    assert (reason.pid, reason.signal) == (pid, "SIGKILL")


def test_a_supervisor_starts_it_again():
    spec = Counter.child_spec(5, name="counted", scheduler="process")
    supervisor = tr.Supervisor.start_link([spec])
    first = tr.call("counted", "pid", LIMIT)
    os.kill(first, signal.SIGKILL)

    def again():
        try:
            return tr.call("counted", "pid", LIMIT) != first
        except tr.CallExit:
            return False

    eventually(again)
    assert tr.call("counted", "get") == 5
    supervisor.stop()


def test_a_kill_ends_the_callback_at_once(tmp_path):
    server, file = start(), tmp_path / "pid"
    ref = tr.monitor(server)
    tr.spawn(server.call, ("spin", str(file)), None)
    pid = wait_for_pid(file)
    server.exit("kill")
    assert tr.receive(ref, timeout=LIMIT).reason == "killed"
    eventually(lambda: not living(pid))


def test_a_kill_between_two_callbacks_ends_the_process():
    server = start()
    pid = server.call("pid", LIMIT)
    server.exit("kill")
    eventually(lambda: not Path(f"/proc/{pid}").exists())  # not even as a zombie


def test_a_supervisor_that_kills_its_child_does_not_wait_for_it(tmp_path):
    file = tmp_path / "pid"
    spec = Counter.child_spec(name="spinner", scheduler="process", shutdown="kill")
    supervisor = tr.Supervisor.start_link([spec])
    tr.spawn(tr.call, "spinner", ("spin", str(file)), None)
    pid = wait_for_pid(file)
    supervisor.stop()
    eventually(lambda: not living(pid))


def test_what_does_not_pickle_ends_the_server_and_says_so():
    for request in ("lock", threading.Lock()):
        server = start()
        with pytest.raises(tr.CallExit) as caught:
            server.call(request, LIMIT)
        assert isinstance(caught.value.reason, tr.Unpicklable)


def test_the_engine_cannot_be_used_from_there():
    server = start()
    with pytest.raises(tr.CallExit) as caught:
        server.call("reply", LIMIT)
    assert "another program's engine" in str(caught.value.reason)


def test_missing_callbacks_are_as_missing_as_elsewhere():
    server = Bare.start(scheduler="process")
    with pytest.raises(tr.CallExit) as caught:
        server.call("hello", LIMIT)
    assert str(caught.value.reason) == "Bare has no handle_call; it was to handle 'hello'"


def test_stages_run_their_callbacks_in_workers_of_their_own(tmp_path):
    file = tmp_path / "out"
    numbers = Numbers.start(scheduler="process")
    squares = Squares.start(
        scheduler="process",
        options=tr.StageOptions(subscribe_to=[(numbers, {"max_demand": 4})]),
    )
    sink = Sink.start(
        str(file),
        scheduler="process",
        options=tr.StageOptions(subscribe_to=[(squares, {"max_demand": 4})]),
    )
    eventually(lambda: file.exists() and len(file.read_text().splitlines()) > 20)
    for stage in (sink, squares, numbers):
        stage.stop()
    rows = [eval(line.rpartition(" ")[0]) for line in file.read_text().splitlines()]
    assert [row[0] for row in rows[:20]] == [n * n for n in range(20)]
    pids = {row[1] for row in rows} | {row[2] for row in rows}
    assert len(pids) == 2 and os.getpid() not in pids
    assert rows[-1][3] == ("producer", "consumer")
    assert not any(map(living, pids))


def test_a_stage_whose_worker_dies_ends_with_worker_died():
    class Die(tr.Producer):
        def handle_demand(self, demand):
            return [("die", 0)]

    squares = Squares.start(scheduler="process")
    ref = tr.monitor(squares)
    numbers = Die.start()
    tr.subscribe(squares, numbers, cancel="temporary")
    got = []

    class Take(tr.Consumer):
        def handle_events(self, events, sender):
            got.extend(events)

    sink = Take.start()
    tr.subscribe(sink, squares, cancel="temporary")
    reason = tr.receive(ref, timeout=LIMIT).reason
    assert isinstance(reason, tr.WorkerDied) and reason.exitcode == 9
    assert got == []
    for stage in (sink, numbers):
        stage.stop()


def test_a_stage_must_define_its_callback_there_too():
    with pytest.raises(tr.StartError) as caught:
        tr.Producer.start(scheduler="process")
    assert "a Producer must define it" in str(caught.value.reason)


def pidfds():
    """Count this program's descriptors of processes."""
    count = 0
    for each in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the listing's own
            count += "pidfd" in os.readlink(f"/proc/self/fd/{each}")
    return count


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="counts in /proc")
def test_a_watcher_that_is_killed_before_it_runs_keeps_no_descriptor():
    def starts_watchers():
        tr.trap_exit()
        worker = Worker(Function)
        for _ in range(50):
            watch(worker).exit("kill")
            tr.receive()
        worker.kill()

    before = pidfds()
    _, ref = tr.spawn_monitor(starts_watchers)
    assert tr.receive(ref, timeout=LIMIT).reason == "normal"
    eventually(lambda: pidfds() <= before)
