"""What flows between stages: demand, events, infos, modes, ends (stages.md sections 3, 5 to 11)."""

import itertools
import logging
from typing import Any

import pytest
from stage_support import (
    Counter,
    Doubler,
    Silent,
    Sink,
    Watch,
    batches,
    events,
    options,
    received,
    received_kind,
)

import tailrace as tr


def settle(*stages: tr.Pid) -> None:
    """Return when each of the stages, one after the other, has handled what it had so far."""
    for stage in stages:
        tr.demand(stage)


# The arithmetic of demand


class Quiet(tr.Consumer):
    """Takes events and stops after `limit` batches; keeps their bounds."""

    def init(self, watcher: tr.Pid, limit: int) -> None:
        self.watcher = watcher
        self.limit = limit
        self.seen: list[tuple[int, int]] = []

    def handle_events(self, events: list[int], sender: tr.Subscription) -> Any:
        self.seen.append((events[0], events[-1]))
        if len(self.seen) == self.limit:
            self.watcher.send(("seen", self.seen))
            return tr.Stop("normal")
        return None


@pytest.mark.parametrize(
    ("given", "bounds", "demands"),
    [
        ({}, [(0, 499), (500, 999)], [1000, 500]),
        ({"max_demand": 10}, [(0, 4), (5, 9), (10, 14)], [10, 5, 5]),
        (
            {"max_demand": 100, "min_demand": 20},
            [(0, 79), (80, 99), (100, 179), (180, 259), (260, 279), (280, 359)],
            [100, 80, 100, 80],
        ),
        (
            {"max_demand": 100, "min_demand": 80},
            [(0, 19), (20, 39), (40, 59), (60, 79), (80, 99), (100, 119)],
            [100, 20, 20, 20, 20, 20],
        ),
        ({"max_demand": 1}, [(0, 0), (1, 1), (2, 2)], [1, 1, 1]),
        ({"max_demand": 10, "min_demand": 0}, [(0, 9), (10, 19)], [10, 10]),
        (
            {"max_demand": 3},
            [(0, 1), (2, 2), (3, 4), (5, 6), (7, 7), (8, 9)],
            [3, 2, 3, 2],
        ),
        ({"max_demand": 5, "min_demand": 4}, [(0, 0), (1, 1), (2, 2)], [5, 1, 1]),
    ],
)
def test_batches_and_demand(given: Any, bounds: Any, demands: list[int]) -> None:
    """S48 to S58."""
    producer = Counter.start_link(tr.self())
    Quiet.start_link(tr.self(), len(bounds), options=options(subscribe_to=[(producer, given)]))
    asked: list[int] = []
    while len(asked) < len(demands):
        message = received()
        if message[0] == "demand":
            asked.append(message[1])
        else:
            assert message == ("seen", bounds)
    assert asked == demands


def test_a_pipeline_of_three() -> None:
    """S112, S114: everything arrives once, in order, doubled."""
    counter = Counter.start_link(None, 10_000)
    doubler = Doubler.start_link(
        options=options(subscribe_to=[(counter, {"max_demand": 100, "min_demand": 80})])
    )
    sink = Sink.start_link(tr.self())
    tr.subscribe(sink, doubler, max_demand=100)
    got = events(20_000)
    assert got == [n for n in range(10_000) for _ in range(2)]


def test_a_batch_that_is_not_cut_is_the_list_that_was_emitted() -> None:
    """Decisions: ownership moves; the events are not touched."""
    sent = ["a", "b", "c"]
    producer, sink = Silent.start_link(), Sink.start_link(tr.self())
    middle = Same.start_link()
    tr.subscribe(sink, middle)
    tr.subscribe(middle, producer)
    producer.send(sent)
    while not isinstance(got := received(), list):
        pass
    assert got is sent


class Same(tr.ProducerConsumer):
    """Emits what it gets."""

    def handle_events(self, events: list[Any], sender: tr.Subscription) -> Any:
        return events


def test_a_list_that_was_kept_and_changed_breaks_nothing() -> None:
    """A returned list must not be touched; whoever does gets fewer events, and no crash."""

    class Keeping(Silent):
        def handle_info(self, message: Any) -> Any:
            kept = [1, 2, 3, 4, 5, 6]
            if message == "clear":
                self.kept.clear()
                return None
            self.kept = kept
            return tr.NoReply(events=kept)

    producer, sink = Keeping.start_link(), Sink.start_link(tr.self(), "manual")
    made = tr.subscribe(sink, producer)
    made.ask(2)
    producer.send("emit")
    assert batches(1) == [[1, 2]]
    producer.send("clear")
    producer.send("emit")
    made.ask(8)
    assert events(6) == [1, 2, 3, 4, 5, 6]


