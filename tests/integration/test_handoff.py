"""A callback that blocks, waits or spins stops nobody else.

Proved by events, not by times: what has to go on is told to let the blocked one go.
"""

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import GIL, LIMIT, eventually

import tailrace as tr


class Server(tr.GenServer):
    """Every request is a function, whose result is the callback's."""

    def handle_call(self, request: Callable[[], Any], caller: tr.From) -> Any:
        return request()

    def handle_cast(self, request: Callable[[], Any]) -> Any:
        request()


@pytest.fixture
def others() -> list[tr.Pid]:
    return [Server.start() for _ in range(20)]


def ring(servers: list[tr.Pid], rounds: int) -> None:
    """Send a token round all servers, which needs all of them to be served."""
    done = threading.Event()

    def step(left: int) -> Callable[[], None]:
        if left == 0:
            return done.set
        return lambda: servers[left % len(servers)].cast(step(left - 1))

    servers[0].cast(step(rounds * len(servers)))
    assert done.wait(LIMIT)


class Blocked:
    """A way to block and the way to end it."""

    def __init__(self, kind: str) -> None:
        self.ready, self.kind = threading.Event(), kind
        self.lock, self.go = threading.Lock(), threading.Event()
        self.ours, self.theirs = socket.socketpair()
        self.child: subprocess.Popen[bytes] | None = None
        self.pipe = tempfile.mkdtemp() + "/pipe"
        os.mkfifo(self.pipe)
        if kind == "lock":
            self.lock.acquire()
        if kind == "subprocess":
            self.child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)

    def block(self) -> None:
        self.ready.set()
        match self.kind:
            case "event":
                self.go.wait()
            case "socket":
                self.theirs.recv(1)
            case "lock":
                with self.lock:
                    pass
            case "file":
                with open(self.pipe) as file:
                    assert file.read() == "go"
            case "subprocess":
                assert self.child is not None
                self.child.wait()
            case "sleep":
                while not self.go.is_set():
                    time.sleep(0.02)
            case "receive":
                tr.receive()
            case "spin":
                while not self.go.is_set():
                    pass
            case "spin in short callbacks":
                if not self.go.is_set():
                    tr.self().cast(self.block)

    def release(self, pid: tr.Pid) -> None:
        self.go.set()
        pid.send("go")
        self.ours.send(b"x")
        if self.kind == "lock":
            self.lock.release()
        if self.kind == "file":
            Path(self.pipe).write_text("go")
        if self.child is not None:
            self.child.communicate(b"\n")

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()
        shutil.rmtree(Path(self.pipe).parent)
        if self.child is not None:
            self.child.kill()
            self.child.wait()


KINDS = ["event", "socket", "lock", "file", "subprocess", "sleep", "receive", "spin",
         "spin in short callbacks"]


@pytest.fixture(params=KINDS)
def blocked(request: pytest.FixtureRequest) -> Iterator[Blocked]:
    blocked = Blocked(request.param)
    yield blocked
    blocked.close()


def test_o82_a_callback_that_does_not_return_stops_no_other_server(
    blocked: Blocked, others: list[tr.Pid]
) -> None:
    server = Server.start()
    server.cast(blocked.block)
    assert blocked.ready.wait(LIMIT)
    ring(others, rounds=3)
    fresh = Server.start()
    assert fresh.call(lambda: "fresh", timeout=LIMIT) == "fresh"
    assert server.alive
    blocked.release(server)
    assert server.call(lambda: "back", timeout=LIMIT) == "back"
    ring([*others, server], rounds=3)


def test_o82_several_at_once_stop_nobody(others: list[tr.Pid]) -> None:
    kinds = [kind for kind in KINDS if kind != "subprocess"]
    blocked = [Blocked(kind) for kind in kinds]
    servers = [Server.start() for _ in blocked]
    for server, way in zip(servers, blocked, strict=True):
        server.cast(way.block)
    for way in blocked:
        assert way.ready.wait(LIMIT)
    ring(others, rounds=1)
    for server, way in zip(servers, blocked, strict=True):
        way.release(server)
        way.close()
    ring([*others, *servers], rounds=1)


def test_a_callback_that_waits_in_a_call_hands_off(others: list[tr.Pid]) -> None:
    """The callee is served although the caller's callback has not returned; many deep."""

    def nest(servers: list[tr.Pid]) -> Any:
        if not servers:
            return lambda: ring(others, rounds=1) or 0
        return lambda: 1 + servers[0].call(nest(servers[1:]), timeout=LIMIT)

    chain = [Server.start() for _ in range(30)]
    for _ in range(3):
        assert chain[0].call(nest(chain[1:]), timeout=LIMIT) == 29


