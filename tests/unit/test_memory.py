"""Nothing is left over: of starts, casts, calls, crashes, kills, timers, failed starts.

Counted by what the garbage collector sees, by weak references, and by how much thousands of rounds
more cost in memory: nothing.
"""

import contextlib
import gc
import logging
import os
import sys
import threading
import tracemalloc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from support import LIMIT, eventually

import tailrace as tr


@pytest.fixture(autouse=True)
def no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Log records keep exceptions, those keep frames, and pytest keeps log records."""
    monkeypatch.setattr(logging.getLogger("tailrace"), "disabled", True)


class Thing:
    """Something that can be watched."""


class Server(tr.GenServer):
    def init(self, thing: object = None) -> Any:
        self.thing = thing
        return thing() if callable(thing) else None

    def handle_call(self, request: Any, caller: tr.From) -> Any:
        return request() if callable(request) else request

    def handle_cast(self, request: Any) -> Any:
        if callable(request):
            request()

    def handle_info(self, message: Any) -> None:
        pass


def wait_until_over(pid: tr.Pid) -> None:
    tr.receive(tr.monitor(pid), timeout=LIMIT)
    eventually(lambda: pid not in tr.processes())


def is_gone(reference: "weakref.ref[Thing]") -> Callable[[], bool]:
    def check() -> bool:
        tr.self()
        gc.collect()
        return reference() is None

    return check


def spin() -> None:
    while True:
        pass


def raise_error() -> None:
    raise ValueError


def stop() -> tr.Stop:
    return tr.Stop("boom")


# ---- One thing at a time ------------------------------------------------------------------------


@pytest.mark.parametrize("scheduler", ["core", "thread"])
@pytest.mark.parametrize("end", ["stop", "kill", "crash", "exit"])
def test_a_server_lets_its_state_go(scheduler: str, end: str) -> None:
    thing = Thing()
    reference = weakref.ref(thing)
    server = Server.start(thing, scheduler=scheduler)
    del thing
    assert reference() is not None
    if end == "stop":
        server.stop()
    elif end == "crash":
        server.cast(raise_error)
    else:
        server.exit("kill" if end == "kill" else "boom")
    wait_until_over(server)
    eventually(is_gone(reference))


@pytest.mark.parametrize("scheduler", ["core", "thread"])
def test_a_function_lets_its_arguments_go(scheduler: str) -> None:
    for fn in (lambda *args, **kw: None, lambda *args, **kw: raise_error(),
               lambda *args, **kw: tr.exit(tr.self(), "kill")):
        thing, other = Thing(), Thing()
        references = [weakref.ref(thing), weakref.ref(other)]
        pid = tr.spawn(fn, thing, scheduler=scheduler, other=other)
        del thing, other
        wait_until_over(pid)
        for reference in references:
            eventually(is_gone(reference))


def test_messages_that_nobody_took_go_with_the_process() -> None:
    ready, go = threading.Event(), threading.Event()
    server = Server.start()
    server.cast(lambda: (ready.set(), go.wait()))
    assert ready.wait(LIMIT)
    references = []
    for n in range(100):
        thing = Thing()
        references.append(weakref.ref(thing))
        (server.send, server.cast)[n % 2](thing)
    del thing
    server.exit("kill")
    go.set()
    wait_until_over(server)
    for reference in references:
        eventually(is_gone(reference))


def test_a_message_to_the_dead_goes_at_once() -> None:
    server = Server.start()
    server.stop()
    thing = Thing()
    reference = weakref.ref(thing)
    server.send(thing)
    server.cast(thing)
    with pytest.raises(tr.NoProcess):
        server.call(thing)
    tr.send_after(server, thing, 0)
    del thing
    eventually(is_gone(reference))


def test_a_message_that_was_received_belongs_to_the_receiver() -> None:
    thing = Thing()
    reference = weakref.ref(thing)
    tr.self().send(thing)
    del thing
    assert tr.receive(timeout=0) is reference()
    assert is_gone(reference)()


@pytest.mark.parametrize("how", ["reply", "late reply", "dropped reply"])
def test_a_reply_belongs_to_the_caller(how: str) -> None:
    server, references = Server.start(), []
    go = threading.Event()

    def make() -> Thing:
        thing = Thing()
        references.append(weakref.ref(thing))
        if how == "late reply":
            go.wait()
        return thing

    if how == "late reply":
        with pytest.raises(tr.CallTimeout):
            server.call(make, timeout=0.01)
        go.set()
        server.call(lambda: None, timeout=LIMIT)
    elif how == "dropped reply":

        def call() -> None:
            me = tr.self()
            server.call(lambda: (me.exit("kill"), make())[1])

        wait_until_over(tr.spawn(call))
        server.call(lambda: None, timeout=LIMIT)
    else:
        assert server.call(make) is references[0]()
    eventually(is_gone(references[0]))


def test_a_reason_goes_with_the_last_who_heard_of_it() -> None:
    class Reason(Exception):
        pass

    thing: Any = Reason()
    reference = weakref.ref(thing)
    tr.trap_exit()
    pids = [tr.spawn_link(tr.receive) for _ in range(3)]
    for pid in pids:
        tr.monitor(pid)
        tr.exit(pid, thing)
    for _ in range(6):
        assert tr.receive(timeout=LIMIT).reason is thing
    del thing
    for pid in pids:
        eventually(lambda pid=pid: pid not in tr.processes())
    eventually(is_gone(reference))


def test_a_failed_start_lets_its_arguments_go() -> None:
    for limit in (None, LIMIT):
        thing = Thing()
        reference = weakref.ref(thing)

        def init(thing: Thing = thing) -> Any:
            return tr.Stop("boom")

        with pytest.raises(tr.StartError):
            Server.start(init, timeout=limit)
        with pytest.raises(TypeError):
            Server.start(init, scheduler=5)  # type: ignore[arg-type]
        del thing, init
        eventually(is_gone(reference))


def test_a_timer_lets_its_message_go() -> None:
    for end in ("fired", "cancelled", "to a dead process"):
        thing = Thing()
        reference = weakref.ref(thing)
        target = tr.spawn(tr.receive)
        timer = tr.send_after(target, thing, 0 if end == "fired" else 0.05)
        del thing
        if end == "cancelled":
            timer.cancel()
        if end == "to a dead process":
            target.exit("kill")
        del timer
        eventually(is_gone(reference))
        target.exit("kill")


def test_a_thread_lets_its_mailbox_go_with_it() -> None:
    references = []

    def run() -> None:
        thing = Thing()
        references.append(weakref.ref(thing))
        tr.self().send(thing)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    eventually(is_gone(references[0]))


def test_a_stopped_engine_lets_everything_go() -> None:
    things = [Thing() for _ in range(3)]
    references = [weakref.ref(thing) for thing in things]
    Server.start(things[0])
    tr.self().send(things[1])
    tr.send_after(tr.self(), things[2], 1000).remaining()
    things.clear()
    tr.shutdown()
    tr.Engine()
    tr.self()
    eventually(is_gone(references[0]))
    eventually(is_gone(references[1]))


# ---- Thousands ----------------------------------------------------------------------------------

SERVER_ROUNDS: dict[str, Callable[[tr.Pid], object]] = {
    "cast": lambda server: server.cast(None),
    "send": lambda server: server.send(None),
    "call": lambda server: server.call(None),
    "call that times out": lambda server: _timeout(server),
    "self": lambda server: tr.self(),
    "whereis": lambda server: (tr.whereis("nobody"), tr.registered()),
    "process_info": lambda server: (server.info(), tr.processes(), repr(server), hash(server)),
    "monitor": lambda server: tr.demonitor(tr.monitor(server)),
    "link": lambda server: (tr.link(server), tr.unlink(server)),
    "send_after": lambda server: tr.send_after(server, None, 100).cancel(),
    "receive": lambda server: (tr.self().send(None), tr.receive()),
    "receive that times out": lambda server: tr.receive(timeout=0, default=None),
    "bad arguments": lambda server: _refused(),
    "register": lambda server: (tr.register("me"), tr.unregister("me")),
    "trap_exit": lambda server: (tr.trap_exit(), tr.trap_exit(False)),
    "spawn": lambda server: wait_for(tr.spawn(int)),
    "crash": lambda server: wait_for(tr.spawn(tr.exit, tr.self(), "normal")),
    "start and stop": lambda server: Server.start().stop(),
    "start and kill": lambda server: Server.start().exit("kill"),
    "ignored start": lambda server: Server.start(lambda: tr.IGNORE),
    "start that stops": lambda server: _failed_start(Server.start, stop),
    "start that crashes": lambda server: _failed_start(Server.start, raise_error),
    "start with a bad result": lambda server: _failed_start(Server.start, int),
    "start of a taken name": lambda server: _failed_start(Server.start, name="server"),
    "start that takes too long": lambda server: _failed_start(Server.start, tr.receive, timeout=0),
    "start that stops on a worker": lambda server: _failed_start(Server.start, stop, timeout=LIMIT),
    "linked start that stops": lambda server: _failed_start(Server.start_link, stop),
    "linked start that takes too long": lambda server: _failed_start(
        Server.start_link, tr.receive, timeout=0
    ),
    "spin and kill": lambda server: tr.spawn(spin).exit("kill"),
}


def wait_for(pid: tr.Pid) -> None:
    tr.receive(tr.monitor(pid), timeout=LIMIT)


def _timeout(server: tr.Pid) -> None:
    with contextlib.suppress(tr.CallTimeout):
        server.call(None, timeout=0)


def _refused() -> None:
    for use in (lambda: tr.send(None, 1), lambda: tr.sleep(-1), lambda: tr.register("")):
        with contextlib.suppress(TypeError, ValueError):
            use()


def _failed_start(start: Callable[..., tr.Pid], *args: Any, **options: Any) -> None:
    with pytest.raises((tr.StartError, tr.AlreadyStarted)):
        start(*args, **options)


def settle(server: tr.Pid) -> None:
    server.call(None, timeout=LIMIT)
    eventually(lambda: set(tr.processes()) <= {tr.self(), server} or None)
    gc.collect()


def forget_names() -> None:
    """Empty the interpreter's cache of attribute look-ups.

    It keeps up to 4,096 names by their address, and the repr() in an error's text makes names
    ("repr_" + type) that are new each time: where no address is used twice, as under the address
    sanitizer, it fills up with them, tens of kilobytes in a thousand rounds.
    """
    getattr(sys, "_clear_internal_caches", sys._clear_type_cache)()


@pytest.mark.parametrize("name", SERVER_ROUNDS)
def test_rounds_leave_nothing_behind(name: str) -> None:
    server, run = Server.start(name="server"), SERVER_ROUNDS[name]
    tr.trap_exit()
    rounds = 100 if name == "spin and kill" else 1000

    def measure() -> tuple[int, int, int]:
        settle(server)
        forget_names()
        threads = len(os.listdir("/proc/self/task"))
        return threads, len(gc.get_objects()), tracemalloc.get_traced_memory()[0]

    def grow() -> tuple[int, int, int]:
        threads, objects, size = measure()
        for _ in range(rounds):
            run(server)
        more_threads, more_objects, more_size = measure()
        return more_threads - threads, more_objects - objects, more_size - size

    for _ in range(rounds):  # fills what is kept for use again
        run(server)
    tracemalloc.start()
    try:
        grow()
        while True:
            threads, objects, size = grow()
            if threads == 0:  # else the difference has the interpreter's state of a thread in it
                break
    finally:
        tracemalloc.stop()
    assert objects <= 0
    # The numbers of the first measurement, and the state of a thread that another one replaced in
    # between; a leak of the smallest object each round would be many times that.
    assert size < 1000
