"""A hostile program: all that a callback can do to the others, at random, beside an innocent one.

    python tests/hostile.py [--seconds 600] [--seed N] [--bound MILLISECONDS]
    python tests/hostile.py --exits 200 [--seed N]

The first form lets troublemakers of every kind loose: they spin, block, call in circles, kill,
fork, allocate, raise, swallow what should end them. Beside them a message is due each millisecond
at each of two servers that have nothing to do with it, one of normal and one of high priority (an
open loop: it is due whether or not the one before it was handled). In the second half of the time
a quarter of the troublemakers are of high priority, too. In the end every kind must have got
somewhere, and nothing may be left of them: no process, thread, child or file, and the memory must
not have grown. It prints what it found as JSON.
`--bound` makes it fail when the 99.9th percentile of the delays at the normal server is above that
in the first half, or at the high one above a quarter of it in the second. High troublemakers
always have something to do, and leave one turn in 32 to the normal ones (O86): in the second half
that server's delays may be five times the bound.

The second form starts that many such programs and ends each at a random moment in a random way;
each must end in the time that the engine promises, and leave no child behind.

The random numbers come from the seed; what the threads make of them does not.
"""

from __future__ import annotations

import _socket
import argparse
import array
import asyncio
import contextlib
import faulthandler
import gc
import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from support import GIL, opened

import tailrace as tr

LIMIT = 120.0
"""Seconds for what takes a moment, on the slowest machine: reaching it is a failure."""

DRAIN = 30.0
"""Seconds in which a program must end: the engine gives its processes ten."""

CROWD = 80
"""How many troublemakers there are at most before the oldest are killed."""

WINDOW = 60.0
"""Seconds in which every kind must have got somewhere."""

chance = random.Random()
done: Counter[str] = Counter()
"""How often each kind got somewhere; counts lost between threads do not matter."""

failures: list[str] = []

crowd: list[tr.Pid] = []
"""The troublemakers, oldest first; some have ended."""


# ---- The innocent servers -----------------------------------------------------------------------


class Probe(tr.GenServer):
    """Notes by how much each message was late, and has another one sent to itself in a second."""

    def init(self) -> None:
        self.delays = array.array("q")
        start = time.monotonic_ns() + 100_000_000
        for n in range(1000):
            self.set_timer(start + n * 1_000_000)

    def set_timer(self, due: int) -> None:
        tr.send_after(tr.self(), due, max(0, due - time.monotonic_ns()) / 1e9)

    def handle_info(self, due: int) -> None:
        self.delays.append(time.monotonic_ns() - due)
        self.set_timer(due + 1_000_000_000)

    def handle_call(self, request: object, caller: tr.From) -> array.array[int]:
        return self.delays


SHARES = {"normal": 1.0, "high": 0.25, "normal beside high": 5.0}
"""Shares of the bound."""

priorities = ["low", "normal", "normal"]
"""Those of the troublemakers; in the second half "high", too."""


def percentiles(delays: array.array[int]) -> dict[str, float]:
    """In milliseconds."""
    ordered = sorted(delays)
    last = len(ordered) - 1
    ranks = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
    return {name: ordered[round(last * rank)] / 1e6 for name, rank in ranks.items()}


# ---- Troublemakers ------------------------------------------------------------------------------
#
# Each function starts one, or a few that belong together, and gives their pids: they are killed
# sooner or later by whoever feels like it.

Kind = Callable[[], "list[tr.Pid]"]
KINDS: dict[str, Kind] = {}


def kind(start: Kind) -> Kind:
    KINDS[start.__name__] = start
    return start


class Server(tr.GenServer):
    """Every request is a function."""

    def handle_call(self, request: Callable[[], Any], caller: tr.From) -> Any:
        return request()

    def handle_cast(self, request: Callable[[], Any]) -> None:
        request()

    def handle_info(self, message: object) -> None:
        pass


def server(work: Callable[[], Any]) -> list[tr.Pid]:
    """A server that does the work in one callback."""
    pid = Server.start(priority=chance.choice(priorities))
    pid.cast(work)
    return [pid]