def test_a_callback_that_waits_in_receive_hands_off(others: list[tr.Pid]) -> None:
    me, waiting = tr.self(), [Server.start() for _ in range(50)]
    for server in waiting:
        server.cast(lambda: (me.send(tr.self()), me.send(tr.receive())))
    for _ in waiting:
        assert tr.receive(timeout=LIMIT) in waiting
    ring(others, rounds=2)
    for n, server in enumerate(waiting):
        server.send(n)
    assert sorted(tr.receive(timeout=LIMIT) for _ in waiting) == list(range(50))


def test_a_callback_that_sleeps_in_the_engine_hands_off(others: list[tr.Pid]) -> None:
    slept, sleeping = threading.Event(), threading.Event()
    sleeper = Server.start()
    sleeper.cast(lambda: (sleeping.set(), tr.sleep(0.5), slept.set()))
    assert sleeping.wait(LIMIT)
    ring(others, rounds=1)
    sleeper.exit("kill")


def test_1000_sleepers_sleep_at_the_same_time() -> None:
    """None of them could be over if they did not all run at once, up to the limit of threads."""
    me, together = tr.self(), 400
    barrier = threading.Barrier(together)

    def sleeper() -> None:
        barrier.wait(LIMIT)  # passes when 400 are inside
        me.send("over")

    for _ in range(2 * together):
        tr.spawn(sleeper)
    assert [tr.receive(timeout=LIMIT) for _ in range(2 * together)] == ["over"] * 2 * together


def test_1000_sleepers_in_the_engine() -> None:
    me = tr.self()
    for _ in range(1000):
        tr.spawn(lambda: (tr.sleep(0.01), me.send("over")))
    assert [tr.receive(timeout=LIMIT) for _ in range(1000)] == ["over"] * 1000


def test_more_blockers_than_threads_take_turns() -> None:
    tr.shutdown()
    with tr.Engine(max_threads=8):
        me, steady = tr.self(), Server.start()
        for _ in range(100):
            tr.spawn(lambda: (time.sleep(0.005), me.send("over")))
            assert steady.alive
        assert [tr.receive(timeout=LIMIT) for _ in range(100)] == ["over"] * 100
        assert steady.call(lambda: "served", timeout=LIMIT) == "served"


class Naps(tr.GenServer):
    """Blocks again and again; `naps` has an item for each time."""

    def init(self, naps: list[None], over: threading.Event, seconds: float) -> None:
        self.naps, self.over, self.seconds = naps, over, seconds

    def handle_cast(self, message: object) -> None:
        time.sleep(self.seconds)
        self.naps.append(None)
        if not self.over.is_set():
            tr.self().cast(message)


def answers_meanwhile(server: tr.Pid, naps: list[None]) -> bool:
    """Whether a server answers many calls while others nap once."""
    first = len(naps)
    for _ in range(500):
        server.call(tr.self, timeout=LIMIT)
    return (len(naps) - first) * 5 < 500


@pytest.fixture
def short_of_threads() -> Iterator[Callable[[int, int, float], list[None]]]:
    """Starts an engine of so many threads, and so many servers that nap for so many seconds."""
    over = threading.Event()

    def start(threads: int, servers: int, seconds: float) -> list[None]:
        tr.Engine(max_threads=threads)
        naps: list[None] = []
        for _ in range(servers):
            Naps.start(naps, over, seconds).cast("go")
        return naps

    tr.shutdown()
    yield start
    over.set()
    tr.shutdown()
    tr.Engine()


def test_servers_that_keep_blocking_wait_for_the_pool_and_not_at_the_core(
    short_of_threads: Callable[[int, int, float], list[None]],
) -> None:
    """When there are more of them than threads, few of their callbacks block at the core.

    They are tried there now and then, and the machine may be busy: looked at until it is so.
    """

    def few_at_the_core() -> bool:
        first, before = len(naps), tr.scheduler_info().handoffs
        eventually(lambda: len(naps) > first + 1000)
        return (tr.scheduler_info().handoffs - before) * 5 < len(naps) - first

    naps = short_of_threads(20, 40, 0.002)
    eventually(few_at_the_core)


def test_servers_that_keep_blocking_do_not_hold_the_core_up_when_threads_are_short(
    short_of_threads: Callable[[int, int, float], list[None]],
) -> None:
    """Another server answers many calls while they nap once (looked at until it is so)."""

    naps = short_of_threads(4, 10, 0.02)
    server = Server.start()
    eventually(lambda: len(naps) > 50)
    eventually(lambda: answers_meanwhile(server, naps))


