"""Schedulers: what a server still gets beside callbacks that spin and callbacks that block.

    python benchmarks/schedulers.py [--quick] [--json FILE]

The probe is an open loop: a message is due each millisecond, whether or not the one before it was
handled, and its delay is the time in the receiver's handler minus the time at which it was due. So
one stall of 100 ms is a hundred late messages, not one. Ours are timers, all set beforehand: the
core sends them by its own clock, whoever holds the interpreter lock. asyncio's are `call_at`; the
peer with threads is one that sleeps until each is due and puts it into the other's queue. Beside
our servers other servers spin or block; beside the peers as many threads do. An event loop that
computes has a task that awaits nothing each tenth of a millisecond or so: the engine's loop beside
ours, one in a thread beside the peers.

The hand-off is the time from where a callback blocks to the callback of the next process. The rest
is blocking work itself: many items on as many threads as an executor has, and 1,000 callbacks that
each sleep 10 ms beside the least time in which the threads could do that.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from harness import Row, main, per_unit, row, timed

import tailrace as tr

LIMIT = 600.0
"""Seconds after which a measurement is given up."""

GROUP = "Schedulers"
CHUNK = 16  # rounds that the peers play between two looks at the clock


@dataclass(frozen=True, slots=True)
class Load:
    """What runs beside the measurement."""

    name: str
    spinners: int = 0
    blockers: int = 0
    loops: int = 0


LOADS = (
    Load("idle"),
    Load("1 spinner", spinners=1),
    Load("10 spinners", spinners=10),
    Load("100 blockers", blockers=100),
    Load("10 spinners, 100 blockers", spinners=10, blockers=100),
)
LOOP = Load("an event loop that computes", loops=1)


# ---- What runs beside ---------------------------------------------------------------------------


class Spinner(tr.GenServer):
    """Has one callback, which never ends."""

    def handle_cast(self, ready: threading.Semaphore) -> None:
        ready.release()
        while True:
            pass


class Blocker(tr.GenServer):
    """Has callbacks that sleep 10 ms, one after the other."""

    def handle_cast(self, ready: threading.Semaphore | None) -> None:
        if ready is not None:
            ready.release()
        time.sleep(0.01)
        tr.self().cast(None)


async def compute(ready: threading.Semaphore, goes_on: Callable[[], bool]) -> None:
    ready.release()
    while goes_on():
        sum(range(20_000))
        await asyncio.sleep(0)


@contextlib.contextmanager
def servers(load: Load) -> Iterator[None]:
    """Servers that spin and block, functions that compute on the loop; killed afterwards."""
    ready = threading.Semaphore(0)
    pids = [Blocker.start() for _ in range(load.blockers)]
    pids += [Spinner.start() for _ in range(load.spinners)]
    for pid in pids:
        pid.cast(ready)
    pids += [tr.spawn(compute, ready, lambda: True) for _ in range(load.loops)]
    for _ in pids:
        ready.acquire()
    try:
        yield
    finally:
        refs = [tr.monitor(pid) for pid in pids]
        for pid in pids:
            pid.exit("kill")
        for ref in refs:
            tr.receive(ref, timeout=LIMIT)


@contextlib.contextmanager
def threads(load: Load) -> Iterator[None]:
    """That many threads that spin, block and run such a loop, stopped afterwards."""
    running = True
    ready = threading.Semaphore(0)

    def spin() -> None:
        ready.release()
        while running:
            pass

    def block() -> None:
        ready.release()
        while running:
            time.sleep(0.01)

    def run_loop() -> None:
        asyncio.run(compute(ready, lambda: running))

    started = [threading.Thread(target=block) for _ in range(load.blockers)]
    started += [threading.Thread(target=spin) for _ in range(load.spinners)]
    started += [threading.Thread(target=run_loop) for _ in range(load.loops)]
    for thread in started:
        thread.start()
    for _ in started:
        ready.acquire()
    try:
        yield
    finally:
        running = False
        for thread in started:
            thread.join()


# ---- The probe: delays in nanoseconds -----------------------------------------------------------

STEP = 1_000_000  # nanoseconds between two messages
LEAD = 50_000_000  # nanoseconds before the first, in which timers are set


class Probe(tr.GenServer):
    """Notes how late its messages are; the last one ends it."""

    def init(self, n: int, done: tr.Pid) -> None:
        self.left, self.done = n, done
        self.delays: list[int] = []

    def handle_info(self, due: int) -> None:
        self.delays.append(time.monotonic_ns() - due)
        self.left -= 1
        if self.left == 0:
            self.done.send(self.delays)


def probe(n: int, load: Load) -> list[int]:
    with servers(load):
        server = Probe.start(n, tr.self())
        first = time.monotonic_ns() + LEAD + 20_000 * n
        for due in range(first, first + n * STEP, STEP):
            tr.send_after(server, due, (due - time.monotonic_ns()) / 1e9)
        delays: list[int] = tr.receive(timeout=LIMIT)
        server.stop()
    return delays


def asyncio_probe(n: int, load: Load) -> list[int]:
    async def work() -> list[int]:
        loop = asyncio.get_running_loop()
        items: asyncio.Queue[int] = asyncio.Queue()
        first = time.monotonic_ns() + LEAD
        for due in range(first, first + n * STEP, STEP):
            loop.call_at(due / 1e9, items.put_nowait, due)
        delays: list[int] = []
        for _ in range(n):
            due = await items.get()
            delays.append(time.monotonic_ns() - due)
        return delays

    with threads(load):
        return asyncio.run(work())


def thread_probe(n: int, load: Load) -> list[int]:
    items: queue.SimpleQueue[int] = queue.SimpleQueue()

    def send() -> None:
        first = time.monotonic_ns() + LEAD
        for due in range(first, first + n * STEP, STEP):
            left = due - time.monotonic_ns()
            if left > 0:
                time.sleep(left / 1e9)
            items.put(due)

    delays: list[int] = []
    with threads(load):
        sender = threading.Thread(target=send)
        sender.start()
        for _ in range(n):
            due = items.get()
            delays.append(time.monotonic_ns() - due)
        sender.join()
    return delays


# ---- Ping-pong: nanoseconds a message -----------------------------------------------------------


class Player(tr.GenServer):
    """Plays ping-pong with a peer until time is up, and then tells what a message cost."""

    def init(self) -> None:
        self.n = 0

    def handle_info(self, message: tuple[tr.Pid, float, tr.Pid] | None) -> None:
        """The first ball, or the end."""
        if message is not None:
            peer, seconds, self.done = message
            self.start = time.perf_counter()
            tr.send_after(tr.self(), None, seconds)
            peer.cast(tr.self())
        else:
            self.done.send(per_unit(time.perf_counter() - self.start, 2 * max(self.n, 1)))

    def handle_cast(self, peer: tr.Pid) -> None:
        self.n += 1
        peer.cast(tr.self())


def ping_pong(seconds: float, load: Load) -> float:
    with servers(load):
        keeper, other = Player.start(), Player.start()
        keeper.send((other, seconds, tr.self()))
        cost: float = tr.receive(timeout=LIMIT)
        keeper.stop()
        other.stop()
    return cost


def asyncio_ping_pong(seconds: float, load: Load) -> float:
    async def work() -> float:
        there: asyncio.Queue[bool] = asyncio.Queue()
        back: asyncio.Queue[bool] = asyncio.Queue()

        async def play() -> None:
            while await there.get():
                back.put_nowait(True)

        other = asyncio.create_task(play())
        n, start, passed = 0, time.perf_counter(), 0.0
        while passed <= seconds:
            for _ in range(CHUNK):
                there.put_nowait(True)
                await back.get()
            n += CHUNK
            passed = time.perf_counter() - start
        there.put_nowait(False)
        await other
        return per_unit(passed, 2 * n)

    with threads(load):
        return asyncio.run(work())


def thread_ping_pong(seconds: float, load: Load) -> float:
    there: queue.SimpleQueue[bool] = queue.SimpleQueue()
    back: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def play() -> None:
        while there.get():
            back.put(True)

    with threads(load):
        other = threading.Thread(target=play)
        other.start()
        n, start, passed = 0, time.perf_counter(), 0.0
        while passed <= seconds:
            for _ in range(CHUNK):
                there.put(True)
                back.get()
            n += CHUNK
            passed = time.perf_counter() - start
        there.put(False)
        other.join()
    return per_unit(passed, 2 * n)


# ---- Hand-off: delays in nanoseconds -----------------------------------------------------------


class Next(tr.GenServer):
    """Notes how long after the block of the other it gets its message."""

    def init(self, n: int, done: tr.Pid) -> None:
        self.left, self.done = n, done
        self.delays: list[int] = []

    def handle_cast(self, sent: int) -> None:
        self.delays.append(time.monotonic_ns() - sent)
        self.left -= 1
        if self.left == 0:
            self.done.send(self.delays)


class BlocksOnce(tr.GenServer):
    """Wakes a server and blocks at once; afterwards it is the following one's turn."""

    def init(self, woken: tr.Pid, following: tr.Pid | None) -> None:
        self.woken, self.following = woken, following

    def handle_cast(self, message: object) -> None:
        self.woken.cast(time.monotonic_ns())
        time.sleep(0.001)
        if self.following is not None:
            self.following.cast(message)


