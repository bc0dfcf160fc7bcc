"""Exit signals, links and monitors (O27 to O56), from Python."""

import functools
import queue
import threading
from collections.abc import Callable
from typing import Any

import pytest
from support import LIMIT, eventually

import tailrace as tr

REASONS = ["boom", "shutdown", ("shutdown", 1), "killed", "noproc", 7, ValueError("x")]
"""R of the matrix: any reason but "normal" and "kill"."""


@pytest.fixture(params=["core", "thread"])
def scheduler(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def observe(observer: tr.Pid, trap: bool) -> None:
    tr.trap_exit(trap)
    observer.send("ready")
    while True:
        observer.send(("got", tr.receive()))


def start(trap: bool, scheduler: str = "thread") -> tuple[tr.Pid, tr.Ref]:
    """A watched process, trapping or not, that tells this one of all it receives."""
    pid, ref = tr.spawn_monitor(observe, tr.self(), trap, scheduler=scheduler)
    assert tr.receive(timeout=LIMIT) == "ready"
    return pid, ref


def started_by(fn: Callable[[tr.Pid], object]) -> tr.Pid:
    """The Pid of another process that runs fn(its own Pid) and then waits for messages."""
    me = tr.self()

    def run() -> None:
        fn(tr.self())
        me.send("done")
        while True:
            tr.receive()

    pid = tr.spawn(run)
    assert tr.receive(timeout=LIMIT) == "done"
    return pid


def assert_lives(pid: tr.Pid) -> None:
    pid.send("ping")
    assert tr.receive(timeout=LIMIT) == ("got", "ping")


def assert_got(pid: tr.Pid, message: object) -> None:
    assert tr.receive(timeout=LIMIT) == ("got", message)
    assert_lives(pid)


def assert_died(pid: tr.Pid, ref: tr.Ref, reason: object) -> None:
    assert tr.receive(timeout=LIMIT) == tr.Down(ref, pid, reason)
    assert not pid.alive


def wait_until_over(pid: tr.Pid) -> None:
    tr.receive(tr.monitor(pid), timeout=LIMIT)


# ---- The matrix ---------------------------------------------------------------------------------


def test_o27_normal_is_ignored(scheduler: str) -> None:
    pid, _ref = start(False, scheduler)
    assert tr.exit(pid, "normal") is True
    assert_lives(pid)


def test_o27_normal_is_a_message_to_who_traps(scheduler: str) -> None:
    pid, _ref = start(True, scheduler)
    tr.exit(pid, "normal")
    assert_got(pid, tr.Exit(tr.self(), "normal"))


@pytest.mark.parametrize(
    ("reason", "end"),
    [("normal", "normal"), ("kill", "killed"), *((reason, reason) for reason in REASONS)],
)
def test_o28_to_o30_a_signal_to_oneself(scheduler: str, reason: object, end: object) -> None:
    after = []

    def leave() -> None:
        tr.exit(tr.self(), reason)
        after.append("still here")

    pid, ref = tr.spawn_monitor(leave, scheduler=scheduler)
    assert_died(pid, ref, end)
    eventually(lambda: pid not in tr.processes())
    assert after == []


@pytest.mark.parametrize("reason", ["normal", *REASONS])
def test_o28_o29_a_signal_to_oneself_is_a_message_when_trapping(reason: object) -> None:
    tr.trap_exit()
    assert tr.exit(tr.self(), reason) is True
    assert tr.receive(timeout=0) == tr.Exit(tr.self(), reason)


def test_o30_kill_to_oneself_cannot_be_trapped(scheduler: str) -> None:
    def leave() -> None:
        tr.trap_exit()
        tr.exit(tr.self(), "kill")

    pid, ref = tr.spawn_monitor(leave, scheduler=scheduler)
    assert_died(pid, ref, "killed")


@pytest.mark.parametrize("reason", REASONS)
def test_o29_o31_a_reason_ends_who_does_not_trap(scheduler: str, reason: object) -> None:
    pid, ref = start(False, scheduler)
    tr.exit(pid, reason)
    assert_died(pid, ref, reason)


@pytest.mark.parametrize("reason", REASONS)
def test_o29_o31_a_reason_is_a_message_to_who_traps(scheduler: str, reason: object) -> None:
    pid, _ref = start(True, scheduler)
    tr.exit(pid, reason)
    assert_got(pid, tr.Exit(tr.self(), reason))


@pytest.mark.parametrize("trap", [False, True])
def test_o30_kill_ends_everybody(scheduler: str, trap: bool) -> None:
    pid, ref = start(trap, scheduler)
    tr.exit(pid, "kill")
    assert_died(pid, ref, "killed")


def end_by(reason: object) -> Callable[[], object]:
    def run() -> None:
        tr.receive()
        raise tr.ProcessExit(reason)

    return run


def linked(trap: bool, reason: object, scheduler: str) -> tuple[tr.Pid, tr.Ref, tr.Pid]:
    """A watched observer, linked to a peer that ends with `reason` when it gets a message."""
    peer = tr.spawn(end_by(reason), scheduler=scheduler)
    me = tr.self()

    def run() -> None:
        tr.link(peer)
        observe(me, trap)

    pid, ref = tr.spawn_monitor(run, scheduler=scheduler)
    assert tr.receive(timeout=LIMIT) == "ready"
    return pid, ref, peer


def test_o32_a_peers_normal_end_is_ignored(scheduler: str) -> None:
    pid, _ref, peer = linked(False, "normal", scheduler)
    peer.send("go")
    wait_until_over(peer)
    assert_lives(pid)


def test_o32_a_peers_normal_end_is_a_message_to_who_traps(scheduler: str) -> None:
    pid, _ref, peer = linked(True, "normal", scheduler)
    peer.send("go")
    assert_got(pid, tr.Exit(peer, "normal"))


@pytest.mark.parametrize("reason", [*REASONS, "kill"])
def test_o33_o35_a_peers_end_spreads(scheduler: str, reason: object) -> None:
    pid, ref, peer = linked(False, reason, scheduler)
    peer.send("go")
    assert_died(pid, ref, reason)


@pytest.mark.parametrize("reason", [*REASONS, "kill"])
def test_o33_o35_a_peers_end_is_a_message_to_who_traps(scheduler: str, reason: object) -> None:
    pid, _ref, peer = linked(True, reason, scheduler)
    peer.send("go")
    assert_got(pid, tr.Exit(peer, reason))


def test_o33_a_peers_exception_spreads_as_it_is(scheduler: str) -> None:
    error = ValueError("boom")

    def fail() -> None:
        tr.receive()
        raise error

    tr.trap_exit()
    peer = tr.spawn_link(fail, scheduler=scheduler)
    peer.send("go")
    assert tr.receive(timeout=LIMIT).reason is error


def test_o34_a_killed_peer_gives_killed(scheduler: str) -> None:
    pid, ref, peer = linked(False, "unused", scheduler)
    tr.exit(peer, "kill")
    assert_died(pid, ref, "killed")


def test_o34_a_killed_peer_gives_killed_to_who_traps(scheduler: str) -> None:
    pid, _ref, peer = linked(True, "unused", scheduler)
    tr.exit(peer, "kill")
    assert_got(pid, tr.Exit(peer, "killed"))


def test_o36_link_to_the_dead_raises() -> None:
    dead = tr.spawn(int)
    wait_until_over(dead)
    with pytest.raises(tr.NoProcess) as caught:
        tr.link(dead)
    assert caught.value.reason == "noproc"


def test_o36_link_to_the_dead_is_a_message_to_who_traps() -> None:
    dead = tr.spawn(int)
    wait_until_over(dead)
    tr.trap_exit()
    assert tr.link(dead) is True
    assert tr.receive(timeout=0) == tr.Exit(dead, "noproc")


@pytest.mark.parametrize("trap", [False, True])
def test_o37_a_removed_link_gives_no_signal(scheduler: str, trap: bool) -> None:
    me = tr.self()
    peer = tr.spawn(end_by("boom"), scheduler=scheduler)

    def run() -> None:
        tr.link(peer)
        tr.unlink(peer)
        observe(me, trap)

    pid = tr.spawn(run, scheduler=scheduler)
    assert tr.receive(timeout=LIMIT) == "ready"
    peer.send("go")
    wait_until_over(peer)
    assert_lives(pid)


# ---- Exit signals -------------------------------------------------------------------------------


def test_o38_a_death_spreads_through_a_chain_with_its_reason(scheduler: str) -> None:
    me = tr.self()

    def chain(length: int) -> None:
        me.send(tr.self())
        if length:
            tr.spawn_link(chain, length - 1, scheduler=scheduler)
        tr.receive()

    tr.spawn(chain, 20, scheduler=scheduler)
    pids = [tr.receive(timeout=LIMIT) for _ in range(21)]
    refs = [tr.monitor(pid) for pid in pids]
    tr.exit(pids[10], "boom")
    downs = {tr.receive(timeout=LIMIT) for _ in pids}
    assert downs == {tr.Down(ref, pid, "boom") for ref, pid in zip(refs, pids, strict=True)}


def test_o38_a_death_stops_at_who_traps_and_at_normal() -> None:
    outer, _ = start(False)
    trapping, _ = start(True)
    started_by(lambda me: (tr.trap_exit(), tr.link(outer), tr.link(trapping)))
    inner = started_by(lambda me: tr.link(trapping))
    tr.exit(inner, "boom")
    assert_got(trapping, tr.Exit(inner, "boom"))
    assert_lives(outer)


def test_o39_exit_is_true_for_the_dead() -> None:
    dead = tr.spawn(int)
    wait_until_over(dead)
    assert tr.exit(dead, "boom") is True
    assert dead.exit("kill") is True


@pytest.mark.parametrize("bad", ["a name", None, 1, object()])
def test_o39_exit_wants_a_pid(bad: Any) -> None:
    with pytest.raises(TypeError, match="pid: expected a Pid"):
        tr.exit(bad, "boom")


def test_exit_by_the_method_of_pid_says_who_sent_it() -> None:
    pid, _ref = start(True)
    pid.exit("boom")
    assert_got(pid, tr.Exit(tr.self(), "boom"))
    thread = threading.Thread(target=lambda: pid.exit("from a fresh thread"))
    thread.start()
    thread.join()
    got, message = tr.receive(timeout=LIMIT)
    assert (got, message.reason) == ("got", "from a fresh thread")
    assert message.pid not in (tr.self(), pid)


def test_o40_the_flag_counts_when_the_signal_comes() -> None:
    assert tr.trap_exit() is False
    tr.exit(tr.self(), "early")
    assert tr.trap_exit(False) is True
    assert tr.receive(timeout=0) == tr.Exit(tr.self(), "early")
    assert tr.trap_exit(False) is False


def test_o41_trapping_does_not_protect_from_oneself(scheduler: str) -> None:
    error = ValueError("own")

    def fail() -> None:
        tr.trap_exit()
        raise error

    def leave() -> None:
        tr.trap_exit()
        raise tr.ProcessExit("boom")

    for fn, reason in ((fail, error), (leave, "boom")):
        pid, ref = tr.spawn_monitor(fn, scheduler=scheduler)
        assert_died(pid, ref, reason)


def an_event() -> tuple[Callable[[], object], Callable[[], object]]:
    """Something that waits, and something that ends the wait."""
    event = threading.Event()
    return event.wait, event.set


def a_queue() -> tuple[Callable[[], object], Callable[[], object]]:
    items: queue.Queue[int] = queue.Queue()
    return items.get, functools.partial(items.put, 1)


@pytest.mark.parametrize("wait", [an_event, a_queue])
def test_o43_a_process_in_native_code_is_dead_at_once(
    wait: Callable[[], tuple[Callable[[], object], Callable[[], object]]],
) -> None:
    ready, returned = threading.Event(), []
    block_on, go = wait()

    def block() -> None:
        ready.set()
        returned.append(block_on())

    pid, ref = tr.spawn_monitor(block, name="o43")
    assert ready.wait(LIMIT)
    tr.exit(pid, "kill")
    assert_died(pid, ref, "killed")
    assert tr.whereis("o43") is None
    go()
    eventually(lambda: pid not in tr.processes())
    assert returned == []


def test_a_thread_that_a_signal_ends_is_told_once_and_starts_anew() -> None:
    me = tr.self()
    child = tr.spawn_link(end_by("boom"))
    ref = tr.monitor(me)
    assert ref
    child.send("go")
    with pytest.raises(tr.ProcessExit) as caught:
        tr.receive(timeout=LIMIT)
    assert caught.value.reason == "boom"
    assert tr.self() != me
    assert not me.alive
    assert tr.receive(timeout=0, default="empty") == "empty"


def test_a_thread_that_a_signal_ended_is_told_by_its_next_call() -> None:
    me = tr.self()
    tr.spawn(lambda: tr.exit(me, "boom"))
    eventually(lambda: not me.alive)
    with pytest.raises(tr.ProcessExit) as caught:
        tr.self()
    assert caught.value.reason == "boom"
    assert tr.self() != me


# ---- Links --------------------------------------------------------------------------------------


def test_o44_a_link_is_single_and_symmetric() -> None:
    pid, _ref = start(False)
    for _ in range(3):
        assert tr.link(pid) is True
    assert tr.process_info(tr.self()).links == (pid,)
    assert pid.info().links == (tr.self(),)
    assert tr.unlink(pid) is True
    assert (tr.process_info(tr.self()).links, pid.info().links) == ((), ())
    tr.exit(pid, "boom")
    wait_until_over(pid)
    assert tr.self().alive


def test_o44_linking_oneself_does_nothing() -> None:
    assert tr.link(tr.self()) is True
    assert tr.process_info(tr.self()).links == ()


def test_o45_unlink_is_true_whoever_it_was() -> None:
    pid, _ref = start(False)
    assert tr.unlink(pid) is True
    assert tr.unlink(tr.self()) is True
    tr.exit(pid, "kill")
    wait_until_over(pid)
    assert tr.unlink(pid) is True


def test_o46_after_unlink_no_exit_of_that_link_comes(scheduler: str) -> None:
    tr.trap_exit()
    for _ in range(500):
        pid = tr.spawn_link(int, scheduler=scheduler)
        tr.unlink(pid)
        tr.receive(timeout=0, default=None)  # what had come before
        wait_until_over(pid)
        assert tr.receive(timeout=0, default="none") == "none"


def test_o47_links_are_shown_on_both_sides_and_go_away() -> None:
    tr.trap_exit()
    pid = tr.spawn_link(end_by("normal"))
    assert tr.process_info(tr.self()).links == (pid,)
    assert pid.info().links == (tr.self(),)
    pid.send("go")
    assert tr.receive(timeout=LIMIT) == tr.Exit(pid, "normal")
    assert tr.process_info(tr.self()).links == ()


def test_many_links_and_monitors_are_all_shown() -> None:
    pids = [tr.spawn_link(end_by("normal")) for _ in range(100)]
    refs = [tr.monitor(pid) for pid in pids]
    info = tr.process_info(tr.self())
    assert {*info.links} == {*info.monitors} == {*pids}
    assert len(info.links) == len(info.monitors) == 100
    for pid in pids:
        assert pid.info().monitored_by == (tr.self(),)
        pid.send("go")
    for ref in refs:
        tr.receive(ref, timeout=LIMIT)


# ---- Monitors -----------------------------------------------------------------------------------


def test_o48_each_monitor_gives_a_down() -> None:
    pid = tr.spawn(end_by("boom"))
    refs = [tr.monitor(pid) for _ in range(5)]
    assert len({*refs}) == 5
    pid.send("go")
    assert {tr.receive(timeout=LIMIT) for _ in refs} == {tr.Down(r, pid, "boom") for r in refs}


def test_o49_monitoring_the_dead_gives_a_down_at_once() -> None:
    dead = tr.spawn(int)
    wait_until_over(dead)
    ref = tr.monitor(dead)
    assert tr.receive(timeout=0) == tr.Down(ref, dead, "noproc")


def test_o49_monitoring_an_unknown_name_gives_a_down_at_once() -> None:
    ref = tr.monitor("nobody")
    assert tr.receive(timeout=0) == tr.Down(ref, "nobody", "noproc")


def test_o50_a_monitor_by_name_watches_the_holder_and_tells_the_name() -> None:
    first = tr.spawn(end_by("first"), name="o50")
    ref = tr.monitor("o50")
    tr.unregister("o50")
    second = tr.spawn(end_by("second"), name="o50")
    second.send("go")
    wait_until_over(second)
    first.send("go")
    assert tr.receive(ref, timeout=LIMIT) == tr.Down(ref, "o50", "first")


def test_o51_a_monitor_of_oneself_never_fires() -> None:
    assert type(tr.monitor(tr.self())) is tr.Ref
    assert tr.receive(timeout=0, default="none") == "none"


@pytest.mark.parametrize("trap", [False, True])
def test_o52_a_down_never_ends_the_receiver(trap: bool) -> None:
    tr.trap_exit(trap)
    pid, ref = tr.spawn_monitor(end_by("boom"))
    pid.send("go")
    assert tr.receive(timeout=LIMIT) == tr.Down(ref, pid, "boom")
    assert tr.receive(timeout=0, default="none") == "none"
    tr.trap_exit(False)


def test_o53_demonitor_stops_the_down(scheduler: str) -> None:
    pid, ref = tr.spawn_monitor(end_by("boom"), scheduler=scheduler)
    assert tr.demonitor(ref) is True
    pid.send("go")
    wait_until_over(pid)
    assert tr.receive(timeout=0, default="none") == "none"


def test_o53_a_down_that_came_stays_unless_flushed() -> None:
    for flush in (False, True):
        dead = tr.spawn(int)
        wait_until_over(dead)
        tr.self().send("before")
        ref = tr.monitor(dead)
        tr.self().send("after")
        assert tr.demonitor(ref, flush=flush) is True
        assert tr.receive(timeout=0) == "before"
        if not flush:
            assert tr.receive(timeout=0).ref == ref
        assert tr.receive(timeout=0) == "after"


def test_o53_after_a_flush_no_down_comes(scheduler: str) -> None:
    for _ in range(500):
        _pid, ref = tr.spawn_monitor(int, scheduler=scheduler)
        tr.demonitor(ref, flush=True)
        assert tr.receive(timeout=0, default="none") == "none"


def test_o54_info_tells_whether_a_monitor_was_removed() -> None:
    pid, ref = start(False)
    assert tr.demonitor(ref, info=True) is True
    assert tr.demonitor(ref, info=True) is False
    assert tr.demonitor(ref) is True
    fired = tr.monitor(pid)
    tr.exit(pid, "kill")
    wait_until_over(pid)
    assert tr.demonitor(fired, info=True) is False
    fired = tr.monitor(pid)
    assert tr.demonitor(fired, flush=True, info=True) is False


def test_o54_a_monitor_of_somebody_else_is_left_alone() -> None:
    pid, _ref = start(False)
    refs = []
    other = started_by(lambda me: refs.append(tr.monitor(pid)))
    assert tr.demonitor(refs[0], info=True) is False
    assert other in pid.info().monitored_by


def test_o55_monitors_vanish_with_the_one_who_watches() -> None:
    pid, ref = start(True)
    watcher = started_by(lambda me: tr.monitor(pid))
    assert {*pid.info().monitored_by} == {tr.self(), watcher}
    tr.exit(watcher, "boom")
    wait_until_over(watcher)
    assert pid.info().monitored_by == (tr.self(),)
    assert_lives(pid)
    tr.exit(pid, "kill")
    assert_died(pid, ref, "killed")


def test_o56_a_tag_takes_the_place_of_down() -> None:
    pid = tr.spawn(end_by("boom"))
    ref = tr.monitor(pid, tag="gone")
    other = tr.monitor("nobody", tag=0)
    assert tr.receive(other, timeout=0) == (0, other, "nobody", "noproc")
    pid.send("go")
    assert tr.receive(ref, timeout=LIMIT) == ("gone", ref, pid, "boom")
