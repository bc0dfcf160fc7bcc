"""Bad arguments: a clear error that names the argument and what is allowed, before a change.

Never a crash, never a hang, never a silent default. What is refused after a stop is in
tests/integration/test_life.py, in a forked child in test_fork.py.
"""

import math
import threading
from collections.abc import Callable
from typing import Any

import pytest
from support import LIMIT

import tailrace as tr


class Server(tr.GenServer):
    def handle_call(self, request: Any, caller: tr.From) -> Any:
        return request

    def handle_info(self, message: Any) -> Any:
        return None


class NotAPid:
    """Looks like a handle, but is none."""

    pid = 5


class Raises:
    """A handle that is broken."""

    @property
    def pid(self) -> tr.Pid:
        raise RuntimeError("no pid here")


NO_DESTINATIONS = [None, 1, 1.5, b"name", [], {}, (), object(), NotAPid(), tr.Pid, len]
NO_PIDS = [*NO_DESTINATIONS, "a name"]
NO_NAMES = [1, b"name", ["x"], object(), 1.5, ("a",)]
BAD_NAMES = ["", "\0", "a\0b", "x" * 256]
NO_SECONDS = ["1", True, False, [1], 1j, object(), b"1"]
BAD_SECONDS = [-1, -0.0001, math.nan, -math.inf, -(10**400)]
NO_REFS = [1, "ref", object(), ("a",)]


@pytest.fixture
def server() -> tr.Pid:
    return Server.start()


# ---- Destinations -------------------------------------------------------------------------------

TO_DESTINATIONS: dict[str, Callable[[Any], object]] = {
    "send": lambda dest: tr.send(dest, 1),
    "send_many": lambda dest: tr.send_many([tr.self(), dest], 1),
    "call": lambda dest: tr.call(dest, 1),
    "cast": lambda dest: tr.cast(dest, 1),
    "stop": tr.stop,
    "monitor": tr.monitor,
    "send_after": lambda dest: tr.send_after(dest, 1, 0),
}


@pytest.mark.parametrize("name", TO_DESTINATIONS)
def test_a_destination_is_a_pid_a_name_or_a_handle(name: str) -> None:
    for dest in NO_DESTINATIONS:
        if name == "send_many" and dest is None:
            continue  # skipped by rule
        with pytest.raises(TypeError, match=r"dest: expected a Pid, a registered name or a handle"):
            TO_DESTINATIONS[name](dest)
    for dest in BAD_NAMES:
        with pytest.raises(ValueError, match="dest: expected a non-empty str"):
            TO_DESTINATIONS[name](dest)
    with pytest.raises(RuntimeError, match="no pid here"):
        TO_DESTINATIONS[name](Raises())
    assert tr.receive(timeout=0, default="empty") == "empty"


TO_PIDS: dict[str, Callable[[Any], object]] = {
    "exit": lambda pid: tr.exit(pid, "kill"),
    "link": tr.link,
    "unlink": tr.unlink,
    "process_info": tr.process_info,
}


@pytest.mark.parametrize("name", TO_PIDS)
def test_a_pid_is_a_pid_or_a_handle(name: str) -> None:
    tr.register("a name")
    for pid in NO_PIDS:
        with pytest.raises(TypeError, match="pid: expected a Pid or a handle, got"):
            TO_PIDS[name](pid)
    with pytest.raises(RuntimeError, match="no pid here"):
        TO_PIDS[name](Raises())
    assert tr.self().alive


def test_a_handle_stands_for_its_pid(server: tr.Pid) -> None:
    class Handle:
        pid = server

    handle = Handle()
    assert tr.call(handle, "request") == "request"
    assert tr.link(handle) is True
    assert server.info().links == (tr.self(),)
    assert tr.unlink(handle) is True
    assert tr.process_info(handle).pid == server
    tr.register("by handle", handle)
    assert server.name == "by handle"
    ref = tr.monitor(handle)
    assert tr.exit(handle, "kill") is True
    assert tr.receive(ref, timeout=LIMIT) == tr.Down(ref, server, "killed")
    with pytest.raises(tr.NoProcess):
        tr.link(handle)
    tr.trap_exit()
    assert tr.link(handle) is True
    assert tr.receive(timeout=0) == tr.Exit(server, "noproc")