def again_and_again(work: Callable[[], Any]) -> list[tr.Pid]:
    """A server that does the work in one callback after the other."""

    def once() -> None:
        work()
        tr.self().cast(once)

    return server(once)


@kind
def spinner() -> list[tr.Pid]:
    def spin() -> None:
        done["spinner"] += 1
        while True:
            pass

    return server(spin)


@kind
def traced_spinner() -> list[tr.Pid]:
    """Has a debugger's trace function."""

    def spin() -> None:
        sys.settrace(lambda *event: None)
        try:
            for _ in range(chance.randrange(10_000)):
                pass
        finally:
            sys.settrace(None)
        done["traced_spinner"] += 1

    return again_and_again(spin)


@kind
def sleeper() -> list[tr.Pid]:
    def sleep() -> None:
        time.sleep(chance.random() / 50)
        done["sleeper"] += 1

    return again_and_again(sleep)


@kind
def sleeper_in_the_engine() -> list[tr.Pid]:
    def sleep() -> None:
        tr.sleep(chance.random() / 50)
        done["sleeper_in_the_engine"] += 1

    return again_and_again(sleep)


@kind
def reader() -> list[tr.Pid]:
    """Blocks on a socket to which nobody writes."""

    def read() -> None:
        # Of C's: those of the module socket are made in Python, and a kill in between loses one.
        ours, theirs = _socket.socketpair()
        ours.settimeout(0.02)
        with contextlib.suppress(TimeoutError):
            ours.recv(1)
        ours.close()
        theirs.close()
        done["reader"] += 1

    return again_and_again(read)


@kind
def lock_holders() -> list[tr.Pid]:
    """Several blocked by one that holds the lock and sleeps."""
    lock = threading.Lock()

    def hold() -> None:
        if lock.acquire(timeout=0.1):
            try:
                time.sleep(0.002)
            finally:
                lock.release()
        done["lock_holders"] += 1

    return [pid for _ in range(4) for pid in again_and_again(hold)]


@kind
def circle() -> list[tr.Pid]:
    """Servers each of which calls the next."""
    servers = [Server.start() for _ in range(chance.randrange(2, 7))]

    def call(n: int) -> Any:
        with contextlib.suppress(tr.CallExit):
            return servers[n % len(servers)].call(lambda: call(n + 1), timeout=LIMIT)

    def begin() -> None:
        call(1)
        done["circle"] += 1

    servers[0].cast(begin)
    return servers


@kind
def chain() -> list[tr.Pid]:
    """Forty callbacks, each waiting for the next."""
    servers = [Server.start() for _ in range(40)]

    def call(n: int) -> int:
        with contextlib.suppress(tr.CallExit):
            if n < len(servers):
                return servers[n].call(lambda: call(n + 1), timeout=LIMIT)
        return n

    def begin() -> None:
        call(1)
        done["chain"] += 1

    servers[0].cast(begin)
    return servers


@kind
def deep() -> list[tr.Pid]:
    """Recursion until the interpreter has enough."""

    def recurse() -> None:
        recurse()

    def begin() -> None:
        with contextlib.suppress(RecursionError):
            recurse()
        done["deep"] += 1

    return again_and_again(begin)


@kind
def killer() -> list[tr.Pid]:
    def kill() -> None:
        for _ in range(30):
            if crowd:
                reason = chance.choice(["kill", "shutdown", "normal", "boom", ("any", "thing")])
                tr.exit(chance.choice(crowd), reason)
            tr.sleep(0.001)
        done["killer"] += 1

    return [tr.spawn(kill, scheduler=chance.choice(["core", "thread"]))]


@kind
def family() -> list[tr.Pid]:
    """Linked, so that all die with the one that raises."""

    def parent() -> None:
        children = [tr.spawn_link(tr.receive, scheduler="core") for _ in range(10)]
        refs = [tr.monitor(child) for child in children]
        done["family"] += len(refs)
        raise ValueError("all of you")

    return [tr.spawn(parent)]