def test_what_those_in_the_pool_wait_for_is_served_though_it_is_full() -> None:
    """All of them are known to block, and all threads but one wait for the last of them."""

    class Waits(tr.GenServer):
        def handle_call(self, request: object, caller: tr.From) -> None:
            time.sleep(0.002)

        def handle_cast(self, event: threading.Event) -> None:
            begun.release()
            assert event.wait(LIMIT)

        def handle_info(self, event: threading.Event) -> None:
            event.set()

    tr.shutdown()
    with tr.Engine(max_threads=4):
        begun, event = threading.Semaphore(0), threading.Event()
        servers = [Waits.start() for _ in range(4)]
        for server in servers * 5:
            server.call("block for a while", timeout=LIMIT)
        *others, last = servers
        for server in others:
            server.cast(event)
        for _ in others:
            assert begun.acquire(timeout=LIMIT)
        last.send(event)
        assert event.wait(LIMIT)


def test_one_that_blocks_for_the_first_time_does_not_hold_the_core_up_for_long(
    short_of_threads: Callable[[int, int, float], list[None]],
) -> None:
    """No thread is left to hand off to; another server answers many calls while it naps once."""

    def hold() -> None:
        begun.release()
        assert over.wait(2 * LIMIT)

    threads = 4 if GIL else tr.schedulers_online() + 2
    short_of_threads(threads, 0, 0)
    begun, over, server = threading.Semaphore(0), threading.Event(), Server.start()
    for _ in range(threads - 1):
        Server.start().cast(hold)
        assert begun.acquire(timeout=LIMIT)
    naps: list[None] = []
    Naps.start(naps, over, 0.1).cast("go")
    try:
        eventually(lambda: len(naps) > 2)
        eventually(lambda: answers_meanwhile(server, naps))
    finally:
        over.set()


@pytest.mark.parametrize(("threads", "loops"), [(2, 0), (3, 1), (4, 1)])
def test_one_that_blocks_is_served_what_it_waits_for_by_one_that_blocks(
    threads: int, loops: int
) -> None:
    """With as few threads as may be, a hundred times: the other is not left to wait for long."""

    async def use_the_loop() -> None:
        await tr.asleep(LIMIT)

    def nap_and_set(event: threading.Event) -> None:
        time.sleep(0.002)
        event.set()

    tr.shutdown()
    with tr.Engine(max_threads=threads):
        for _ in range(loops):
            tr.spawn(use_the_loop)
        first, second = Server.start(), Server.start()
        for server in [first, second] * 5:
            server.call(lambda: time.sleep(0.002), timeout=LIMIT)
        for _ in range(100):
            event = threading.Event()
            first.cast(lambda event=event: event.wait(LIMIT))
            second.cast(lambda event=event: nap_and_set(event))
            assert event.wait(LIMIT)


class Computing:
    """What computes on an event loop, and lets go of the interpreter lock between two steps."""

    def __init__(self) -> None:
        self.steps, self.over = 0, False

    async def run(self) -> None:
        while not self.over:
            sum(range(20_000))
            self.steps += 1
            await asyncio.sleep(0)


@pytest.mark.parametrize("who", ["a server", "a thread of the program"])
def test_an_event_loop_that_computes_lets_others_have_their_turn(who: str) -> None:
    """Told by steps: between two of them it lets go of the interpreter lock, but too briefly."""
    loop, turns = Computing(), 50

    def naps() -> None:
        for _ in range(turns):
            time.sleep(0.001)

    computing, server = tr.spawn(loop.run), Server.start()
    eventually(lambda: loop.steps > 0)
    before = loop.steps
    if who == "a server":
        for _ in range(turns):
            assert server.call(lambda: "served", timeout=LIMIT) == "served"
            time.sleep(0.001)
    else:
        thread = threading.Thread(target=naps)
        thread.start()
        thread.join()
    taken = loop.steps - before
    tr.exit(computing, "kill")
    assert taken < 200 * turns


def test_the_core_has_its_turn_beside_a_loop_of_the_program_that_computes() -> None:
    loop, calls, server = Computing(), 20, Server.start()

    async def program() -> None:
        computing = asyncio.create_task(loop.run())
        for _ in range(calls):
            assert await server.acall(lambda: "served", timeout=LIMIT) == "served"
            await asyncio.sleep(0.001)  # so that the core is idle again
        computing.cancel()

    asyncio.run(program())
    assert loop.steps < 200 * calls


