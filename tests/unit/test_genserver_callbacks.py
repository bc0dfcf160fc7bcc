"""What callbacks do and return (O122 to O125, O127, O128)."""

import contextvars
import logging
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest
from support import LIMIT, eventually

import tailrace as tr


class Server(tr.GenServer):
    """Every request is a function of the server, whose result the callback returns."""

    def init(self, first: Any = None) -> Any:
        self.seen: list[Any] = []
        return first

    def handle_call(self, request: Callable[[Any], Any], caller: tr.From) -> Any:
        return request(self)

    def handle_cast(self, request: Callable[[Any], Any]) -> Any:
        return request(self)

    def handle_info(self, message: Any) -> Any:
        return message(self) if callable(message) else self.seen.append(message)

    def handle_continue(self, token: Any) -> Any:
        return token(self) if callable(token) else self.seen.append(token)

    def handle_timeout(self) -> Any:
        self.seen.append("timeout")


class Bare(tr.GenServer):
    pass


def seen(server: tr.Pid) -> list[Any]:
    got: list[Any] = server.call(lambda self: list(self.seen), timeout=LIMIT)
    return got


def end_of(server: tr.Pid, action: Callable[[], object]) -> Any:
    """Do something that ends a server; its reason."""
    ref = tr.monitor(server)
    action()
    return tr.receive(ref, timeout=LIMIT).reason


def raise_(error: BaseException) -> Any:
    raise error.with_traceback(None)  # else each run would add to the last one's


# ---- Missing callbacks --------------------------------------------------------------------------


def test_o122_a_call_without_handle_call_ends_the_server() -> None:
    server = Bare.start(name="o122")

    def call() -> None:
        with pytest.raises(tr.CallExit):
            server.call("the question")

    reason = end_of(server, call)
    assert isinstance(reason, AttributeError)
    assert "Bare has no handle_call" in str(reason)
    assert "'the question'" in str(reason)


@pytest.mark.parametrize(
    ("callback", "action"),
    [
        ("handle_cast", lambda server: server.cast("the message")),
        ("handle_continue", None),
    ],
)
def test_o122_a_cast_or_continue_without_callback_ends_the_server(
    callback: str, action: Callable[[tr.Pid], object] | None, caplog: pytest.LogCaptureFixture
) -> None:
    class Continues(Bare):
        def handle_info(self, message: Any) -> Any:
            return tr.NoReply(continue_="the message")

    server = Bare.start() if action else Continues.start()
    reason = end_of(server, lambda: action(server) if action else server.send("go"))
    assert f"has no {callback}" in str(reason)
    assert "'the message'" in str(reason)
    assert len(caplog.records) == 1


def test_o122_an_info_without_handle_info_is_logged_once_and_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Bare.start(name="o122")
    server.send("the message")
    eventually(lambda: caplog.records)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.name == "tailrace"
    assert '"o122"' in record.getMessage()
    assert "'the message'" in record.getMessage()
    server.stop()


def test_o122_without_terminate_nothing_happens() -> None:
    assert Bare.start().stop() is None


def test_o125_a_timeout_without_handle_timeout_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Waits(tr.GenServer):
        def init(self) -> Any:
            return tr.NoReply(timeout=0)

    server = Waits.start()
    eventually(lambda: caplog.records)
    assert "handle_timeout" in caplog.records[0].getMessage()
    assert server.alive
    server.stop()
    assert len(caplog.records) == 1


# ---- Callbacks that fail ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        SystemExit(1),
        KeyboardInterrupt(),
        GeneratorExit(),
        StopIteration(),
        RecursionError(),
        MemoryError(),
    ],
)
@pytest.mark.parametrize("how", ["call", "cast", "send", "continue"])
def test_o123_a_callback_that_raises_ends_the_server(error: BaseException, how: str) -> None:
    server = Server.start()

    def act() -> None:
        if how == "call":
            with pytest.raises(tr.CallExit) as caught:
                server.call(lambda self: raise_(error))
            assert caught.value.reason is error
        elif how == "cast":
            server.cast(lambda self: raise_(error))
        elif how == "send":
            server.send(lambda self: raise_(error))
        else:
            server.cast(lambda self: tr.NoReply(continue_=lambda self: raise_(error)))

    assert end_of(server, act) is error


@pytest.mark.parametrize("reason", ["normal", "boom", ("shutdown", 1)])
def test_o123_a_callback_that_exits_ends_the_server(reason: object) -> None:
    server = Server.start()

    def call() -> None:
        with pytest.raises(tr.CallExit) as caught:
            server.call(lambda self: raise_(tr.ProcessExit(reason)))
        assert caught.value.reason == reason

    assert end_of(server, call) == reason