def test_excess_is_delivered_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    """S60, S68."""
    producer, sink = Silent.start_link(), Sink.start_link(tr.self())
    made = tr.subscribe(sink, producer, max_demand=4)
    made.ask(3)
    settle(producer)
    producer.send([0, 1, 2, 3, 4, 5, 6])
    assert batches(4) == [[0, 1], [2, 3], [4, 5], [6]]
    assert "received 2 events in excess" in caplog.text
    assert "received 1 events in excess" in caplog.text


# Producing and buffering


def test_shortfall_and_surplus() -> None:
    """S73, S74: demand is announced once; what is too much serves later asks."""

    class Lazy(Counter):
        def handle_demand(self, demand: int) -> Any:
            super().handle_demand(demand)
            return [1] if demand == 3 else list(range(2 * demand))

    producer, sink = Lazy.start_link(tr.self()), Sink.start_link(tr.self(), "manual")
    made = tr.subscribe(sink, producer)
    made.ask(3)
    assert received_kind("demand") == ("demand", 3)
    assert batches(1) == [[1]]
    producer.send([5, 6])  # what it owed
    assert batches(1) == [[5, 6]]
    made.ask(2)
    assert received_kind("demand") == ("demand", 2)
    assert batches(1) == [[0, 1]]
    made.ask(3)
    got = [received() for _ in range(3)]
    assert [g for g in got if isinstance(g, list)] == [[2, 3], [0]]
    assert ("demand", 1) in got


@pytest.mark.parametrize(
    ("size", "keep", "kept"),
    [
        (5, "first", [1, 2, 3, 4, 5]),
        (5, "last", [4, 5, 6, 7, 8]),
        (None, None, None),
        (0, None, []),
    ],
)
def test_the_buffer(
    size: Any, keep: Any, kept: list[int] | None, caplog: pytest.LogCaptureFixture
) -> None:
    """S80 to S85, S87, S11."""
    producer = Silent.start_link(options=options(buffer_size=size, buffer_keep=keep))
    producer.send([1, 2, 3, 4, 5])
    producer.send([6, 7, 8])
    if kept is None:
        kept = list(range(1, 9))
    assert tr.estimate_buffered_count(producer) == len(kept)
    lost = [record for record in caplog.records if "discarded" in record.message]
    assert [record.levelno for record in lost] == [logging.WARNING] * (
        2 if size == 0 else len(kept) != 8
    )
    sink = Sink.start_link(tr.self())
    tr.subscribe(sink, producer, max_demand=4, min_demand=0)
    if kept:
        assert batches(2 if len(kept) > 4 else 1) == [part for part in (kept[:4], kept[4:]) if part]
    assert tr.estimate_buffered_count(producer) == 0


def test_format_discarded(caplog: pytest.LogCaptureFixture) -> None:
    """S86: called once per overflow; a false answer suppresses the line; a raise ends the stage."""

    class Told(Silent):
        def format_discarded(self, n: int) -> Any:
            assert self.watcher is not None
            self.watcher.send(("discarded", n))
            return n // (n - 3) if n < 4 else n > 4

    producer = Told.start(tr.self(), options=options(buffer_size=1))
    watch = Watch(producer)
    producer.send([1, 2, 3, 4, 5])
    producer.send([1, 2, 3, 4, 5])
    assert [received(), received()] == [("discarded", 4), ("discarded", 5)]
    settle(producer)
    assert caplog.text.count("discarded 5 events") == 1
    assert "discarded 4 events" not in caplog.text
    producer.send([1, 2, 3])
    assert received() == ("discarded", 3)
    assert isinstance(watch.reason(), ZeroDivisionError)


def test_consumers_buffer_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """S77, S88: what a Consumer emits is lost, logged, and it lives."""

    class Emitting(Sink):
        def handle_call(self, request: Any, caller: tr.From) -> Any:
            return tr.Reply("fine", events=[1, 2])

    sink = Emitting.start_link(tr.self())
    assert sink.call("emit") == "fine"
    assert "events it emits are lost" in caplog.text
    assert tr.estimate_buffered_count(sink) == 0
    assert "buffers no events" in caplog.text


def test_the_buffer_goes_before_new_events() -> None:
    """S91, decided: a consumer that dies unserved leaves nothing stuck, nothing overtakes."""
    producer = Silent.start_link(tr.self())
    first = Sink.start(tr.self())
    tr.subscribe(first, producer, max_demand=10)
    assert received_kind("demand") == ("demand", 10)
    first.stop()
    received_kind("lost")
    producer.send([1, 2, 3])
    settle(producer)
    second = Sink.start_link(tr.self(), "manual")
    made = tr.subscribe(second, producer)
    made.ask(5)
    assert events(3) == [1, 2, 3]
    producer.send([4, 5, 6, 7])
    assert events(2) == [4, 5]
    made.ask(2)
    assert events(2) == [6, 7]


