"""Processes that are `async def` functions on the core: they await the engine, without a thread."""

import asyncio
import contextvars
import gc
import logging
import sys
import threading
import types
from collections.abc import AsyncIterator, Generator
from typing import Any

import pytest
from support import LIMIT, eventually

import tailrace as tr


def spawn(fn: Any, *args: Any, **options: Any) -> tr.Pid:
    return tr.spawn(fn, *args, scheduler="core", **options)


def outcome(fn: Any, *args: Any) -> Any:
    """The exit reason of a coroutine that runs to its end."""
    _, ref = tr.spawn_monitor(fn, *args, scheduler="core")
    return tr.receive(ref, timeout=LIMIT).reason


def parked(pid: tr.Pid) -> bool:
    info = tr.process_info(pid)
    return info is not None and info.status == "waiting"


class Echo(tr.GenServer):
    """Answers what it is asked; "never" is answered never, "die" ends it."""

    def init(self) -> None:
        self.owed: list[tr.From] = []

    def handle_call(self, request: Any, caller: tr.From) -> Any:
        if request == "never":
            self.owed.append(caller)
            return tr.NOREPLY
        if request == "late":
            for owed in self.owed:
                tr.reply(owed, "late")
        return tr.Stop("died") if request == "die" else request


@pytest.fixture
def echo() -> tr.Pid:
    return Echo.start()


# ---- Start and end ----------------------------------------------------------------------------


def test_a_coroutine_function_is_a_process_on_the_core_O1_O2() -> None:
    async def add(owner: tr.Pid, a: int, *, b: int) -> int:
        owner.send((tr.self(), a + b))
        return 5

    pid, ref = tr.spawn_monitor(add, tr.self(), 1, b=2, scheduler="core", name="adder")
    assert tr.receive(timeout=LIMIT) == (pid, 3)
    assert tr.receive(ref, timeout=LIMIT).reason == "normal"


def test_it_holds_no_thread_while_it_waits() -> None:
    async def wait(owner: tr.Pid) -> None:
        owner.send(threading.get_ident())
        owner.send(await tr.areceive())

    pids = [spawn(wait, tr.self()) for _ in range(1000)]
    threads = {tr.receive(timeout=LIMIT) for _ in pids}
    assert len(threads) < 100
    eventually(lambda: all(parked(pid) for pid in pids))
    info = tr.process_info(pids[0])
    assert info is not None and info.scheduler == "core"
    for pid in pids:
        pid.send("go")
    assert [tr.receive(timeout=LIMIT) for _ in pids] == ["go"] * len(pids)


@pytest.mark.parametrize("scheduler", ["thread"])
def test_async_functions_do_not_run_on_threads(scheduler: str) -> None:
    async def nothing() -> None: ...

    with pytest.raises(ValueError, match=r"scheduler: expected 'asyncio'.* or 'core'"):
        tr.spawn(nothing, scheduler=scheduler)


def test_an_exception_is_the_exit_reason_and_is_logged_once_O3(
    caplog: pytest.LogCaptureFixture,
) -> None:
    error = ValueError("oops")

    async def fail() -> None:
        await tr.asleep(0)
        raise error

    assert outcome(fail) is error
    assert error.__traceback__ is not None
    (record,) = [r for r in caplog.records if r.name == "tailrace"]
    assert record.levelno == logging.ERROR
    assert "oops" in record.getMessage()


def test_wrong_arguments_are_an_exit_reason_not_an_error_in_spawn_O1() -> None:
    async def two(a: int, b: int) -> None: ...

    assert isinstance(outcome(two, 1), TypeError)


def test_process_exit_ends_it_with_its_reason_O3_O4(caplog: pytest.LogCaptureFixture) -> None:
    async def leave() -> None:
        await tr.asleep(0)
        raise tr.ProcessExit("done")

    assert outcome(leave) == "done"
    assert not caplog.records


def test_a_bound_method_is_a_coroutine_function_too() -> None:
    class Thing:
        async def run(self, owner: tr.Pid) -> None:
            owner.send("ran")

    assert outcome(Thing().run, tr.self()) == "normal"
    assert tr.receive(timeout=0) == "ran"


def test_a_link_takes_it_along_and_it_takes_its_peers_along_O33_O38() -> None:
    async def child() -> None:
        await tr.areceive()

    async def parent(owner: tr.Pid) -> None:
        owner.send(tr.spawn_link(child, scheduler="core"))
        await tr.areceive()

    pid = spawn(parent, tr.self())
    linked = tr.receive(timeout=LIMIT)
    ref = tr.monitor(linked)
    pid.exit("bad")
    assert tr.receive(ref, timeout=LIMIT).reason == "bad"