@kind
def allocator() -> list[tr.Pid]:
    def allocate() -> None:
        rings = [[None] for _ in range(1000)]
        for ring in rings:
            ring[0] = ring  # type: ignore[call-overload]
        tr.self().send(bytes(1_000_000))
        if chance.random() < 0.02:
            gc.collect()
        tr.sleep(0.005)
        done["allocator"] += 1

    return again_and_again(allocate)


class Unprintable(Exception):
    """Cannot even be told."""

    def __str__(self) -> str:
        raise self

    __repr__ = __str__


class Unwilling:
    """Raises when it is thrown away, which everybody ignores."""

    def __del__(self) -> None:
        raise ValueError("never mind")


@kind
def raiser() -> list[tr.Pid]:
    errors = [
        ValueError(),
        KeyboardInterrupt(),
        SystemExit(3),
        GeneratorExit(),
        Unprintable(),
        StopIteration(),
        MemoryError(),
        asyncio.CancelledError(),
        tr.ProcessExit("mine"),
    ]

    def fail() -> None:
        done["raiser"] += 1
        unwilling = Unwilling()
        del unwilling
        raise chance.choice(errors)

    return server(fail)


@kind
def swallower() -> list[tr.Pid]:
    """Does not end when it is told to, for a while."""

    def swallow() -> None:
        for _ in range(5):
            try:
                for _ in range(200_000):
                    pass
            except BaseException:
                pass
        done["swallower"] += 1

    return again_and_again(swallow)


@kind
def timers() -> list[tr.Pid]:
    def set_and_cancel() -> None:
        ours = [tr.send_after(tr.self(), n, chance.random() / 20) for n in range(200)]
        for timer in ours[::2]:
            timer.cancel()
        tr.sleep(0.01)
        done["timers"] += 1

    return again_and_again(set_and_cancel)


# The next two have no pids that others could kill: Python loses a child and its pipes when it is
# interrupted while it makes them, and what a forked child finds must hold.


@kind
def runner() -> list[tr.Pid]:
    """Waits for programs."""

    def run() -> None:
        for _ in range(3):
            subprocess.run(["/bin/true"], check=True)
            done["runner"] += 1
        tr.exit(tr.self(), "kill")

    server(run)
    return []


@kind
def forker() -> list[tr.Pid]:
    """Forks in a callback."""

    def fork() -> None:
        fork_once()
        done["forker"] += 1
        tr.exit(tr.self(), "kill")

    server(fork)
    return []


# Without the interpreter lock a child of CPython 3.13 waits for ever in its stop_the_world when
# another thread stopped the world at the moment of the fork. test_fork.py forks there, beside less.
FORKS = GIL
if not FORKS:
    del KINDS["forker"]


def fork_once() -> None:
    """A child in which the engine works, for ever if it has to; it must end as it says."""
    child = os.fork()
    if child == 0:
        signal.alarm(int(LIMIT))
        code = 1
        try:
            child_works()
            code = 42
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) != 42:
        failures.append(f"a forked child ended with {os.waitstatus_to_exitcode(status)}")


def child_works() -> None:
    pid = Server.start()
    assert pid.call(lambda: "served", timeout=LIMIT) == "served"
    ref = tr.monitor(pid)
    pid.exit("kill")
    assert tr.receive(ref, timeout=LIMIT).reason == "killed"


@kind
def visitor() -> list[tr.Pid]:
    """A thread of the program that uses the engine and dies in the middle of it."""
    pid = Server.start()

    def visit() -> None:
        tr.link(pid)
        pid.send("hello")
        with contextlib.suppress(tr.ReceiveTimeout):
            tr.receive(timeout=chance.random() / 50)
        done["visitor"] += 1
        raise SystemExit

    start_thread(visit)
    return [pid]


