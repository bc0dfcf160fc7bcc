"""Timers (O66 to O73)."""

import gc
import itertools
import time
import weakref
from typing import Any

import pytest
from support import LIMIT

import tailrace as tr

DELAYS = (0.02, 0.2, 2.0, 20.0)
"""Seconds: the first is enough for what must be done in them, unless the machine is busy."""


def wait_until_over(pid: tr.Pid) -> None:
    tr.receive(tr.monitor(pid), timeout=LIMIT)


def test_o66_a_timer_sends_its_message() -> None:
    message = ["message"]
    timer = tr.send_after(tr.self(), message, 0.01)
    assert type(timer) is tr.Timer
    assert tr.receive(timeout=LIMIT) is message


def test_o66_timers_fire_in_the_order_of_their_times() -> None:
    earliest, latest = {}, {}
    for n in (5, 1, 4, 2, 3, 0):
        delay = 0.05 + n * 0.01
        earliest[n] = time.monotonic() + delay
        tr.send_after(tr.self(), n, delay)
        latest[n] = time.monotonic() + delay
    order = [tr.receive(timeout=LIMIT) for _ in range(6)]
    assert sorted(order) == [0, 1, 2, 3, 4, 5]
    for first, second in itertools.pairwise(order):
        assert earliest[first] < latest[second] + 0.002  # two ticks


def test_o66_a_dead_pid_and_an_unknown_name_are_accepted() -> None:
    dead = tr.spawn(int)
    wait_until_over(dead)
    tr.send_after(dead, "lost", 0)
    tr.send_after("nobody", "lost", 0)
    tr.send_after(tr.self(), "came", 0.01)
    assert tr.receive(timeout=LIMIT) == "came"


def test_o66_a_name_is_looked_up_when_the_time_comes() -> None:
    for delay in DELAYS:
        timer = tr.send_after("o66", "for the holder", delay)
        tr.register("o66")
        if timer.remaining() is not None:
            break
        tr.unregister("o66")
    assert tr.receive(timeout=LIMIT) == "for the holder"


def test_o67_a_timer_to_a_name_outlives_its_holder() -> None:
    for delay in DELAYS:
        first = tr.spawn(lambda: tr.receive(), name="o67")
        timer = tr.send_after("o67", "for the next", delay)
        first.exit("kill")
        wait_until_over(first)
        tr.register("o67")
        if timer.remaining() is not None:
            break
        tr.unregister("o67")
    assert tr.receive(timeout=LIMIT) == "for the next"


def test_o67_a_timer_to_a_pid_ends_with_the_process() -> None:
    pid = tr.spawn(lambda: tr.receive())
    timer = tr.send_after(pid, "never", 100)
    pid.exit("kill")
    wait_until_over(pid)
    assert timer.remaining() is None
    assert timer.cancel() is None


@pytest.mark.parametrize("delay", [-1, -0.001, float("nan"), float("-inf"), -(10**400)])
def test_o68_a_negative_delay_raises(delay: float) -> None:
    with pytest.raises(ValueError, match="delay: expected a number of seconds >= 0, got"):
        tr.send_after(tr.self(), "never", delay)


def test_o69_a_timer_never_fires_early() -> None:
    for n in range(20):
        delay = n * 0.001
        start = time.monotonic()
        tr.send_after(tr.self(), n, delay)
        assert tr.receive(timeout=LIMIT) == n
        assert time.monotonic() - start >= delay
        start = time.monotonic()
        tr.sleep(delay)
        assert time.monotonic() - start >= delay


def test_o70_a_running_timer_tells_what_is_left_and_can_be_cancelled() -> None:
    timer = tr.send_after(tr.self(), "never", 50)
    left = timer.remaining()
    assert left is not None
    assert 0 < left <= 50
    cancelled = timer.cancel()
    assert cancelled is not None
    assert 0 < cancelled <= left
    tr.sleep(0.01)
    assert tr.receive(timeout=0, default="none") == "none"


def test_o71_a_fired_timer_gives_none_and_its_message_stays() -> None:
    timer = tr.send_after(tr.self(), "came", 0)
    ref = tr.monitor(tr.self())
    tr.receive(ref, timeout=0.05, default=None)
    assert timer.cancel() is None
    assert timer.remaining() is None
    assert tr.receive(timeout=LIMIT) == "came"


def test_o71_of_cancel_and_message_exactly_one_happens() -> None:
    for n in range(2000):
        timer = tr.send_after(tr.self(), n, (n % 7) * 0.0001)
        tr.sleep((n % 5) * 0.0001)
        if timer.cancel() is None:
            assert tr.receive(timeout=LIMIT) == n
        else:
            assert tr.receive(timeout=0, default="none") == "none"


def test_o72_a_cancelled_timer_gives_none() -> None:
    timer = tr.send_after(tr.self(), "never", 50)
    timer.cancel()
    assert timer.cancel() is None
    assert timer.remaining() is None


@pytest.mark.parametrize("delay", ["1", None, True, [1], 1j])
def test_o73_a_delay_is_a_number(delay: Any) -> None:
    with pytest.raises(TypeError, match="delay: expected a number of seconds"):
        tr.send_after(tr.self(), "never", delay)


def test_o75_any_process_may_cancel_any_timer() -> None:
    me = tr.self()
    timer = tr.send_after(me, "never", 50)
    tr.spawn(lambda: me.send(timer.cancel()))
    left = tr.receive(timeout=LIMIT)
    assert 0 < left <= 50
    assert timer.remaining() is None


def test_a_dropped_timer_fires_all_the_same() -> None:
    tr.send_after(tr.self(), "came", 0.01)
    gc.collect()
    assert tr.receive(timeout=LIMIT) == "came"


def test_many_timers_all_fire() -> None:
    me = tr.self()
    for n in range(20_000):
        tr.send_after(me, n, (n % 100) * 0.001)
    assert sorted(tr.receive(timeout=LIMIT) for _ in range(20_000)) == list(range(20_000))


def test_a_cancelled_timer_lets_its_message_go() -> None:
    class Message:
        pass

    message = Message()
    gone = weakref.ref(message)
    timer = tr.send_after(tr.self(), message, 50)
    del message
    assert gone() is not None
    timer.cancel()
    del timer
    gc.collect()
    assert gone() is None
