"""Callbacks that compute without end take turns at the interpreter lock (O82, O83), whatever they
are made of, and whoever else traces or monitors the program.

Proved by progress, not by times: calls are answered while all go on. On builds without the lock
the same holds because threads run.
"""

import collections
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import GIL, eventually

import tailrace as tr

SPINNERS = 6


class Server(tr.GenServer):
    """Every request is a function, whose result is the callback's."""

    def handle_call(self, request: Callable[[], Any], caller: tr.From) -> Any:
        return request()

    def handle_cast(self, request: Callable[[], Any]) -> Any:
        request()


class Calling(Server):
    """Answers a request by asking the next server."""

    def init(self, following: tr.Pid) -> None:
        self.following = following

    def handle_call(self, request: Any, caller: tr.From) -> Any:
        return self.following.call(request, timeout=60.0)


class Echo(tr.GenServer):
    """Answers with the request."""

    def handle_call(self, request: Any, caller: tr.From) -> Any:
        return request


class Spinning:
    """Spinners and how far each has come."""

    def __init__(self, number: int) -> None:
        self.counts = [0] * number
        self.over = threading.Event()

    def loop(self, i: int) -> None:
        while not self.over.is_set():
            self.counts[i] += 1

    def bare_loop(self, i: int) -> None:
        counts = self.counts
        while True:
            counts[i] += 1

    def recursion(self, i: int) -> None:
        def down(depth: int) -> int:
            return depth and down(depth - 1)

        while not self.over.is_set():
            self.counts[i] += 1
            down(50)

    def generator(self, i: int) -> None:
        def numbers() -> Iterator[int]:
            while not self.over.is_set():
                yield 1

        for number in numbers():
            self.counts[i] += number

    def raising(self, i: int) -> None:
        while not self.over.is_set():
            try:
                [][self.counts[i]]
            except IndexError:
                self.counts[i] += 1

    def called_from_c(self, i: int) -> None:
        def step(_: int) -> int:
            self.counts[i] += 1
            return 1

        while not self.over.is_set():
            sum(map(step, range(10_000)))

    def all_go_on(self) -> bool:
        """Whether each of them comes further."""
        before = list(self.counts)
        eventually(lambda: all(now > then for now, then in zip(self.counts, before, strict=True)))
        return True


def answers(server: tr.Pid, number: int = 30) -> bool:
    return all(server.call(lambda i=i: i, timeout=60.0) == i for i in range(number))


@pytest.mark.parametrize("kind", ["core", "thread"])
@pytest.mark.parametrize("way", ["loop", "recursion", "generator", "raising", "called_from_c"])
def test_o82_servers_answer_beside_spinners_which_all_go_on(way: str, kind: str) -> None:
    server, spinning = Server.start(), Spinning(SPINNERS)
    spinners = [Server.start(scheduler=kind) for _ in range(SPINNERS)]
    for i, pid in enumerate(spinners):
        pid.cast(lambda i=i: getattr(spinning, way)(i))
    eventually(lambda: all(spinning.counts))
    assert answers(server)
    assert spinning.all_go_on()
    spinning.over.set()
    assert all(pid.call(lambda: "back", timeout=60.0) == "back" for pid in spinners)


def test_o82_spawned_functions_that_compute_take_turns_too() -> None:
    server, spinning = Server.start(), Spinning(SPINNERS)
    for i in range(SPINNERS):
        tr.spawn(spinning.loop, i)
    eventually(lambda: all(spinning.counts))
    assert answers(server)
    assert spinning.all_go_on()
    spinning.over.set()


def test_o43_a_killed_spinner_unwinds_while_the_others_go_on() -> None:
    spinning, unwound = Spinning(SPINNERS), threading.Event()

    def spin(i: int) -> None:
        try:
            spinning.bare_loop(i)
        finally:
            if i == 0:
                unwound.set()

    pids = [tr.spawn(spin, i) for i in range(SPINNERS)]
    eventually(lambda: all(spinning.counts))
    ref = tr.monitor(pids[0])
    pids[0].exit("kill")
    assert tr.receive(ref, timeout=60.0).reason == "killed"
    assert unwound.wait(60.0)
    for pid in pids[1:]:
        assert pid.alive
        pid.exit("kill")