def test_it_can_trap_exits_O33() -> None:
    async def trap(owner: tr.Pid) -> None:
        tr.trap_exit()
        owner.send("ready")
        owner.send(await tr.areceive())

    pid = spawn(trap, tr.self())
    assert tr.receive(timeout=LIMIT) == "ready"
    pid.exit("please")
    assert tr.receive(timeout=LIMIT) == tr.Exit(tr.self(), "please")


# ---- Receive ----------------------------------------------------------------------------------


def test_messages_come_in_order_O20() -> None:
    async def relay(owner: tr.Pid, n: int) -> None:
        for _ in range(n):
            owner.send(await tr.areceive())

    pid = spawn(relay, tr.self(), 5000)
    for i in range(5000):
        pid.send(i)
    assert [tr.receive(timeout=LIMIT) for _ in range(5000)] == list(range(5000))


def test_a_ref_takes_only_what_carries_it_and_leaves_the_rest_O22() -> None:
    async def choose(owner: tr.Pid) -> None:
        ref = tr.alias()
        owner.send(ref)
        got = [await tr.areceive(ref), await tr.areceive(), await tr.areceive()]
        owner.send(got)

    pid = spawn(choose, tr.self())
    ref = tr.receive(timeout=LIMIT)
    pid.send("first")
    pid.send("second")
    eventually(lambda: parked(pid))
    pid.send((ref, "wanted"))
    assert tr.receive(timeout=LIMIT) == [(ref, "wanted"), "first", "second"]


def test_a_limit_passes_O23() -> None:
    async def wait(owner: tr.Pid) -> None:
        with pytest.raises(tr.ReceiveTimeout, match=r"0\.01"):
            await tr.areceive(timeout=0.01)
        owner.send(await tr.areceive(timeout=0, default="nothing"))
        await tr.areceive(timeout=0)

    _, ref = tr.spawn_monitor(wait, tr.self(), scheduler="core")
    assert tr.receive(timeout=LIMIT) == "nothing"
    assert isinstance(tr.receive(ref, timeout=LIMIT).reason, tr.ReceiveTimeout)


def test_a_message_that_is_there_wins_over_a_passed_limit_O23() -> None:
    async def wait(owner: tr.Pid) -> None:
        tr.self().send("there")
        owner.send(await tr.areceive(timeout=0))

    spawn(wait, tr.self())
    assert tr.receive(timeout=LIMIT) == "there"


def test_other_messages_do_not_extend_the_limit_O24() -> None:
    async def wait(owner: tr.Pid) -> None:
        ref = tr.alias()
        owner.send("ready")
        await tr.areceive(ref, timeout=0.05)

    pid, ref = tr.spawn_monitor(wait, tr.self(), scheduler="core")
    assert tr.receive(timeout=LIMIT) == "ready"
    down = None
    while down is None:
        pid.send("noise")
        down = tr.receive(ref, timeout=0.001, default=None)
    assert isinstance(down.reason, tr.ReceiveTimeout)


@pytest.mark.parametrize(
    ("wait", "error", "text"),
    [
        (lambda: tr.areceive(5), TypeError, "match"),  # type: ignore[arg-type]
        (lambda: tr.areceive(timeout=-1), ValueError, "timeout"),
        (lambda: tr.areceive(timeout="1"), TypeError, "timeout"),  # type: ignore[arg-type]
        (lambda: tr.acall("x", 1, "1"), TypeError, "timeout"),  # type: ignore[arg-type]
        (lambda: tr.acall(5, 1), TypeError, "dest"),
        (lambda: tr.asleep(-1), ValueError, "seconds"),
    ],
)
def test_bad_arguments_are_named(wait: Any, error: type[Exception], text: str) -> None:
    async def run() -> None:
        await wait()

    reason = outcome(run)
    assert type(reason) is error
    assert text in str(reason)


# ---- Sleep ------------------------------------------------------------------------------------


def test_a_sleep_lasts_whatever_comes_O69() -> None:
    async def nap(owner: tr.Pid) -> None:
        loop_free = asyncio.events._get_running_loop() is None
        await tr.asleep(0.02)
        owner.send((loop_free, await tr.areceive(timeout=0)))

    pid = spawn(nap, tr.self())
    pid.send("early")
    assert tr.receive(timeout=LIMIT) == (True, "early")


def test_a_thousand_sleep_at_once() -> None:
    async def nap(owner: tr.Pid, seconds: float) -> None:
        await tr.asleep(seconds)
        await tr.asleep(0.01)
        owner.send(seconds)

    for i in range(1000):
        spawn(nap, tr.self(), (i % 10) / 1000)
    assert len([tr.receive(timeout=LIMIT) for _ in range(1000)]) == 1000


