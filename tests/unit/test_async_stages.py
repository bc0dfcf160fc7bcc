"""Stages and pipelines with `async def` callbacks: coroutines on the engine's event loop."""

import asyncio
import gc
import threading
import warnings
from typing import Any

import pytest
from support import LIMIT, eventually

import tailrace as tr


class Numbers(tr.Producer):
    async def init(self) -> None:
        await asyncio.sleep(0)
        self.n = 0

    async def handle_demand(self, demand: int) -> list[int]:
        await asyncio.sleep(0)
        first, self.n = self.n, self.n + demand
        return list(range(first, self.n))


class Doubles(tr.ProducerConsumer):
    async def handle_events(self, events: list[int], sender: Any) -> list[int]:
        return await asyncio.gather(*(asyncio.sleep(0, 2 * event) for event in events))


class Sink(tr.Consumer):
    def init(self, to: tr.Pid) -> None:
        self.to = to

    async def handle_events(self, events: list[int], sender: Any) -> None:
        assert asyncio.current_task() is not None
        await tr.asleep(0)
        self.to.send((tr.self(), events))


def subscribed(*stages: Any) -> tr.StageOptions:
    return tr.StageOptions(subscribe_to=[(stage, {"max_demand": 4}) for stage in stages])


def test_events_flow_through_async_stages() -> None:
    numbers = Numbers.start_link()
    doubles = Doubles.start_link(options=subscribed(numbers))
    sink = Sink.start_link(tr.self(), options=subscribed(doubles))
    for stage in (numbers, doubles, sink):
        info = tr.process_info(stage)
        assert info is not None
        assert info.scheduler == "asyncio"
    got: list[int] = []
    while len(got) < 20:
        pid, events = tr.receive(timeout=LIMIT)
        assert pid == sink
        got += events
    assert got[:20] == list(range(0, 40, 2))
    with pytest.raises(ValueError, match="scheduler: expected 'asyncio'"):
        Numbers.start(scheduler="core")

    class Plain(tr.Consumer):
        def handle_events(self, events: list[int], sender: Any) -> None:
            pass

    with pytest.raises(ValueError, match="scheduler: expected anything but 'asyncio'"):
        Plain.start(scheduler="asyncio")


def test_only_async_handlers_run_on_the_event_loop() -> None:
    class Plain(tr.Pipeline):
        producer = tr.producers.Iterable(())

        def handle_message(self, message: tr.Message) -> tr.Message:
            return message

    with pytest.raises(ValueError, match=r"processors.scheduler: expected anything but 'asyncio'"):
        Plain.run(processors=tr.Processors(scheduler="asyncio"))
    with pytest.raises(ValueError, match=r"processors.scheduler: expected 'asyncio' for an async"):
        Work.run(
            producer=tr.producers.Iterable(()), processors=tr.Processors(scheduler="process")
        )


def test_stages_start_from_an_event_loop() -> None:
    async def main() -> None:
        numbers = await Numbers.astart_link()
        sink = await Sink.astart(tr.self(), options=subscribed(numbers))
        assert await tr.areceive(timeout=LIMIT) == (sink, [0, 1])
        await sink.astop()

    asyncio.run(main())


def test_the_mailbox_of_a_stage_is_its_own() -> None:
    """A callback neither waits for messages nor takes them away; `handle_info` gets them."""
    got = []

    class Looks(tr.Consumer):
        async def handle_events(self, events: list[int], sender: Any) -> None:
            for look in (lambda: tr.receive(timeout=0), tr.areceive):
                with pytest.raises(RuntimeError, match="a stage has handle_info"):
                    await look()
            tr.self().send("looked")

        def handle_info(self, message: object) -> None:
            got.append(message)

    looks = Looks.start(options=subscribed(Numbers.start_link()))
    eventually(lambda: got[:1] == ["looked"])
    looks.stop()


def test_o3_an_exception_ends_the_stage() -> None:
    error = ValueError("x")

    class Fails(tr.Consumer):
        async def handle_events(self, events: list[int], sender: Any) -> None:
            await asyncio.sleep(0)
            raise error

    numbers = Numbers.start_link()
    sink = Fails.start(options=subscribed(numbers))
    assert tr.receive(tr.monitor(sink), timeout=LIMIT).reason in (error, "noproc")