@pytest.mark.parametrize("value", [0, "", "text", [1], True, ("reply", 1), tr.Reply(1), tr.IGNORE])
@pytest.mark.parametrize("how", ["cast", "send", "continue", "timeout"])
def test_o123_a_plain_return_is_a_bad_return(value: object, how: str) -> None:
    class Nonsense(Server):
        def handle_timeout(self) -> Any:
            return value

    server = Nonsense.start()
    action: dict[str, Callable[[], object]] = {
        "cast": lambda: server.cast(lambda self: value),
        "send": lambda: server.send(lambda self: value),
        "continue": lambda: server.cast(lambda self: tr.NoReply(continue_=lambda self: value)),
        "timeout": lambda: server.cast(lambda self: tr.NoReply(timeout=0)),
    }
    reason = end_of(server, action[how])
    assert type(reason) is tr.BadReturn
    assert reason.value is value
    name = {"cast": "handle_cast", "send": "handle_info"}.get(how, f"handle_{how}")
    assert reason.callback.endswith(f".Nonsense.{name}")
    assert str(reason).startswith(f"{reason.callback} returned {value!r}")
    copy = pickle.loads(pickle.dumps(tr.BadReturn(1, "C.f")))
    assert (copy.value, copy.callback, str(copy)) == (
        1, "C.f", "C.f returned 1, which is not allowed there")


@pytest.mark.parametrize("value", [tr.Reply(1, events=[1]), tr.NoReply(events=[1])], ids=repr)
def test_o123_events_are_for_stages(value: object) -> None:
    server = Server.start()
    ref = tr.monitor(server)
    with pytest.raises(tr.CallExit) as caught:
        server.call(lambda self: value)
    assert type(caught.value.reason) is tr.BadReturn
    assert tr.receive(ref, timeout=LIMIT).reason is caught.value.reason


def test_o123_the_crash_is_logged_once_with_its_message(caplog: pytest.LogCaptureFixture) -> None:
    class Fails(tr.GenServer):
        def handle_cast(self, request: Any) -> Any:
            raise ValueError("the cause")

    server = Fails.start(name="o123")
    end_of(server, lambda: server.cast(["the message"]))
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    text = record.getMessage()
    for part in ("o123", "handle_cast", "['the message']", "the cause"):
        assert part in text
    assert record.exc_info is not None


