"""Slow callbacks and the lack of threads are logged: once, with who, where and how (O83, O90)."""

import asyncio
import ctypes
import logging
import queue
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from support import GIL, LIMIT, eventually

import tailrace as tr


class Records(logging.Handler):
    """What the engine logs, in a queue; all of it again in `seen`."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(record.getMessage())
        assert record.levelno == logging.WARNING
        self.queue.put(record.getMessage())

    def next(self) -> str:
        return self.queue.get(timeout=LIMIT)


@pytest.fixture
def records() -> Iterator[Records]:
    handler = Records()
    logger = logging.getLogger("tailrace")
    logger.addHandler(handler)
    tr.shutdown()
    yield handler
    tr.shutdown()
    logger.removeHandler(handler)
    tr.Engine()


class Slow(tr.GenServer):
    """Does what it is told, in the callback that gets it."""

    def handle_cast(self, request: object) -> None:
        request()

    def handle_call(self, request: object, caller: tr.From) -> object:
        return request() if callable(request) else request

    def handle_info(self, message: object) -> None:
        message()


def test_a_callback_that_blocks_is_shown_with_its_stack_once(records: Records) -> None:
    go_on = threading.Event()

    def wait_here() -> None:
        assert go_on.wait(LIMIT)

    with tr.Engine(slow_callback=0.05):
        server = Slow.start_link(name="slow one")
        server.cast(wait_here)
        text = records.next()
        go_on.set()
        assert server.call("done", timeout=LIMIT) == "done"
        first = text.splitlines()[0]
        assert repr(server) in first
        assert "slow one" in first
        assert "Slow.handle_cast has taken 0." in first
        assert "blocking call" in first
        assert 'scheduler="thread"' in first
        assert "in wait_here" in text
        assert "assert go_on.wait(LIMIT)" in text
        assert text.index("in handle_cast") < text.index("in wait_here")
    assert records.seen == [text]


def test_callbacks_that_wake_while_they_are_shown_come_to_no_harm(records: Records) -> None:
    limit, shown, left = 0.05, 100, threading.Semaphore(0)

    def go_deep(depth: int, seconds: float) -> None:
        if depth > 0:
            go_deep(depth - 1, seconds)
        else:
            time.sleep(seconds)

    class Naps(tr.GenServer):
        def handle_cast(self, number: int) -> None:
            go_deep(number % 40, limit * (1 + number % 7 / 10))
            go_deep((number + 20) % 40, 0)
            if len(records.seen) < shown:
                tr.self().cast(number + 1)
            else:
                left.release()

    with tr.Engine(slow_callback=limit):
        servers = [Naps.start_link() for _ in range(20)]
        for number, server in enumerate(servers):
            server.cast(number)
        for _ in servers:
            assert left.acquire(timeout=LIMIT)
    assert [text for text in records.seen if "Naps.handle_cast" not in text] == []
    stacks = [text for text in records.seen if "Stack (most recent call last)" in text]
    assert any("in go_deep" in text for text in stacks)


@pytest.mark.parametrize("way", ["call", "info"])
def test_the_callback_is_named(records: Records, way: str) -> None:
    told = threading.Event()

    def wait_here() -> str:
        assert told.wait(LIMIT)
        return "done"

    with tr.Engine(slow_callback=0.05):
        server = Slow.start_link()
        helper = threading.Thread(target=lambda: (records.next(), told.set()))
        helper.start()
        if way == "call":
            assert server.call(wait_here, timeout=LIMIT) == "done"
        else:
            server.send(wait_here)
        helper.join(LIMIT)
        server.call("done", timeout=LIMIT)
    assert f"Slow.handle_{way} has taken" in records.seen[0]


def test_a_callback_that_computes_is_told_so(records: Records) -> None:
    told = threading.Event()

    def spin_here() -> None:
        while not told.is_set():
            pass

    with tr.Engine(slow_callback=0.5):
        server = Slow.start_link()
        server.cast(spin_here)
        text = records.next()
        told.set()
        assert server.call("done", timeout=LIMIT) == "done"
    assert "Slow.handle_cast has taken" in text
    assert "it computes" in text
    assert ("in spin_here" in text) is GIL  # else all would have to wait for it to stop


@pytest.mark.skipif(not GIL, reason="nobody can keep an interpreter lock that is not there")
def test_who_keeps_the_interpreter_lock_is_told_afterwards(records: Records) -> None:
    with tr.Engine(slow_callback=0.05):
        server = Slow.start_link()

        def keep_lock() -> None:
            ctypes.PyDLL(None).usleep(500_000)  # keeps it, sleeping

        def told() -> bool:
            server.cast(keep_lock)
            assert server.call("done", timeout=LIMIT) == "done"
            eventually(lambda: tr.scheduler_info().threads["core"] == 0)
            return any("interpreter lock" in text for text in records.seen)

        eventually(told)
    assert "Slow.handle_cast" in records.seen[0]


def test_a_function_on_the_core_is_named(records: Records) -> None:
    told = threading.Event()
    with tr.Engine(slow_callback=0.05):
        tr.spawn(told.wait, LIMIT, scheduler="core")
        assert "Event.wait has taken" in records.next()
        told.set()


def wait_on_the_loop(event: threading.Event) -> None:
    assert event.wait(LIMIT)


class Blunder(tr.GenServer):
    """Its callbacks are on the event loop, and block it."""

    async def handle_cast(self, event: threading.Event) -> None:
        await tr.asleep(0)
        wait_on_the_loop(event)

    def handle_info(self, event: threading.Event) -> None:
        wait_on_the_loop(event)


class BlunderingStage(tr.Producer):
    async def handle_demand(self, demand: int) -> list[int]:
        return []

    async def handle_cast(self, event: threading.Event) -> None:
        await tr.asleep(0)
        wait_on_the_loop(event)


async def blunder(event: threading.Event) -> None:
    await tr.asleep(0)
    wait_on_the_loop(event)


async def blunder_in_a_task(event: threading.Event) -> None:
    await asyncio.create_task(blunder(event))


BLUNDERS: dict[str, tuple[Any, str]] = {
    "blunder": (blunder, "spawn"),
    "blunder_in_a_task": (blunder_in_a_task, "spawn"),
    "Blunder.handle_cast": (Blunder, "cast"),
    "Blunder.handle_info": (Blunder, "send"),
    "BlunderingStage.handle_cast": (BlunderingStage, "cast"),
}


@pytest.mark.parametrize("name", BLUNDERS)
def test_what_blocks_the_event_loop_is_told(records: Records, name: str) -> None:
    """All that runs there waits for it: who it is, which of its callbacks, and where."""
    who, way = BLUNDERS[name]
    event = threading.Event()
    with tr.Engine(slow_callback=0.3):
        pid = tr.spawn(who, event) if way == "spawn" else who.start()
        if way != "spawn":
            getattr(pid, way)(event)
        text = records.next()
        event.set()
    first = text.splitlines()[0]
    assert repr(pid) in first
    assert f"{name} has taken " in first
    assert "blocks the event loop" in first
    assert "asyncio.to_thread" in first
    stack = text.split("Stack (most recent call last):")[1]
    assert "assert event.wait(LIMIT)" in stack
    assert "asyncio" not in stack
    assert records.seen == [text]


def test_a_pipelines_handler_that_blocks_the_event_loop_is_told(records: Records) -> None:
    event = threading.Event()

    class Blunders(tr.Pipeline):
        processors = tr.Processors(concurrency=1)
        producer = tr.producers.Iterable([event])

        async def handle_message(self, message: tr.Message) -> tr.Message:
            await tr.asleep(0)
            wait_on_the_loop(message.data)
            return message

    with tr.Engine(slow_callback=0.3):
        pipeline = Blunders.start_link()
        text = records.next()
        event.set()
        pipeline.stop()
    assert "Blunders.handle_message has taken " in text
    assert "blocks the event loop" in text


def test_what_computes_on_the_event_loop_is_told(records: Records) -> None:
    told = threading.Event()

    async def spin() -> None:
        await tr.asleep(0)
        while not told.is_set():
            pass

    with tr.Engine(slow_callback=0.5):
        tr.spawn(spin)
        text = records.next()
        told.set()
    assert "spin has taken " in text
    assert "it computes on the event loop" in text


@pytest.mark.parametrize("kind", ["function", "server"])
def test_what_a_dead_process_blocks_in_its_last_steps_is_told(records: Records, kind: str) -> None:
    told, waits = threading.Event(), threading.Event()

    async def wait() -> None:
        try:
            waits.set()
            await tr.asleep(LIMIT)
        finally:
            wait_on_the_loop(told)

    class Waits(tr.GenServer):
        async def handle_cast(self, request: object) -> None:
            await wait()

    with tr.Engine(slow_callback=0.3):
        pid = tr.spawn(wait) if kind == "function" else Waits.start()
        pid.cast("wait")
        assert waits.wait(LIMIT)
        pid.exit("kill")
        text = records.next()
        told.set()
    assert repr(pid) in text
    assert "blocks the event loop" in text


def test_what_awaits_for_long_is_not_slow(records: Records) -> None:
    """Nor is an event loop that is never idle, if no step of it takes long."""
    limit = 0.5

    async def wait() -> None:
        await tr.asleep(2 * limit)
        await asyncio.sleep(2 * limit)

    async def keep_busy() -> None:
        while waiter.alive:
            await asyncio.sleep(0)

    with tr.Engine(slow_callback=limit):
        waiter = tr.spawn(wait)
        _, ref = tr.spawn_monitor(keep_busy)
        assert tr.receive(ref, timeout=LIMIT).reason == "normal"
    assert records.seen == []


def test_blocking_on_purpose_and_waiting_in_the_engine_is_not_slow(records: Records) -> None:
    go_on, both = threading.Event(), threading.Barrier(3)

    def block() -> None:
        both.wait(LIMIT)
        assert go_on.wait(LIMIT)

    def wait() -> None:
        both.wait(LIMIT)
        tr.receive(timeout=LIMIT)

    with tr.Engine(slow_callback=0.1):
        tr.spawn(block)
        waiter = tr.spawn(wait, scheduler="core")
        both.wait(LIMIT)
        server = Slow.start_link()
        server.cast(lambda: go_on.wait(LIMIT))
        assert "Slow.handle_cast" in records.next()  # which began after the others
        go_on.set()
        waiter.send("go on")
        server.call("done", timeout=LIMIT)
        tr.shutdown()
    assert len(records.seen) == 1


def test_none_turns_it_off(records: Records) -> None:
    go_on = threading.Event()
    with tr.Engine(slow_callback=None):
        server = Slow.start_link()
        server.cast(lambda: go_on.wait(LIMIT))
        ticks = tr.scheduler_info().ticks
        eventually(lambda: tr.scheduler_info().ticks > ticks + 10)
        go_on.set()
        server.call("done", timeout=LIMIT)
    assert records.seen == []


@pytest.mark.parametrize(
    ("value", "error"),
    [("1", TypeError), (True, TypeError), (0, ValueError), (-1, ValueError)],
)
def test_a_bad_limit_is_refused(records: Records, value: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="slow_callback: expected seconds > 0"):
        tr.Engine(slow_callback=value)


def test_a_log_that_raises_ends_nothing(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: queue.SimpleQueue[object] = queue.SimpleQueue()
    monkeypatch.setattr(sys, "unraisablehook", lambda about: shown.put(str(about.exc_value)))

    def refuse(record: logging.LogRecord) -> bool:
        raise RuntimeError("no log today")

    go_on = threading.Event()
    logger = logging.getLogger("tailrace")
    logger.addFilter(refuse)
    try:
        with tr.Engine(slow_callback=0.05):
            server = Slow.start_link()
            server.cast(lambda: go_on.wait(LIMIT))
            assert shown.get(timeout=LIMIT) == "no log today"
            go_on.set()
            assert server.call("done", timeout=LIMIT) == "done"
    finally:
        logger.removeFilter(refuse)


def test_the_lack_of_threads_is_told_once(records: Records) -> None:
    go_on = threading.Event()
    with tr.Engine(max_threads=4):
        for _ in range(20):
            tr.spawn(go_on.wait, LIMIT)
        text = records.next()
        assert "max_threads=4" in text
        assert "tailrace.Engine(max_threads=...)" in text
        before = tr.scheduler_info()
        assert before.thread_limit_hits > 0
        eventually(lambda: tr.scheduler_info().ticks > before.ticks + 20)
        go_on.set()
        eventually(lambda: tr.scheduler_info().thread_queue == 0)
    assert records.seen == [text]
