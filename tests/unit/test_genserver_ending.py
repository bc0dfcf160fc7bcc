"""How servers end (O129 to O139)."""

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest
from support import LIMIT, eventually

import tailrace as tr


class Server(tr.GenServer):
    """Requests are functions; tells its watcher of terminate and of Exit messages."""

    def init(self, watcher: tr.Pid, trap: bool = False) -> None:
        self.watcher = watcher
        self.seen: list[Any] = []
        tr.trap_exit(trap)

    def handle_call(self, request: Callable[[Any], Any], caller: tr.From) -> Any:
        return request(self)

    def handle_cast(self, request: Callable[[Any], Any]) -> Any:
        return request(self)

    def handle_info(self, message: Any) -> Any:
        self.watcher.send(("info", message))

    def terminate(self, reason: Any) -> Any:
        self.watcher.send(("terminate", reason))
        return "ignored (O136)"


@pytest.fixture(params=[False, True], ids=["not trapping", "trapping"])
def trap(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def start(trap: bool) -> tuple[tr.Pid, tr.Ref]:
    server = Server.start(tr.self(), trap)
    return server, tr.monitor(server)


def start_child(trap: bool) -> tuple[tr.Pid, tr.Ref]:
    """A server whose parent is this process, which traps exits."""
    tr.trap_exit()
    server = Server.start_link(tr.self(), trap)
    return server, tr.monitor(server)


def assert_terminated(server: tr.Pid, ref: tr.Ref, reason: object) -> None:
    """terminate ran with the reason, then the server ended with it."""
    assert tr.receive(timeout=LIMIT) == ("terminate", reason)
    assert tr.receive(ref, timeout=LIMIT) == tr.Down(ref, server, reason)


def assert_ended(server: tr.Pid, ref: tr.Ref, reason: object) -> None:
    """The server ended with the reason; terminate did not run."""
    assert tr.receive(ref, timeout=LIMIT) == tr.Down(ref, server, reason)
    left = tr.receive(timeout=0, default=None)
    assert left is None or left == tr.Exit(server, reason)
    eventually(lambda: server not in tr.processes())
    assert tr.receive(timeout=0, default=None) is None


def raise_(error: BaseException) -> Any:
    raise error.with_traceback(None)  # else each run would add to the last one's


# ---- When terminate runs ------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["normal", "shutdown", "boom", ("shutdown", 1)])
def test_o129_stop(trap: bool, reason: object) -> None:
    server, ref = start(trap)
    server.cast(lambda self: tr.Stop(reason))
    assert_terminated(server, ref, reason)


def test_o129_stop_without_a_reason_is_normal(trap: bool) -> None:
    server, ref = start(trap)
    server.cast(lambda self: tr.Stop())
    assert_terminated(server, ref, "normal")


def test_o129_an_exception(trap: bool) -> None:
    error = ValueError("x")
    server, ref = start(trap)
    server.cast(lambda self: raise_(error))
    assert_terminated(server, ref, error)


def test_o129_a_bad_return(trap: bool) -> None:
    server, ref = start(trap)
    server.cast(lambda self: "nonsense")
    kind, reason = tr.receive(timeout=LIMIT)
    assert (kind, type(reason)) == ("terminate", tr.BadReturn)
    assert tr.receive(ref, timeout=LIMIT).reason is reason


@pytest.mark.parametrize("reason", ["normal", "shutdown", "boom", ("shutdown", 1), 5])
def test_o130_stop_from_outside(trap: bool, reason: object) -> None:
    server, ref = start(trap)
    assert server.stop(reason) is None
    assert_terminated(server, ref, reason)


@pytest.mark.parametrize("reason", ["normal", "shutdown", "boom", "killed"])
def test_o131_the_parents_signal_when_trapping(reason: object) -> None:
    server, ref = start_child(trap=True)
    tr.exit(server, reason)
    assert_terminated(server, ref, reason)


@pytest.mark.parametrize("reason", ["shutdown", "boom", "killed"])
def test_o131_the_parents_signal_when_not_trapping(reason: object) -> None:
    server, ref = start_child(trap=False)
    tr.exit(server, reason)
    assert_ended(server, ref, reason)


def test_o131_a_parents_normal_is_ignored_when_not_trapping() -> None:
    server, _ref = start_child(trap=False)
    tr.exit(server, "normal")
    assert server.call(lambda self: "lives") == "lives"


@pytest.mark.parametrize("reason", ["normal", "boom"])
def test_o131_the_parents_end_is_its_signal(reason: object) -> None:
    me = tr.self()

    def parent() -> None:
        me.send(Server.start_link(me, True))
        tr.receive()
        raise tr.ProcessExit(reason)

    parent_pid = tr.spawn(parent)
    server = tr.receive(timeout=LIMIT)
    ref = tr.monitor(server)
    parent_pid.send("go")
    assert_terminated(server, ref, reason)


@pytest.mark.parametrize("reason", ["normal", "shutdown", "boom"])
def test_o132_another_processs_signal_when_trapping(reason: object) -> None:
    server, _ref = start(trap=True)
    tr.exit(server, reason)
    assert tr.receive(timeout=LIMIT) == ("info", tr.Exit(tr.self(), reason))
    assert server.alive


@pytest.mark.parametrize("reason", ["shutdown", "boom"])
def test_o132_another_processs_signal_when_not_trapping(reason: object) -> None:
    server, ref = start(trap=False)
    tr.exit(server, "normal")
    assert server.call(lambda self: "lives") == "lives"
    tr.exit(server, reason)
    assert_ended(server, ref, reason)


def test_o132_a_linked_processs_end_when_trapping() -> None:
    server, _ref = start(trap=True)

    def peer() -> None:
        tr.link(server)
        raise tr.ProcessExit("boom")

    pid = tr.spawn(peer)
    assert tr.receive(timeout=LIMIT) == ("info", tr.Exit(pid, "boom"))
    assert server.alive


@pytest.mark.parametrize("child", [False, True])
def test_o133_kill(trap: bool, child: bool) -> None:
    server, ref = start_child(trap) if child else start(trap)
    tr.exit(server, "kill")
    assert_ended(server, ref, "killed")


def busy(server: tr.Pid) -> threading.Event:
    """Keep a server in a callback until the event is set."""
    ready, go = threading.Event(), threading.Event()
    server.cast(lambda self: (ready.set(), go.wait(), None)[2])
    assert ready.wait(LIMIT)
    return go


def test_o134_the_parents_signal_keeps_its_place_in_the_mailbox() -> None:
    server, ref = start_child(trap=True)
    go = busy(server)
    server.send("before")
    tr.exit(server, "shutdown")
    server.send("after")
    go.set()
    assert tr.receive(timeout=LIMIT) == ("info", "before")
    assert_terminated(server, ref, "shutdown")
    assert tr.receive(timeout=LIMIT) == tr.Exit(server, "shutdown")
    assert tr.receive(timeout=0, default="none") == "none"


def test_o134_a_kill_before_that_point_means_no_terminate() -> None:
    server, ref = start_child(trap=True)
    go = busy(server)
    tr.exit(server, "shutdown")
    tr.exit(server, "kill")
    go.set()
    assert_ended(server, ref, "killed")


# ---- Stop with a reply --------------------------------------------------------------------------


def test_o135_terminate_runs_then_the_reply_goes_out_then_the_end() -> None:
    server, ref = start(False)
    assert server.call(lambda self: tr.Stop("boom", reply="answer")) == "answer"
    assert_terminated(server, ref, "boom")
    server, _ref = start(False)
    assert server.call(lambda self: tr.Stop("normal", reply=None)) is None


def test_o135_a_terminate_that_raises_changes_the_reason_not_the_reply() -> None:
    error = ValueError("from terminate")

    class Fails(Server):
        def terminate(self, reason: Any) -> Any:
            raise error

    server = Fails.start(tr.self())
    ref = tr.monitor(server)
    assert server.call(lambda self: tr.Stop("boom", reply="answer")) == "answer"
    assert tr.receive(ref, timeout=LIMIT).reason is error


def test_o135_a_terminate_that_exits_changes_the_reason() -> None:
    class Exits(Server):
        def terminate(self, reason: Any) -> Any:
            raise tr.ProcessExit("other")

    server = Exits.start(tr.self())
    with pytest.raises(tr.CallExit) as caught:
        server.stop("boom")
    assert caught.value.reason == "other"


def test_terminate_may_use_the_engine() -> None:
    class Ends(Server):
        def terminate(self, reason: Any) -> Any:
            other = Server.start(self.watcher)
            self.watcher.send(other.call(lambda self: "called"))
            other.stop()

    assert Ends.start(tr.self()).stop() is None
    assert tr.receive(timeout=LIMIT) == "called"


# ---- Logging ------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["normal", "shutdown", ("shutdown", 1)])
def test_o137_a_clean_end_is_not_logged(
    caplog: pytest.LogCaptureFixture, reason: object
) -> None:
    server, ref = start(False)
    server.cast(lambda self: tr.Stop(reason))
    assert_terminated(server, ref, reason)
    assert caplog.records == []


def test_o137_an_unclean_end_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    class Asked(tr.GenServer):
        def handle_cast(self, request: Any) -> Any:
            return tr.Stop(("the", "reason"))

    server = Asked.start(name="o137")
    ref = tr.monitor(server)
    server.cast("the message")
    tr.receive(ref, timeout=LIMIT)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    for part in ("o137", "('the', 'reason')", "'the message'"):
        assert part in record.getMessage()


def test_o137_a_killed_server_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    server, ref = start(False)
    go = busy(server)
    server.exit("kill")
    tr.receive(ref, timeout=LIMIT)
    go.set()
    eventually(lambda: server not in tr.processes())
    assert caplog.records == []


# ---- stop ---------------------------------------------------------------------------------------


def test_o138_stop_returns_when_the_server_has_ended() -> None:
    for _ in range(300):
        server = Server.start(tr.self(), name="o138")
        server.stop()
        assert not server.alive
        assert tr.whereis("o138") is None


def test_o138_another_reason_is_raised() -> None:
    server, _ref = start(False)
    server.cast(lambda self: tr.Stop("other"))
    with pytest.raises(tr.CallExit) as caught:
        server.stop("boom")
    assert caught.value.reason in ("other", "noproc")

    class Differs(Server):
        def terminate(self, reason: Any) -> Any:
            raise ValueError("x")

    with pytest.raises(tr.CallExit) as caught:
        Differs.start(tr.self()).stop()
    assert isinstance(caught.value.reason, ValueError)


def test_o138_an_equal_reason_is_the_same_reason() -> None:
    server, _ref = start(False)
    assert tr.stop(server, ("a", [1, {"b": 2}])) is None


def test_o138_a_reason_that_cannot_be_compared() -> None:
    class Odd:
        def __eq__(self, other: object) -> bool:
            raise RuntimeError

        __hash__ = None  # type: ignore[assignment]

    server, _ref = start(False)
    odd = Odd()
    server.stop(odd)  # the very same object needs no comparison


def test_o138_the_dead_the_unknown_and_oneself() -> None:
    server, _ref = start(False)
    server.stop()
    for dest in (server, "nobody"):
        with pytest.raises(tr.NoProcess):
            tr.stop(dest)
    with pytest.raises(tr.CallExit) as caught:
        tr.stop(tr.self())
    assert caught.value.reason == "calling_self"


def test_o139_stop_queues_behind_earlier_messages() -> None:
    server, ref = start(False)
    for n in range(100):
        server.send(n)
    server.stop()
    assert [tr.receive() for _ in range(100)] == [("info", n) for n in range(100)]
    assert_terminated(server, ref, "normal")


def test_o139_after_a_timeout_the_server_still_stops() -> None:
    server, ref = start(False)
    go = busy(server)
    server.send("before")
    with pytest.raises(tr.CallTimeout):
        server.stop("boom", timeout=0.01)
    assert server.alive
    server.send("after")
    go.set()
    assert tr.receive(timeout=LIMIT) == ("info", "before")
    assert_terminated(server, ref, "boom")


def test_many_stops_of_one_server_all_return() -> None:
    server, _ref = start(False)
    go = busy(server)
    outcomes: list[Any] = []

    def stop() -> None:
        outcomes.append(server.stop(timeout=LIMIT))

    threads = [threading.Thread(target=stop) for _ in range(10)]
    for thread in threads:
        thread.start()
    eventually(lambda: server.info().message_queue_len == 10)
    go.set()
    for thread in threads:
        thread.join()
    assert outcomes == [None] * 10
