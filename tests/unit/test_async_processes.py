"""Functions that are `async def` as processes: real tasks of the engine's own event loop."""

import asyncio
import functools
import threading
from collections.abc import Callable
from contextvars import Context
from typing import Any

import pytest
from support import LIMIT, eventually

import tailrace as tr


class Echo(tr.GenServer):
    def handle_call(self, request: Any, caller: tr.From) -> Any:
        return request


def run(function: Callable[..., Any], *args: Any) -> Any:
    """Run a function as a process and return what it returns, or fail with its reason."""
    box: list[Any] = []

    async def process() -> None:
        box.append(await function(*args))

    _, ref = tr.spawn_monitor(process)
    down = tr.receive(ref, timeout=LIMIT)
    assert down.reason == "normal", down.reason
    return box[0]


def reason_of(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    _, ref = tr.spawn_monitor(function, *args, **kwargs)
    return tr.receive(ref, timeout=LIMIT).reason


def test_an_async_function_is_a_task_of_the_engines_loop() -> None:
    async def process() -> Any:
        task = asyncio.current_task()
        assert isinstance(task, asyncio.Task)
        assert task in asyncio.all_tasks()
        info = tr.process_info(tr.self())
        assert info is not None
        assert info.scheduler == "asyncio"
        return asyncio.get_running_loop()

    assert run(process) is run(process)


def test_what_asyncio_offers_works_inside() -> None:
    async def process() -> list[Any]:
        found: list[Any] = []

        async def child(name: str) -> str:
            await asyncio.sleep(0)
            found.append(tr.self())
            return name

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(child(name)) for name in "ab"]
        assert [task.result() for task in tasks] == ["a", "b"]
        assert await asyncio.gather(child("c"), child("d")) == ["c", "d"]
        assert await asyncio.wait_for(child("e"), LIMIT) == "e"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await asyncio.sleep(LIMIT)
        assert await asyncio.to_thread(lambda: 1) == 1
        done = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(lambda: done.set_result(tr.self()))
        found.append(await done)
        assert found == [tr.self()] * 6
        return found

    run(process)


def test_where_it_runs() -> None:
    async def function(box: list[Any], *, x: int = 0) -> None:
        info = tr.process_info(tr.self())
        assert info is not None
        box.append((info.scheduler, x))

    class Thing:
        async def method(self, box: list[Any]) -> None:
            await function(box)

    box: list[Any] = []
    assert reason_of(function, box, x=1) == "normal"
    assert reason_of(function, box, x=2, scheduler="asyncio", priority="high") == "normal"
    assert reason_of(Thing().method, box) == "normal"
    assert reason_of(functools.partial(functools.partial(function, x=3), box)) == "normal"
    assert reason_of(lambda: function(box), scheduler="asyncio") == "normal"
    assert reason_of(box.append, "plain", scheduler="asyncio") == "normal"
    assert box == [*(("asyncio", x) for x in (1, 2, 0, 3, 0)), "plain"]
    with pytest.raises(ValueError, match="scheduler: expected 'asyncio'"):
        tr.spawn(function, box, scheduler="thread")


def test_o3_how_it_ends() -> None:
    async def returns() -> int:
        return 1

    async def raises(error: BaseException) -> None:
        await asyncio.sleep(0)
        raise error

    error = ValueError("x")
    assert reason_of(returns) == "normal"
    assert reason_of(raises, error) is error
    assert reason_of(raises, tr.ProcessExit("done")) == "done"
    end = SystemExit(1)
    assert reason_of(raises, end) is end
    assert run(returns) == 1


