"""A program that ends at a random moment, with a random mixture of processes in every state.

    python tests/exiting.py SEED

All randomness comes from the seed. Whatever the mixture is, the interpreter must end soon, with the
exit code that `ending` says, and print nothing but what its own ending prints.
"""

from __future__ import annotations

import asyncio
import atexit
import collections
import contextlib
import logging
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import tailrace as tr

random_ = random.Random(int(sys.argv[1]))


class Server(tr.GenServer):
    """Every request is a function."""

    def handle_call(self, request: Callable[[], Any], caller: tr.From) -> Any:
        return request()

    def handle_cast(self, request: Callable[[], Any]) -> None:
        request()

    def handle_info(self, message: object) -> None:
        pass


class Traps(Server):
    """Its terminate takes a moment, in Python, in the engine and in C."""

    def init(self) -> None:
        tr.trap_exit()

    def terminate(self, reason: object) -> None:
        sum(range(1000))
        tr.sleep(0.001)
        time.sleep(0.001)


def spin() -> None:
    while True:
        pass


def swallow() -> None:
    while True:
        with contextlib.suppress(BaseException):
            spin()


def nested_finally() -> None:
    try:
        spin()
    finally:
        try:
            time.sleep(10)
        finally:
            spin()


def generator() -> Iterator[int]:
    try:
        while True:
            yield 1
    finally:
        sum(range(100))


def drain_generator() -> None:
    for _ in generator():
        pass


def quiet(problem: threading.ExceptHookArgs) -> None:
    """That the engine was stopped is what a thread here may be told, and from 3.12 on that the
    interpreter starts no more threads: no more than that."""
    late = problem.exc_type is RuntimeError and "at interpreter shutdown" in str(problem.exc_value)
    if not (late or issubclass(problem.exc_type, tr.EngineStopped | tr.ProcessExit)):
        threading.__excepthook__(problem)


threading.excepthook = quiet

# A __del__ of a process that is ended may be interrupted, too, and so would a hook in Python be.
unraisable: collections.deque[Any] = collections.deque()
sys.unraisablehook = unraisable.append


def tell() -> None:
    """Print what was no such interrupt."""
    sys.unraisablehook = sys.__unraisablehook__
    for problem in list(unraisable):
        if problem.exc_type is not tr._core.Killed:
            sys.__unraisablehook__(problem)


atexit.register(tell)


class Noisy:
    """Runs Python code when it is dropped, which an exit may do anywhere."""

    def __del__(self) -> None:
        sum(range(100))
        with contextlib.suppress(tr.EngineError):
            tr.whereis("nobody")


def drop() -> None:
    while True:
        Noisy()


lock = threading.Lock()
lock.acquire()
pipe = os.pipe()

BODIES: list[Callable[[], object]] = [
    spin,
    swallow,
    nested_finally,
    drain_generator,
    drop,
    lambda: time.sleep(10000),
    lock.acquire,
    lambda: os.read(pipe[0], 1),
    tr.receive,
    lambda: tr.sleep(10000),
    lambda: [sorted(range(100_000, 0, -1)) for _ in range(10_000)],
    lambda: Server.start().call(lambda: time.sleep(10000), timeout=None),
    lambda: Server.start_link().call(spin, timeout=None),
]


def bodies() -> None:
    """Functions and callbacks in the middle of something."""
    for _ in range(random_.randint(1, 5)):
        body, scheduler = random_.choice(BODIES), random_.choice(["core", "thread"])
        if random_.random() < 0.5:
            tr.spawn(body, scheduler=scheduler)
        else:
            Server.start(scheduler=scheduler).cast(body)


async def wait_and_spin() -> None:
    await asyncio.sleep(0)
    spin()


async def will_not_be_cancelled() -> None:
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(10000)


async def clean_up() -> None:
    try:
        await tr.areceive()
    finally:
        await tr.asleep(0.001)


async def task_group() -> None:
    async with asyncio.TaskGroup() as group:
        for n in range(10):
            group.create_task(asyncio.sleep(random_.choice([n / 1000, 10000])))


async def call() -> None:
    with contextlib.suppress(tr.StartError, tr.CallExit):  # of a server that ends before
        server = await Server.astart()
        await server.acall(random_.choice(BODIES), timeout=None)


def asynchronous() -> None:
    """On the engine's event loop."""
    bodies = [wait_and_spin, will_not_be_cancelled, clean_up, task_group, call]
    for _ in range(random_.randint(1, 5)):
        tr.spawn(random_.choice(bodies))


