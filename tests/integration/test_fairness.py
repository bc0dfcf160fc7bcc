"""Who gets how many turns, and what a process in a blocked callback is for others (O82 to O95).

Proved by counters that stop together and by events, never by times. On a busy machine the operating
system stops a thread in the middle of a callback, and that server loses turns; so a race is run
again until one was fair. If the scheduler were not, none would be.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from support import GIL, LIMIT, eventually

import tailrace as tr

ENOUGH = 50_000
"""Callbacks after which a race is over: at least fifty slices of one process."""


class Server(tr.GenServer):
    """Every request is a function, whose result is the callback's; other messages are noted."""

    def init(self, noted: list[Any] | None = None) -> None:
        self.noted = noted if noted is not None else []

    def handle_call(self, request: Callable[[], Any], caller: tr.From) -> Any:
        return request()

    def handle_cast(self, request: Callable[[], Any]) -> None:
        request()

    def handle_info(self, message: Any) -> None:
        self.noted.append(message)


class Endless(tr.GenServer):
    """Always has one more message for itself."""

    def handle_cast(self, message: object) -> None:
        tr.self().cast(message)


class Race:
    """Servers that count their callbacks, begin together and end when one of them has ENOUGH."""

    def __init__(self, **entrants: int) -> None:
        self.over = threading.Event()
        self.counts = {priority: [0] * n for priority, n in entrants.items()}
        self.pids = [
            Counter.start(self, counts, n, priority=priority)
            for priority, counts in self.counts.items()
            for n in range(len(counts))
        ]

    def begin(self) -> None:
        def begin_all() -> None:
            for pid in self.pids:
                pid.cast("go")

        tr.spawn(begin_all, scheduler="core")

    def run(self) -> dict[str, list[int]]:
        """How many callbacks each had, by priority."""
        self.begin()
        assert self.over.wait(LIMIT)
        return {priority: [*counts] for priority, counts in self.counts.items()}


class Counter(tr.GenServer):
    """An entrant: has one more message for itself until the race is over."""

    def init(self, race: Race, counts: list[int], n: int) -> None:
        self.race, self.counts, self.n = race, counts, n

    def handle_cast(self, message: object) -> None:
        self.counts[self.n] += 1
        if self.counts[self.n] == ENOUGH:
            self.race.over.set()
        if not self.race.over.is_set():
            tr.self().cast(message)


# ---- Turns --------------------------------------------------------------------------------------


@pytest.mark.parametrize("priority", ["low", "normal", "high"])
def test_o84_equals_take_turns(priority: str) -> None:
    def fair() -> bool:
        counts = Race(**{priority: 8}).run()[priority]
        return min(counts) >= 0.25 * max(counts)

    eventually(fair)


def test_o85_low_gets_one_turn_in_eight_beside_normal() -> None:
    def fair() -> bool:
        counts = Race(normal=4, low=4).run()
        return min(counts["low"]) > 0 and 4 <= sum(counts["normal"]) / sum(counts["low"]) <= 12

    eventually(fair)


@pytest.mark.skipif(not GIL, reason="a place without high ones serves the others meanwhile")
def test_o86_high_goes_first() -> None:
    def fair() -> bool:
        counts = Race(high=4, normal=4, low=4).run()
        others = sum(counts["normal"]) + sum(counts["low"])
        return min(counts["high"]) > 0 and sum(counts["high"]) > 10 * others

    eventually(fair)


def test_o86_whoever_is_passed_over_is_served_all_the_same() -> None:
    """The high ones never stop: nobody else would be served if they had to."""
    endless = [Endless.start(priority="high") for _ in range(8)]
    for pid in endless:
        pid.cast("go")
    for priority in ("low", "normal") * 8:
        pid = Server.start(priority=priority)
        assert pid.call(tr.self, timeout=LIMIT) == pid
    assert all(pid.alive for pid in endless)