def test_links_monitors_exits_and_messages() -> None:
    async def process() -> None:
        me = tr.self()
        assert tr.trap_exit() is False
        child = tr.spawn_link(asyncio.sleep, LIMIT)
        child.exit("over")
        ended = await tr.areceive(timeout=LIMIT)
        assert (ended.pid, ended.reason) == (child, "over")

        async def partner() -> None:
            me.send(("hello", tr.self()))
            assert await tr.areceive(timeout=LIMIT) == "answer"

        pid, ref = tr.spawn_monitor(partner)
        assert await tr.areceive(timeout=LIMIT) == ("hello", pid)
        me.send("between")
        pid.send("answer")
        assert (await tr.areceive(ref, timeout=LIMIT)).reason == "normal"
        assert await tr.areceive() == "between"
        assert await tr.areceive(timeout=0.001, default=1) == 1
        tr.register("the process")
        assert tr.whereis("the process") == me

    run(process)


def test_calls_from_async_processes() -> None:
    async def process() -> list[int]:
        await tr.asleep(0)
        assert await echo.acall("x") == "x"
        return list(await asyncio.gather(*(echo.acall(n, LIMIT) for n in range(1000))))

    echo = Echo.start()
    assert run(process) == list(range(1000))


def test_what_would_block_the_loop_is_refused_and_names_its_twin() -> None:
    server = Echo.start()

    async def process() -> None:
        for blocks, twin in [
            (lambda: server.call(1), "acall"),
            (lambda: tr.call(server, 1), "acall"),
            (lambda: server.stop(), "astop"),
            (lambda: tr.receive(), "areceive"),
            (lambda: tr.receive(timeout=1.0), "areceive"),
            (lambda: tr.sleep(1.0), "asleep"),
        ]:
            with pytest.raises(RuntimeError, match=f"await {twin}"):
                blocks()
        assert tr.receive(timeout=0, default=None) is None
        assert await server.acall("goes on") == "goes on"

    run(process)


def test_o43_a_killed_process_is_dead_at_once_and_its_task_is_cancelled() -> None:
    events: list[Any] = []
    started = threading.Event()

    async def process() -> None:
        async def child() -> None:
            try:
                await asyncio.sleep(LIMIT)
            finally:
                events.append("child")

        background = asyncio.create_task(child())
        try:
            await asyncio.sleep(0)
            started.set()
            await asyncio.sleep(LIMIT)
        except asyncio.CancelledError:
            events.append("cancelled")
            raise
        finally:
            assert background
            with pytest.raises(BaseException) as caught:
                tr.self()
            events.append(caught.type.__name__)

    pid, ref = tr.spawn_monitor(process)
    assert started.wait(LIMIT)
    pid.exit("kill")
    assert not pid.alive
    assert tr.receive(ref, timeout=LIMIT).reason == "killed"
    eventually(lambda: len(events) == 3)
    assert sorted(events) == ["Killed", "cancelled", "child"]


def test_o43_who_swallows_its_cancellation_is_dead_and_cancelled_again() -> None:
    times: list[int] = []
    started = threading.Event()

    async def process() -> None:
        while len(times) < 3:
            try:
                started.set()
                await asyncio.sleep(LIMIT)
            except asyncio.CancelledError:
                times.append(1)

    pid, ref = tr.spawn_monitor(process)
    assert started.wait(LIMIT)
    pid.exit("kill")
    assert tr.receive(ref, timeout=LIMIT).reason == "killed"
    eventually(lambda: len(times) == 3)


@pytest.mark.parametrize("in_child", [False, True])
def test_o43_who_spins_is_interrupted_without_harm_to_others(in_child: bool) -> None:
    started = threading.Event()

    async def spin() -> None:
        started.set()
        while True:
            pass

    async def spins() -> None:
        if in_child:
            async with asyncio.TaskGroup() as group:
                group.create_task(spin())
        else:
            await spin()

    async def other() -> str:
        return await tr.areceive(timeout=LIMIT)

    box: list[str] = []

    async def process() -> None:
        box.append(await other())

    pid, ref = tr.spawn_monitor(process)
    spinner, spinner_ref = tr.spawn_monitor(spins)
    assert started.wait(LIMIT)
    spinner.exit("kill")
    assert tr.receive(spinner_ref, timeout=LIMIT).reason == "killed"
    pid.send("unharmed")
    assert tr.receive(ref, timeout=LIMIT).reason == "normal"
    assert box == ["unharmed"]


