"""From the program's own event loop: acall, astop, asleep, areceive (api.md: twins with an `a`)."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support import LIMIT

import tailrace as tr


class Server(tr.GenServer):
    """Calls are functions to run on the server; a cast answers those that wait."""

    def init(self) -> None:
        self.waiting: list[tr.From] = []

    def handle_call(self, request: Callable[[Any, tr.From], Any], caller: tr.From) -> Any:
        return request(self, caller)

    def handle_cast(self, value: Any) -> None:
        for caller in self.waiting:
            tr.reply(caller, value)
        self.waiting.clear()


class Echo(tr.GenServer):
    def handle_call(self, request: Any, caller: tr.From) -> Any:
        return request


def later(server: Any, caller: tr.From) -> Any:
    server.waiting.append(caller)
    return tr.NOREPLY


def run(main: Awaitable[Any]) -> Any:
    async def limited() -> Any:
        async with asyncio.timeout(LIMIT):
            return await main

    return asyncio.run(limited())


def test_a_call_returns_the_reply() -> None:
    async def main() -> None:
        server = Server.start_link(name="server")
        box = [1]
        assert await tr.acall(server, lambda self, caller: box) is box
        assert await tr.acall("server", lambda self, caller: None) is None
        assert await server.acall(lambda self, caller: caller.pid) == tr.self()
        assert await server.acall(request=lambda self, caller: 1, timeout=None) == 1

    run(main())


def test_ten_thousand_calls_in_flight_get_their_own_answers() -> None:
    async def main() -> list[int]:
        echo = Echo.start_link()
        return list(await asyncio.gather(*(echo.acall(n, LIMIT) for n in range(10_000))))

    assert run(main()) == list(range(10_000))


def test_what_a_signal_handler_raises_while_answers_are_given_out_is_not_lost() -> None:
    """It leaves the loop, as it does wherever else it comes; the others have their answers then."""
    raised = []

    async def call(request: int) -> int:
        return int(await echo.acall(request, LIMIT))

    def call_soon(callback: Callable[..., Any], *args: Any, **options: Any) -> Any:
        handle = plain(callback, *args, **options)
        if len(raised) < 2 and isinstance(getattr(callback, "__self__", None), asyncio.Task):
            raised.append(callback)
            raise KeyboardInterrupt
        return handle

    echo = Echo.start()
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        plain = loop.call_soon
        tasks = [loop.create_task(call(n)) for n in range(10)]
        loop.run_until_complete(asyncio.sleep(0))
        loop.call_soon = call_soon  # type: ignore[method-assign, assignment]
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(asyncio.wait(tasks, timeout=LIMIT))
        loop.call_soon = plain  # type: ignore[method-assign]
        assert raised
        assert loop.run_until_complete(asyncio.gather(*tasks)) == [*range(10)]


def test_a_late_answer_is_dropped() -> None:
    async def main() -> None:
        server = Server.start_link()
        with pytest.raises(tr.CallTimeout):
            await server.acall(later, timeout=0)
        with pytest.raises(TimeoutError):
            await server.acall(later, timeout=0.001)
        server.cast("late")
        assert await server.acall(lambda self, caller: self.waiting) == []
        assert await tr.areceive(timeout=0, default=None) is None

    run(main())


def test_the_end_of_the_callee_is_the_answer() -> None:
    async def main() -> None:
        server = Server.start()
        calls = [asyncio.ensure_future(server.acall(later, None)) for _ in range(100)]
        while await server.acall(lambda self, caller: len(self.waiting)) < 100:
            pass
        server.exit("gone")
        for call in calls:
            with pytest.raises(tr.CallExit) as caught:
                await call
            assert caught.value.reason == "gone"
        with pytest.raises(tr.NoProcess):
            await server.acall(1)
        with pytest.raises(tr.NoProcess):
            await tr.acall("nobody", 1)

    run(main())


def test_bad_arguments_are_refused() -> None:
    async def main() -> None:
        server = Server.start_link()
        with pytest.raises(TypeError, match="timeout"):
            await server.acall(1, timeout="soon")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="timeout"):
            await server.acall(1, timeout=-1)
        with pytest.raises(TypeError, match="seconds"):
            await tr.asleep(None)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="match"):
            await tr.areceive(match="x")  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            await tr.acall(1, 2)
        with pytest.raises(tr.CallExit) as caught:
            await tr.self().acall(1)
        assert caught.value.reason == "calling_self"

    run(main())


def test_a_cancelled_call_leaves_nothing_behind() -> None:
    class Token:
        pass

    async def main() -> list[weakref.ref[Any]]:
        server = Server.start_link()
        tokens = []

        async def call() -> None:
            token = Token()
            tokens.append(weakref.ref(token))
            await server.acall(later, None)
            assert token

        tasks = [asyncio.create_task(call()) for _ in range(50)]
        while await server.acall(lambda self, caller: len(self.waiting)) < 50:
            pass
        for task in tasks:
            task.cancel()
        assert all(
            isinstance(result, asyncio.CancelledError)
            for result in await asyncio.gather(*tasks, return_exceptions=True)
        )
        server.cast("too late")
        assert await server.acall(lambda self, caller: self.waiting) == []
        del task, tasks
        gc.collect()
        assert [token() for token in tokens] == [None] * 50
        return tokens

    run(main())


def test_a_callers_timeout_cancels_the_call() -> None:
    async def main() -> None:
        server = Server.start_link()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await server.acall(later, None)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await tr.asleep(LIMIT)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await tr.areceive()
        assert await server.acall(lambda self, caller: len(self.waiting)) == 1

    run(main())


def test_several_loops_in_several_threads() -> None:
    echo = Echo.start_link()
    results: list[list[int]] = []

    def thread(first: int) -> None:
        async def main() -> list[int]:
            return list(await asyncio.gather(*(echo.acall(n) for n in range(first, first + 500))))

        results.extend(asyncio.run(main()) for _ in range(3))

    threads = [threading.Thread(target=thread, args=(1000 * n,)) for n in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(LIMIT)
    assert sorted(results) == sorted(
        [list(range(1000 * n, 1000 * n + 500)) for n in range(4)] * 3
    )


def test_astop_returns_when_the_server_has_ended() -> None:
    async def main() -> None:
        server = Server.start()
        await server.astop()
        assert not server.alive
        server = Server.start()
        await tr.astop(server, ("shutdown", 1), timeout=LIMIT)
        assert not server.alive
        with pytest.raises(tr.NoProcess):
            await server.astop()

    run(main())


def test_astop_tells_of_another_reason() -> None:
    class Bad(tr.GenServer):
        def terminate(self, reason: Any) -> None:
            raise tr.ProcessExit("other")

    async def main() -> None:
        with pytest.raises(tr.CallExit) as caught:
            await Bad.start().astop()
        assert caught.value.reason == "other"

    run(main())


def test_asleep_sleeps_whatever_messages_come() -> None:
    async def main() -> list[str]:
        order: list[str] = []

        async def sleeper(name: str, seconds: float) -> None:
            await tr.asleep(seconds)
            order.append(name)

        tr.self().send("a message")
        async with asyncio.TaskGroup() as group:
            group.create_task(sleeper("late", 0.05))
            group.create_task(sleeper("soon", 0.0))
        assert await tr.areceive() == "a message"
        return order

    assert run(main()) == ["soon", "late"]


def test_areceive_takes_messages_in_order_and_by_ref() -> None:
    async def main() -> None:
        me = tr.self()
        for n in range(3):
            me.send(n)
        pid, ref = tr.spawn_monitor(lambda: None)
        down = await tr.areceive(ref, timeout=LIMIT)
        assert (down.pid, down.reason) == (pid, "normal")
        assert [await tr.areceive() for _ in range(3)] == [0, 1, 2]
        with pytest.raises(tr.ReceiveTimeout):
            await tr.areceive(timeout=0)
        assert await tr.areceive(timeout=0.001, default="none") == "none"

    run(main())


def test_areceive_is_woken_from_other_threads_and_beside_blocking_calls() -> None:
    async def main() -> None:
        me = tr.self()
        echo = Echo.start_link()
        receiver = asyncio.create_task(tr.areceive(timeout=LIMIT))
        await asyncio.sleep(0)
        tr.spawn(me.send, "from a process")
        assert await receiver == "from a process"
        receiver = asyncio.create_task(tr.areceive(timeout=LIMIT))
        await asyncio.sleep(0)
        me.send("from this thread")
        assert echo.call("blocks") == "blocks"
        assert await receiver == "from this thread"

    run(main())


def test_several_tasks_receive_each_message_once() -> None:
    async def main() -> None:
        me = tr.self()
        tasks = [asyncio.create_task(tr.areceive()) for _ in range(20)]
        await asyncio.sleep(0)
        tr.spawn(lambda: [me.send(n) for n in range(20)])
        assert await asyncio.gather(*tasks) == list(range(20))

    run(main())


def test_a_cancelled_areceive_takes_no_message() -> None:
    async def main() -> None:
        task = asyncio.create_task(tr.areceive())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        tr.self().send("kept")
        assert await tr.areceive(timeout=LIMIT) == "kept"

    run(main())


def test_o28_waits_of_a_thread_whose_process_was_ended_raise_process_exit() -> None:
    async def main() -> None:
        me = tr.self()
        server = Server.start()
        waits = [
            asyncio.create_task(server.acall(later, None)),
            asyncio.create_task(tr.asleep(LIMIT)),
            asyncio.create_task(tr.areceive()),
        ]
        while await server.acall(lambda self, caller: len(self.waiting)) < 1:
            pass
        tr.spawn(tr.exit, me, "over")
        for wait in waits:
            with pytest.raises(tr.ProcessExit) as caught:
                await wait
            assert caught.value.reason == "over"
        assert tr.self() != me
        assert await server.acall(lambda self, caller: "still there") == "still there"

    run(main())


def test_a_stopped_engine_ends_all_waits() -> None:
    async def main() -> None:
        server = Server.start()
        call = asyncio.create_task(server.acall(later, None))
        sleep = asyncio.create_task(tr.asleep(LIMIT))
        while await server.acall(lambda self, caller: len(self.waiting)) < 1:
            pass
        await asyncio.to_thread(tr.shutdown)
        with pytest.raises(tr.CallExit):
            await call
        with pytest.raises(tr.EngineStopped):
            await sleep
        with pytest.raises(tr.EngineStopped):
            await server.acall(1)
        tr.Engine()
        echo = Echo.start()
        assert await echo.acall("the next engine") == "the next engine"
        await echo.astop()

    run(main())


def test_waits_of_a_stopped_engine_and_those_of_the_next_one_are_told_apart() -> None:
    async def main() -> None:
        old = [asyncio.create_task(tr.asleep(LIMIT)) for _ in range(100)]
        await asyncio.sleep(0)  # they have begun
        tr.shutdown()
        tr.Engine()
        server = Server.start()
        new = [asyncio.create_task(server.acall(later, LIMIT)) for _ in range(100)]
        asyncio.get_running_loop().call_soon(lambda: [task.cancel() for task in old[:50]])
        while await server.acall(lambda self, caller: len(self.waiting)) < 100:
            pass
        server.cast("answer")
        assert await asyncio.gather(*new) == ["answer"] * 100
        ended = await asyncio.gather(*old, return_exceptions=True)
        assert {type(error) for error in ended[:50]} == {asyncio.CancelledError}
        assert {type(error) for error in ended[50:]} == {tr.EngineStopped}
        await server.astop()

    run(main())