# ---- Names --------------------------------------------------------------------------------------

TO_NAMES: dict[str, Callable[[Any], object]] = {
    "register": tr.register,
    "unregister": tr.unregister,
    "whereis": tr.whereis,
    "spawn": lambda name: tr.spawn(int, name=name),
    "spawn_link": lambda name: tr.spawn_link(int, name=name),
    "spawn_monitor": lambda name: tr.spawn_monitor(int, name=name),
    "start": lambda name: Server.start(name=name),
    "start_link": lambda name: Server.start_link(name=name),
}


@pytest.mark.parametrize("name", TO_NAMES)
def test_a_name_is_a_non_empty_str(name: str) -> None:
    before = len(tr.processes())
    for bad in NO_NAMES:
        with pytest.raises(TypeError, match="name: expected a non-empty str"):
            TO_NAMES[name](bad)
    for bad in BAD_NAMES:
        with pytest.raises(ValueError, match="name: expected a non-empty str"):
            TO_NAMES[name](bad)
    with pytest.raises(ValueError):
        TO_NAMES[name]("\ud800")
    assert len(tr.processes()) == before


@pytest.mark.parametrize("name", [None])
def test_none_is_no_name(name: Any) -> None:
    for use in (tr.register, tr.unregister, tr.whereis):
        with pytest.raises(TypeError, match="name: expected a non-empty str"):
            use(name)


# ---- Times --------------------------------------------------------------------------------------

TO_SECONDS: dict[str, tuple[str, Callable[[Any], object]]] = {
    "receive": ("timeout", lambda seconds: tr.receive(timeout=seconds)),
    "sleep": ("seconds", tr.sleep),
    "send_after": ("delay", lambda seconds: tr.send_after(tr.self(), 1, seconds)),
    "call": ("timeout", lambda seconds: tr.call("dest", 1, timeout=seconds)),
    "Pid.call": ("timeout", lambda seconds: tr.self().call(1, timeout=seconds)),
    "stop": ("timeout", lambda seconds: tr.stop("dest", timeout=seconds)),
    "Pid.stop": ("timeout", lambda seconds: tr.self().stop(timeout=seconds)),
    "start": ("timeout", lambda seconds: Server.start(timeout=seconds)),
    "start_link": ("timeout", lambda seconds: Server.start_link(timeout=seconds)),
    "shutdown": ("timeout", lambda seconds: tr.shutdown(timeout=seconds)),
    "Reply": ("timeout", lambda seconds: tr.Reply(1, timeout=seconds)),
    "NoReply": ("timeout", lambda seconds: tr.NoReply(timeout=seconds)),
}


@pytest.mark.parametrize("name", TO_SECONDS)
def test_a_time_is_a_number_of_seconds(name: str) -> None:
    argument, use = TO_SECONDS[name]
    before = len(tr.processes())
    for bad in NO_SECONDS:
        with pytest.raises(TypeError, match=rf"^{argument}: expected "):
            use(bad)
    for bad in BAD_SECONDS:
        with pytest.raises(ValueError, match=rf"^{argument}: expected "):
            use(bad)
    assert len(tr.processes()) == before


@pytest.mark.parametrize("use", [tr.sleep, lambda s: tr.send_after(tr.self(), 1, s)])
def test_none_is_no_time_where_something_must_happen_then(use: Callable[[Any], object]) -> None:
    with pytest.raises(TypeError, match="expected a number of seconds >= 0, got None"):
        use(None)


# ---- Options ------------------------------------------------------------------------------------

SPAWNS: dict[str, Callable[..., object]] = {
    "spawn": lambda **options: tr.spawn(int, **options),
    "spawn_link": lambda **options: tr.spawn_link(int, **options),
    "spawn_monitor": lambda **options: tr.spawn_monitor(int, **options),
    "start": Server.start,
    "start_link": Server.start_link,
}