def test_o43_who_spins_while_it_is_cancelled_is_interrupted_too() -> None:
    started, spinning = threading.Event(), threading.Event()

    async def process() -> None:
        try:
            started.set()
            await asyncio.sleep(LIMIT)
        finally:
            spinning.set()
            while True:
                pass

    pid = tr.spawn(process)
    assert started.wait(LIMIT)
    pid.exit("kill")
    assert spinning.wait(LIMIT)
    assert run(asyncio.sleep, 0, "the loop goes on") == "the loop goes on"


def test_tasks_end_with_their_process() -> None:
    ended = threading.Event()

    async def background() -> None:
        try:
            await asyncio.sleep(LIMIT)
        finally:
            ended.set()

    async def process(tasks: list[Any]) -> None:
        tasks.append(asyncio.create_task(background()))
        await asyncio.sleep(0)

    assert reason_of(process, []) == "normal"
    assert ended.wait(LIMIT)


def test_what_a_task_raises_to_end_the_program_ends_that_task_only() -> None:
    async def ends() -> None:
        raise SystemExit(3)

    async def process() -> bool:
        task = asyncio.create_task(ends())
        with pytest.raises(SystemExit):
            await task
        return True

    assert run(process)
    assert run(process)


def test_an_exit_of_itself() -> None:
    async def process() -> None:
        tr.exit(tr.self(), "by itself")
        raise AssertionError("not reached")

    assert reason_of(process) == "by itself"


def test_many_at_once() -> None:
    me = tr.self()

    async def process(n: int) -> None:
        await tr.asleep(0.01)
        me.send(n)

    for n in range(2000):
        tr.spawn(process, n)
    assert sorted(tr.receive(timeout=LIMIT) for _ in range(2000)) == list(range(2000))


def test_ping_pong() -> None:
    async def pong() -> None:
        while (message := await tr.areceive()) is not None:
            message.send(tr.self())

    async def ping(partner: tr.Pid) -> int:
        for _ in range(500):
            partner.send(tr.self())
            assert await tr.areceive(timeout=LIMIT) == partner
        partner.send(None)
        return 500

    assert run(ping, tr.spawn(pong)) == 500


def test_context_variables_are_inherited_and_kept_apart() -> None:
    import contextvars

    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("outer")

    async def process(value: str) -> list[str]:
        before = variable.get()
        variable.set(value)
        await asyncio.sleep(0)
        return [before, variable.get()]

    assert run(process, "a") == ["outer", "a"]
    assert run(process, "b") == ["outer", "b"]
    assert variable.get() == "outer"


def test_an_engine_that_stops_cancels_them_and_the_next_has_a_loop_of_its_own() -> None:
    cleaned = threading.Event()
    loops: list[Any] = []

    async def process() -> None:
        loops.append(asyncio.get_running_loop())
        try:
            await tr.areceive()
        finally:
            cleaned.set()

    tr.spawn(process)
    eventually(lambda: loops)
    tr.shutdown()
    assert cleaned.wait(LIMIT)
    eventually(lambda: loops[0].is_closed())
    tr.Engine()

    async def loop() -> Any:
        return asyncio.get_running_loop()

    assert run(loop) is not loops[0]


def test_what_wakes_the_loop_at_its_end_does_not_cut_a_cleanup_short() -> None:
    """Tasks that no process's code made are left when the engine has ended."""
    cleaned = threading.Event()

    async def cleans_up(loop: Any) -> None:
        try:
            await asyncio.sleep(LIMIT)
        finally:
            for _ in range(3):
                loop._tailrace_door.open()
                await asyncio.sleep(0)
            cleaned.set()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(
            lambda: left.append(asyncio.Task(cleans_up(loop), loop=loop)), context=Context()
        )
        await asyncio.sleep(0.01)

    left: list[asyncio.Task[None]] = []
    run(main)
    tr.shutdown()
    assert cleaned.wait(LIMIT)
    tr.Engine()