def coroutines() -> None:
    """On the core."""

    async def wait() -> None:
        await (tr.areceive() if random_.random() < 0.5 else tr.asleep(random_.random() * 0.1))

    async def never_rest() -> None:
        while True:
            await tr.asleep(0)

    for _ in range(random_.randint(1, 500)):
        tr.spawn(wait, scheduler="core")
    tr.spawn(never_rest, scheduler="core")


def idle() -> None:
    for _ in range(random_.randint(1, 200)):
        random_.choice([Server, Traps]).start()


def busy() -> None:
    def work() -> None:
        tr.self().cast(work)

    for _ in range(random_.randint(1, 4)):
        Server.start(scheduler=random_.choice(["core", "thread"])).cast(work)


def timers() -> None:
    server = Server.start()
    for _ in range(random_.randint(1, 200)):
        tr.send_after(server, Noisy(), random_.random() * 0.05)


def storm(step: Callable[[], object], daemon: bool | None = None) -> None:
    """A thread that uses the engine until that has stopped; a daemon more often than not."""

    def run() -> None:
        with contextlib.suppress(tr.EngineError):
            while True:
                step()

    if daemon is None:
        daemon = random_.random() < 0.7
    threading.Thread(target=run, daemon=daemon).start()


def spawning() -> None:
    storm(lambda: tr.spawn(int))


def killing() -> None:
    storm(lambda: tr.exit(tr.spawn(random_.choice(BODIES)), "kill"))


def calling() -> None:
    server = Server.start()
    storm(lambda: server.call(lambda: 1, timeout=None))


def threads() -> None:
    """Threads with a process each, that come and go or wait."""

    def come_and_go() -> None:
        thread = threading.Thread(target=lambda: tr.self().send(Noisy()))
        thread.start()
        thread.join()
        tr.self()

    storm(come_and_go, daemon=False)  # CPython 3.11 crashes when a daemon starts a thread at exit
    threading.Thread(target=tr.receive, daemon=True).start()


def supervised() -> None:
    tr.Supervisor.start_link(
        [tr.ChildSpec(str(n), (random_.choice([Server, Traps]).start_link, (), {}))
         for n in range(random_.randint(1, 5))]
    )


class Numbers(tr.Pipeline):
    processors = tr.Processors(concurrency=2)
    batchers = {"default": tr.Batcher(batch_size=10, batch_timeout=0.01)}

    def handle_message(self, message: tr.Message) -> tr.Message:
        return message

    def handle_batch(self, batcher: str, messages: list[Any], info: object) -> list[Any]:
        return messages


def pipeline() -> None:
    numbers = iter(range(10**9))
    Numbers.start_link(producer=tr.producers.Iterable(numbers))


class Blocks(Traps):
    """A terminate that never returns: the exit takes the engine's limit, and says so."""

    def terminate(self, reason: object) -> None:
        random_.choice([spin, lock.acquire, tr.receive])()


MIXTURE: list[Callable[[], object]] = [
    bodies, bodies, asynchronous, asynchronous, coroutines, idle, busy, timers, spawning, killing,
    calling, threads, supervised, pipeline,
]


def interrupt_soon() -> None:
    """Ctrl-C at any moment of the rest, the exit included; no second one."""
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, random_.random() * 0.1 + 0.001)


def main() -> None:
    ending = random_.choice(["falls off", "exit", "raises", "interrupt", "thread", "shutdown"])
    print(ending, flush=True)
    logging.getLogger("tailrace").setLevel(logging.ERROR)  # callbacks are slow here on purpose
    if random_.random() < 0.1:
        tr.Engine(stop_timeout=0.3)
        Blocks.start()
    for part in random_.sample(MIXTURE, random_.randint(1, 4)):
        part()
    if ending == "interrupt":
        interrupt_soon()
    if ending == "thread":  # the interpreter waits for it, and stops the engine before
        threading.Thread(target=lambda: time.sleep(0.02)).start()
    time.sleep(random_.choice([0, 0.001, random_.random() * 0.05]))
    if ending == "exit":
        sys.exit(7)
    if ending == "raises":
        raise ValueError("the end")
    if ending == "shutdown":
        tr.shutdown(timeout=random_.choice([0, 0.01, 1]))
        if random_.random() < 0.5:
            tr.Engine(stop_timeout=1)
            bodies()
    if ending == "interrupt":
        time.sleep(0.05)


if __name__ == "__main__":
    main()
