"""How servers start (O97 to O107)."""

import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest
from support import LIMIT, eventually

import tailrace as tr


class Server(tr.GenServer):
    """Runs a function as init; tells a process when it terminates."""

    def init(self, fn: Callable[[], object] = lambda: None, watcher: tr.Pid | None = None) -> Any:
        self.watcher = watcher
        return fn()

    def handle_call(self, request: Any, caller: tr.From) -> Any:
        return request

    def terminate(self, reason: Any) -> None:
        if self.watcher is not None:
            self.watcher.send(("terminate", reason))


def fail(error: BaseException) -> Callable[[], object]:
    def run() -> None:
        raise error.with_traceback(None)  # else each run would add to the last one's

    return run


@pytest.fixture(params=[None, LIMIT], ids=["here", "there"])
def limit(request: pytest.FixtureRequest) -> Any:
    """With `timeout=` init runs on a worker, without on the caller's thread: the same rules."""
    return request.param


@pytest.fixture(params=["start", "start_link"])
def start(request: pytest.FixtureRequest, limit: float | None) -> Callable[..., tr.Pid]:
    function = getattr(Server, request.param)
    return lambda *args, **options: function(*args, timeout=limit, **options)


# ---- What the caller gets -----------------------------------------------------------------------


def test_o97_o100_start_returns_the_pid_when_init_is_over(start: Callable[..., tr.Pid]) -> None:
    over = []
    pid = start(lambda: over.append(tr.self()))
    assert over == [pid]
    assert pid.call("x") == "x"


def test_o97_start_makes_no_link_and_start_link_does() -> None:
    assert Server.start().info().links == ()
    assert Server.start_link().info().links == (tr.self(),)
    assert Server.start_link().info().parent == tr.self()


def test_o97_init_gets_all_arguments(limit: float | None) -> None:
    class Keeps(tr.GenServer):
        def init(self, *args: Any, **kwargs: Any) -> None:
            self.got = (args, kwargs)

        def handle_call(self, request: Any, caller: tr.From) -> Any:
            return self.got

    pid = Keeps.start(1, [2], x=3, cls=4, timeout=limit)
    assert pid.call(0) == ((1, [2]), {"x": 3, "cls": 4})


def test_o97_a_server_needs_no_init() -> None:
    class Bare(tr.GenServer):
        pass

    assert Bare.start_link().alive


def test_o98_the_name_is_taken_before_init_runs(start: Callable[..., tr.Pid]) -> None:
    seen = []
    pid = start(lambda: seen.append((tr.whereis("o98"), tr.self().name)), name="o98")
    assert seen == [(pid, "o98")]


def test_o98_others_can_send_during_init_and_are_handled_after_it() -> None:
    started, go, seen = threading.Event(), threading.Event(), []

    class Slow(tr.GenServer):
        def init(self) -> None:
            started.set()
            assert go.wait(LIMIT)
            seen.append("init")

        def handle_cast(self, request: Any) -> None:
            seen.append(request)

        def handle_call(self, request: Any, caller: tr.From) -> Any:
            return list(seen)

    for limit in (None, LIMIT):
        starter = threading.Thread(target=Slow.start, kwargs={"name": "slow", "timeout": limit})
        starter.start()
        assert started.wait(LIMIT)
        for n in range(3):
            tr.cast("slow", n)
        go.set()
        starter.join()
        assert tr.call("slow", "seen") == ["init", 0, 1, 2]
        tr.stop("slow")
        started.clear()
        go.clear()
        seen.clear()


def test_o98_the_name_is_free_when_a_failure_is_told(limit: float | None) -> None:
    for n in range(200):
        with pytest.raises(tr.StartError) as caught:
            Server.start(fail(ValueError(n)), name="o98", timeout=limit)
        assert type(caught.value) is tr.StartError
        assert tr.whereis("o98") is None