def test_o43_a_killed_stage_cancels_its_coroutine_and_leaves_nothing() -> None:
    entered, cancelled = threading.Event(), threading.Event()

    class Hangs(tr.Consumer):
        async def handle_events(self, events: list[int], sender: Any) -> None:
            try:
                entered.set()
                await asyncio.sleep(LIMIT)
            except asyncio.CancelledError:
                cancelled.set()
                raise

    numbers = Numbers.start_link()
    sink = Hangs.start(options=subscribed(numbers))
    ref = tr.monitor(sink)
    assert entered.wait(LIMIT)
    sink.exit("kill")
    assert tr.receive(ref, timeout=LIMIT).reason == "killed"
    assert cancelled.wait(LIMIT)
    numbers.stop()
    eventually(lambda: tr.processes() == [tr.self()])


def test_o43_a_coroutine_that_never_ran_is_no_warning() -> None:
    blocks, gate = threading.Event(), threading.Event()

    class Sink(tr.Consumer):
        async def handle_info(self, message: Any) -> None:
            message.send("handled")

        def handle_events(self, events: list[Any], sender: Any) -> None:
            pass

    async def block() -> None:
        blocks.set()
        gate.wait(LIMIT)

    def companion_is_asked() -> bool:
        infos = [tr.process_info(pid) for pid in tr.processes() if pid != tr.self()]
        return any(info is not None and info.message_queue_len for info in infos)

    sink = Sink.start()
    sink.send(tr.self())
    assert tr.receive(timeout=LIMIT) == "handled"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tr.spawn(block)
        assert blocks.wait(LIMIT)
        ref = tr.monitor(sink)
        sink.send(tr.self())
        eventually(companion_is_asked)
        sink.exit("kill")
        assert tr.receive(ref, timeout=LIMIT).reason == "killed"
        gate.set()
        eventually(lambda: tr.processes() == [tr.self()])
        gc.collect()
    assert [str(warning.message) for warning in caught] == []


def test_o110_a_cycle_of_calls_through_a_coroutine_of_a_stage_is_found() -> None:
    class Asks(tr.Consumer):
        def init(self, other: tr.Pid) -> None:
            self.other = other

        def handle_events(self, events: list[Any], sender: Any) -> None:
            pass

        async def handle_info(self, to: tr.Pid) -> None:
            to.send(await self.other.acall(tr.self(), LIMIT))

    class CallsBack(tr.GenServer):
        def handle_call(self, request: tr.Pid, caller: tr.From) -> Any:
            try:
                return request.call("x", LIMIT)
            except tr.DeadlockError as error:
                return error.cycle

    other = CallsBack.start()
    stage = Asks.start(other)
    stage.send(tr.self())
    assert tr.receive(timeout=LIMIT) == (other, stage)


def test_areceive_is_for_functions_and_servers() -> None:
    class Receives(tr.Consumer):
        async def handle_events(self, events: list[int], sender: Any) -> None:
            await tr.areceive()

    sink = Receives.start(options=subscribed(Numbers.start_link()))
    reason = tr.receive(tr.monitor(sink), timeout=LIMIT).reason
    assert reason == "noproc" or "handle_info" in str(reason)


class Work(tr.Pipeline):
    """What its messages and batches do is their data."""

    processors = tr.Processors(concurrency=2, max_demand=10, min_demand=0)

    async def handle_message(self, message: tr.Message) -> tr.Message:
        await asyncio.sleep(0)
        if callable(message.data):
            await message.data()
        return message

    async def handle_failed(self, messages: list[tr.Message]) -> list[tr.Message]:
        await asyncio.sleep(0)
        self.context.extend(message.reason for message in messages)
        return messages


def run(items: list[Any], **options: Any) -> tuple[tr.Summary, list[Any]]:
    failed: list[Any] = []
    pipeline: Any = options.pop("pipeline", Work)
    summary = pipeline.run(producer=tr.producers.Iterable(items), context=failed, **options)
    return summary, failed