@kind
def event_loop() -> list[tr.Pid]:
    """An event loop of the program that calls, gives up half of the calls, and computes."""
    [pid] = sleeper()

    async def call(timeout: float) -> None:
        with contextlib.suppress(tr.CallExit, TimeoutError):
            await asyncio.wait_for(pid.acall(int, timeout=LIMIT), timeout)

    async def computes() -> None:
        until = time.monotonic() + chance.random()
        while time.monotonic() < until:
            sum(range(20_000))
            await asyncio.sleep(0)

    async def calls() -> None:
        limits = [chance.choice([0.001, 0.1]) for _ in range(20)]
        await asyncio.gather(*map(call, limits), computes())

    def run() -> None:
        asyncio.run(calls())
        done["event_loop"] += 1

    start_thread(run)
    return [pid]


@kind
def tasks_on_the_loop() -> list[tr.Pid]:
    """Some hold the event loop up for a moment, some do not want to be cancelled."""

    async def child(number: int) -> None:
        try:
            await asyncio.sleep(chance.random() / 50)
            if number == 0:
                time.sleep(chance.random() / 100)
            elif number == 1:
                sum(range(chance.randrange(100_000)))
        except asyncio.CancelledError:
            if chance.random() < 0.5:
                raise

    async def parent() -> None:
        while True:
            async with asyncio.TaskGroup() as group:
                for number in range(10):
                    group.create_task(child(number))
            done["tasks_on_the_loop"] += 1

    return [tr.spawn(parent)]


class AsyncServer(tr.GenServer):
    """Waits for another on the event loop; once that is gone it never rests."""

    def init(self, friend: tr.Pid) -> None:
        self.friend = friend

    async def handle_cast(self, request: object) -> None:
        with contextlib.suppress(tr.CallExit):
            await self.friend.acall(int, timeout=LIMIT)
            await tr.asleep(chance.random() / 50)
        done["async_server"] += 1
        tr.self().cast(request)


@kind
def async_server() -> list[tr.Pid]:
    [friend] = sleeper()
    pid = AsyncServer.start(friend)
    pid.cast("go on")
    return [pid, friend]


@kind
def coroutines() -> list[tr.Pid]:
    """A hundred on the core, linked, that pass tokens round, until one of them has enough."""

    async def pass_on(following: tr.Pid) -> None:
        while True:
            left = await tr.areceive()
            if left == 0:
                raise ValueError("enough")
            await tr.asleep(0.0001)
            following.send(left - 1)
            done["coroutines"] += 1

    async def ring() -> None:
        following = tr.self()
        for _ in range(100):
            following = tr.spawn_link(pass_on, following, scheduler="core")
        for _ in range(10):
            following.send(chance.randrange(1000))
        await pass_on(following)

    return [tr.spawn(ring, scheduler="core")]


class Worker(tr.GenServer):
    """In a process of the system's that may come to any end."""

    def handle_call(self, request: str, caller: tr.From) -> str:
        if request == "die":
            os.kill(os.getpid(), chance.choice([signal.SIGKILL, signal.SIGSEGV]))
        if request == "leave":
            os._exit(5)
        return request


worker_begun = 0.0


@kind
def os_worker() -> list[tr.Pid]:
    """One every two seconds: to start an interpreter keeps a processor busy."""
    global worker_begun
    if time.monotonic() < worker_begun + 2:
        return []
    worker_begun = time.monotonic()

    def use() -> None:
        tr.trap_exit(True)
        pid = Worker.start_link(scheduler="process")
        with contextlib.suppress(tr.CallExit):
            pid.call("work", timeout=LIMIT)
            pid.call(chance.choice(["work", "die", "leave"]), timeout=LIMIT)
            pid.stop(timeout=LIMIT)
        done["os_worker"] += 1

    return [tr.spawn(use)]


threads: list[threading.Thread] = []


def start_thread(run: Callable[[], Any]) -> None:
    thread = threading.Thread(target=run)
    threads[:] = [old for old in threads if old.is_alive()]
    threads.append(thread)
    thread.start()


# ---- Letting them loose -------------------------------------------------------------------------


def be_quiet() -> None:
    """What fails here is meant to; it is told all the same, to nobody."""
    logging.raiseExceptions = False
    logging.basicConfig(stream=open(os.devnull, "w"))  # noqa: SIM115
    threading.excepthook = lambda arguments: None
    sys.unraisablehook = lambda unraisable: None