def hand_off(n: int) -> list[int]:
    woken = Next.start(n, tr.self())
    blocks: list[tr.Pid] = []
    for _ in range(n):
        blocks.append(BlocksOnce.start(woken, blocks[-1] if blocks else None))
    blocks[-1].cast(None)
    delays: list[int] = tr.receive(timeout=LIMIT)
    for pid in [*blocks, woken]:
        pid.stop()
    return delays


def asyncio_hand_off(n: int) -> list[int]:
    """What blocks is moved to a thread by hand."""

    async def work() -> list[int]:
        items: asyncio.Queue[int] = asyncio.Queue()
        delays: list[int] = []

        async def note() -> None:
            for _ in range(n):
                sent = await items.get()
                delays.append(time.monotonic_ns() - sent)

        task = asyncio.create_task(note())
        for _ in range(n):
            items.put_nowait(time.monotonic_ns())
            await asyncio.to_thread(time.sleep, 0.001)
        await task
        return delays

    return asyncio.run(work())


def thread_hand_off(n: int) -> list[int]:
    items: queue.SimpleQueue[int] = queue.SimpleQueue()
    delays: list[int] = []

    def note() -> None:
        for _ in range(n):
            sent = items.get()
            delays.append(time.monotonic_ns() - sent)

    thread = threading.Thread(target=note)
    thread.start()
    for _ in range(n):
        items.put(time.monotonic_ns())
        time.sleep(0.001)
    thread.join()
    return delays


