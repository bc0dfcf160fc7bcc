"""Servers with `async def` callbacks on the engine's event loop; the rules are those of all."""

import asyncio
import threading
from typing import Any

import pytest
from support import LIMIT, eventually

import tailrace as tr


class Server(tr.GenServer):
    """Every callback suspends, and says what it saw."""

    async def init(self, seen: list[Any], what: Any = None) -> Any:
        await asyncio.sleep(0)
        self.seen = seen
        return what

    async def handle_call(self, request: Any, caller: tr.From) -> Any:
        await asyncio.sleep(0)
        return await request(self, caller) if callable(request) else request

    async def handle_cast(self, request: Any) -> Any:
        await asyncio.sleep(0)
        self.seen.append(("cast", request))

    async def handle_info(self, message: Any) -> Any:
        await tr.asleep(0)
        self.seen.append(("info", message))

    async def handle_continue(self, token: Any) -> Any:
        await asyncio.sleep(0)
        self.seen.append(("continue", token))

    async def handle_timeout(self) -> Any:
        await asyncio.sleep(0)
        self.seen.append("timeout")
        return tr.Stop("normal")

    async def terminate(self, reason: Any) -> None:
        await asyncio.sleep(0)
        self.seen.append(("terminate", reason))


def down_of(pid: tr.Pid) -> Any:
    return tr.receive(tr.monitor(pid), timeout=LIMIT).reason


def test_callbacks_run_in_the_order_of_messages() -> None:
    seen: list[Any] = []
    server = Server.start_link(seen)
    info = tr.process_info(server)
    assert info is not None
    assert info.scheduler == "asyncio"
    server.cast(1)
    server.send(2)
    server.cast(3)
    assert server.call("x") == "x"
    server.stop()
    assert seen == [("cast", 1), ("info", 2), ("cast", 3), ("terminate", "normal")]


@pytest.mark.parametrize("suspend", [False, True])
def test_callbacks_of_one_server_never_overlap_and_those_of_others_do(suspend: bool) -> None:
    class Gate(tr.GenServer):
        async def init(self, entered: list[int], gate: "asyncio.Event | None" = None) -> None:
            self.inside = 0
            self.entered = entered
            self.gate = asyncio.Event()

        async def handle_call(self, request: int, caller: tr.From) -> int:
            self.inside += 1
            self.entered.append(self.inside)
            if suspend:
                await asyncio.sleep(0)
            await tr.asleep(0)
            self.inside -= 1
            return request

    async def main() -> list[int]:
        server = await Gate.astart(entered)
        return await asyncio.gather(*(server.acall(n, LIMIT) for n in range(100)))

    entered: list[int] = []
    assert asyncio.run(main()) == list(range(100))
    assert entered == [1] * 100

    class Waits(tr.GenServer):
        async def handle_call(self, request: Any, caller: tr.From) -> Any:
            return await request()

    one, other = Waits.start(), Waits.start()
    met: list[asyncio.Event] = []

    async def first() -> str:
        met.append(asyncio.Event())
        await met[0].wait()
        return "first"

    async def second() -> str:
        met[0].set()
        return "second"

    async def both() -> list[str]:
        call = asyncio.create_task(one.acall(first))
        while not met:
            await asyncio.sleep(0)
        return [await other.acall(second), await call]

    assert asyncio.run(both()) == ["second", "first"]


def test_continue_and_timeout() -> None:
    seen: list[Any] = []
    server = Server.start(seen, tr.NoReply(continue_="first"))

    async def answer(self: Any, caller: tr.From) -> Any:
        return tr.Reply("answer", continue_="second", timeout=0)

    assert server.call(answer) == "answer"
    assert down_of(server) in ("normal", "noproc")
    assert seen == [
        ("continue", "first"),
        ("continue", "second"),
        "timeout",
        ("terminate", "normal"),
    ]


def test_o109_an_answer_may_come_later_and_from_elsewhere() -> None:
    async def later(self: Any, caller: tr.From) -> Any:
        async def answer() -> None:
            await asyncio.sleep(0)
            tr.reply(caller, "later")

        self.task = asyncio.create_task(answer())
        return tr.NOREPLY

    assert Server.start_link([]).call(later) == "later"