def let_loose(seconds: float) -> Iterator[None]:
    """Start troublemakers; a step after each, until time is up and every kind got somewhere."""
    begin = time.monotonic()
    kinds = [*KINDS]
    chance.shuffle(kinds)
    while True:
        passed = time.monotonic() - begin
        missing = KINDS.keys() - done.keys()
        if passed > seconds and (not missing or passed > seconds + LIMIT):
            return
        name = kinds.pop() if kinds else chance.choice([*KINDS, *missing])
        crowd.extend(KINDS[name]())
        while len(crowd) > CROWD:
            crowd.pop(0).exit("kill")
        if FORKS and chance.random() < 0.05:
            fork_once()
            done["fork in the main thread"] += 1
        time.sleep(chance.random() / 20)
        yield


class Watch:
    """What must hold while they are loose: everybody gets somewhere, memory does not grow."""

    def __init__(self) -> None:
        self.begin = self.window = time.monotonic()
        self.before = Counter(done)
        self.memory: list[int] = []

    def look(self) -> None:
        now = time.monotonic()
        if now - self.begin > len(self.memory):
            self.memory.append(resident())
        if now - self.window > WINDOW:
            stuck = [name for name in KINDS if done[name] == self.before[name]]
            if stuck:
                failures.append(f"after {now - self.begin:.0f} s, no progress: {stuck}")
            self.window, self.before = now, Counter(done)

    def growth(self) -> float:
        """Of the last quarter above the second, in megabytes."""
        quarter = len(self.memory) // 4
        early, late = self.memory[quarter : 2 * quarter], self.memory[-quarter:]
        return (min(late) - min(early)) / 1e6 if quarter else 0.0


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def must_become(
    what: str, condition: Callable[[], object], details: Callable[[], object] | None = None
) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        if time.monotonic() > deadline:
            failures.append(what if details is None else f"{what}: {details()}")
            return
        time.sleep(0.01)


def end_all(staying: set[tr.Pid]) -> None:
    """Kill those that are left; killers and forkers end by themselves."""

    def all_gone() -> bool:
        left = set(tr.processes()) - staying
        for pid in left.intersection(crowd):
            pid.exit("kill")
        return not left

    for pid in crowd:
        pid.exit("kill")
    for thread in threads:
        thread.join(LIMIT)
    must_become("processes are left", all_gone)


def tasks() -> int:
    return len(os.listdir("/proc/self/task"))


def no_child() -> bool:
    """Reaps those whose parents were killed while they waited."""
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        return True
    return False


def run(seconds: float, bound: float | None) -> dict[str, Any]:
    """The first form; what it found."""
    files, running = opened(), tasks()
    faulthandler.dump_traceback_later(seconds + 5 * LIMIT, exit=True)  # a thread of its own
    probes = [Probe.start(priority=name) for name in ("normal", "high")]
    staying, watch, begin = {*probes, tr.self()}, Watch(), time.monotonic()
    half = 0
    for _ in let_loose(seconds):
        watch.look()
        if "high" not in priorities and time.monotonic() - begin > seconds / 2:
            half = len(probes[0].call("delays", timeout=LIMIT))
            priorities.append("high")
    normal, high = (probe.call("delays", timeout=LIMIT) for probe in probes)
    parts = {"normal": normal[:half], "high": high[half:], "normal beside high": normal[half:]}
    delays = {name: percentiles(part) for name, part in parts.items()}
    crowd.extend(probes)
    end_all(staying)
    tr.shutdown(LIMIT)
    faulthandler.cancel_dump_traceback_later()
    must_become("children are left", no_child)
    must_become("threads are left", lambda: tasks() <= running)
    gc.collect()
    must_become("files are left", lambda: not opened() - files, lambda: opened() - files)
    failures.extend(f"{name} never got anywhere" for name in KINDS if not done[name])
    allowed = 100 if FORKS else 300  # without the lock each thread has a heap of its own
    if watch.growth() > allowed:
        failures.append(f"memory grew by {watch.growth():.0f} MB")
    for name, share in SHARES.items():
        late = delays[name]["p99.9"]
        if bound is not None and late > bound * share:
            failures.append(f"{name}: 99.9 % within {late} ms, more than {bound * share}")
    return {
        "delay_ms": delays,
        "growth_mb": round(watch.growth(), 1),
        "progress": dict(done),
        "failures": failures,
    }