# ---- Blocking work -------------------------------------------------------------------------------

THREADS = 64
CORE_THREADS = 2  # of the engine's limit; the pool never gets them


@contextlib.contextmanager
def engine(max_threads: int) -> Iterator[None]:
    """Another engine for a while."""
    tr.shutdown()
    with tr.Engine(max_threads=max_threads):
        yield
    tr.Engine()


def sleep_briefly() -> None:
    time.sleep(0.001)


def use_file() -> None:
    with tempfile.TemporaryFile() as file:
        file.write(bytes(16_384))
        file.seek(0)
        file.read()


def blocking_map(work: Callable[[], None], n: int) -> float:
    with engine(THREADS + CORE_THREADS):
        me = tr.self()

        def one(item: int) -> None:
            work()
            me.send(item)

        def everything() -> None:
            for item in range(n):
                tr.spawn(one, item)
            for _ in range(n):
                tr.receive(timeout=LIMIT)

        return timed(everything, n)


def executor_map(work: Callable[[], None], n: int) -> float:
    def one(item: int) -> int:
        work()
        return item

    with ThreadPoolExecutor(THREADS) as executor:
        return timed(lambda: [*executor.map(one, range(n))], n)


LIMITS = (128, 512)  # threads; the second is that of an engine that nobody told otherwise
NAP = 0.01  # seconds


class Napper(tr.GenServer):
    """Sleeps in its callback and tells when it woke."""

    def handle_cast(self, done: tr.Pid) -> None:
        time.sleep(NAP)
        done.send("awake")