def test_o135_stop_answers_after_terminate() -> None:
    seen: list[Any] = []

    async def stop(self: Any, caller: tr.From) -> Any:
        return tr.Stop("normal", reply=[*seen, "before"])

    server = Server.start(seen)
    assert server.call(stop) == ["before"]
    assert seen == [("terminate", "normal")]


def test_an_exception_ends_it_with_terminate() -> None:
    seen: list[Any] = []
    error = ValueError("x")

    async def fail(self: Any, caller: tr.From) -> Any:
        await asyncio.sleep(0)
        raise error

    server = Server.start(seen)
    with pytest.raises(tr.CallExit) as caught:
        server.call(fail)
    assert caught.value.reason is error
    assert seen == [("terminate", error)]


def test_o101_to_o107_init() -> None:
    class Starts(tr.GenServer):
        async def init(self, what: Any) -> Any:
            await asyncio.sleep(0)
            if isinstance(what, BaseException):
                raise what
            return what

    error = ValueError("x")
    assert Starts.start(tr.IGNORE) is tr.IGNORE
    for what, reason in [(tr.Stop("no"), "no"), (error, error)]:
        with pytest.raises(tr.StartError) as caught:
            Starts.start(what)
        assert caught.value.reason == reason
    with pytest.raises(tr.StartError) as caught:
        Starts.start(1)
    assert isinstance(caught.value.reason, tr.BadReturn)
    Starts.start(None, name="taken")
    with pytest.raises(tr.AlreadyStarted):
        Starts.start(None, name="taken")


def test_an_init_that_takes_too_long() -> None:
    class Slow(tr.GenServer):
        async def init(self) -> None:
            await tr.asleep(LIMIT)

    with pytest.raises(tr.StartError) as caught:
        Slow.start(timeout=0.01)
    assert caught.value.reason == "timeout"

    async def main() -> None:
        with pytest.raises(tr.StartError) as caught:
            await Slow.astart(timeout=0.01)
        assert caught.value.reason == "timeout"
        before = set(tr.processes())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await Slow.astart_link()
        assert tr.receive(timeout=0, default=None) is None
        async with asyncio.timeout(LIMIT):
            while not set(tr.processes()) <= before:
                await asyncio.sleep(0)

    asyncio.run(main())


def test_awaited_starts() -> None:
    class Plain(tr.GenServer):
        def init(self, what: Any = None) -> Any:
            return what

    async def main() -> None:
        assert (await Plain.astart()).alive
        assert await Plain.astart_link(tr.IGNORE) is tr.IGNORE
        with pytest.raises(tr.StartError) as caught:
            await Plain.astart(tr.Stop("no"))
        assert caught.value.reason == "no"
        server = await Server.astart_link([], name="by name")
        assert tr.whereis("by name") == server
        with pytest.raises(tr.AlreadyStarted):
            await Plain.astart(name="by name")
        await server.astop()

    asyncio.run(main())


def test_a_start_that_cannot_be_awaited_leaves_nothing_behind() -> None:
    """A coroutine on the core has no event loop to await it on."""

    async def start(link: bool) -> None:
        for _ in range(2):
            with pytest.raises(RuntimeError):
                await (Server.astart_link if link else Server.astart)([], name="nobody")

    before = set(tr.processes())
    for link in (False, True):
        _, ref = tr.spawn_monitor(start, link, scheduler="core")
        assert tr.receive(ref, timeout=LIMIT).reason == "normal"
    eventually(lambda: tr.whereis("nobody") is None)
    eventually(lambda: set(tr.processes()) <= before)


def test_on_the_loop_a_start_is_awaited() -> None:
    async def process() -> None:
        with pytest.raises(RuntimeError, match="await astart_link"):
            Server.start_link([])
        server = await Server.astart_link([])
        assert await server.acall("x") == "x"

    _, ref = tr.spawn_monitor(process)
    assert tr.receive(ref, timeout=LIMIT).reason == "normal"


def test_where_it_runs() -> None:
    class Plain(tr.GenServer):
        def handle_call(self, request: Any, caller: tr.From) -> Any:
            return asyncio.current_task(), asyncio.get_running_loop().is_running()

    assert Plain.start(scheduler="asyncio").call(1) == (None, True)
    with pytest.raises(ValueError, match="scheduler: expected 'asyncio', as Server has async def"):
        Server.start([], scheduler="thread")

    class Derived(Server):
        pass

    info = tr.process_info(Derived.start([]))
    assert info is not None
    assert info.scheduler == "asyncio"