def test_messages_of_a_chunk_are_handled_at_the_same_time() -> None:
    barrier: list[Any] = []

    async def meet() -> None:
        assert tr.self().name in ("Work.Processor_default_0", "Work.Processor_default_1")
        if not barrier:
            barrier.append(asyncio.Barrier(10))
        async with asyncio.timeout(LIMIT):
            await barrier[0].wait()

    processors = tr.Processors(concurrency=1, max_demand=10, min_demand=0)
    summary, failed = run([meet] * 10, processors=processors)
    assert (summary.successful, failed) == (10, [])


def test_failures_are_isolated_and_acknowledgements_in_order() -> None:
    error = ValueError("x")

    async def fail() -> None:
        raise error

    async def exit_() -> None:
        raise tr.ProcessExit("left")

    class Acks:
        def ack(self, ref: Any, successful: list[Any], failed: list[Any]) -> None:
            acks.append(([m.data for m in successful], [m.data for m in failed]))

    acks: list[Any] = []
    items = [1, fail, 2, exit_, 3]
    acks_to = Acks()
    messages = [tr.Message(item, acknowledger=(acks_to, "ref", None)) for item in items]
    produce = tr.Produce(tr.producers.Iterable(messages), transformer=lambda message: message)
    failed: list[Any] = []
    processors = tr.Processors(concurrency=1, max_demand=5, min_demand=0)
    summary = Work.run(producer=produce, processors=processors, context=failed)
    assert (summary.successful, summary.failed) == (3, 2)
    assert failed[0] is error
    assert acks == [([1, 2, 3], [fail, exit_])]


def test_a_failed_message_is_run_again() -> None:
    runs: list[int] = []

    async def flaky() -> None:
        runs.append(1)
        if len(runs) < 3:
            raise ValueError(len(runs))

    summary, failed = run([flaky], retry=tr.Retry(max_attempts=3, backoff=0.001))
    assert (summary.successful, summary.retried, failed) == (1, 2, [])


def test_batches_and_prepare_messages() -> None:
    class Batches(Work):
        batchers = {"default": tr.Batcher(batch_size=4, batch_timeout=LIMIT)}

        async def prepare_messages(self, messages: list[tr.Message]) -> list[tr.Message]:
            await asyncio.sleep(0)
            for message in messages:
                message.data += 1
            return messages

        async def handle_batch(self, batcher: str, messages: list[Any], info: Any) -> list[Any]:
            await tr.asleep(0)
            batches.append(sorted(message.data for message in messages))
            return messages

    batches: list[list[int]] = []
    summary, _ = run(list(range(8)), pipeline=Batches)
    assert summary.successful == 8
    assert sorted(item for batch in batches for item in batch) == list(range(1, 9))


def test_a_drain_finishes_what_is_under_way_and_a_stop_without_it_does_not_wait() -> None:
    started = threading.Event()
    gates: list[Any] = []

    async def wait() -> None:
        gates.append((asyncio.get_running_loop(), asyncio.Event()))
        started.set()
        await gates[0][1].wait()

    handle = Work.start_link(producer=tr.producers.Iterable([wait]), context=[])
    assert started.wait(LIMIT)
    loop, event = gates[0]
    threading.Timer(0.01, loop.call_soon_threadsafe, [event.set]).start()
    handle.stop(timeout=LIMIT)
    assert not handle.pid.alive

    started.clear()
    gates.clear()
    handle = Work.start_link(
        producer=tr.producers.Iterable([wait]), context=[], drain_timeout=0.01, name="other"
    )
    assert started.wait(LIMIT)
    handle.stop(drain=False, timeout=LIMIT)
    assert not handle.pid.alive


def test_a_killed_processor_is_replaced() -> None:
    seen: list[int] = []
    lock = threading.Lock()

    async def work() -> None:
        with lock:
            seen.append(1)
            first = len(seen) == 1
        if first:
            tr.exit(tr.self(), "kill")
        await asyncio.sleep(0)

    processors = tr.Processors(concurrency=1, max_demand=2, min_demand=0)
    summary, _ = run([work] * 20, processors=processors)
    assert summary.reason == "normal"
    assert len(seen) >= 18
