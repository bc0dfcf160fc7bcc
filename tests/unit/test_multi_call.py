"""Requests to many servers (O121)."""

from __future__ import annotations

import pytest

import tailrace as tr


class Server(tr.GenServer):
    def init(self, mode: str = "echo") -> None:
        self.mode = mode
        self.seen: list[object] = []

    def handle_call(self, request: object, caller: tr.From) -> object:
        if request == "seen":
            return self.seen
        if self.mode == "silent":
            return tr.NOREPLY
        if self.mode == "crash":
            raise RuntimeError("on purpose")
        return (self.mode, request)

    def handle_cast(self, request: object) -> None:
        self.seen.append(request)


def test_o121_answers_and_failures_are_told_apart_in_the_order_given() -> None:
    first, second = Server.start("a"), Server.start("b", name="second")
    crash, gone = Server.start("crash"), Server.start()
    gone.stop()
    replies, bad = tr.multi_call([first, crash, "second", gone, "nobody"], 1, timeout=60)
    assert replies == [(first, ("a", 1)), ("second", ("b", 1))]
    assert bad == [crash, gone, "nobody"]
    for server in (first, second):
        server.stop()


def test_o121_late_servers_are_bad_and_late_answers_reach_nobody() -> None:
    silent, quick = Server.start("silent"), Server.start()
    for limit in (0.1, 1.0, 10.0):  # seconds: the first is enough unless the machine is busy
        replies, bad = tr.multi_call([silent, quick], "x", timeout=limit)
        if replies:
            break
    assert replies == [(quick, ("echo", "x"))]
    assert bad == [silent]
    assert tr.receive(timeout=0, default=None) is None
    silent.stop()
    quick.stop()


def test_o121_a_caller_that_traps_exits_finds_nothing_in_its_mailbox() -> None:
    before = tr.trap_exit()
    assert tr.multi_call(["nobody"], "x") == ([], ["nobody"])
    assert tr.receive(timeout=0, default=None) is None
    tr.trap_exit(before)


def test_o121_nobody_to_ask() -> None:
    assert tr.multi_call([], "x") == ([], [])


def test_o121_abcast_reaches_all_that_are_there() -> None:
    servers = [Server.start(), Server.start()]
    tr.abcast([*servers, "nobody"], "hello")
    assert [server.call("seen") for server in servers] == [["hello"], ["hello"]]
    for server in servers:
        server.stop()


@pytest.mark.parametrize(
    ("timeout", "error"), [(-1, ValueError), ("x", TypeError), (True, TypeError)]
)
def test_a_bad_timeout_is_refused_before_anything_is_sent(
    timeout: object, error: type[Exception]
) -> None:
    server = Server.start()
    with pytest.raises(error, match="timeout"):
        tr.multi_call([server], "x", timeout)  # type: ignore[arg-type]
    server.stop()