@pytest.mark.parametrize("first", [False, True])
def test_asyncio_works_in_callbacks(first: bool) -> None:
    async def work(self: Any, caller: tr.From) -> Any:
        task = asyncio.current_task()
        assert task is not None
        if not first:
            await asyncio.sleep(0)
        assert asyncio.current_task() is task
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await asyncio.sleep(LIMIT)
        async with asyncio.TaskGroup() as group:
            children = [group.create_task(asyncio.sleep(0, tr.self())) for _ in range(3)]
        assert [child.result() for child in children] == [tr.self()] * 3
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(LIMIT)
        task.uncancel()
        task.cancel()
        task.uncancel()
        return "fine"

    class Waits(tr.GenServer):
        async def handle_call(self, request: Any, caller: tr.From) -> Any:
            return await request(self, caller)

    server = Waits.start_link()
    for _ in range(3):
        assert server.call(work, LIMIT) == "fine"


def test_areceive_in_a_callback_leaves_requests_alone() -> None:
    async def ask(self: Any, caller: tr.From) -> Any:
        ready.set()
        return await tr.areceive(timeout=LIMIT)

    ready = threading.Event()
    seen: list[Any] = []
    server = Server.start_link(seen)
    tr.spawn(lambda: (ready.wait(LIMIT), server.send("later")))
    assert server.call(ask, LIMIT) == "later"
    assert seen == []


def test_o43_killed_in_a_callback() -> None:
    entered, cleaned = threading.Event(), threading.Event()

    async def hang(self: Any, caller: tr.From) -> Any:
        try:
            entered.set()
            await asyncio.sleep(LIMIT)
        finally:
            cleaned.set()

    seen: list[Any] = []
    server = Server.start(seen)
    tr.spawn(lambda: (entered.wait(LIMIT), server.exit("kill")))
    with pytest.raises(tr.CallExit) as caught:
        server.call(hang, LIMIT)
    assert caught.value.reason == "killed"
    assert cleaned.wait(LIMIT)
    assert seen == []


def test_o131_the_parents_end_is_its_end() -> None:
    seen: list[Any] = []
    box: list[tr.Pid] = []

    class Traps(Server):
        async def init(self, seen: list[Any], what: Any = None) -> Any:
            tr.trap_exit()
            return await super().init(seen, what)

    async def parent() -> None:
        box.append(await Traps.astart_link(seen))
        raise tr.ProcessExit("parent")

    _, ref = tr.spawn_monitor(parent)
    tr.receive(ref, timeout=LIMIT)
    eventually(lambda: not box[0].alive)
    eventually(lambda: seen == [("terminate", "parent")])


def test_a_cycle_of_calls_is_found() -> None:
    class Partner(tr.GenServer):
        async def init(self) -> None:
            self.other: Any = None

        async def handle_cast(self, other: tr.Pid) -> None:
            self.other = other

        async def handle_call(self, request: Any, caller: tr.From) -> Any:
            try:
                return await self.other.acall(request, LIMIT)
            except tr.DeadlockError as error:
                return error.cycle

    one, other = Partner.start(), Partner.start()
    one.cast(other)
    other.cast(one)
    assert one.call("x", LIMIT) == (other, one)


def test_supervisors_start_and_restart_them() -> None:
    supervisor = tr.Supervisor.start_link([Server.child_spec([], id="server")])
    (child,) = supervisor.which_children()
    child.pid.exit("kill")
    eventually(
        lambda: [c.pid for c in supervisor.which_children() if c.pid not in (None, child.pid)]
    )
    (again,) = supervisor.which_children()
    assert again.pid.call("x") == "x"
    supervisor.stop()


def test_many_servers() -> None:
    async def main() -> list[int]:
        servers = await asyncio.gather(*(Server.astart([]) for _ in range(500)))
        return await asyncio.gather(*(s.acall(n, LIMIT) for n, s in enumerate(servers)))

    assert asyncio.run(main()) == list(range(500))