def test_o99_a_held_name_raises_without_running_init(start: Callable[..., tr.Pid]) -> None:
    first, ran = start(name="o99"), []
    with pytest.raises(tr.AlreadyStarted) as caught:
        start(lambda: ran.append(1), name="o99")
    assert isinstance(caught.value, tr.StartError)
    assert caught.value.pid == first
    assert ran == []
    assert tr.self().alive
    assert tr.process_info(tr.self()).links in ((), (first,))


def test_o99_of_many_starts_with_one_name_one_succeeds(limit: float | None) -> None:
    for n in range(30):
        barrier, outcomes = threading.Barrier(6), []

        def run(
            name: str, barrier: threading.Barrier = barrier, outcomes: list[Any] = outcomes
        ) -> None:
            barrier.wait()
            try:
                outcomes.append(Server.start(name=name, timeout=limit))
            except tr.AlreadyStarted as error:
                outcomes.append(("already", error.pid))

        threads = [threading.Thread(target=run, args=(f"race {n}",)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (winner,) = [pid for pid in outcomes if type(pid) is tr.Pid]
        assert outcomes.count(("already", winner)) == 5


# ---- What init decides --------------------------------------------------------------------------


def outcome(limit: float | None, fn: Callable[[], object]) -> tuple[Any, Any, Any]:
    """Start a server from a process that does not trap: the start's outcome, the reason the server
    ended with, and the reason that its starter ended with ("lives" if it did not)."""
    me = tr.self()
    pids: list[tr.Pid] = []

    def init() -> object:
        pids.append(tr.self())
        me.send(("ref", tr.self()))
        tr.receive()  # until it is watched
        return fn()

    def starter() -> None:
        try:
            me.send(("outcome", Server.start_link(init, me, timeout=limit)))
        except tr.StartError as error:
            me.send(("outcome", error))
        tr.receive()

    pid, ref = tr.spawn_monitor(starter)
    _, server = tr.receive(timeout=LIMIT)
    server_ref = tr.monitor(server)
    server.send("go")
    result, end, starter_end = None, "runs", "lives"
    while True:
        got = tr.receive(timeout=0.5 if end == "runs" or starter_end == "lives" else LIMIT,
                         default=None)
        match got:
            case None:
                break
            case tr.Down(ref=r, reason=reason) if r == server_ref:
                end = reason
            case tr.Down(ref=r, reason=reason) if r == ref:
                starter_end = reason
            case ("outcome", value):
                result = value
            case other:
                raise AssertionError(other)
        if end != "runs" and starter_end != "lives":
            break
    pid.exit("kill")
    server.exit("kill")
    return result, end, starter_end


def test_o100_init_may_return_none_or_noreply(limit: float | None) -> None:
    for value in (None, tr.NoReply(), tr.NoReply(timeout=100)):
        assert Server.start(lambda value=value: value, timeout=limit).alive


def test_o101_ignore(limit: float | None) -> None:
    result, end, starter = outcome(limit, lambda: tr.IGNORE)
    assert (result, end, starter) == (tr.IGNORE, "normal", "lives")


def test_o101_o107_ignore_leaves_no_exit_in_a_trapping_callers_mailbox(limit: float | None) -> None:
    tr.trap_exit()
    for _ in range(200):
        assert Server.start_link(lambda: tr.IGNORE, timeout=limit, name="o101") is tr.IGNORE
        assert tr.whereis("o101") is None
        assert tr.receive(timeout=0, default="none") == "none"


@pytest.mark.parametrize("reason", ["boom", "shutdown", ("shutdown", 1), 7, ValueError("x")])
def test_o102_stop(limit: float | None, reason: object) -> None:
    result, end, starter = outcome(limit, lambda: tr.Stop(reason))
    assert end == starter == reason
    assert result is None or result.reason == reason  # it may be dead before it can tell


def test_o102_stop_normal_does_not_end_the_caller(limit: float | None) -> None:
    result, end, starter = outcome(limit, lambda: tr.Stop("normal"))
    assert (result.reason, end, starter) == ("normal", "normal", "lives")


@pytest.mark.parametrize(
    "error", [ValueError("x"), SystemExit(2), tr.BadReturn(1), RecursionError()]
)
def test_o104_init_raises(limit: float | None, error: BaseException) -> None:
    _, end, starter = outcome(limit, fail(error))
    assert end is starter is error


def test_o104_init_exits(limit: float | None) -> None:
    _, end, starter = outcome(limit, fail(tr.ProcessExit("boom")))
    assert end == starter == "boom"


def test_o104_the_error_has_the_exception_as_reason_and_cause(limit: float | None) -> None:
    error = ValueError("x")
    with pytest.raises(tr.StartError) as caught:
        Server.start(fail(error), timeout=limit)
    assert caught.value.reason is error
    assert caught.value.__cause__ is error


def test_o104_the_failure_is_logged_once(
    limit: float | None, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(tr.StartError):
        Server.start(fail(ValueError("the cause")), timeout=limit, name="o104")
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("tailrace", logging.ERROR)
    assert "o104" in record.getMessage()
    assert "the cause" in record.getMessage()


@pytest.mark.parametrize("value", [0, "text", tr.Reply(1), tr.NOREPLY, [1], True])
def test_o105_a_bad_return(limit: float | None, value: object) -> None:
    with pytest.raises(tr.StartError) as caught:
        Server.start(lambda: value, timeout=limit)
    assert type(caught.value.reason) is tr.BadReturn
    assert caught.value.reason.value is value
    assert caught.value.reason.callback == "Server.init"


def test_o105_a_bad_return_ends_the_linked_caller(limit: float | None) -> None:
    _, end, starter = outcome(limit, lambda: "nonsense")
    assert type(end) is tr.BadReturn
    assert starter is end


LIMITS = (0.05, 0.5, 5.0)
"""Seconds: a machine that is not busy calls an init in the first of them."""


@pytest.mark.parametrize("trap", [False, True])
def test_o106_init_takes_too_long(trap: bool) -> None:
    tr.trap_exit(trap)
    me, go = tr.self(), threading.Event()
    pids: list[tr.Pid] = []

    def init() -> None:
        pids.append(tr.self())
        go.wait()

    for limit in LIMITS:
        with pytest.raises(tr.StartError) as caught:
            Server.start_link(init, me, timeout=limit, name="o106")
        assert caught.value.reason == "timeout"
        assert tr.whereis("o106") is None
        assert tr.self() == me
        assert tr.receive(timeout=0, default="none") == "none"
        if pids:
            break
    (pid,) = pids
    assert not pid.alive
    go.set()
    eventually(lambda: pid not in tr.processes())


def test_o106_a_server_that_is_too_late_ends_killed() -> None:
    me, servers = tr.self(), []

    def init() -> None:
        servers.append(tr.self())
        me.send("begun")
        tr.receive()

    def starter(limit: float) -> None:
        try:
            Server.start_link(init, timeout=limit)
        except tr.StartError as error:
            me.send(error.reason)

    for limit in LIMITS:
        pid, ref = tr.spawn_monitor(starter, limit)
        told = tr.receive(timeout=LIMIT)
        end = told == "begun" and tr.receive(tr.monitor(servers[-1]), timeout=LIMIT).reason
        assert tr.receive(ref, timeout=LIMIT) == tr.Down(ref, pid, "normal")
        assert told == "timeout" or tr.receive(timeout=LIMIT) == "timeout"
        if end and end != "noproc":
            break
    assert end == "killed"


def test_o106_a_limit_of_zero() -> None:
    with pytest.raises(tr.StartError) as caught:
        Server.start(lambda: tr.receive(), timeout=0)
    assert caught.value.reason == "timeout"


@pytest.mark.parametrize(
    "fn", [lambda: tr.Stop("boom"), fail(ValueError()), fail(tr.ProcessExit(1)), lambda: 5]
)
def test_o107_a_trapping_caller_has_no_exit_and_the_process_is_dead(
    limit: float | None, fn: Callable[[], object]
) -> None:
    tr.trap_exit()
    pids: list[tr.Pid] = []

    def init() -> object:
        pids.append(tr.self())
        return fn()

    for _ in range(100):
        with pytest.raises(tr.StartError):
            Server.start_link(init, tr.self(), timeout=limit)
        assert not pids.pop().alive
        assert tr.receive(timeout=0, default="none") == "none"


def test_a_failed_start_raises_in_a_thread_and_does_not_tell_it_twice(limit: float | None) -> None:
    with pytest.raises(tr.StartError):
        Server.start_link(fail(ValueError("x")), timeout=limit)
    assert tr.self().alive


def test_a_class_that_cannot_be_made_raises_in_the_caller() -> None:
    class Broken(tr.GenServer):
        def __init__(self) -> None:
            raise ValueError("no such server")

    before = len(tr.processes())
    with pytest.raises(ValueError, match="no such server"):
        Broken.start_link()
    assert len(tr.processes()) == before


@pytest.mark.parametrize("how", ["start", "start_link"])
def test_o43_a_caller_killed_before_the_server_was_made_leaves_none(
    how: str, limit: float | None
) -> None:
    class Kills(tr.GenServer):
        def __init__(self) -> None:
            with contextlib.suppress(BaseException):  # a caller that goes on though it is dead
                tr.exit(tr.self(), "kill")
                while True:
                    pass

    before = tr.processes()
    pid, ref = tr.spawn_monitor(getattr(Kills, how), timeout=limit)
    assert tr.receive(ref, timeout=LIMIT).reason == "killed"
    eventually(lambda: pid not in tr.processes())
    assert set(tr.processes()) <= {*before, tr.self()}


def test_o43_callers_that_are_killed_leave_no_server_that_never_began() -> None:
    """Killed at any moment of a start: the server runs, or it is gone."""

    def starter() -> None:
        while True:
            Server.start(timeout=LIMIT).exit("kill")

    def idle() -> list[tr.ProcessInfo]:
        infos = [tr.process_info(pid) for pid in tr.processes() if pid not in before]
        return [info for info in infos if info is not None and info.reductions == 0]

    before = {*tr.processes(), tr.self()}
    for n in range(300):
        pids = [tr.spawn(starter) for _ in range(3)]
        tr.sleep(n % 10 * 0.0002)
        for pid in pids:
            tr.exit(pid, "kill")
    eventually(lambda: not idle())


def test_servers_start_servers(limit: float | None) -> None:
    class Tree(tr.GenServer):
        def init(self, depth: int) -> None:
            self.child = Tree.start_link(depth - 1, timeout=limit) if depth else None

        def handle_call(self, request: Any, caller: tr.From) -> Any:
            return 1 + (self.child.call(request) if self.child else 0)

    root = Tree.start_link(20, timeout=limit)
    assert root.call("depth", timeout=LIMIT) == 21


def test_keyboard_interrupt_in_init_is_raised_as_it_is() -> None:
    with pytest.raises(KeyboardInterrupt):
        Server.start_link(fail(KeyboardInterrupt()))
    assert tr.self().alive


def test_o20_messages_that_come_before_init_stay_in_order() -> None:
    class Keeps(tr.GenServer):
        def init(self) -> None:
            self.got: list[int] = []

        def handle_info(self, message: int) -> None:
            self.got.append(message)

        def handle_call(self, request: Any, caller: tr.From) -> list[int]:
            return self.got.copy()

    def send_when_it_is_there() -> None:
        for _ in range(rounds):
            while (pid := tr.whereis("keeps")) is None:
                pass
            for number in range(20):
                pid.send(number)
            assert gone.acquire(timeout=LIMIT)

    rounds, gone = 100, threading.Semaphore(0)
    sender = threading.Thread(target=send_when_it_is_there, daemon=True)
    sender.start()
    for _ in range(rounds):
        server = Keeps.start(name="keeps", timeout=LIMIT)
        eventually(lambda server=server: len(server.call("got", LIMIT)) == 20)
        assert server.call("got", LIMIT) == list(range(20))
        server.exit("kill")
        assert tr.whereis("keeps") is None
        gone.release()
    sender.join(LIMIT)