# Ordered infos


def test_infos_wait_for_the_events_before_them() -> None:
    """S92 to S95, S99: nothing to wait for; then behind buffered events, splitting the delivery."""
    producer, sink = Silent.start_link(tr.self()), Sink.start_link(tr.self(), "manual")
    tr.sync_info(sink, "at once")
    assert received() == ("info", "at once")
    tr.sync_info(producer, "at once")
    assert received() == ("info", "at once")
    producer.send([1, 2, 3])
    settle(producer)
    tr.sync_info(producer, "d")
    tr.async_info(producer, "e")
    settle(producer)
    producer.send([7, 8])
    settle(producer)
    tr.sync_info(producer, "i")
    made = tr.subscribe(sink, producer)
    made.ask(5)
    got = [received() for _ in range(6)]
    assert [g for g in got if isinstance(g, list)] == [[1, 2, 3], [7, 8]]
    assert [g[1] for g in got if g[0] == "info"] == ["d", "e", "i"]


def test_infos_outlive_discarded_events() -> None:
    """S97."""
    producer = Silent.start_link(tr.self(), options=options(buffer_size=3))
    producer.send([1, 2])
    settle(producer)
    tr.sync_info(producer, "after")
    producer.send([3, 4, 5])
    assert received() == ("info", "after")


def test_a_stage_ends_itself_after_its_last_events() -> None:
    """Section 7: the use of async_info."""

    class Once(tr.Producer):
        def handle_demand(self, demand: int) -> Any:
            tr.async_info(tr.self(), "end")
            return [1, 2, 3]

        def handle_info(self, message: Any) -> Any:
            return tr.Stop("normal")

    producer, sink = Once.start(), Sink.start(tr.self())
    watch = Watch(sink)
    tr.subscribe(sink, producer, max_demand=2, cancel="permanent")
    assert events(3) == [1, 2, 3]
    assert watch.reason() == "normal"


# Modes


def test_accumulate_and_forward() -> None:
    """S102 to S106."""
    producer = Counter.start_link(tr.self(), options=options(demand="accumulate"))
    assert tr.demand(producer) == "accumulate"
    sink = Sink.start_link(tr.self(), "manual")
    first = tr.subscribe(sink, producer)
    second = tr.subscribe(sink, producer)
    first.ask(2)
    second.ask(2)
    producer.send(["x"])
    tr.demand(producer, "accumulate")
    assert tr.demand(producer) == "accumulate"
    assert tr.estimate_buffered_count(producer) == 0
    tr.demand(producer, "forward")
    tr.demand(producer, "forward")
    assert tr.demand(producer) == "forward"
    got = [received() for _ in range(6)]
    assert [g for g in got if g[0] == "demand"] == [("demand", 2)] * 2
    assert tr.estimate_buffered_count(producer) == 1
    with pytest.raises(ValueError, match="mode: expected one of 'forward', 'accumulate'"):
        tr.demand(producer, "later")


def test_infos_stay_behind_accumulated_events() -> None:
    """S101."""
    producer = Silent.start_link(tr.self(), options=options(demand="accumulate"))
    producer.send([1])
    settle(producer)
    tr.sync_info(producer, "after")
    tr.demand(producer, "forward")
    settle(producer)
    with pytest.raises(tr.ReceiveTimeout):
        tr.receive(timeout=0)
    Sink.start_link(tr.self(), options=options(subscribe_to=[producer]))
    assert received_kind("info") == ("info", "after")


def test_modes_of_other_stages(caplog: pytest.LogCaptureFixture) -> None:
    """S109, S110."""
    both, sink = Doubler.start_link(), Sink.start_link(tr.self())
    assert (tr.demand(both), tr.demand(sink)) == ("forward", "forward")
    tr.demand(both, "forward")
    settle(both)
    assert caplog.text == ""
    tr.demand(both, "accumulate")
    tr.demand(sink, "forward")
    settle(both, sink)
    assert "a ProducerConsumer has no 'accumulate' mode" in caplog.text
    assert "a Consumer has no 'forward' mode" in caplog.text


# ProducerConsumers