def test_a_message_whose_repr_fails_is_logged_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError

    server = Bare.start()
    end_of(server, lambda: server.cast(Odd()))
    assert "Odd" in caplog.records[0].getMessage()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_broken_log_handler_hurts_nobody() -> None:
    class Broken(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            raise RuntimeError("broken filter")

    broken = Broken()
    logging.getLogger("tailrace").addFilter(broken)
    try:
        error = ValueError("x")
        server = Server.start()
        assert end_of(server, lambda: server.cast(lambda self: raise_(error))) is error
    finally:
        logging.getLogger("tailrace").removeFilter(broken)


def test_a_server_without_the_callback_as_method() -> None:
    class Odd(tr.GenServer):
        handle_cast = 5  # type: ignore[assignment]

    server = Odd.start()
    assert type(end_of(server, lambda: server.cast(1))) is TypeError


# ---- Continue -----------------------------------------------------------------------------------


def test_o124_continue_runs_before_queued_messages() -> None:
    server = Server.start()
    ready, go = threading.Event(), threading.Event()

    def slow(self: Any) -> Any:
        ready.set()
        go.wait()
        return tr.NoReply(continue_="continue")

    server.cast(slow)
    assert ready.wait(LIMIT)
    server.send("queued 1")
    server.send("queued 2")
    go.set()
    assert seen(server) == ["continue", "queued 1", "queued 2"]


@pytest.mark.parametrize("limit", [None, LIMIT], ids=["here", "there"])
def test_o124_continue_after_init_runs_before_what_was_sent_during_it(limit: float | None) -> None:
    started, go = threading.Event(), threading.Event()

    class Slow(Server):
        def init(self) -> Any:
            super().init()
            started.set()
            go.wait()
            return tr.NoReply(continue_="continue")

    starter = threading.Thread(target=Slow.start, kwargs={"name": "o124", "timeout": limit})
    starter.start()
    assert started.wait(LIMIT)
    tr.send("o124", "early")
    go.set()
    starter.join()
    tr.send("o124", "late")
    assert seen(tr.whereis("o124")) == ["continue", "early", "late"]


def test_o124_start_returns_independently_of_continue() -> None:
    go, over = threading.Event(), threading.Event()
    server = Server.start(tr.NoReply(continue_=lambda self: (go.wait(), over.set(), None)[2]))
    assert not over.is_set()
    go.set()
    assert over.wait(LIMIT)
    server.stop()


def test_o124_continues_chain() -> None:
    def count(n: int) -> Callable[[Any], Any]:
        def run(self: Any) -> Any:
            self.seen.append(n)
            return tr.NoReply(continue_=count(n - 1)) if n else None

        return run

    server = Server.start()
    assert server.call(lambda self: tr.Reply("answer", continue_=count(1000))) == "answer"
    assert seen(server) == list(range(1000, -1, -1))


@pytest.mark.parametrize("token", [None, 0, False, (), tr.NOREPLY])
def test_o124_any_token_counts(token: object) -> None:
    server = Server.start(tr.NoReply(continue_=token))
    assert seen(server) == [token]


# ---- Timeout ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0, 0.0, 0.01])
def test_o125_a_timeout_fires_once(seconds: float) -> None:
    fired = threading.Semaphore(0)

    class Waits(Server):
        def handle_timeout(self) -> Any:
            fired.release()

    server = Waits.start(tr.NoReply(timeout=seconds))
    assert fired.acquire(timeout=LIMIT)
    assert not fired.acquire(timeout=0.05)
    server.cast(lambda self: tr.NoReply(timeout=seconds))
    assert fired.acquire(timeout=LIMIT)
    assert server.call(lambda self: tr.Reply("answer", timeout=seconds)) == "answer"
    assert fired.acquire(timeout=LIMIT)


def test_o125_handle_timeout_may_ask_for_another() -> None:
    fired = threading.Semaphore(0)

    class Beats(Server):
        def handle_timeout(self) -> Any:
            fired.release()
            return tr.NoReply(timeout=0.001)

    server = Beats.start(tr.NoReply(timeout=0.001))
    for _ in range(20):
        assert fired.acquire(timeout=LIMIT)
    server.stop()


@pytest.mark.parametrize("how", ["send", "cast", "call", "down"])
def test_o125_any_message_cancels_a_timeout(how: str) -> None:
    """The message is in the mailbox when the timeout begins, so it comes first on any machine."""

    def arm(self: Any) -> Any:
        me = tr.self()
        if how == "send":
            me.send("message")
        elif how == "cast":
            me.cast(lambda self: None)
        elif how == "call":
            tr.spawn(me.call, lambda self: None)
            eventually(lambda: me.info().message_queue_len)
        else:
            tr.monitor("nobody")
        return tr.Reply(None, timeout=0.02)

    server = Server.start()
    for _ in range(20):
        server.call(arm)
    tr.sleep(0.05)
    assert "timeout" not in seen(server)


def test_o125_with_a_message_queued_a_timeout_of_zero_does_not_fire() -> None:
    server = Server.start()
    for _ in range(200):
        ready, go = threading.Event(), threading.Event()

        def slow(self: Any, ready: threading.Event = ready, go: threading.Event = go) -> Any:
            ready.set()
            go.wait()
            return tr.NoReply(timeout=0)

        server.cast(slow)
        assert ready.wait(LIMIT)
        server.cast(lambda self: None)
        go.set()
        assert seen(server) == []


@pytest.mark.parametrize("seconds", [-1, "1", True, float("nan")])
def test_o125_a_bad_timeout_ends_the_server_and_says_so(seconds: Any) -> None:
    server = Server.start()
    reason = end_of(server, lambda: server.cast(lambda self: tr.NoReply(timeout=seconds)))
    assert isinstance(reason, ValueError | TypeError)
    assert str(reason).startswith("timeout: expected ")


# ---- One at a time ------------------------------------------------------------------------------


def test_o127_callbacks_of_one_server_never_overlap() -> None:
    server = Server.start()
    inside: list[int] = []
    overlaps = []

    def work(self: Any) -> None:
        inside.append(1)
        tr.sleep(0)
        if len(inside) != 1:
            overlaps.append(len(inside))
        inside.pop()
        self.seen.append(1)

    def sender() -> None:
        for _ in range(100):
            server.cast(work)

    for _ in range(8):
        tr.spawn(sender)
    eventually(lambda: len(seen(server)) == 800)
    assert overlaps == []


def test_o127_a_slow_callback_delays_stop_and_the_parents_shutdown() -> None:
    ready, go = threading.Event(), threading.Event()
    ended = []

    class Traps(Server):
        def init(self) -> Any:
            super().init()
            tr.trap_exit()

        def terminate(self, reason: Any) -> None:
            ended.append(reason)

    tr.trap_exit()
    server = Traps.start_link()
    server.cast(lambda self: (ready.set(), go.wait(), None)[2])
    assert ready.wait(LIMIT)
    tr.exit(server, "shutdown")
    with pytest.raises(tr.CallTimeout):
        server.stop(timeout=0.01)
    assert (ended, server.alive) == ([], True)
    go.set()
    assert tr.receive(timeout=LIMIT) == tr.Exit(server, "shutdown")
    assert ended == ["shutdown"]


def test_o128_terminate_sees_the_state_as_the_callback_left_it() -> None:
    ended = []

    class Half(Server):
        def terminate(self, reason: Any) -> None:
            ended.append((list(self.seen), reason))

    def half(self: Any) -> None:
        self.seen.append("half")
        raise error

    error = ValueError("x")
    server = Half.start()
    assert end_of(server, lambda: server.cast(half)) is error
    assert ended == [(["half"], error)]


def test_context_variables_are_a_servers_own() -> None:
    variable = contextvars.ContextVar("variable", default=0)
    variable.set(1)
    server = Server.start()
    variable.set(2)
    assert server.call(lambda self: variable.get()) == 1
    server.call(lambda self: variable.set(3) and None)
    assert server.call(lambda self: variable.get()) == 3
    assert variable.get() == 2
