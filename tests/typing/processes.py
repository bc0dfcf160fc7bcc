"""Processes, servers and supervisors as a type checker sees them. Checked, never run.

A call that must be refused carries `type: ignore`; the checker complains about one that is not
needed, so these lines prove that the mistake is found.
"""

from typing import Any, assert_type

import tailrace as tr


def greet(name: str, times: int = 1) -> None:
    print(name * times)


class Counter(tr.GenServer):
    n: int

    def init(self, start: int = 0) -> None:
        self.n = start

    def handle_call(self, request: str, caller: tr.From) -> int | tr.Reply | tr.Stop:
        if request == "stop":
            return tr.Stop("normal", reply=self.n)
        assert_type(caller, tr.From)
        return tr.Reply(self.n, timeout=1.0) if request == "and wait" else self.n

    def handle_cast(self, request: int) -> None:
        self.n += request

    def handle_continue(self, token: str) -> tr.NoReply:
        return tr.NoReply(continue_=token, timeout=0.5)


def processes() -> None:
    pid = tr.spawn(greet, "you", times=2, name="greeter", priority="high")
    assert_type(pid, tr.Pid)
    assert_type(tr.spawn_monitor(greet, "you"), tuple[tr.Pid, tr.Ref])
    assert_type(tr.self(), tr.Pid)
    assert_type(tr.whereis("greeter"), tr.Pid | None)
    assert_type(tr.monitor(pid), tr.Ref)
    assert_type(tr.send_after(pid, "tick", 0.5).cancel(), float | None)
    assert_type(sorted([pid, tr.self()]), list[tr.Pid])
    assert_type({pid: 1}, dict[tr.Pid, int])
    tr.send("greeter", "hello")
    tr.exit(pid, "kill")
    tr.spawn("greet")  # type: ignore[arg-type]
    tr.register(b"greeter")  # type: ignore[arg-type]
    tr.sleep("1")  # type: ignore[arg-type]


def messages(message: tr.Down | tr.Exit) -> Any:
    match message:
        case tr.Down(ref=ref, pid=pid, reason=reason):
            assert_type(ref, tr.Ref)
            return (ref, pid, reason)
        case tr.Exit(pid=pid, reason=reason):
            assert_type(pid, tr.Pid)
            return (pid, reason)


def servers() -> None:
    counter = Counter.start_link(10, name="counter", timeout=1.0)
    assert_type(counter, tr.Pid)
    counter.cast(5)
    assert_type(counter.name, str | None)
    assert_type(counter.alive, bool)
    counter.stop("normal", timeout=1.0)
    counter.call("get", timeout="1")  # type: ignore[arg-type]


def errors() -> None:
    try:
        tr.call("counter", "get")
    except tr.CallTimeout as error:
        as_timeout: TimeoutError = error
        as_exit: tr.CallExit = error
        print(as_timeout, as_exit.reason)
    except tr.NoProcess as error:
        as_lookup: LookupError = error
        print(as_lookup)
    except tr.EngineError:
        raise
