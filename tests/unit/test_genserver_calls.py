"""Requests to servers: call, cast, reply (O108 to O120)."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from support import LIMIT, eventually

import tailrace as tr


class Server(tr.GenServer):
    """Calls and casts are functions to run on the server."""

    def init(self) -> None:
        self.seen: list[Any] = []

    def handle_call(self, request: Callable[[Any, tr.From], Any], caller: tr.From) -> Any:
        return request(self, caller)

    def handle_cast(self, request: Callable[[Any], Any]) -> Any:
        return request(self)

    def handle_info(self, message: Any) -> Any:
        self.seen.append(message)


@pytest.fixture(params=["core", "thread"])
def server(request: pytest.FixtureRequest) -> tr.Pid:
    return Server.start(scheduler=request.param)


def wait_until_over(pid: tr.Pid) -> None:
    tr.receive(tr.monitor(pid), timeout=LIMIT)


def test_o108_a_call_returns_the_reply(server: tr.Pid) -> None:
    box = [1]
    assert server.call(lambda self, caller: box) is box
    assert tr.call(server, lambda self, caller: None) is None
    for timeout in (None, LIMIT, 2**40, float("inf")):
        assert server.call(lambda self, caller: 1, timeout) == 1
        assert tr.call(server, request=lambda self, caller: 1, timeout=timeout) == 1


def test_o108_a_limit_of_zero_is_legal(server: tr.Pid) -> None:
    ready, go = threading.Event(), threading.Event()
    server.cast(lambda self: (ready.set(), go.wait(), None)[2])
    assert ready.wait(LIMIT)
    with pytest.raises(tr.CallTimeout):
        server.call(lambda self, caller: 1, timeout=0)
    go.set()


@pytest.mark.parametrize("timeout", [-1, -0.5, float("nan")])
def test_o108_a_negative_limit_raises_before_anything_is_sent(
    server: tr.Pid, timeout: float
) -> None:
    ran: list[int] = []
    with pytest.raises(ValueError, match="timeout: expected a number of seconds >= 0 or None"):
        server.call(lambda self, caller: ran.append(1), timeout=timeout)
    assert server.call(lambda self, caller: ran) == []


def test_o109_the_dead_and_the_unknown(server: tr.Pid) -> None:
    server.stop()
    for dest in (server, "nobody"):
        with pytest.raises(tr.NoProcess) as caught:
            tr.call(dest, 1)
        assert caught.value.reason == "noproc"
        assert isinstance(caught.value, LookupError)
        assert repr(dest) in str(caught.value)


def test_o110_calling_oneself(server: tr.Pid) -> None:
    def call_itself(self: Any, caller: tr.From) -> Any:
        with pytest.raises(tr.CallExit) as caught:
            tr.self().call("x", timeout=None)
        return caught.value.reason

    assert server.call(call_itself) == "calling_self"
    tr.register("o110")
    for dest in ("o110", tr.self()):
        with pytest.raises(tr.CallExit) as caught:
            tr.call(dest, "x", timeout=None)
        assert caught.value.reason == "calling_self"


@pytest.mark.parametrize("reason", ["normal", "shutdown", "boom", ("shutdown", 1), 7])
def test_o111_the_servers_end_is_the_answer(server: tr.Pid, reason: object) -> None:
    with pytest.raises(tr.CallExit) as caught:
        server.call(lambda self, caller: tr.Stop(reason))
    assert type(caught.value) is tr.CallExit
    assert caught.value.reason == reason


def test_o111_a_killed_server(server: tr.Pid) -> None:
    ready, go = threading.Event(), threading.Event()

    def kill() -> None:
        assert ready.wait(LIMIT)
        server.exit("kill")

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(tr.CallExit) as caught:
        server.call(lambda self, caller: (ready.set(), go.wait()), timeout=LIMIT)
    assert caught.value.reason == "killed"
    go.set()
    killer.join()


def test_o112_after_a_timeout_the_server_goes_on(server: tr.Pid) -> None:
    ready, go, done = threading.Event(), threading.Event(), threading.Event()
    tr.link(server)

    def slow(self: Any, caller: tr.From) -> str:
        ready.set()
        go.wait()
        done.set()
        return "late"

    with pytest.raises(tr.CallTimeout) as caught:
        server.call(slow, timeout=0.01)
    assert caught.value.reason == "timeout"
    assert isinstance(caught.value, TimeoutError)
    assert repr(server) in str(caught.value)
    go.set()
    assert done.wait(LIMIT)
    assert server.info().links == (tr.self(),)
    tr.unlink(server)


def test_o113_an_uncaught_failure_is_the_callers_reason(server: tr.Pid) -> None:
    def calls(dest: Any) -> None:
        tr.call(dest, lambda self, caller: tr.Stop("boom"))

    _, ref = tr.spawn_monitor(calls, server)
    reason = tr.receive(ref, timeout=LIMIT).reason
    assert type(reason) is tr.CallExit
    assert reason.reason == "boom"
    _, ref = tr.spawn_monitor(calls, server)
    assert type(tr.receive(ref, timeout=LIMIT).reason) is tr.NoProcess


def test_o114_a_late_reply_never_reaches_the_mailbox_or_a_later_call(server: tr.Pid) -> None:
    for n in range(200):
        go = threading.Event()

        def slow(self: Any, caller: tr.From, go: threading.Event = go) -> str:
            go.wait()
            return "late"

        with pytest.raises(tr.CallTimeout):
            server.call(slow, timeout=0.0005)
        go.set()
        assert server.call(lambda self, caller, n=n: n, timeout=LIMIT) == n
        assert tr.receive(timeout=0, default="none") == "none"


def test_o114_replies_that_race_with_the_limit(server: tr.Pid) -> None:
    late = 0
    for n in range(2000):
        try:
            assert server.call(lambda self, caller, n=n: n, timeout=(n % 10) * 1e-5) == n
        except tr.CallTimeout:
            late += 1
    assert tr.receive(timeout=0, default="none") == "none"
    assert server.call(lambda self, caller: "last", timeout=LIMIT) == "last"


def test_o115_a_second_reply_is_dropped(server: tr.Pid) -> None:
    def twice(self: Any, caller: tr.From) -> Any:
        for _ in range(3):
            tr.reply(caller, "first")
        return "last"

    for _ in range(100):
        assert server.call(twice) == "first"
        assert server.call(lambda self, caller: "second call") == "second call"
    assert tr.receive(timeout=0, default="none") == "none"


def test_o116_the_wait_leaves_other_messages_alone(server: tr.Pid) -> None:
    me = tr.self()
    me.send(1)

    def disturb(self: Any, caller: tr.From) -> str:
        me.send(2)
        return "reply"

    assert server.call(disturb) == "reply"
    me.send(3)
    assert [tr.receive(timeout=0) for _ in range(3)] == [1, 2, 3]


def test_o117_cast_never_raises_for_a_missing_target(server: tr.Pid) -> None:
    assert tr.cast("nobody", 1) is None
    server.stop()
    assert server.cast(1) is None
    assert tr.cast(server, 1) is None


def test_o118_call_cast_and_send_keep_their_order(server: tr.Pid) -> None:
    for n in range(0, 300, 3):
        server.cast(lambda self, n=n: self.seen.append(n))
        server.send(n + 1)
        server.call(lambda self, caller, n=n: self.seen.append(n + 2))
    assert server.call(lambda self, caller: self.seen) == list(range(300))


def test_o119_from_names_the_caller_and_can_be_answered_later(server: tr.Pid) -> None:
    me, callers = tr.self(), []

    def later(self: Any, caller: tr.From) -> Any:
        callers.append(caller)
        assert caller.pid == me
        return tr.NOREPLY

    def answer() -> None:
        eventually(lambda: callers)
        tr.reply(callers[0], "from elsewhere")

    threading.Thread(target=answer).start()
    assert server.call(later, timeout=LIMIT) == "from elsewhere"
    assert repr(callers[0]).startswith("<from ")


def test_o119_a_process_may_answer_for_the_server(server: tr.Pid) -> None:
    def delegate(self: Any, caller: tr.From) -> Any:
        tr.spawn(tr.reply, caller, "by a helper")
        return tr.NoReply()

    for _ in range(200):
        assert server.call(delegate, timeout=LIMIT) == "by a helper"


def test_o119_reply_returns_when_the_caller_is_gone(server: tr.Pid) -> None:
    callers: list[tr.From] = []

    def keep(self: Any, caller: tr.From) -> Any:
        callers.append(caller)
        return tr.NOREPLY

    pid = tr.spawn(lambda: server.call(keep))
    eventually(lambda: callers)
    pid.exit("kill")
    wait_until_over(pid)
    assert tr.reply(callers[0], "too late") is None


def test_o120_noreply_blocks_until_the_limit_or_the_end(server: tr.Pid) -> None:
    with pytest.raises(tr.CallTimeout):
        server.call(lambda self, caller: tr.NOREPLY, timeout=0.01)
    me = tr.self()

    def ends(self: Any, caller: tr.From) -> Any:
        me.send("asked")
        tr.send_after(tr.self(), "end", 0)
        return tr.NoReply(timeout=0.01)

    def run() -> None:
        try:
            server.call(ends, timeout=LIMIT)
        except tr.CallExit as error:
            me.send(error.reason)

    tr.spawn(run)
    assert tr.receive(timeout=LIMIT) == "asked"
    server.exit("boom")
    assert tr.receive(timeout=LIMIT) == "boom"


def test_reply_action_answers_and_goes_on(server: tr.Pid) -> None:
    assert server.call(lambda self, caller: tr.Reply("value")) == "value"
    assert server.call(lambda self, caller: tr.Reply(tr.Stop("x"))) is not None
    assert server.alive


def test_many_callers_get_their_own_replies(server: tr.Pid) -> None:
    me = tr.self()

    def caller(n: int) -> None:
        for m in range(100):
            assert server.call(lambda self, caller, m=m: (n, m), timeout=LIMIT) == (n, m)
        me.send(n)

    for n in range(20):
        tr.spawn(caller, n, scheduler="core" if n % 2 else "thread")
    assert sorted(tr.receive(timeout=LIMIT) for _ in range(20)) == list(range(20))


def test_calls_from_callbacks() -> None:
    chain = [Server.start() for _ in range(10)]

    def ask(rest: list[tr.Pid]) -> Callable[[Any, tr.From], Any]:
        if not rest:
            return lambda self, caller: 1
        return lambda self, caller: 1 + rest[0].call(ask(rest[1:]), timeout=LIMIT)

    for _ in range(50):
        assert chain[0].call(ask(chain[1:]), timeout=LIMIT) == 10