@contextlib.contextmanager
def loop_that_computes() -> Iterator[Computing]:
    """One of the program's, in a thread of its own, that has awaited the engine."""
    server, loop, me = Server.start(), Computing(), tr.self()

    async def program() -> None:
        await server.acall(lambda: None, timeout=LIMIT)
        me.send("computes")
        await loop.run()

    thread = threading.Thread(target=lambda: asyncio.run(program()))
    thread.start()
    try:
        assert tr.receive(timeout=LIMIT) == "computes"
        yield loop
    finally:
        loop.over = True
        thread.join()


def test_whose_wait_ends_has_its_turn_beside_a_loop_of_the_program_that_computes() -> None:
    """Although nothing else happens in the engine."""
    waits = 20
    with loop_that_computes() as loop:
        for _ in range(waits):
            tr.sleep(0.03)
        taken = loop.steps
    assert taken < 2000 * waits


def test_servers_have_their_turn_beside_such_a_loop_while_a_killed_callback_blocks() -> None:
    """The ticker, which interrupts it again and again, waits for the lock itself, each time."""
    gate, server, calls, me = threading.Lock(), Server.start(), 20, tr.self()
    with gate:
        pid = tr.spawn(lambda: (me.send("blocks"), gate.acquire(), gate.release()))
        assert tr.receive(timeout=LIMIT) == "blocks"
        tr.exit(pid, "kill")
        with loop_that_computes() as loop:
            for _ in range(calls):
                assert server.call(lambda: "served", timeout=LIMIT) == "served"
                tr.sleep(0.03)
            taken = loop.steps
    assert taken < 2000 * calls
    eventually(lambda: pid not in tr.processes())


def test_a_server_handed_off_keeps_its_order_and_never_overlaps() -> None:
    inside, seen = [], []
    server = Server.start()

    def work(n: int) -> None:
        inside.append(n)
        if n % 3 == 0:
            time.sleep(0.001)
        elif n % 3 == 1:
            tr.sleep(0.001)
        assert inside == [n]
        inside.pop()
        seen.append(n)

    for n in range(200):
        server.cast(lambda n=n: work(n))
    server.call(lambda: None, timeout=LIMIT)
    assert seen == list(range(200))


# ---- Deadlocks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [2, 3, 10])
def test_a_cycle_of_calls_raises_in_the_process_that_closes_it(length: int) -> None:
    servers = [Server.start() for _ in range(length)]
    outcome: list[Any] = []

    def call(n: int) -> Callable[[], Any]:
        def run() -> Any:
            try:
                return servers[(n + 1) % length].call(call(n + 1), timeout=None)
            except tr.DeadlockError as error:
                outcome.append((tr.self(), error.cycle))
                return "closed"

        return run

    assert servers[0].call(call(0), timeout=LIMIT) == "closed"
    ((where, cycle),) = outcome
    assert where == servers[-1]
    assert cycle == (servers[-1], *servers[:-1])


def test_a_deadlock_is_told_although_the_calls_have_limits() -> None:
    first, second = Server.start(), Server.start()

    def back() -> str:
        with pytest.raises(tr.DeadlockError) as caught:
            first.call(lambda: None, timeout=5)
        assert caught.value.reason == "deadlock"
        return str(caught.value)

    text = first.call(lambda: second.call(back, timeout=5), timeout=LIMIT)
    assert repr(first) in text
    assert repr(second) in text


def test_calls_that_cross_end_in_one_error_and_one_answer() -> None:
    for _ in range(100):
        servers = [Server.start(), Server.start()]
        barrier = threading.Barrier(2)

        def cross(n: int, servers: Any = servers, barrier: Any = barrier) -> Any:
            barrier.wait(LIMIT)
            try:
                return servers[1 - n].call(lambda: "answer", timeout=LIMIT)
            except tr.DeadlockError:
                return "deadlock"

        results: list[Any] = []
        threads = [
            threading.Thread(
                target=lambda n=n, results=results: results.append(
                    servers[n].call(lambda: cross(n), timeout=LIMIT)  # noqa: B023
                )
            )
            for n in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(results) == ["answer", "deadlock"]


def test_no_deadlock_where_a_third_process_answers() -> None:
    """The callee waits for the caller, but somebody else may still reply: a limit ends it."""
    first, second = Server.start(), Server.start()

    def asks_back() -> Any:
        with pytest.raises(tr.DeadlockError):
            first.call(lambda: None, timeout=LIMIT)
        return "went on"

    assert first.call(lambda: second.call(asks_back, timeout=LIMIT), timeout=LIMIT) == "went on"
    eventually(lambda: first.info().status == "waiting")