# ---- Calls ------------------------------------------------------------------------------------


def test_a_call_gives_the_answer_O108(echo: tr.Pid) -> None:
    async def ask(owner: tr.Pid) -> None:
        owner.send([await tr.acall(echo, i) for i in range(100)])

    spawn(ask, tr.self())
    assert tr.receive(timeout=LIMIT) == list(range(100))


def test_a_late_answer_is_dropped_O112_O114(echo: tr.Pid) -> None:
    async def ask(owner: tr.Pid) -> None:
        with pytest.raises(tr.CallTimeout):
            await tr.acall(echo, "never", 0.01)
        owner.send(await tr.acall(echo, "late"))
        owner.send(await tr.areceive(timeout=0, default="empty"))

    assert outcome(ask, tr.self()) == "normal"
    assert [tr.receive(timeout=0), tr.receive(timeout=0)] == ["late", "empty"]


def test_the_callee_is_not_there_or_ends_O109_O111(echo: tr.Pid) -> None:
    async def ask(owner: tr.Pid) -> None:
        with pytest.raises(tr.NoProcess):
            await tr.acall("nobody has this name", 1)
        with pytest.raises(tr.CallExit, match="died"):
            await tr.acall(echo, "die")
        with pytest.raises(tr.NoProcess):
            await tr.acall(echo, 1)
        with pytest.raises(tr.CallExit, match="itself"):
            await tr.acall(tr.self(), 1)
        owner.send("all raised")

    assert outcome(ask, tr.self()) == "normal"
    assert tr.receive(timeout=0) == "all raised"


def test_it_can_stop_a_server_O138(echo: tr.Pid) -> None:
    async def stop(owner: tr.Pid) -> None:
        await tr.astop(echo, ("shutdown", 1))
        owner.send(echo.alive)
        with pytest.raises(tr.NoProcess):
            await tr.astop(echo)
        with pytest.raises(tr.CallExit):
            await tr.astop(Stubborn.start())

    class Stubborn(tr.GenServer):
        def terminate(self, reason: Any) -> None:
            raise tr.ProcessExit("other")

    assert outcome(stop, tr.self()) == "normal"
    assert tr.receive(timeout=0) is False


def test_the_methods_of_a_pid_work_too(echo: tr.Pid) -> None:
    async def ask(owner: tr.Pid) -> None:
        owner.send(await echo.acall("hello", timeout=LIMIT))
        await echo.astop()
        owner.send(echo.alive)

    assert outcome(ask, tr.self()) == "normal"
    assert [tr.receive(timeout=0), tr.receive(timeout=0)] == ["hello", False]


def test_messages_wait_while_it_calls_O116() -> None:
    class Slow(tr.GenServer):
        def handle_call(self, request: tuple[tr.Pid, int], caller: tr.From) -> str:
            pid, n = request
            for i in range(n):
                pid.send(i)
            return "answer"

    slow = Slow.start()

    async def ask(owner: tr.Pid) -> None:
        answer = await tr.acall(slow, (tr.self(), 100))
        owner.send((answer, [await tr.areceive(timeout=0) for _ in range(100)]))

    spawn(ask, tr.self())
    assert tr.receive(timeout=LIMIT) == ("answer", list(range(100)))


def test_closing_a_cycle_of_calls_raises() -> None:
    class Middle(tr.GenServer):
        def handle_call(self, request: tr.Pid, caller: tr.From) -> Any:
            return request.call("back", timeout=None)

    middle = Middle.start()

    async def first() -> None:
        await tr.acall(middle, tr.self(), None)

    reason = outcome(first)
    assert isinstance(reason, tr.CallExit)
    cause = reason.reason
    assert isinstance(cause, tr.DeadlockError)
    assert middle in cause.cycle


def test_a_coroutine_that_closes_a_cycle_of_calls_is_told() -> None:
    class Middle(tr.GenServer):
        def handle_call(self, request: tr.Pid, caller: tr.From) -> Any:
            return request.call("back", timeout=LIMIT)

    async def last(owner: tr.Pid) -> None:
        _, caller, _ = await tr.areceive()
        try:
            await tr.acall(caller.pid, "round", None)
        except tr.DeadlockError as error:
            owner.send(error.cycle)
        tr.reply(caller, "answer")

    pid = spawn(last, tr.self())
    middle = Middle.start()
    assert middle.call(pid, timeout=LIMIT) == "answer"
    assert tr.receive(timeout=LIMIT) == (pid, middle)