def test_o87_a_high_one_that_a_timer_wakes_does_not_queue_behind_the_others() -> None:
    """Behind 20 that always have work, it would wait for 20 slices each time; so for one."""
    race, reached = Race(normal=20), threading.Event()
    waits: list[int] = []

    class Woken(tr.GenServer):
        def init(self) -> None:
            self.before = 0

        def handle_info(self, message: object) -> None:
            total = sum(race.counts["normal"])
            waits.append(total - self.before)
            self.before = total
            if race.over.is_set():
                reached.set()
            else:
                tr.send_after(tr.self(), message, 0)

    woken = Woken.start(priority="high")
    race.begin()
    woken.send("wake")
    assert reached.wait(LIMIT)
    assert len(waits) > 20
    assert sorted(waits)[len(waits) // 2] < 10_000


def test_timers_come_in_the_order_in_which_they_are_due_beside_a_race() -> None:
    noted: list[Any] = []
    race, server = Race(normal=8), Server.start(noted)
    race.begin()
    due = {}  # between what times each is due: a slow machine takes long to set them
    for n in reversed(range(50)):
        before = time.monotonic()
        tr.send_after(server, n, n / 500)
        due[n] = before + n / 500, time.monotonic() + n / 500
    eventually(lambda: len(noted) == 50)
    assert sorted(noted) == list(range(50))
    for index, late in enumerate(noted):
        for early in noted[index + 1 :]:
            assert due[early][1] + 0.001 > due[late][0], f"{late} came before {early}"


# ---- A callback that does not return ------------------------------------------------------------


def test_o82_twelve_endless_loops_stop_nobody() -> None:
    spinning = threading.Semaphore(0)

    def spin() -> None:
        spinning.release()
        while True:
            pass

    spinners = [Server.start() for _ in range(12)]
    for pid in spinners:
        pid.cast(spin)
    for _ in spinners:
        assert spinning.acquire(timeout=LIMIT)
    servers = [Server.start() for _ in range(20)]
    assert [pid.call(tr.self, timeout=LIMIT) for pid in servers] == servers
    assert min(Race(normal=4).run()["normal"]) > 0
    assert all(pid.alive for pid in spinners)


class Blocked:
    """A server inside a callback that waits for an event of the host: the engine knows nothing."""

    def __init__(self) -> None:
        self.noted: list[Any] = []
        self.go, self.pid = threading.Event(), Server.start(self.noted)
        entered = threading.Event()
        self.pid.cast(lambda: (entered.set(), self.go.wait()))
        assert entered.wait(LIMIT)


def test_o91_what_is_sent_to_a_blocked_one_waits_in_order() -> None:
    blocked = Blocked()
    for n in range(100):
        blocked.pid.send(n)
    assert blocked.pid.info().message_queue_len == 100
    assert blocked.noted == []
    blocked.go.set()
    assert blocked.pid.call(tr.self, timeout=LIMIT) == blocked.pid
    assert blocked.noted == list(range(100))


def test_o91_process_info_knows_a_blocked_one() -> None:
    blocked = Blocked()
    tr.link(blocked.pid)
    info = blocked.pid.info()
    assert (info.pid, info.status, info.message_queue_len) == (blocked.pid, "running", 0)
    assert info.links == (tr.self(),)
    tr.unlink(blocked.pid)
    blocked.go.set()
    eventually(lambda: blocked.pid.info().status == "waiting")


def test_o43_o91_a_blocked_one_that_is_killed_is_down_at_once() -> None:
    """Before its callback returns: nobody lets it go until the Down is there."""
    blocked = Blocked()
    ref = tr.monitor(blocked.pid)
    blocked.pid.exit("kill")
    assert tr.receive(ref, timeout=LIMIT) == tr.Down(ref, blocked.pid, "killed")
    assert not blocked.pid.alive
    with pytest.raises(tr.NoProcess):
        blocked.pid.call(tr.self)
    blocked.go.set()


def test_o90_blocked_jobs_beyond_the_threads_wait_their_turn_and_run() -> None:
    """Jobs that block take every thread they may have; the core serves all the same, and the jobs
    that wait are taken in the order in which they were spawned, each by a thread."""
    tr.shutdown()
    with tr.Engine(max_threads=6):
        begun: list[int] = []
        steps = threading.Semaphore(0)

        def job(n: int) -> None:
            begun.append(n)
            steps.acquire()

        for n in range(40):
            tr.spawn(job, n)
        servers = [Server.start() for _ in range(10)]
        eventually(lambda: begun)
        while len(begun) < 40:
            assert [pid.call(tr.self, timeout=LIMIT) for pid in servers] == servers
            before = len(begun)
            steps.release()
            eventually(lambda before=before: len(begun) > before)
        assert sorted(begun) == list(range(40))
        assert all(abs(n - place) < 6 for place, n in enumerate(begun))
        for _ in begun:
            steps.release()


def test_o84_o90_servers_that_block_take_turns_when_threads_are_short() -> None:
    """A slice is over after a millisecond, also in the pool, if others wait for a thread."""

    class Naps(tr.GenServer):
        def init(self, n: int) -> None:
            self.n = n

        def handle_cast(self, message: object) -> None:
            time.sleep(0.001)
            counts[self.n] += 1
            if max(counts) < most:
                tr.self().cast(message)
            else:
                over.set()

    counts, most, over = [0] * 10, 60, threading.Event()
    tr.shutdown()
    with tr.Engine(max_threads=4):
        for n in range(len(counts)):
            Naps.start(n, scheduler="thread").cast("go")
        assert over.wait(LIMIT)
    assert min(counts) > most / 10


# ---- Priorities ---------------------------------------------------------------------------------


def test_o95_a_priority_is_not_inherited() -> None:
    """A high one that waits for a low one does not raise it."""
    blocked = threading.Event()
    low, high = Server.start(priority="low"), Server.start(priority="high")
    high.cast(lambda: low.call(lambda: blocked.wait(), timeout=LIMIT))
    eventually(lambda: low.info().status == "running")
    assert (low.info().priority, high.info().priority) == ("low", "high")
    low.send("more")
    blocked.set()
    assert low.call(tr.self, timeout=LIMIT) == low
    assert (low.info().priority, high.info().priority) == ("low", "high")


@pytest.mark.parametrize("priority", ["low", "normal", "high"])
def test_o95_a_priority_is_given_at_start(priority: str) -> None:
    assert Server.start(priority=priority).info().priority == priority
    assert tr.spawn(tr.receive, priority=priority).info().priority == priority