# ---- Ends at random -----------------------------------------------------------------------------


def exit_in_callback() -> None:
    server(lambda: os._exit(3))
    time.sleep(LIMIT)


def fail() -> None:
    raise ValueError("the end")


ENDINGS: dict[str, tuple[int, Callable[[], object]]] = {
    "return": (0, int),
    "raise": (1, fail),
    "sys.exit": (4, lambda: sys.exit(4)),
    "os._exit": (3, lambda: os._exit(3)),
    "os._exit in a callback": (3, exit_in_callback),
    "SIGINT": (-signal.SIGINT, lambda: os.kill(os.getpid(), signal.SIGINT)),
    "SIGTERM": (-signal.SIGTERM, lambda: os.kill(os.getpid(), signal.SIGTERM)),
}
"""How a program ends, and the exit code that this must give."""


def doomed(seconds: float, ending: str) -> None:
    """A program of the second form: troublemakers, and then the end."""
    faulthandler.enable()
    started = time.monotonic()
    for _ in let_loose(LIMIT):
        if time.monotonic() > started + seconds:
            break
    print("ends", flush=True)
    ENDINGS[ending][1]()


def in_group(group: int) -> list[int]:
    """The living members of a process group."""
    found = []
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError, ValueError):
            with open(f"/proc/{int(name)}/stat") as file:
                state, _, its_group = file.read().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state != "Z":
                found.append(int(name))
    return found


def exit_once(arguments: list[str]) -> tuple[float, object, str]:
    """Run one of them: the seconds that its end took, its exit code or None, what it wrote."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", __file__, *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, start_new_session=True) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        program.stdout.readline()
        begin = time.monotonic()
        code: object = None
        try:
            code = program.wait(DRAIN)
        except subprocess.TimeoutExpired:
            program.send_signal(signal.SIGABRT)  # it tells where its threads are
        took = time.monotonic() - begin
        must_become(f"children of {arguments} live", lambda: not in_group(program.pid))
        for pid in in_group(program.pid):
            os.kill(pid, signal.SIGKILL)
        return took, code, program.stderr.read().decode(errors="replace")


def exits(programs: int) -> dict[str, Any]:
    """The second form; what it found."""
    slowest = 0.0
    for _ in range(programs):
        seed, seconds = chance.randrange(2**32), chance.random() * 1.5
        ending = chance.choice([*ENDINGS])
        arguments = ["--seed", str(seed), "--seconds", f"{seconds:.3f}", "--ending", ending]
        took, code, text = exit_once(arguments)
        slowest = max(slowest, took)
        if code != ENDINGS[ending][0]:
            failures.append(f"{arguments} ended with {code} after {took:.1f} s: {text[-4000:]}")
    return {"programs": programs, "slowest_exit_s": round(slowest, 2), "failures": failures}


def main() -> int:
    parser = argparse.ArgumentParser(description="Troublemakers beside an innocent server.")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--bound", type=float, metavar="MILLISECONDS")
    parser.add_argument("--exits", type=int, metavar="PROGRAMS")
    parser.add_argument("--ending", choices=[*ENDINGS], help="be one of those programs")
    options = parser.parse_args()
    chance.seed(options.seed)
    if options.ending:
        be_quiet()
        doomed(options.seconds, options.ending)
        return 0
    print("seed", options.seed, file=sys.stderr, flush=True)
    if options.exits:
        found = exits(options.exits)
    else:
        be_quiet()
        found = run(options.seconds, options.bound)
    print(json.dumps(found, indent=1))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