def test_blocking_calls_work_inside_O91(echo: tr.Pid) -> None:
    async def ask(owner: tr.Pid) -> None:
        tr.send_after(tr.self(), "late", 0.01)
        tr.sleep(0.001)
        owner.send((tr.call(echo, 1), tr.receive(timeout=LIMIT), await tr.acall(echo, 2)))

    spawn(ask, tr.self())
    assert tr.receive(timeout=LIMIT) == (1, "late", 2)


# ---- What is not the engine's -----------------------------------------------------------------


def test_what_is_not_the_engines_is_refused_where_it_is_awaited() -> None:
    async def wrong(owner: tr.Pid) -> None:
        try:
            await asyncio.sleep(0)
        except TypeError as error:
            owner.send(str(error))
        future: asyncio.Future[None] = asyncio.Future(loop=loop)
        await future

    loop = asyncio.new_event_loop()
    assert isinstance(outcome(wrong, tr.self()), TypeError)
    assert "scheduler='asyncio'" in tr.receive(timeout=0)
    loop.close()


def test_one_that_catches_the_refusal_goes_on_O4() -> None:
    async def stubborn(owner: tr.Pid) -> str:
        for _ in range(3):
            try:
                await asyncio.sleep(0)
            except TypeError:
                owner.send("refused")
        return "end"

    assert outcome(stubborn, tr.self()) == "normal"
    assert [tr.receive(timeout=0) for _ in range(3)] == ["refused"] * 3


def test_one_that_catches_the_refusal_and_returns_has_ended_normally() -> None:
    async def quiet() -> None:
        try:
            await asyncio.sleep(0)
        except TypeError:
            return

    assert outcome(quiet) == "normal"


def test_there_is_no_task_and_no_loop() -> None:
    async def look(owner: tr.Pid) -> None:
        for ask in (asyncio.get_running_loop, asyncio.current_task):
            try:
                ask()
            except RuntimeError as error:
                owner.send(str(error))

    assert outcome(look, tr.self()) == "normal"
    assert [tr.receive(timeout=0) for _ in range(2)] == ["no running event loop"] * 2


def test_a_wait_is_awaited_once_and_by_one_process() -> None:
    async def twice(owner: tr.Pid) -> None:
        wait = tr.asleep(0)
        await wait
        try:
            await wait
        except RuntimeError as error:
            owner.send(str(error))

        @types.coroutine
        def again() -> Generator[Any, Any, Any]:
            yield wait

        await again()

    assert isinstance(outcome(twice, tr.self()), TypeError)
    assert "once" in tr.receive(timeout=0)


def test_async_generators_and_nested_coroutines_work(echo: tr.Pid) -> None:
    async def numbers(n: int) -> AsyncIterator[int]:
        for i in range(n):
            yield await tr.acall(echo, i)

    async def total(n: int) -> int:
        return sum([i async for i in numbers(n)])

    async def run(owner: tr.Pid) -> None:
        owner.send(await total(10))

    spawn(run, tr.self())
    assert tr.receive(timeout=LIMIT) == 45


# ---- Kill -------------------------------------------------------------------------------------


def test_a_parked_one_is_dead_at_once_and_closed_O5_O43() -> None:
    closed = threading.Event()
    seen: list[Any] = []

    async def wait() -> None:
        try:
            await tr.areceive()
        except BaseException as error:
            seen.append(type(error))
            raise
        finally:
            for use in (lambda: tr.send("anybody", 1), tr.self, lambda: tr.asleep(1)):
                try:
                    use()
                except BaseException as error:
                    seen.append(type(error).__name__)
            closed.set()

    pid, ref = tr.spawn_monitor(wait, scheduler="core")
    eventually(lambda: parked(pid))
    pid.exit("kill")
    assert not pid.alive
    assert tr.receive(ref, timeout=LIMIT).reason == "killed"
    assert closed.wait(LIMIT)
    assert seen == [GeneratorExit, "Killed", "Killed", "Killed"]


@pytest.mark.parametrize("waits", ["receive", "limited", "call", "sleep"])
def test_whatever_it_waits_for_it_can_be_killed_O30(waits: str, echo: tr.Pid) -> None:
    closed = threading.Event()

    async def wait() -> None:
        try:
            if waits == "receive":
                await tr.areceive()
            elif waits == "limited":
                await tr.areceive(timeout=LIMIT)
            elif waits == "call":
                await tr.acall(echo, "never", None)
            else:
                await tr.asleep(LIMIT)
        finally:
            closed.set()

    pid, ref = tr.spawn_monitor(wait, scheduler="core")
    eventually(lambda: parked(pid))
    pid.exit("kill")
    assert tr.receive(ref, timeout=LIMIT).reason == "killed"
    assert closed.wait(LIMIT)
    assert echo.call("late") == "late"