@pytest.mark.skipif(not GIL, reason="without the interpreter lock there is no switch interval")
def test_the_switch_interval_is_put_back_when_nothing_spins_any_more() -> None:
    tr.shutdown()  # which puts the interval back, too
    tr.Engine()
    usual = sys.getswitchinterval()
    server, spinning = Server.start(), Spinning(SPINNERS)
    for i in range(SPINNERS):
        tr.spawn(spinning.loop, i)
    eventually(lambda: sys.getswitchinterval() < usual)
    assert answers(server, 3)
    spinning.over.set()
    eventually(lambda: sys.getswitchinterval() == usual)


@pytest.mark.skipif(not GIL, reason="without the interpreter lock there is no switch interval")
def test_an_interval_that_the_program_sets_meanwhile_is_left_alone() -> None:
    tr.shutdown()
    tr.Engine()
    usual = sys.getswitchinterval()
    spinning = Spinning(SPINNERS)
    try:
        pids = [tr.spawn(spinning.loop, i) for i in range(SPINNERS)]
        eventually(lambda: sys.getswitchinterval() < usual)
        sys.setswitchinterval(0.02)
        spinning.over.set()
        eventually(lambda: not any(pid.alive for pid in pids))
        tr.shutdown()
        assert sys.getswitchinterval() == pytest.approx(0.02)
    finally:
        sys.setswitchinterval(usual)


def test_a_trace_function_of_the_callbacks_own_sees_every_line() -> None:
    """A debugger or a coverage tool in the thread keeps its function and misses nothing."""
    spinning, lines, kept = Spinning(SPINNERS + 1), [0], []

    def trace(frame: Any, event: str, argument: Any) -> Any:
        if event == "line" and frame.f_code is traced.__code__:
            lines[0] += 1
        return trace

    def traced() -> int:
        rounds = 0
        while not spinning.over.is_set():
            rounds += 1
            spinning.counts[SPINNERS] += 1
        return rounds

    def run() -> int:
        sys.settrace(trace)
        try:
            return traced()
        finally:
            kept.append(sys.gettrace() is trace)
            sys.settrace(None)

    for i in range(SPINNERS):
        tr.spawn(spinning.loop, i)
    result: list[int] = []
    done = threading.Event()
    Server.start().cast(lambda: (result.append(run()), done.set()))
    assert spinning.all_go_on()
    before = lines[0]
    spinning.over.set()
    assert done.wait(60.0)
    assert all(kept)
    assert lines[0] >= before > 0
    assert result[0] > 0


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring came with Python 3.12")
def test_servers_answer_where_other_tools_monitor_the_same_code() -> None:
    monitoring = sys.monitoring
    seen: collections.deque[None] = collections.deque(maxlen=1)

    def count(*_: object) -> None:
        seen.append(None)

    monitoring.use_tool_id(monitoring.PROFILER_ID, "test")
    try:
        monitoring.register_callback(monitoring.PROFILER_ID, monitoring.events.JUMP, count)
        monitoring.set_local_events(
            monitoring.PROFILER_ID, Spinning.loop.__code__, monitoring.events.JUMP
        )
        server, spinning = Server.start(), Spinning(SPINNERS)
        for i in range(SPINNERS):
            tr.spawn(spinning.loop, i)
        eventually(lambda: all(spinning.counts))
        assert answers(server, 10)
        seen.clear()
        assert spinning.all_go_on()
        eventually(lambda: seen)
        spinning.over.set()
    finally:
        monitoring.set_local_events(monitoring.PROFILER_ID, Spinning.loop.__code__, 0)
        monitoring.register_callback(monitoring.PROFILER_ID, monitoring.events.JUMP, None)
        monitoring.free_tool_id(monitoring.PROFILER_ID)


def test_waiting_calls_do_not_use_up_the_threads_that_would_serve_them() -> None:
    """Sixty servers, each of which calls the next one from its callback, on four threads."""
    tr.shutdown()
    with tr.Engine(max_threads=4):
        last = Echo.start()
        for _ in range(60):
            last = Calling.start(last)
        for i in range(20):
            assert last.call(i, timeout=60.0) == i
    tr.Engine()