@pytest.mark.parametrize("name", SPAWNS)
@pytest.mark.parametrize(
    ("option", "allowed"),
    [
        ("scheduler", "'core', 'thread', 'asyncio', 'process'"),
        ("priority", "'low', 'normal', 'high'"),
    ],
)
def test_one_of_a_few_words(name: str, option: str, allowed: str) -> None:
    for bad, error in ((1, TypeError), (b"core", TypeError), ("", ValueError), ("max", ValueError),
                       ("Core", ValueError), ("\ud800", ValueError)):
        with pytest.raises(error, match=f"{option}: expected one of {allowed}, got"):
            SPAWNS[name](**{option: bad})


@pytest.mark.parametrize("spawn", [tr.spawn, tr.spawn_link, tr.spawn_monitor])
@pytest.mark.parametrize("fn", [None, 1, "function", object()])
def test_spawn_wants_a_callable(spawn: Callable[..., object], fn: Any) -> None:
    with pytest.raises(TypeError, match="fn: expected a callable, got"):
        spawn(fn)


@pytest.mark.parametrize("spawn", [tr.spawn, tr.spawn_link, tr.spawn_monitor])
def test_spawn_refuses_a_thread_for_an_async_function(spawn: Callable[..., object]) -> None:
    async def fn() -> None:
        pass

    with pytest.raises(ValueError, match="scheduler: expected 'asyncio'"):
        spawn(fn, scheduler="thread")