def test_one_that_awaits_in_its_cleanup_is_logged_and_gone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def wait() -> None:
        try:
            await tr.areceive()
        finally:
            await asyncio.sleep(0)

    pid = spawn(wait)
    eventually(lambda: parked(pid))
    pid.exit("kill")
    eventually(lambda: caplog.records)
    (record,) = caplog.records
    assert "ignored GeneratorExit" in record.getMessage()
    eventually(lambda: pid not in tr.processes())


def test_one_that_computes_is_interrupted_and_its_result_dropped_O43() -> None:
    started = threading.Event()

    async def spin() -> None:
        started.set()
        while True:
            pass

    pid, ref = tr.spawn_monitor(spin, scheduler="core")
    assert started.wait(LIMIT)
    pid.exit("kill")
    assert tr.receive(ref, timeout=LIMIT).reason == "killed"
    eventually(lambda: pid not in tr.processes())


def test_one_that_never_ran_is_closed_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    async def never() -> None: ...

    for _ in range(200):
        spawn(never).exit("kill")
    eventually(lambda: not [p for p in tr.processes() if p != tr.self()])
    gc.collect()
    assert not [w for w in recwarn if "never awaited" in str(w.message)]


# ---- Context, fairness, memory ----------------------------------------------------------------


def test_context_variables_are_the_processes_own() -> None:
    var: contextvars.ContextVar[int] = contextvars.ContextVar("var")

    async def count(owner: tr.Pid, n: int) -> None:
        before = var.get()
        var.set(n)
        await tr.areceive()
        owner.send((before, n, var.get()))

    var.set(-1)
    pids = [spawn(count, tr.self(), n) for n in range(50)]
    for pid in pids:
        pid.send("go")
    got = {tr.receive(timeout=LIMIT) for _ in pids}
    assert got == {(-1, n, n) for n in range(50)}
    assert var.get() == -1


def test_one_that_always_has_messages_lets_others_run_O84() -> None:
    async def greedy() -> None:
        me = tr.self()
        me.send("again")
        while True:
            me.send(await tr.areceive())

    async def meek(owner: tr.Pid) -> None:
        owner.send("my turn")

    pids = [spawn(greedy) for _ in range(3)]
    spawn(meek, tr.self())
    assert tr.receive(timeout=LIMIT) == "my turn"
    for pid in pids:
        pid.exit("kill")


def test_nothing_is_left_behind(echo: tr.Pid) -> None:
    gone: list[None] = []  # any thread may drop the last reference: counting would lose some

    class Thing:
        def __del__(self) -> None:
            gone.append(None)

    async def use(thing: Thing, how: int) -> Any:
        if how == 0:
            return await tr.acall(echo, thing)
        if how == 1:
            return await tr.areceive(timeout=0, default=thing)
        if how == 2:
            tr.self().send(thing)
            return await tr.areceive()
        tr.self().send(thing)
        return await tr.acall(echo, "never", None)

    pids = [spawn(use, Thing(), i % 4) for i in range(200)]
    eventually(lambda: all(parked(pid) for pid in pids[3::4]))
    for pid in pids[3::4]:
        pid.exit("kill")
    eventually(lambda: not [p for p in pids if p in tr.processes()])
    eventually(lambda: gc.collect() >= 0 and len(gone) == 200)


def test_a_hundred_thousand_are_parked_at_once() -> None:
    async def wait() -> None:
        await tr.areceive()

    n = 100_000 if sys.gettrace() is None else 1000
    pids = [spawn(wait) for _ in range(n)]
    eventually(lambda: parked(pids[-1]) and parked(pids[0]))
    for pid in pids:
        pid.send("end")
    eventually(lambda: not any(pid.alive for pid in (pids[0], pids[n // 2], pids[-1])))
    eventually(lambda: len(tr.processes()) < 100)


def test_an_event_loop_inside_is_an_event_loop(echo: tr.Pid) -> None:
    async def nested(owner: tr.Pid) -> None:
        owner.send(asyncio.run(both()))
        owner.send(await tr.acall(echo, 3))

    async def both() -> list[Any]:
        return await asyncio.gather(tr.acall(echo, 1), tr.acall(echo, 2))

    assert outcome(nested, tr.self()) == "normal"
    assert [tr.receive(timeout=0), tr.receive(timeout=0)] == [[1, 2], 3]
