"""Kills: dead at once for everybody else, and nobody else is hit (O5, O30, O43).

What is left of a killed process's code is interrupted at its next bytecode; its engine calls raise;
whatever it returns is dropped; the next process on the same worker never notices.
"""

import collections
import contextlib
import functools
import io
import logging
import operator
import os
import socket
import sys
import threading
import time
import types
from collections.abc import Callable
from typing import Any

import programs
import pytest
from support import GIL, LIMIT, eventually, is_inside

import tailrace as tr


class Server(tr.GenServer):
    """Every request is a function, whose result is the callback's."""

    def handle_call(self, request: Callable[[], Any], caller: tr.From) -> Any:
        return request()

    def handle_cast(self, request: Callable[[], Any]) -> Any:
        return request()


@pytest.fixture(params=["core", "thread"])
def scheduler(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def spin() -> None:
    while True:
        pass


def assert_killed(pid: tr.Pid, ref: tr.Ref) -> None:
    """It is down at once; its code, too, ends soon."""
    assert tr.receive(ref, timeout=LIMIT) == tr.Down(ref, pid, "killed")
    assert not pid.alive
    eventually(lambda: pid not in tr.processes())


def running(fn: Callable[[], object], scheduler: str, **options: Any) -> tuple[tr.Pid, tr.Ref]:
    """A watched process that is in the middle of a function."""
    ready = threading.Event()

    def run() -> None:
        ready.set()
        fn()

    pid, ref = tr.spawn_monitor(run, scheduler=scheduler, **options)
    assert ready.wait(LIMIT)
    return pid, ref


# ---- In every state -----------------------------------------------------------------------------


def test_kill_of_an_idle_server(scheduler: str) -> None:
    server = Server.start(scheduler=scheduler, name="idle")
    ref = tr.monitor(server)
    tr.exit(server, "kill")
    assert tr.whereis("idle") is None
    assert_killed(server, ref)


def test_kill_of_a_queued_process() -> None:
    go, ran = threading.Event(), []
    for priority in ("high", "low"):
        blockers = [tr.spawn(go.wait, scheduler="core", priority=priority) for _ in range(3)]
        pid, ref = tr.spawn_monitor(lambda: ran.append(1), scheduler="core", priority="low")
        tr.exit(pid, "kill")
        assert tr.receive(ref, timeout=LIMIT).reason in ("killed", "normal")
        assert blockers
    go.set()


def test_kill_of_a_server_with_a_full_mailbox(scheduler: str) -> None:
    server = Server.start(scheduler=scheduler)
    ready, go, handled = threading.Event(), threading.Event(), []
    server.cast(lambda: (ready.set(), go.wait(), None)[2])
    assert ready.wait(LIMIT)
    for n in range(10_000):
        server.cast(lambda n=n: handled.append(n))
    ref = tr.monitor(server)
    tr.exit(server, "kill")
    assert tr.receive(ref, timeout=LIMIT).reason == "killed"
    go.set()
    eventually(lambda: server not in tr.processes())
    assert handled == []


def test_kill_of_a_spinning_process(scheduler: str) -> None:
    for _ in range(20):
        assert_killed_after_kill(*running(spin, scheduler))


def assert_killed_after_kill(pid: tr.Pid, ref: tr.Ref) -> None:
    tr.exit(pid, "kill")
    assert_killed(pid, ref)


def test_kill_of_a_spinning_callback(scheduler: str) -> None:
    for _ in range(20):
        server, ready = Server.start(scheduler=scheduler), threading.Event()
        server.cast(lambda ready=ready: (ready.set(), spin()))
        assert ready.wait(LIMIT)
        assert_killed_after_kill(server, tr.monitor(server))


def test_kill_of_code_that_catches_everything(scheduler: str) -> None:
    caught: collections.Counter[str] = collections.Counter()

    def stubborn() -> None:
        for _ in range(3):  # whoever catches Killed for ever is not interrupted for ever
            try:
                while True:
                    pass
            except BaseException as error:
                caught[type(error).__name__] += 1

    pid, ref = running(stubborn, scheduler)
    tr.exit(pid, "kill")
    assert_killed(pid, ref)
    assert set(caught) <= {"Killed"}


def test_killed_passes_by_except_exception(scheduler: str) -> None:
    seen = []

    def careful() -> None:
        try:
            while True:
                pass
        except Exception as error:
            seen.append(error)

    assert_killed_after_kill(*running(careful, scheduler))
    assert seen == []


@pytest.mark.parametrize("wait", [lambda: tr.receive(), lambda: tr.sleep(10**6)])
def test_kill_of_a_process_that_waits_in_the_engine(
    scheduler: str, wait: Callable[[], object]
) -> None:
    for _ in range(100):
        assert_killed_after_kill(*running(wait, scheduler))


def test_kill_of_a_process_that_waits_in_a_call(scheduler: str) -> None:
    server = Server.start()
    go, ready = threading.Event(), threading.Event()
    server.cast(lambda: (ready.set(), go.wait(), None)[2])
    assert ready.wait(LIMIT)
    for _ in range(100):
        pid, ref = running(lambda: server.call(lambda: 1, timeout=None), scheduler)
        tr.exit(pid, "kill")
        assert_killed(pid, ref)
    go.set()
    assert server.call(lambda: "lives", timeout=LIMIT) == "lives"


def test_kill_of_a_process_in_time_sleep_is_down_before_the_sleep_is_over(scheduler: str) -> None:
    over = threading.Event()
    pid, ref = running(lambda: (time.sleep(0.3), over.set()), scheduler, name="sleeper")
    tr.exit(pid, "kill")
    assert tr.receive(ref, timeout=LIMIT) == tr.Down(ref, pid, "killed")
    assert not over.is_set()
    assert tr.whereis("sleeper") is None
    eventually(lambda: pid not in tr.processes())
    assert not over.is_set()


def test_kill_of_a_process_in_a_socket(scheduler: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        got = []
        pid, ref = running(lambda: got.append(theirs.recv(1)), scheduler)
        tr.exit(pid, "kill")
        assert tr.receive(ref, timeout=LIMIT).reason == "killed"
        ours.send(b"x")
        eventually(lambda: pid not in tr.processes())
        assert got == []


# ---- What is left over --------------------------------------------------------------------------


def test_engine_calls_of_leftover_code_raise() -> None:
    """A finally block that reaches an engine call before the interrupt does."""
    seen: list[str] = []
    peer = Server.start()
    calls: dict[str, Callable[[], object]] = {
        "self": tr.self,
        "send": lambda: peer.send(1),
        "tr.send": lambda: tr.send(peer, 1),
        "cast": lambda: peer.cast(lambda: seen.append("cast")),
        "call": lambda: peer.call(lambda: seen.append("call")),
        "stop": peer.stop,
        "receive": lambda: tr.receive(timeout=0),
        "sleep": lambda: tr.sleep(0),
        "spawn": lambda: tr.spawn(seen.append, "spawn"),
        "spawn_link": lambda: tr.spawn_link(seen.append, "spawn_link"),
        "start": Server.start,
        "link": lambda: tr.link(peer),
        "unlink": lambda: tr.unlink(peer),
        "monitor": lambda: tr.monitor(peer),
        "exit": lambda: tr.exit(peer, "kill"),
        "Pid.exit": lambda: peer.exit("kill"),
        "trap_exit": tr.trap_exit,
        "register": lambda: tr.register("leftover"),
        "send_after": lambda: tr.send_after(peer, 1, 0),
        "send_many": lambda: tr.send_many([peer], 1),
    }
    me, box = tr.self(), {}

    def run(call: Callable[[], object]) -> None:
        try:
            me.send("ready")
            tr.receive()
        finally:
            try:
                call()
            except BaseException as error:
                box["error"] = type(error).__name__
                raise
            seen.append("call went through")

    for name, call in calls.items():
        pid, ref = tr.spawn_monitor(run, call)
        assert tr.receive(timeout=LIMIT) == "ready"
        tr.exit(pid, "kill")
        assert_killed(pid, ref)
        assert box.get("error", "Killed") == "Killed", name
    assert seen == []
    assert peer.alive
    assert tr.whereis("leftover") is None


def test_what_a_killed_callback_returns_is_dropped() -> None:
    server = Server.start()
    ready, go = threading.Event(), threading.Event()

    def native() -> Any:
        ready.set()
        return go.wait()

    outcome = []

    def call() -> None:
        try:
            outcome.append(server.call(native, timeout=None))
        except tr.CallExit as error:
            outcome.append(error.reason)

    caller = threading.Thread(target=call)
    caller.start()
    assert ready.wait(LIMIT)
    tr.exit(server, "kill")
    caller.join(LIMIT)
    go.set()
    assert outcome == ["killed"]
    eventually(lambda: server not in tr.processes())


def test_links_monitors_and_names_hear_of_a_kill_while_the_code_still_runs() -> None:
    """The code is all C from when it says that it runs to its wait: no kill gets in between."""
    entered, gate, go = threading.Lock(), threading.Lock(), threading.Event()
    with entered, gate:
        stuck = functools.partial(any, map(operator.call, [entered.release, gate.acquire]))
        pid, ref = tr.spawn_monitor(stuck, name="stuck")
        assert entered.acquire(timeout=LIMIT)
        tr.trap_exit()
        tr.link(pid)
        tr.exit(pid, "kill")
        assert {tr.receive(timeout=LIMIT), tr.receive(timeout=LIMIT)} == {
            tr.Down(ref, pid, "killed"),
            tr.Exit(pid, "killed"),
        }
        assert tr.whereis("stuck") is None
        replacement = tr.spawn(go.wait, name="stuck")
        assert tr.whereis("stuck") == replacement
        assert pid in tr.processes()
    go.set()
    tr.receive(tr.monitor(replacement), timeout=LIMIT)


# ---- The next one is never hit ------------------------------------------------------------------


@pytest.mark.parametrize(
    "victim",
    [
        pytest.param(lambda: None, id="python function"),
        pytest.param(operator.not_, id="c callable"),
        pytest.param(time.sleep, id="c callable that lets the lock go"),
    ],
)
def test_a_kill_never_hits_the_next_process_on_the_worker(
    scheduler: str, victim: Callable[..., object]
) -> None:
    me = tr.self()
    args = () if victim.__name__ == "<lambda>" else (0,)

    def bystander(n: int) -> None:
        for _ in range(20):
            n += 1
        me.send(n)

    for n in range(3000):
        pid = tr.spawn(victim, *args, scheduler=scheduler)
        tr.spawn(bystander, n, scheduler=scheduler)
        tr.exit(pid, "kill")
        assert tr.receive(timeout=LIMIT) == n + 20


class CServer(tr.GenServer):
    """A server whose callback is a C callable: no bytecode that an interrupt could arrive at."""

    handle_cast = staticmethod(collections.deque(maxlen=0).append)  # type: ignore[assignment]


def test_kills_of_servers_with_c_callbacks_never_hit_their_neighbours() -> None:
    steady = Server.start()
    for n in range(3000):
        victim = CServer.start()
        for _ in range(3):
            victim.cast(n)
        tr.exit(victim, "kill")
        assert steady.call(lambda n=n: sum(range(n % 50)), timeout=LIMIT) == sum(range(n % 50))


def test_kills_from_many_threads_hit_only_their_victims() -> None:
    steady = [Server.start(scheduler=kind) for kind in ("core", "thread") * 2]
    stop, failures = threading.Event(), []

    def kill() -> None:
        try:
            while not stop.is_set():
                kind = "core" if len(failures) % 2 else "thread"
                pid = tr.spawn(sum, range(1000), scheduler=kind)
                tr.exit(pid, "kill")
        except BaseException as error:  # whatever it was, it was not for this thread
            failures.append(error)

    killers = [threading.Thread(target=kill) for _ in range(3)]
    for killer in killers:
        killer.start()
    try:
        for n in range(10):  # each call waits for its turns among the killers
            for server in steady:
                assert server.call(lambda n=n: n, timeout=LIMIT) == n
    finally:
        stop.set()
    for killer in killers:
        killer.join()
    assert failures == []


def test_a_killer_is_not_hit_by_its_own_kill(scheduler: str) -> None:
    me = tr.self()

    def killer() -> None:
        for _ in range(500):
            child = tr.spawn(spin, scheduler=scheduler)
            tr.exit(child, "kill")
        me.send("done")

    tr.spawn(killer, scheduler=scheduler)
    assert tr.receive(timeout=LIMIT) == "done"


def test_a_kill_of_a_server_that_starts_another_does_not_hit_the_other() -> None:
    """init runs on its starter's thread: a kill of one of the two is not for the other."""
    started, go = threading.Event(), threading.Event()
    inner: list[tr.Pid] = []

    class Inner(Server):
        def init(self) -> None:
            inner.append(tr.self())
            started.set()
            while not go.is_set():
                pass

    outer = Server.start()
    outer.cast(lambda: Inner.start() and None)
    assert started.wait(LIMIT)
    ref = tr.monitor(outer)
    tr.exit(outer, "kill")
    assert tr.receive(ref, timeout=LIMIT).reason == "killed"
    assert inner[0].alive
    go.set()
    eventually(lambda: outer not in tr.processes())
    assert inner[0].call(lambda: "lives", timeout=LIMIT) == "lives"


def test_a_kill_in_init_fails_the_start() -> None:
    """On a thread that is not the engine's, init is left at its next engine call."""
    ready = threading.Event()

    class Slow(Server):
        def init(self) -> None:
            ready.set()
            while True:
                tr.self()

    def kill() -> None:
        assert ready.wait(LIMIT)
        tr.exit(tr.whereis("slow"), "kill")

    for limit in (None, LIMIT):
        killer = threading.Thread(target=kill)
        killer.start()
        with pytest.raises(tr.StartError) as caught:
            Slow.start(name="slow", timeout=limit)
        assert caught.value.reason == "killed"
        killer.join()
        ready.clear()


def test_context_managers_of_a_killed_process_are_left(scheduler: str) -> None:
    """Locks that a killed process held by `with` are released when its code unwinds."""
    lock = threading.Lock()

    def hold() -> None:
        with lock, contextlib.suppress(ValueError):
            spin()

    for _ in range(20):
        pid, ref = running(hold, scheduler)
        eventually(lock.locked)
        tr.exit(pid, "kill")
        assert_killed(pid, ref)
        assert lock.acquire(timeout=LIMIT)
        lock.release()


@pytest.mark.parametrize("victim", [spin, functools.partial(time.sleep, 0.2)])
def test_o43_a_kill_leaves_nothing_set_that_other_threads_run_into(
    victim: Callable[[], object], scheduler: str
) -> None:
    """A request to look for an interrupt that stays set slows all code and stops traced code."""
    pid, ref = running(victim, scheduler)
    pid.exit("kill")
    assert_killed(pid, ref)
    ran = threading.Event()

    def run_traced() -> None:
        sys.settrace(lambda *_: None)
        ran.set()

    threading.Thread(target=run_traced, daemon=True).start()
    assert ran.wait(LIMIT)


def test_o43_one_that_blocks_on_after_its_kill_stops_no_traced_thread(scheduler: str) -> None:
    """Under a debugger, or while coverage is measured, all code is traced."""
    ends, ran = os.pipe(), threading.Event()
    pid, ref = running(functools.partial(os.read, ends[0], 1), scheduler)
    pid.exit("kill")
    assert tr.receive(ref, timeout=LIMIT).reason == "killed"

    def run_traced() -> None:
        sys.settrace(lambda *_: None)
        ran.set()

    threading.Thread(target=run_traced, daemon=True).start()
    try:
        assert ran.wait(LIMIT)
    finally:
        os.write(ends[1], b".")
        eventually(lambda: pid not in tr.processes())
        for end in ends:
            os.close(end)


def by_hand(lock: Any) -> None:
    lock.acquire()
    try:
        pass
    finally:
        lock.release()


def by_a_limit(lock: Any) -> None:
    if lock.acquire(timeout=LIMIT):
        lock.release()


def by_a_deadline(lock: Any) -> None:
    """Its argument calls another method, later."""
    end = time.monotonic() + LIMIT
    if lock.acquire(timeout=end - time.monotonic()):
        lock.release()


def by_another_name(lock: Any) -> None:
    acquire = lock.acquire
    acquire()
    try:
        pass
    finally:
        lock.release()


def by_another_name_at_once(lock: Any) -> None:
    """In one line: 3.13 stores and loads it in one instruction."""
    acquire = lock.acquire; acquire()  # fmt: skip # noqa: E702
    try:
        pass
    finally:
        lock.release()


def by_a_name_of_some(lock: Any) -> None:
    """Whether the name has a value is looked at when it is loaded."""
    if lock is not None:
        acquire = lock.acquire
    acquire()
    try:
        pass
    finally:
        lock.release()


def by_trying(lock: Any) -> None:
    while not lock.acquire(timeout=0.001):
        pass
    try:
        pass
    finally:
        lock.release()


def by_a_condition(lock: Any) -> None:
    with threading.Condition(lock):
        pass


def by_with(lock: Any) -> None:
    with lock:
        pass


HANDLER = logging.StreamHandler(io.StringIO())


def by_logging(lock: Any) -> None:
    HANDLER.lock = lock
    HANDLER.handle(logging.makeLogRecord({"msg": "hello"}))


ANYWHERE = [by_logging, by_with]
# Else nobody knows where the victim is.
UNDER_THE_GIL = [
    by_hand, by_a_limit, by_a_deadline, by_another_name, by_another_name_at_once, by_a_name_of_some,
    by_trying, by_a_condition,
]


@pytest.mark.parametrize("take", ANYWHERE + (UNDER_THE_GIL if GIL else []))
def test_o43_a_kill_of_who_waits_for_a_lock_leaves_it_free(
    take: Callable[[Any], None], scheduler: str
) -> None:
    """One that is torn out right where it got the lock would never let go of it."""
    lock = threading.RLock()
    waits: list[int] = []

    def wait() -> None:
        waits.append(threading.get_ident())
        take(lock)

    with lock:
        pid, ref = running(wait, scheduler)
        eventually(lambda: waits and (not GIL or is_inside(waits[0], take)))
        pid.exit("kill")
        assert tr.receive(ref, timeout=LIMIT).reason == "killed"
    eventually(lambda: pid not in tr.processes())
    assert lock.acquire(timeout=LIMIT)


@pytest.mark.parametrize("take", ANYWHERE + (UNDER_THE_GIL if GIL else []))
def test_o43_kills_of_who_takes_a_lock_all_the_time_leave_it_free(
    take: Callable[[Any], None], scheduler: str
) -> None:
    """Found at the lock again and again, it is not torn out there all the same."""
    lock = threading.RLock()

    def again_and_again() -> None:
        while True:
            take(lock)

    for _ in range(40):
        pid, ref = running(again_and_again, scheduler)
        pid.exit("kill")
        assert tr.receive(ref, timeout=LIMIT).reason == "killed"
        assert lock.acquire(timeout=LIMIT)
        lock.release()
    eventually(lambda: tr.scheduler_info().interrupts == 0)


@pytest.mark.skipif(not GIL, reason="where a victim is is known under the GIL only")
def test_o43_a_kill_of_who_takes_one_lock_after_the_other_leaves_them_all_free() -> None:
    """The end of a round of that loop is no good place: the lock of the round is still taken."""
    locks = [threading.Lock() for _ in range(3)]

    def take_all() -> None:
        for lock in locks:
            lock.acquire()
        try:
            pass
        finally:
            for lock in locks:
                lock.release()

    for number in range(20):
        with locks[1]:
            pid, ref = running(take_all, "thread")
            eventually(locks[0].locked)
            pid.exit("kill")
            assert tr.receive(ref, timeout=LIMIT).reason == "killed"
            tr.receive(timeout=0.01 * (number % 2), default=None)  # it is tried again meanwhile
        eventually(lambda: pid not in tr.processes())  # noqa: B023
        assert not any(lock.locked() for lock in locks)


@pytest.mark.skipif(not GIL, reason="where a victim is is known under the GIL only")
def test_o43_a_kill_between_two_looks_of_the_interpreter_leaves_the_lock_free() -> None:
    """Since 3.13 a thread that gave the GIL up sees its interrupt at its next look only."""
    lock = threading.Lock()

    def straight() -> None:
        while True:
            lock.acquire()
            try:
                pass
            finally:
                lock.release()

    for _ in range(200):
        pid, ref = running(straight, "core")
        pid.exit("kill")
        assert_killed(pid, ref)
        assert lock.acquire(timeout=LIMIT)
        lock.release()


@pytest.mark.skipif(not GIL, reason="which of them stand at the lock is known under the GIL only")
@pytest.mark.parametrize("take", [by_logging, by_with, by_hand, by_a_limit])
def test_o43_a_crowd_that_only_takes_one_lock_is_gone_soon_after_its_kill(
    take: Callable[[Any], None], scheduler: str
) -> None:
    """Whenever somebody looks, nearly all stand at the lock."""
    lock = threading.RLock()

    def again_and_again() -> None:
        while True:
            take(lock)

    victims = [running(again_and_again, scheduler) for _ in range(20)]
    for pid, _ in victims:
        pid.exit("kill")
    for pid, ref in victims:
        assert_killed(pid, ref)
    assert lock.acquire(timeout=LIMIT)


@pytest.mark.skipif(
    not GIL or sys.version_info < (3, 12), reason="the monitoring of 3.12 and later, under the GIL"
)
def test_o43_a_debugger_that_comes_meanwhile_lets_killed_takers_of_a_lock_end() -> None:
    """The interpreter forgets whose the events of instructions are when a second tool comes."""
    lock, monitoring = threading.Lock(), sys.monitoring
    instruction, debugger = monitoring.events.INSTRUCTION, monitoring.DEBUGGER_ID

    def again_and_again() -> None:
        while True:
            by_hand(lock)

    def is_armed(code: types.CodeType) -> bool:
        tools = set(range(6)) - {debugger}
        return any(monitoring.get_local_events(tool, code) & instruction for tool in tools)

    codes = [again_and_again.__code__, by_hand.__code__]
    monitoring.use_tool_id(debugger, "a test's")
    try:
        with lock:
            victims = [running(again_and_again, "thread") for _ in range(20)]
            for pid, _ in victims:
                pid.exit("kill")
            for code in codes:
                eventually(functools.partial(is_armed, code))
                monitoring.set_local_events(debugger, code, instruction)
        for pid, ref in victims:
            assert_killed(pid, ref)
    finally:
        for code in codes:
            monitoring.set_local_events(debugger, code, 0)
        monitoring.free_tool_id(debugger)
    assert lock.acquire(timeout=LIMIT)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring is of 3.12")
def test_o43_kills_hit_where_other_tools_have_all_ids() -> None:
    programs.assert_prints(
        """
        import sys, threading, time
        for tool in range(6):
            sys.monitoring.use_tool_id(tool, f"mine {tool}")
        import tailrace as tr
        lock, go, after = threading.Lock(), threading.Event(), []
        def wait():
            if go.wait():
                after.append("went on")
            lock.acquire()
        def sleep_all_the_time():
            while True:
                time.sleep(0.001)
                if after:
                    lock.acquire()
        for victim in wait, sleep_all_the_time:
            pid, ref = tr.spawn_monitor(victim)
            while pid not in tr.processes():
                time.sleep(0.001)
            pid.exit("kill")
            assert tr.receive(ref, timeout=60).reason == "killed"
            go.set()
            while pid in tr.processes():
                time.sleep(0.001)
        print(after)
        """,
        "[]",
        prelude="",
    )


@pytest.mark.skipif(not GIL, reason="nobody is traced for it without the GIL")
def test_o43_one_that_is_killed_at_a_lock_keeps_its_own_trace_function() -> None:
    """A debugger or a coverage tool sees what is cleaned up."""
    lock, seen, kept = threading.RLock(), set(), []

    def trace(frame: Any, event: str, argument: Any) -> Any:
        seen.add(frame.f_code.co_name)
        return trace

    def clean_up() -> None:
        kept.append(sys.gettrace() is trace)

    def again_and_again() -> None:
        try:
            while True:
                by_hand(lock)
        finally:
            clean_up()

    def traced() -> None:
        sys.settrace(trace)
        again_and_again()

    for _ in range(20):
        pid, ref = running(traced, "core")
        pid.exit("kill")
        assert_killed(pid, ref)
    assert kept == [True] * len(kept)
    assert "clean_up" in seen
    assert lock.acquire(timeout=LIMIT)


def test_o43_a_kill_interrupts_what_spins_in_a_function_named_as_one_of_a_lock(
    scheduler: str,
) -> None:
    class Busy:
        def acquire(self) -> None:
            while True:
                pass

    pid, ref = running(Busy().acquire, scheduler)
    pid.exit("kill")
    assert_killed(pid, ref)