def test_input_waits_for_demand() -> None:
    """S113, S115, S116."""
    counter, middle = Counter.start_link(tr.self()), Same.start_link()
    tr.subscribe(middle, counter, max_demand=10)
    sink = Sink.start_link(tr.self(), "manual")
    made = tr.subscribe(sink, middle)
    assert received_kind("demand") == ("demand", 10)
    made.ask(1)
    assert batches(1) == [[0]]
    settle(middle, counter, middle)
    assert tr.estimate_buffered_count(middle) == 9
    made.ask(9)
    assert events(9) == list(range(1, 10))
    settle(middle, counter, middle)
    assert tr.estimate_buffered_count(middle) == 0


def test_the_end_of_a_producer_waits_behind_its_input() -> None:
    """S123, S125, S126: one batch, with the real sender, then handle_cancel, then the exit."""

    class Telling(tr.ProducerConsumer):
        def init(self, watcher: tr.Pid) -> None:
            self.watcher = watcher

        def handle_events(self, events: list[Any], sender: tr.Subscription) -> Any:
            self.watcher.send(("batch", len(events), sender.pid))
            return events

        def handle_cancel(self, reason: Any, sender: tr.Subscription) -> Any:
            self.watcher.send(("cancelled", reason, sender.pid))

    counter, middle = Counter.start(), Telling.start(tr.self())
    watch = Watch(middle)
    tr.subscribe(middle, counter, max_demand=100)
    settle(counter, middle)
    counter.stop("over")
    settle(middle)
    assert middle.alive
    sink = Sink.start(tr.self())
    tr.subscribe(sink, middle, max_demand=100, cancel="temporary")
    assert received_kind("batch") == ("batch", 100, counter)
    assert received_kind("cancelled") == ("cancelled", ("down", "over"), counter)
    assert watch.reason() == "over"
    sink.stop()


# Ends