@pytest.mark.parametrize("spawn", [tr.spawn, tr.spawn_link, tr.spawn_monitor])
def test_spawn_wants_something_to_run(spawn: Callable[..., object]) -> None:
    with pytest.raises(TypeError):
        spawn()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_processes": 0}, "max_processes: expected an int 1"),
        ({"max_processes": -1}, "max_processes: expected an int 1"),
        ({"max_processes": 2**31}, "max_processes: expected an int 1"),
        ({"max_threads": 1}, "max_threads: expected an int 2"),
        ({"max_threads": 10**6}, "max_threads: expected an int 2"),
    ],
)
def test_values_of_an_engine(options: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        tr.Engine(**options)


@pytest.mark.parametrize("bad", ["5", 5.0, True, [5]])
@pytest.mark.parametrize("option", ["max_processes", "max_threads"])
def test_types_of_an_engine(option: str, bad: Any) -> None:
    with pytest.raises(TypeError, match=f"{option}: expected an int"):
        tr.Engine(**{option: bad})


@pytest.mark.parametrize(
    "use",
    [
        lambda: tr.Engine(5),  # type: ignore[misc]
        lambda: tr.Engine(threads=5),  # type: ignore[call-arg]
        lambda: tr.receive(limit=1),  # type: ignore[call-arg]
        lambda: tr.receive(None, 1),  # type: ignore[misc]
        lambda: tr.call("x"),  # type: ignore[call-arg]
        lambda: tr.call("x", 1, 2, 3),  # type: ignore[call-arg]
        lambda: tr.call("x", 1, limit=3),  # type: ignore[call-arg]
        lambda: tr.send("x"),  # type: ignore[call-arg]
        lambda: tr.send("x", 1, 2),  # type: ignore[call-arg]
        lambda: tr.cast("x"),  # type: ignore[call-arg]
        lambda: tr.send_many([]),  # type: ignore[call-arg]
        lambda: tr.stop(),  # type: ignore[call-arg]
        lambda: tr.stop("x", after=1),  # type: ignore[call-arg]
        lambda: tr.monitor(),  # type: ignore[call-arg]
        lambda: tr.monitor("x", label=1),  # type: ignore[call-arg]
        lambda: tr.demonitor(),  # type: ignore[call-arg]
        lambda: tr.send_after("x", 1),  # type: ignore[call-arg]
        lambda: tr.send_after("x", 1, seconds=1),  # type: ignore[call-arg]
        lambda: tr.register(),  # type: ignore[call-arg]
        lambda: tr.register("x", process=1),  # type: ignore[call-arg]
        lambda: tr.exit(tr.self()),  # type: ignore[call-arg]
        lambda: tr.exit("x", 1, 2),  # type: ignore[call-arg]
        lambda: tr.self().send(),  # type: ignore[call-arg]
        lambda: tr.self().call(),  # type: ignore[call-arg]
        lambda: tr.self().stop(after=1),  # type: ignore[call-arg]
        lambda: tr.self().exit(),  # type: ignore[call-arg]
        lambda: tr.shutdown(1, 2),  # type: ignore[call-arg]
        lambda: tr.Stop("x", 1),  # type: ignore[misc]
        lambda: tr.Reply(),  # type: ignore[call-arg]
        lambda: tr.NoReply(1),  # type: ignore[misc]
        lambda: tr.NoReply(reply=1),  # type: ignore[call-arg]
    ],
)
def test_unknown_and_missing_arguments(use: Callable[[], object]) -> None:
    with pytest.raises(TypeError):
        use()


def test_unknown_keywords_of_start_go_to_init() -> None:
    with pytest.raises(tr.StartError) as caught:
        Server.start(unknown=1)
    assert isinstance(caught.value.reason, TypeError)
    assert "Server has no init that takes arguments" in str(caught.value.reason)


# ---- Refs, flags, callers -----------------------------------------------------------------------


@pytest.mark.parametrize("ref", [*NO_REFS, None])
def test_demonitor_wants_a_ref(ref: Any) -> None:
    with pytest.raises(TypeError, match="ref: expected the Ref of a monitor, got"):
        tr.demonitor(ref)


@pytest.mark.parametrize("option", ["flush", "info"])
@pytest.mark.parametrize("bad", [1, 0, None, "yes"])
def test_flags_of_demonitor_are_bools(option: str, bad: Any) -> None:
    ref = tr.monitor(tr.self())
    with pytest.raises(TypeError, match=f"{option}: expected a bool, got"):
        tr.demonitor(ref, **{option: bad})


@pytest.mark.parametrize("match", [*NO_REFS, int, lambda message: True])
def test_receive_wants_a_ref(match: Any) -> None:
    tr.self().send(match)
    with pytest.raises(TypeError, match="match: expected None or a Ref, got"):
        tr.receive(match, timeout=0)


@pytest.mark.parametrize("flag", [None, 1, 0, "yes"])
def test_trap_exit_wants_a_bool(flag: Any) -> None:
    with pytest.raises(TypeError, match="flag: expected a bool, got"):
        tr.trap_exit(flag)


@pytest.mark.parametrize("caller", [None, 1, "caller", object()])
def test_reply_wants_the_from_of_a_call(caller: Any) -> None:
    with pytest.raises(TypeError, match="caller: expected the From"):
        tr.reply(caller, 1)
    with pytest.raises(TypeError, match="caller: expected the From"):
        tr.reply(tr.self(), 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("dests", [None, 1, object()])
def test_send_many_wants_an_iterable(dests: Any) -> None:
    with pytest.raises(TypeError, match="dests: expected an iterable of destinations, got"):
        tr.send_many(dests, 1)


def test_send_many_passes_on_what_its_iterable_raises() -> None:
    def dests() -> Any:
        yield tr.self()
        raise KeyError("broken")

    with pytest.raises(KeyError, match="broken"):
        tr.send_many(dests(), 1)
    assert tr.receive(timeout=0, default="empty") == "empty"


def test_a_from_of_a_call_that_is_over_is_harmless(server: tr.Pid) -> None:
    callers = []

    class Keeps(tr.GenServer):
        def handle_call(self, request: Any, caller: tr.From) -> Any:
            callers.append(caller)
            return 1

    pid = Keeps.start()
    pid.call(1)
    for _ in range(3):
        assert tr.reply(callers[0], "late") is None
    assert server.call("x") == "x"


# ---- Objects that cannot be made or changed -----------------------------------------------------


@pytest.mark.parametrize("make", [lambda: tr.self(), lambda: tr.monitor(tr.self()),
                                  lambda: tr.send_after(tr.self(), 1, 0)])
def test_pids_refs_and_timers_cannot_be_changed(make: Callable[[], Any]) -> None:
    thing = make()
    with pytest.raises(AttributeError):
        thing.other = 1
    with pytest.raises(AttributeError):
        thing.pid = 1
    with pytest.raises(TypeError):
        type(thing).other = 1


@pytest.mark.parametrize("kind", [tr.Pid, tr.Ref, tr.From, tr.Timer])
def test_pids_refs_and_timers_are_final(kind: Any) -> None:
    with pytest.raises(TypeError):
        type("Sub", (kind,), {})
    with pytest.raises(TypeError):
        kind.__new__(kind)
    with pytest.raises(TypeError):
        object.__new__(kind)


@pytest.mark.parametrize("kind", [tr.Reply, tr.NoReply, tr.Stop])
def test_actions_are_final_where_it_counts(kind: Any) -> None:
    """A subclass of an action is not taken for one."""
    sub = type("Sub", (kind,), {})
    action = sub(1) if kind is tr.Reply else sub()

    class Odd(tr.GenServer):
        def handle_cast(self, request: Any) -> Any:
            return action

    ref = tr.monitor(pid := Odd.start())
    pid.cast(1)
    assert isinstance(tr.receive(ref, timeout=LIMIT).reason, tr.BadReturn)


def test_an_action_with_its_fields_taken_away_ends_the_server() -> None:
    for action, field in ((tr.Reply(1), "value"), (tr.NoReply(), "timeout"), (tr.Stop(), "reason")):
        delattr(action, field)

        class Odd(tr.GenServer):
            def handle_call(self, request: Any, caller: tr.From, action: Any = action) -> Any:
                return action

        pid = Odd.start()
        with pytest.raises(tr.CallExit) as caught:
            pid.call(1)
        assert isinstance(caught.value.reason, AttributeError)


@pytest.mark.parametrize("odd", [{}, [], object(), float("nan"), lambda: 1, {1: {2}}])
def test_any_object_is_a_message_and_a_reason(odd: Any) -> None:
    tr.self().send(odd)
    assert tr.receive(timeout=0) is odd
    tr.trap_exit()
    tr.exit(tr.self(), odd)
    assert tr.receive(timeout=0).reason is odd


def test_str_subclasses_are_text_like_any_other() -> None:
    class Text(str):
        pass

    pid = tr.spawn(lambda: tr.receive(), name=Text("a text"))
    assert tr.whereis("a text") == pid
    tr.trap_exit()
    tr.exit(tr.self(), Text("kill"))  # not the word itself: an ordinary reason
    assert tr.receive(timeout=0).reason == "kill"
    pid.exit("kill")


# ---- The wrong thread ---------------------------------------------------------------------------


def test_every_function_works_in_any_thread(server: tr.Pid) -> None:
    errors: list[BaseException] = []

    def use() -> None:
        try:
            me = tr.self()
            me.send(1)
            assert tr.receive() == 1
            assert server.call(2) == 2
            ref = tr.monitor(server)
            assert tr.demonitor(ref, info=True)
            tr.link(server)
            tr.unlink(server)
            tr.sleep(0)
            assert Server.start().call(3) == 3
            assert tr.send_after(me, 4, 0)
            assert tr.receive(timeout=LIMIT) == 4
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=use) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_ref_of_another_process_is_left_alone() -> None:
    pid = tr.spawn(lambda: tr.receive())
    refs: list[tr.Ref] = []
    thread = threading.Thread(target=lambda: refs.append(tr.monitor(pid)))
    thread.start()
    thread.join()
    assert tr.demonitor(refs[0], flush=True, info=True) is False
    assert tr.receive(refs[0], timeout=0, default="none") == "none"


class Unprintable(Exception):
    def __repr__(self) -> str:
        raise RuntimeError("repr")

    __str__ = __repr__


class EndsUnprintably(tr.GenServer):
    def handle_call(self, request: object, caller: tr.From) -> object:
        raise Unprintable


def test_a_reason_that_cannot_be_printed_is_still_a_reason() -> None:
    with pytest.raises(tr.CallExit) as caught:
        EndsUnprintably.start().call("end")
    assert isinstance(caught.value.reason, Unprintable)
    assert caught.value.__cause__ is caught.value.reason


def test_a_name_that_cannot_be_encoded_is_refused_by_name() -> None:
    for use in (tr.whereis, tr.register, lambda name: tr.spawn(int, name=name)):
        with pytest.raises(ValueError, match="name: expected a str that can be encoded"):
            use("\ud800")


def test_a_very_long_time_is_as_good_as_for_ever() -> None:
    tr.Supervisor.start_link([], max_seconds=1e300).stop()
    tr.spawn(tr.sleep, 1e300).exit("kill")
