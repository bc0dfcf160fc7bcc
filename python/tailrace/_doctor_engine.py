"""The part of `tailrace doctor` that runs the engine for a moment and takes its times."""

from __future__ import annotations

import queue
import statistics
import time
from collections.abc import Callable, Iterator

from . import _core
from ._doctor import Finding, judged
from ._errors import EngineError
from ._server import GenServer

LIMIT = 10.0
"""Seconds in which a step that takes microseconds must be done, or the engine does not work."""

ROUNDS = 10


class _Player(GenServer):
    """Sends a message back and forth for some time, and answers calls."""

    def handle_call(self, request: object, caller: _core.From) -> object:
        return request

    def handle_info(self, message: tuple[_core.Pid, int, int, queue.SimpleQueue[int]]) -> None:
        peer, count, deadline, done = message
        if time.monotonic_ns() < deadline:
            peer.send((_core.self(), count + 1, deadline, done))
        else:
            done.put(count)


class _Clock(GenServer):
    """Says how long ago it was sent its message."""

    def handle_cast(self, request: tuple[int, queue.SimpleQueue[int]]) -> None:
        began, done = request
        done.put(time.perf_counter_ns() - began)


class _Sleeper(GenServer):
    """Sends a message to a clock, then blocks until it has been handled."""

    def handle_cast(self, request: tuple[_core.Pid, queue.SimpleQueue[int]]) -> None:
        clock, done = request
        answer: queue.SimpleQueue[int] = queue.SimpleQueue()
        clock.cast((time.perf_counter_ns(), answer))
        done.put(answer.get(timeout=LIMIT))


def start() -> float:
    """Seconds until the engine answers for the first time."""
    began = time.perf_counter()
    player = _Player.start()
    player.call("hello", timeout=LIMIT)
    player.stop()
    return time.perf_counter() - began


def ping_pong(seconds: float = 0.4) -> float:
    """Messages a second between two servers."""
    one, other = _Player.start(), _Player.start()
    done: queue.SimpleQueue[int] = queue.SimpleQueue()
    began = time.monotonic_ns()
    one.send((other, 0, began + int(seconds * 1e9), done))
    count = done.get(timeout=LIMIT)
    took = (time.monotonic_ns() - began) / 1e9
    one.stop()
    other.stop()
    return count / took


def hand_off() -> float:
    """Seconds from the block of a callback until another server's runs; the median."""
    sleeper, clock = _Sleeper.start(), _Clock.start()
    done: queue.SimpleQueue[int] = queue.SimpleQueue()
    times = []
    for _ in range(ROUNDS):
        sleeper.cast((clock, done))
        times.append(done.get(timeout=LIMIT) / 1e9)
    sleeper.stop()
    clock.stop()
    return statistics.median(times)


def wake_up(pause: float = 0.03) -> float:
    """Seconds that a call to a server takes after the engine has gone to sleep; the median."""
    player = _Player.start()
    times = []
    for _ in range(ROUNDS):
        time.sleep(pause)
        began = time.perf_counter()
        player.call("wake up", timeout=LIMIT)
        times.append(time.perf_counter() - began)
    player.stop()
    return statistics.median(times)


STEPS: list[tuple[str, Callable[[], float], str, Callable[[float], bool], str]] = [
    ("start", start, "s", lambda value: value > 1.0, "starting took long: is the machine busy?"),
    (
        "ping-pong",
        ping_pong,
        "messages/s",
        lambda value: value < 20_000,
        "messages are slow: a busy machine, a debug build, a sanitizer or a tracer",
    ),
    (
        "hand-off by a sleeper",
        hand_off,
        "s",
        lambda value: value > 0.05,
        "others wait long for a callback that blocks; have such servers on scheduler='thread'",
    ),
    (
        "wake-up when idle",
        wake_up,
        "s",
        lambda value: value > 0.02,
        "an idle engine wakes up slowly: is the machine busy or its power saved?",
    ),
]


def self_test() -> Iterator[Finding]:
    """Run the engine for about a second."""
    for name, step, unit, is_poor, todo in STEPS:
        try:
            value = step()
        except (EngineError, queue.Empty, OSError) as error:
            text = f"{type(error).__name__}: {error}".rstrip(": ")
            why = "the engine does not work here; the findings above may say why"
            yield Finding("engine", name, text, level="bad", todo=why)
            return
        yield judged("engine", name, value, (is_poor(value), "advice", todo), unit=unit)
