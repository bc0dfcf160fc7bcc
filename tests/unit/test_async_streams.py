"""astream, and `async with` an engine or a supervisor."""

import asyncio
from typing import Any

import pytest
from support import LIMIT, eventually

import tailrace as tr


class Numbers(tr.Producer):
    def init(self, most: int = 10**9) -> None:
        self.n = 0
        self.most = most
        self.asked: list[int] = []

    def handle_demand(self, demand: int) -> Any:
        self.asked.append(demand)
        first, self.n = self.n, min(self.n + demand, self.most)
        return list(range(first, self.n))

    def handle_call(self, request: Any, caller: tr.From) -> Any:
        return request(self)

    def handle_cast(self, reason: Any) -> Any:
        return tr.Stop(reason)


async def take(stream: Any, count: int) -> list[Any]:
    found: list[Any] = []
    async for event in stream:
        found.append(event)
        if len(found) == count:
            break
    return found


def run(main: Any) -> Any:
    async def limited() -> Any:
        async with asyncio.timeout(LIMIT):
            return await main()

    return asyncio.run(limited())


def test_events_come_in_order_and_no_more_than_the_demand_is_under_way() -> None:
    numbers = Numbers.start()

    async def main() -> None:
        stream = tr.astream([(numbers, {"max_demand": 10})])
        found = [await anext(stream) for _ in range(25)]
        assert found == list(range(25))
        assert await numbers.acall(lambda self: self.n) <= 25 + 2 * 10
        await stream.aclose()

    run(main)


def test_leaving_the_loop_early_ends_the_subscription() -> None:
    numbers = Numbers.start()

    async def main() -> None:
        assert await take(tr.astream([numbers]), 3) == [0, 1, 2]

    before = {*tr.processes()}
    run(main)
    eventually(lambda: {*tr.processes()} <= before)
    assert numbers.alive


def test_several_producers() -> None:
    one, other = Numbers.start(5), Numbers.start(5)

    async def main() -> list[int]:
        return await take(tr.astream([one, other]), 10)

    assert sorted(run(main)) == sorted([*range(5), *range(5)])


@pytest.mark.parametrize("reason", ["normal", "shutdown", ("shutdown", 1)])
def test_a_clean_end_of_the_producer_ends_the_stream(reason: Any) -> None:
    numbers = Numbers.start(3)

    async def main() -> list[int]:
        stream = tr.astream([numbers])
        found = [await anext(stream) for _ in range(3)]
        numbers.cast(reason)
        return found + [event async for event in stream]

    assert run(main) == [0, 1, 2]


def test_an_unclean_end_raises() -> None:
    numbers = Numbers.start(1)

    async def main() -> None:
        stream = tr.astream([numbers])
        assert await anext(stream) == 0
        numbers.exit("bad")
        with pytest.raises(tr.CallExit) as caught:
            await anext(stream)
        assert caught.value.reason == "bad"
        with pytest.raises(tr.NoProcess):
            await anext(tr.astream([numbers]))
        assert [event async for event in tr.astream([])] == []

    run(main)


def test_a_temporary_subscription_may_end() -> None:
    short, long = Numbers.start(2), Numbers.start(4)

    async def main() -> list[int]:
        stream = tr.astream([(short, {"cancel": "temporary"}), (long, {"cancel": "temporary"})])
        found = [await anext(stream) for _ in range(6)]
        short.exit("bad")
        long.cast("normal")
        return found + [event async for event in stream]

    assert sorted(run(main)) == sorted([0, 1, 0, 1, 2, 3])


def test_bad_options_are_refused() -> None:
    async def main() -> None:
        numbers = Numbers.start()
        with pytest.raises(ValueError, match=r"subscriptions\[0\].cancel"):
            await anext(tr.astream([(numbers, {"cancel": "never"})]))
        with pytest.raises(TypeError, match=r"subscriptions\[1\]"):
            await anext(tr.astream([numbers, (numbers, 1)]))

    run(main)


def test_the_reader_ends_with_the_process_that_iterates() -> None:
    numbers = Numbers.start()
    streams: list[Any] = []

    async def process() -> None:
        streams.append(tr.astream([numbers]))
        await anext(streams[0])

    before = {*tr.processes()}
    _, ref = tr.spawn_monitor(process)
    assert tr.receive(ref, timeout=LIMIT).reason == "normal"
    eventually(lambda: {*tr.processes()} <= before)


def test_async_with_an_engine_and_a_supervisor() -> None:
    tr.shutdown()

    async def main() -> None:
        async with tr.Engine() as engine:
            assert isinstance(engine, tr.Engine)
            async with tr.Supervisor.start_link([Numbers.child_spec()]) as supervisor:
                (child,) = supervisor.which_children()
                assert child.pid.alive
            assert not supervisor.pid.alive
            async with await tr.Supervisor.astart_link([Numbers.child_spec()]) as supervisor:
                assert supervisor.pid.alive
            await supervisor_stops()
        with pytest.raises(tr.EngineStopped):
            tr.self()

    async def supervisor_stops() -> None:
        supervisor = tr.Supervisor.start_link([])
        await supervisor.astop()
        async with supervisor:
            assert not supervisor.pid.alive

    run(main)
    tr.Engine()
    run(tr.ashutdown)
    tr.Engine()


def test_a_process_cannot_await_the_end_of_its_engine() -> None:
    async def process() -> None:
        await tr.ashutdown()

    _, ref = tr.spawn_monitor(process)
    assert "would wait" in str(tr.receive(ref, timeout=LIMIT).reason)