def naps(n: int, before: int, most: int) -> float:
    """The cost of n callbacks of as many servers, which slept in `before` callbacks already.

    On an engine of its own with at most so many threads, of which it has none at first.
    """
    tr.shutdown()
    with tr.Engine(max_threads=most):
        cost = naps_of(n, before)
    tr.Engine()  # for what is measured next
    return cost


def naps_of(n: int, before: int) -> float:
    me = tr.self()
    nappers = [Napper.start() for _ in range(n)]

    def nap() -> None:
        for pid in nappers:
            pid.cast(me)
        for _ in nappers:
            tr.receive(timeout=LIMIT)

    for _ in range(before):
        nap()
    cost = timed(nap, 1)
    for pid in nappers:
        pid.stop()
    return cost / 1e3


def executor_naps(n: int, before: int, most: int) -> float:
    def nap() -> None:
        for _ in executor.map(time.sleep, [NAP] * n):
            pass

    with ThreadPoolExecutor(most) as executor:
        for _ in range(before):
            nap()
        return timed(nap, 1) / 1e3


# ---- Rows ---------------------------------------------------------------------------------------


def percentiles(delays: list[int]) -> dict[str, float]:
    """In microseconds."""
    ordered = sorted(delays)
    last = len(ordered) - 1
    ranks = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
    return {name: ordered[round(last * rank)] / 1e3 for name, rank in ranks.items()}


Delays = Callable[[], list[int]]


def delay_rows(name: str, ours: Delays, peers: dict[str, Delays]) -> list[Row]:
    """A row for each percentile of one run of each side."""
    values = percentiles(ours())
    theirs = {peer: percentiles(measure()) for peer, measure in peers.items()}
    return [
        Row(
            GROUP,
            name.format(rank),
            "us",
            value,
            {peer: found[rank] for peer, found in theirs.items()},
        )
        for rank, value in values.items()
    ]


def probe_rows(n: int, load: Load) -> list[Row]:
    return delay_rows(
        f"delay {{}}, {load.name}",
        partial(probe, n, load),
        {
            "asyncio": partial(asyncio_probe, n, load),
            "thread + queue": partial(thread_probe, n, load),
        },
    )


def hand_off_rows(n: int) -> list[Row]:
    return delay_rows(
        "block to next callback {}",
        partial(hand_off, n),
        {
            "asyncio.to_thread": partial(asyncio_hand_off, n),
            "thread + queue": partial(thread_hand_off, n),
        },
    )


def map_row(name: str, work: Callable[[], None], n: int) -> Row:
    return row(
        GROUP,
        f"blocking map, {name}, {THREADS} threads",
        partial(blocking_map, work, n),
        {"ThreadPoolExecutor": partial(executor_map, work, n)},
    )


def nap_row(name: str, n: int, before: int, most: int) -> Row:
    found = row(
        GROUP,
        f"{n:,} callbacks of sleep(10 ms), {most} threads, {name}",
        partial(naps, n, before, most),
        {"ThreadPoolExecutor": partial(executor_naps, n, before, most)},
        unit="us",
    )
    found.peers["ideal"] = -(-n // most) * NAP * 1e6
    return found


def ping_pong_row(seconds: float, load: Load) -> Row:
    return Row(
        GROUP,
        f"ping-pong, {load.name}",
        "ns",
        ping_pong(seconds, load),
        {
            "asyncio": asyncio_ping_pong(seconds, load),
            "threads": thread_ping_pong(seconds, load),
        },
    )


def rows(quick: bool = False) -> list[Row]:
    n, seconds = (500, 0.3) if quick else (5000, 2.0)
    return [
        *[found for load in (*LOADS, LOOP) for found in probe_rows(n, load)],
        *[ping_pong_row(seconds, load) for load in LOADS],
        *hand_off_rows(n),
        map_row("sleep(1 ms)", sleep_briefly, 2 * n),
        map_row("a file", use_file, 2 * n),
        *[
            nap_row(name, 1000, before, most)
            for most in LIMITS
            for name, before in (("first ones", 0), ("later ones", 20))
        ],
    ]


if __name__ == "__main__":
    main(rows)
