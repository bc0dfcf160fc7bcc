"""Kills by the thousand, of code in every state: each hits its victim, nobody else (O5, O43)."""

import contextlib
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from support import LIMIT, eventually

import tailrace as tr
from tailrace import _engine
from tailrace._control import ffi, lib


class Server(tr.GenServer):
    """Every request is a function."""

    def handle_call(self, request: Callable[[], object], caller: tr.From) -> object:
        return request()

    def handle_cast(self, request: Callable[[], object]) -> None:
        request()


@pytest.fixture(autouse=True)
def interrupts_in_del_are_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor shown as warnings by pytest, whose hook is Python code and would be interrupted, too."""

    def hook(problem: "sys.UnraisableHookArgs") -> None:
        if problem.exc_type is not tr._core.Killed:
            sys.__unraisablehook__(problem)

    monkeypatch.setattr(sys, "unraisablehook", hook)


def busy_threads() -> int:
    """How many of the engine's threads are not idle, as it says, but for its event loop's."""
    numbers = ffi.new("tr_counters *")
    lib.tr_engine_counters(_engine.address(), numbers)
    return int(numbers.threads - numbers.threads_idle - numbers.threads_loop)


# ---- Victims ------------------------------------------------------------------------------------

LOCK = threading.Lock()
"""Taken by `with` only, so it is free when nobody lives who holds it."""


def spin() -> None:
    while True:
        pass


def finally_again() -> None:
    """Three loops, each in the `finally` of another: each takes an interrupt of its own."""
    try:
        try:
            spin()
        finally:
            spin()
    finally:
        spin()


def catches_a_few() -> None:
    for _ in range(3):
        with contextlib.suppress(BaseException):
            spin()


def endless() -> Iterator[int]:
    try:
        while True:
            yield 1
    finally:
        sum(range(1000))


class Dropped:
    """Interrupts that arrive in __del__ are printed and lost: they must come again."""

    def __del__(self) -> None:
        sum(range(300))


def drops() -> None:
    while True:
        Dropped()


def holds_a_lock() -> None:
    while True:
        with LOCK:
            sum(range(100))


def calls_down(depth: int = 3) -> None:
    """A chain of calls: the deepest spins, the others wait for it."""
    server = Server.start_link()
    if depth == 0:
        server.call(spin, timeout=None)
    server.call(lambda: calls_down(depth - 1), timeout=None)


class SpinsInInit(Server):
    def init(self) -> None:
        spin()


class SpinsInTerminate(Server):
    def terminate(self, reason: object) -> None:
        spin()


VICTIMS: dict[str, Callable[[], object]] = {
    "spins": spin,
    "spins in finally": finally_again,
    "catches a few": catches_a_few,
    "generator": lambda: [None for _ in endless()],
    "drops objects": drops,
    "holds a lock": holds_a_lock,
    "call chain": calls_down,
    "starts one that spins in init": lambda: SpinsInInit.start_link(),
    "waits for one that spins in init": lambda: SpinsInInit.start_link(timeout=10_000),
    "waits for one that spins in terminate": lambda: SpinsInTerminate.start_link().stop(),
    "C callable": lambda: [sorted(range(1000, 0, -1)) for _ in range(10**9)],
    "short C callable": int,
    "receives": tr.receive,
    "sleeps": lambda: tr.sleep(10_000),
    "sleeps in C for a moment": lambda: [time.sleep(0.001) for _ in range(10**9)],
}


def start(body: Callable[[], object], scheduler: str, how: str) -> tr.Pid:
    if how == "function":
        return tr.spawn(body, scheduler=scheduler)
    server = Server.start(scheduler=scheduler)
    server.cast(body)
    return server


@pytest.mark.parametrize("name", VICTIMS)
def test_o43_a_victim_in_every_state_is_down_at_once_and_gone_soon(name: str) -> None:
    """At once: before its code has ended; then every process it left behind is gone, too."""
    before = {*tr.processes(), tr.self()}
    pause = random.Random(name)
    for n in range(20):
        pid = start(VICTIMS[name], ("core", "thread")[n % 2], ("function", "server")[n // 2 % 2])
        ref = tr.monitor(pid)
        time.sleep(pause.random() * 0.003)
        tr.exit(pid, "kill")
        assert not pid.alive
        assert tr.receive(ref, timeout=LIMIT).reason in ("killed", "normal", "noproc")
        eventually(lambda: {*tr.processes()} <= before)
        assert LOCK.acquire(timeout=LIMIT)
        LOCK.release()


def test_o43_a_storm_of_kills_hits_nobody_else() -> None:
    """2,000 victims, some killed twice, beside servers and functions that must all finish."""
    rest = random.Random(43)
    before = {*tr.processes(), tr.self()}
    steady = [Server.start(scheduler=kind) for kind in ("core", "thread", "core")]
    me, finished = tr.self(), 0

    def bystander(n: int) -> None:
        me.send(("done", sum(range(n))))

    names = [name for name in VICTIMS if "init" not in name and "chain" not in name]
    living: list[tr.Pid] = []
    for n in range(2000):
        living.append(start(VICTIMS[rest.choice(names)], rest.choice(["core", "thread"]),
                            rest.choice(["function", "server"])))
        tr.spawn(bystander, n % 200, scheduler=rest.choice(["core", "thread"]))
        while len(living) > rest.randrange(6):
            pid = living.pop(rest.randrange(len(living)))
            tr.exit(pid, "kill")
            tr.exit(pid, "kill")
        if n % 100 == 0:
            for server in steady:
                assert server.call(lambda n=n: sum(range(n)), timeout=LIMIT) == sum(range(n))
    for pid in living:
        tr.exit(pid, "kill")
    while finished < 2000:
        word, _ = tr.receive(timeout=LIMIT)
        assert word == "done"
        finished += 1
    for server in steady:
        assert server.call(lambda: "lives", timeout=LIMIT) == "lives"
        tr.exit(server, "kill")
    eventually(lambda: {*tr.processes()} <= before)


@pytest.mark.parametrize("scheduler", ["core", "thread"])
def test_o43_who_catches_interrupts_gets_one_after_the_other_and_stays_visible(
    scheduler: str,
) -> None:
    gate, ready, caught = threading.Event(), threading.Event(), []

    def stubborn(depth: int) -> None:
        try:
            stubborn(depth - 1) if depth > 0 else (ready.set(), spin())
        finally:  # each interrupt ends one of these, and the next one begins
            caught.append(depth)
            gate.wait() if len(caught) >= 10 else spin()

    pid, ref = tr.spawn_monitor(lambda: stubborn(50), scheduler=scheduler)
    assert ready.wait(LIMIT)
    tr.exit(pid, "kill")
    assert not pid.alive
    assert tr.receive(ref, timeout=LIMIT).reason == "killed"
    eventually(lambda: len(caught) >= 10)
    assert pid in tr.processes()  # its slot, for as long as its code runs
    assert tr.process_info(pid) is None
    gate.set()
    eventually(lambda: pid not in tr.processes())


def test_o43_a_thread_that_a_killed_process_keeps_is_counted() -> None:
    """Blocked in C: it cannot be interrupted, and what serves the others is another thread."""
    go, ready, server = threading.Lock(), threading.Event(), Server.start()
    with go:
        pid = tr.spawn(lambda: (ready.set(), go.acquire(), go.release()), scheduler="core")
        assert ready.wait(LIMIT)
        tr.exit(pid, "kill")
        assert server.call(lambda: "served", timeout=LIMIT) == "served"
        assert pid in tr.processes()
        eventually(lambda: busy_threads() == 1)
    eventually(lambda: pid not in tr.processes())
    eventually(lambda: busy_threads() == 0)