@pytest.mark.parametrize(
    ("cancel", "reason", "lives"),
    [
        ("permanent", "normal", False),
        ("permanent", "boom", False),
        ("transient", "normal", True),
        ("transient", "shutdown", True),
        ("transient", ("shutdown", 1), True),
        ("transient", "boom", False),
        ("temporary", "normal", True),
        ("temporary", "boom", True),
        ("permanent", "already_subscribed", True),
    ],
)
@pytest.mark.parametrize("down", [True, False])
def test_the_table_of_cancel_modes(
    cancel: str, reason: Any, lives: bool, down: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """S127 to S135: handle_cancel first, then the raw reason."""
    caplog.set_level(logging.INFO)
    producer, sink = Silent.start(tr.self()), Sink.start(tr.self())
    watch = Watch(sink)
    made = tr.subscribe(sink, producer, cancel=cancel)
    received_kind("demand")
    if down:
        producer.stop(reason)
    else:
        made.cancel(reason)
    told, reasons = set(), []
    while len(told) < (1 if down else 2) or not (lives or reasons):  # they come in any order
        message = received()
        if isinstance(message, tr.Down):
            reasons.append(message.reason)
        elif message[0] in ("lost", "cancelled"):
            told.add(message)
    if down:
        assert told == {("cancelled", ("down", reason))}
    else:
        assert told == {("lost", ("cancel", reason)), ("cancelled", ("cancel", reason))}
        assert producer.alive
    if lives:
        assert tr.demand(sink) == "forward"
        sink.stop("shutdown")
        assert watch.reason() == "shutdown"
    else:
        assert reasons == [reason]
        assert any("ends, as its subscription" in r.message for r in caplog.records)  # S132
    producer.exit("kill")


def test_a_killed_producer() -> None:
    """S129: it shows as "killed"; S133: the stop runs down the pipeline."""
    counter, middle, sink = Silent.start(), Doubler.start(), Sink.start(tr.self())
    watch = Watch(sink)
    tr.subscribe(middle, counter)
    tr.subscribe(sink, middle)
    counter.exit("kill")
    assert received_kind("cancelled") == ("cancelled", ("down", "killed"))
    assert watch.reason() == "killed"


def test_a_dead_consumer_leaves_its_producer() -> None:
    """S134, S79: what was on its way is lost, what was not sent is not."""
    producer, sink = Silent.start_link(tr.self()), Sink.start(tr.self())
    tr.subscribe(sink, producer)
    received_kind("demand")
    sink.exit("kill")
    assert received_kind("lost") == ("lost", ("down", "killed"))
    producer.send([1])
    assert tr.estimate_buffered_count(producer) == 1


def test_a_foreign_down_goes_to_handle_info() -> None:
    """S138; and a stage's own watch on its producer is its own affair."""

    class Watching(Sink):
        def handle_subscribe(self, role: str, options: Any, sender: tr.Subscription) -> Any:
            tr.monitor(sender.pid)

    other, producer = Silent.start(), Silent.start()
    sink = Watching.start_link(tr.self())
    tr.subscribe(sink, producer, cancel="temporary")
    producer.stop()
    got = {received()[0], received()[0]}
    assert got == {"info", "cancelled"}
    other.stop()


def test_cancelled_twice() -> None:
    """S136, S137: told once per side."""
    producer, sink = Silent.start(tr.self()), Sink.start_link(tr.self())
    made = tr.subscribe(sink, producer, cancel="temporary")
    for reason in ("first", "second"):
        made.cancel(reason)
    settle(producer, sink)
    producer.stop()
    settle(sink)
    told = []
    while (message := tr.receive(timeout=0, default=None)) is not None:
        told.append(message)
    assert [m for m in told if m[0] == "lost"] == [("lost", ("cancel", "first"))]
    assert [m for m in told if m[0] == "cancelled"] == [("cancelled", ("cancel", "first"))]


# DemandDispatcher


def test_large_asks_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """S151."""
    producer = Silent.start_link(options=options(dispatcher=tr.DemandDispatcher(max_demand=3)))
    sink = Sink.start_link(tr.self())
    tr.subscribe(sink, producer, max_demand=4)
    settle(producer)
    assert "asked for 4 events, expected at most 3" in caplog.text


def test_largest_demand_first() -> None:
    """S145, S146."""
    producer = Silent.start_link()
    big, small = Sink.start_link(tr.self()), Sink.start_link(tr.self())
    tr.subscribe(small, producer, max_demand=2, min_demand=0)
    tr.subscribe(big, producer, max_demand=3, min_demand=0)
    settle(producer)
    producer.send([1, 2, 3, 4, 5])
    assert sorted(batches(2)) == [[1, 2, 3], [4, 5]]


def test_many_consumers_share_the_work() -> None:
    """S145 to S147 with many: everything arrives, once."""
    producer = Counter.start_link(None, 3000)
    for _ in range(50):
        sink = Sink.start_link(tr.self())
        tr.async_subscribe(sink, producer, max_demand=7)
    assert sorted(events(3000)) == list(range(3000))


def test_consumers_that_are_killed_stall_nobody() -> None:
    """S79, S149: what they asked for is credited; whoever is left gets on."""
    producer = Silent.start_link(tr.self())
    sinks = [Sink.start(tr.self()) for _ in range(8)]
    for sink in sinks:
        tr.subscribe(sink, producer, max_demand=10)
    for sink in sinks[1:]:
        sink.exit("kill")
        received_kind("lost")
    producer.send(list(range(100)))
    assert events(100) == list(range(100))
    assert tr.estimate_buffered_count(producer) == 0
    sinks[0].stop()


def test_receive_in_a_callback_leaves_the_protocol_alone() -> None:
    """What stages send each other is not for tailrace.receive."""

    class Receiving(Sink):
        def handle_events(self, events: list[Any], sender: tr.Subscription) -> Any:
            assert tr.receive(timeout=0.01, default=None) is None
            self.watcher.send(events)

    producer = Counter.start_link(None, 20)
    sink = Receiving.start_link(tr.self())
    tr.subscribe(sink, producer, max_demand=10)
    assert events(20) == list(range(20))
    sink.stop()


def test_an_iterable_without_end_is_refused() -> None:
    """Memory stays bounded by demand and buffer, whatever a producer returns."""

    class Endless(Silent):
        def handle_demand(self, demand: int) -> Any:
            return itertools.count()

    producer, sink = Endless.start(options=options(buffer_size=100)), Sink.start(tr.self())
    watch = Watch(producer)
    tr.subscribe(sink, producer, max_demand=10, cancel="temporary")
    assert "events: expected at most 110" in str(watch.reason())
    sink.stop()

    class Lazy(Silent):
        def handle_info(self, message: int) -> Any:
            return tr.NoReply(events=iter(range(message)))

    producer = Lazy.start(options=options(buffer_size=100))
    watch = Watch(producer)
    producer.send(100)
    assert tr.estimate_buffered_count(producer) == 100
    producer.send(101)
    assert isinstance(watch.reason(), ValueError)


@pytest.mark.parametrize("scheduler", ["core", "thread"])
def test_stages_of_both_schedulers(scheduler: str) -> None:
    """A stage that blocks as a rule may run on the elastic pool."""
    producer = Counter.start_link(None, 200, scheduler=scheduler)
    middle = Doubler.start_link(scheduler=scheduler)
    sink = Sink.start_link(tr.self(), scheduler=scheduler)
    tr.subscribe(sink, middle, max_demand=10)
    tr.subscribe(middle, producer, max_demand=10)
    assert events(400) == [n for n in range(200) for _ in range(2)]
