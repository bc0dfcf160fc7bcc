"""Stages: start, options, subscribing, manual demand, requests (stages.md sections 1, 2, 4, 15).

The arithmetic of demand, the buffer and cancellation are pinned in C (tests/c/test_stage*.c); here
is what Python sees of them. What flows between stages is in test_stages_flow.py.
"""

import logging
from typing import Any

import pytest
from stage_support import (
    LIMIT,
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
from support import eventually

import tailrace as tr

# Start


def test_start_returns_after_the_subscriptions_in_order() -> None:
    """S1: every subscribe_to entry, in list order."""
    first, second = Silent.start_link(), Silent.start_link()
    Sink.start_link(tr.self(), options=options(subscribe_to=[first, (second, {"color": "red"})]))
    assert received()[3].pid == first
    message = received()
    assert message[3].pid == second
    assert message[2]["color"] == "red"


def test_a_link_ties_the_ends() -> None:
    """S2: a linked stage ends with its starter, another does not."""
    me = tr.self()

    def start_and_end() -> None:
        me.send((Silent.start_link(), Silent.start()))
        tr.receive()
        raise tr.ProcessExit("enough")

    starter = tr.spawn(start_and_end)
    linked, other = received()
    watch = Watch(linked)
    starter.send("end")
    assert watch.reason() == "enough"
    assert other.alive
    other.stop()


class Init(tr.Producer):
    """Answers from init what it is given; tells of terminate."""

    def init(self, answer: Any, watcher: Any = None) -> Any:
        self.watcher = watcher
        if isinstance(answer, Exception):
            raise answer
        return answer

    def handle_demand(self, demand: int) -> Any:
        return None

    def terminate(self, reason: Any) -> None:
        if self.watcher is not None:
            self.watcher.send(("terminate", reason))

    def handle_continue(self, token: Any) -> Any:
        self.watcher.send(("continue", token))
        return tr.NoReply(timeout=0.001)

    def handle_timeout(self) -> Any:
        self.watcher.send("timeout")


def test_init_ignores() -> None:
    """S3."""
    assert Init.start_link(tr.IGNORE, tr.self()) is tr.IGNORE


@pytest.mark.parametrize("reason", ["normal", ("shutdown", 1), "broken"])
def test_init_stops(reason: Any) -> None:
    """S4: start fails with exactly the reason; terminate is not called."""
    with pytest.raises(tr.StartError) as caught:
        Init.start(tr.Stop(reason), tr.self())
    assert caught.value.reason == reason
    with pytest.raises(tr.ReceiveTimeout):
        tr.receive(timeout=0)


def test_init_answers_nonsense() -> None:
    """S5."""
    with pytest.raises(tr.StartError) as caught:
        Init.start("nonsense")
    assert isinstance(caught.value.reason, tr.BadReturn)
    assert caught.value.reason.value == "nonsense"


def test_a_name_is_taken_once() -> None:
    """S6."""
    first = Silent.start_link(name="one")
    with pytest.raises(tr.AlreadyStarted) as caught:
        Silent.start(name="one")
    assert caught.value.pid == first


def test_init_raises() -> None:
    """S7."""
    with pytest.raises(tr.StartError) as caught:
        Init.start(ZeroDivisionError("no"))
    assert isinstance(caught.value.reason, ZeroDivisionError)


def test_continue_and_timeout_work_in_stages() -> None:
    """Decision on S241: as in servers, from init, callbacks of demand and handle_continue."""
    Init.start_link(tr.NoReply(continue_="next"), tr.self())
    assert [received(), received()] == [("continue", "next"), "timeout"]

    class Demanding(Init):
        def handle_demand(self, demand: int) -> Any:
            return tr.NoReply(events=[1], continue_="after demand")

    stage = Demanding.start_link(None, tr.self())
    Sink.start_link(tr.self(), options=options(subscribe_to=[(stage, {"max_demand": 1})]))
    assert received_kind("continue") == ("continue", "after demand")
    assert events(1) == [1]


# Options


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"unknown": 1}, TypeError, "unknown keyword 'unknown'; valid are dispatcher, "),
        ({"buffer_size": -1}, ValueError, "buffer_size: expected an int"),
        ({"buffer_size": 1.5}, TypeError, "buffer_size: expected an int"),
        ({"buffer_size": True}, TypeError, "buffer_size: expected an int"),
        ({"dispatcher": 0}, TypeError, "dispatcher: expected a dispatcher, got 0"),
        ({"demand": "later"}, ValueError, "demand: expected one of 'forward', 'accumulate'"),
        ({"buffer_keep": "middle"}, ValueError, "buffer_keep: expected one of 'first', 'last'"),
        ({"subscribe_to": "name"}, TypeError, "subscribe_to: expected a list"),
        ({"subscribe_to": [7]}, TypeError, r"subscribe_to\[0\]: expected a stage"),
        ({"subscribe_to": [("a", {"max_demand": 0})]}, ValueError, r"\[0\].max_demand: expected"),
        ({"subscribe_to": [("a", {"to": "b"})]}, TypeError, r"\[0\].to: reserved"),
    ],
)
def test_bad_options(given: dict[str, Any], error: type[Exception], text: str) -> None:
    """S8, S10, S12, S13, S17."""
    with pytest.raises(error, match=text):
        tr.StageOptions(**given)


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (Sink, {"dispatcher": tr.DemandDispatcher()}),
        (Sink, {"buffer_size": None}),
        (Sink, {"buffer_keep": "last"}),
        (Sink, {"demand": "forward"}),
        (Silent, {"subscribe_to": []}),
        (Doubler, {"demand": "forward"}),
    ],
)
def test_options_of_another_kind(kind: Any, given: dict[str, Any]) -> None:
    """S9: refused by name, in the caller."""
    with pytest.raises(TypeError, match=f"options.{next(iter(given))}: a .* does not have"):
        kind.start_link(tr.self(), options=options(**given))
    with pytest.raises(TypeError, match="options: expected a StageOptions, got 1"):
        kind.start_link(tr.self(), options=1)


def test_the_later_options_win() -> None:
    """Class, then init, then start; field by field."""

    class Kept(Init):
        options = tr.StageOptions(buffer_size=1, buffer_keep="first", demand="accumulate")

        def handle_info(self, message: Any) -> Any:
            return tr.NoReply(events=message)

    stage = Kept.start_link(options(buffer_size=2), options=options(demand="forward"))
    stage.send([1, 2, 3])
    assert tr.estimate_buffered_count(stage) == 2
    assert tr.demand(stage) == "forward"
    Sink.start_link(tr.self(), options=options(subscribe_to=[stage]))
    assert events(2) == [1, 2]


def test_options_of_init_that_the_kind_does_not_have() -> None:
    """S9, from init: the start fails with the TypeError."""
    with pytest.raises(tr.StartError, match="subscribe_to"):
        Init.start(options(subscribe_to=[]))


def test_a_stage_without_its_callback_does_not_start() -> None:
    """S238."""

    class Empty(tr.Consumer):
        pass

    with pytest.raises(tr.StartError, match="handle_events: a Consumer must define it"):
        Empty.start()


def test_demand_dispatcher_options() -> None:
    """S14, section 11.1: checked when made."""
    with pytest.raises(ValueError, match="max_demand: expected an int"):
        tr.DemandDispatcher(max_demand=0)
    with pytest.raises(TypeError, match="shuffle_demands_on_first_dispatch: expected a bool"):
        tr.DemandDispatcher(shuffle_demands_on_first_dispatch=1)  # type: ignore[arg-type]
    shuffled = tr.DemandDispatcher(shuffle_demands_on_first_dispatch=True)
    assert repr(shuffled) == "DemandDispatcher(shuffle_demands_on_first_dispatch=True)"
    stage = Counter.start_link(options=options(dispatcher=shuffled))
    Sink.start_link(tr.self(), options=options(subscribe_to=[(stage, {"max_demand": 2})]))
    assert events(2) == [0, 1]


def test_subscribing_to_nobody_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    """S15: "noproc", but a temporary entry is skipped."""
    for cancel in ("permanent", "transient"):
        with pytest.raises(tr.StartError) as caught:
            Sink.start(tr.self(), options=options(subscribe_to=[("nobody", {"cancel": cancel})]))
        assert caught.value.reason == "noproc"
    assert "cannot subscribe to 'nobody'" in caplog.text
    stage = Sink.start(
        tr.self(), options=options(subscribe_to=[("nobody", {"cancel": "temporary"})])
    )
    assert stage.alive
    stage.stop()


def test_subscribing_to_the_dead_at_the_start() -> None:
    """S16: handle_subscribe, then a down notice."""
    dead = Silent.start()
    dead.stop()
    Sink.start(tr.self(), options=options(subscribe_to=[dead]))
    assert received()[0] == "subscribed"
    assert received() == ("cancelled", ("down", "noproc"))


# Subscribing


def test_both_ends_get_tag_role_and_options() -> None:
    """S20 to S22; decisions: options arrive as a dict with the defaults resolved."""

    class Open(Silent):
        def handle_subscribe(self, role: str, options: Any, sender: tr.Subscription) -> Any:
            assert self.watcher is not None
            self.watcher.send(("subscribed", role, options, sender))

    producer, consumer = Open.start_link(tr.self()), Sink.start_link(tr.self())
    made = tr.subscribe(consumer, producer, max_demand=10, partition=3)
    ends = {}
    for _ in range(2):
        _, role, given, sender = received_kind("subscribed")
        ends[role] = sender
        assert given == {
            "max_demand": 10,
            "min_demand": 5,
            "cancel": "permanent",
            "partition": 3,
        }
    assert ends["producer"] == ends["consumer"] == made
    assert ends["producer"].tag == made.tag
    assert (ends["producer"].pid, ends["consumer"].pid) == (producer, consumer)
    assert len({*ends.values()}) == 1
    assert received_kind("demand") == ("demand", 10)


@pytest.mark.parametrize("answer", ["sometimes", 7, ["automatic"], tr.NoReply()])
def test_handle_subscribe_answers_nonsense(answer: Any) -> None:
    """S24."""
    producer, consumer = Silent.start(), Sink.start(tr.self(), answer)
    with pytest.raises(tr.CallExit) as caught:
        tr.subscribe(consumer, producer)
    assert isinstance(caught.value.reason, tr.BadReturn)
    producer.stop()


def test_the_producing_end_is_never_manual() -> None:
    """S25."""

    class Manual(Silent):
        def handle_subscribe(self, role: str, options: Any, sender: tr.Subscription) -> Any:
            return "manual"

    producer, consumer = Manual.start(), Sink.start(tr.self())
    watch = Watch(producer)
    tr.subscribe(consumer, producer, cancel="temporary")
    reason = watch.reason()
    assert isinstance(reason, tr.BadReturn)
    assert reason.value == "manual"
    assert reason.callback.endswith("Manual.handle_subscribe")
    assert consumer.alive
    consumer.stop()


def test_handle_subscribe_stops() -> None:
    """S26: the caller of subscribe fails with the reason."""
    producer, consumer = Silent.start(), Sink.start(tr.self(), tr.Stop("enough"))  # type: ignore[arg-type]
    with pytest.raises(tr.CallExit) as caught:
        tr.subscribe(consumer, producer)
    assert caught.value.reason == "enough"
    producer.stop()


def test_the_same_consumer_twice() -> None:
    """S27, S28: two independent subscriptions."""
    producer, consumer = Silent.start_link(), Sink.start_link(tr.self())
    first = tr.subscribe(consumer, producer, max_demand=2)
    second = tr.subscribe(consumer, producer, max_demand=2)
    assert first.tag != second.tag
    producer.send([1, 2, 3, 4])
    assert events(4) == [1, 2, 3, 4]


def test_names_and_handles() -> None:
    """S29."""

    class Handle:
        pid = Silent.start_link(name="the producer")

    consumer = Sink.start_link(tr.self(), name="the consumer")
    assert tr.subscribe("the consumer", "the producer").pid == Handle.pid
    assert tr.subscribe(consumer, Handle()).pid == Handle.pid


@pytest.mark.parametrize("cancel", ["permanent", "transient", "temporary"])
def test_subscribing_to_nobody(cancel: str, caplog: pytest.LogCaptureFixture) -> None:
    """S30, S31: a Subscription that does nothing; a permanent consumer ends with "noproc"."""
    consumer = Sink.start(tr.self())
    watch = Watch(consumer)
    made = tr.subscribe(consumer, "nobody", cancel=cancel)
    made.ask(3)
    made.cancel("normal")
    assert "cannot subscribe to 'nobody'" in caplog.text
    if cancel == "temporary":
        assert tr.estimate_buffered_count(consumer) == 0
        consumer.stop()
    assert watch.reason() == ("normal" if cancel == "temporary" else "noproc")
    with pytest.raises(tr.ReceiveTimeout):
        tr.receive(timeout=0)


@pytest.mark.parametrize("cancel", ["permanent", "transient", "temporary"])
def test_subscribing_to_the_dead(cancel: str) -> None:
    """S32."""
    dead, consumer = Silent.start(), Sink.start(tr.self())
    watch = Watch(consumer)
    dead.stop()
    tr.subscribe(consumer, dead, cancel=cancel)
    assert received()[0] == "subscribed"
    assert received() == ("cancelled", ("down", "noproc"))
    if cancel == "temporary":
        consumer.stop()
    else:
        assert watch.reason() == "noproc"


def test_subscribing_a_dead_consumer() -> None:
    """S33."""
    producer, dead = Silent.start_link(), Sink.start(tr.self())
    dead.stop()
    for consumer in (dead, "nobody"):
        with pytest.raises(tr.NoProcess):
            tr.subscribe(consumer, producer)
        tr.async_subscribe(consumer, producer)


def test_subscribing_a_producer(caplog: pytest.LogCaptureFixture) -> None:
    """S34: ValueError; the asynchronous form logs."""
    first, second = Silent.start_link(), Silent.start_link()
    with pytest.raises(ValueError, match="consumer: expected a Consumer or ProducerConsumer"):
        tr.subscribe(first, second)
    tr.async_subscribe(first, second)
    assert tr.estimate_buffered_count(first) == 0
    assert "expected a Consumer or ProducerConsumer" in caplog.text


def test_subscribing_what_is_no_stage() -> None:
    """A plain process, a server: TypeError; nonsense too."""
    producer, consumer = Silent.start_link(), Sink.start_link(tr.self())

    class Server(tr.GenServer):
        pass

    for other in (tr.self(), Server.start_link()):
        with pytest.raises(TypeError, match="expected a stage, got the other process"):
            tr.subscribe(other, producer)
        with pytest.raises(TypeError, match="expected a stage"):
            tr.async_info(other, "hello")
        with pytest.raises(TypeError, match="to: expected a stage, got the other process"):
            tr.subscribe(consumer, other)
    for nonsense in (7, None, ["x"]):
        with pytest.raises(TypeError, match="consumer: expected a stage"):
            tr.subscribe(nonsense, producer)
        with pytest.raises(TypeError, match="to: expected a stage"):
            tr.subscribe(producer, nonsense)
    with pytest.raises(TypeError, match="to"):  # S42
        tr.subscribe(producer)  # type: ignore[call-arg]


def test_subscribing_to_a_consumer(caplog: pytest.LogCaptureFixture) -> None:
    """S35: cancelled with "not_a_producer"."""
    target, consumer = Sink.start_link(tr.self()), Sink.start_link(tr.self())
    tr.subscribe(consumer, target, cancel="temporary")
    assert received_kind("cancelled") == ("cancelled", ("cancel", "not_a_producer"))
    assert "is a Consumer" in caplog.text


def test_subscribing_to_itself() -> None:
    """S36."""
    both = Doubler.start_link()
    with pytest.raises(ValueError, match="cannot subscribe to itself"):
        tr.subscribe(both, both)
    assert both.alive


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"max_demand": 0}, ValueError, "max_demand: expected an int >= 1, got 0"),
        ({"min_demand": 2000}, ValueError, "min_demand: expected an int 0 .. 999, got 2000"),
        ({"max_demand": 10, "min_demand": 10}, ValueError, "min_demand: expected an int 0 .. 9"),
        ({"max_demand": 1.5}, TypeError, "max_demand: expected an int"),
        ({"max_demand": float("inf")}, TypeError, "max_demand: expected an int"),
        ({"max_demand": True}, TypeError, "max_demand: expected an int"),
        ({"max_demand": 2**63}, ValueError, "max_demand: expected an int 1 .. "),
        ({"cancel": "never"}, ValueError, "cancel: expected one of 'permanent', 'transient', 'tem"),
        ({"cancel": 1, "max_demand": 0}, ValueError, "max_demand"),
    ],
)
def test_bad_subscription_options(given: Any, error: type[Exception], text: str) -> None:
    """S37 to S41, S47: in this order, before anybody is asked; nothing changes."""
    consumer = Sink.start_link(tr.self())
    with pytest.raises(error, match=text):
        tr.subscribe(consumer, "nobody", **given)
    with pytest.raises(error, match=text):
        tr.async_subscribe(consumer, "nobody", **given)
    with pytest.raises(error, match=text):
        tr.resubscribe(consumer, tr.monitor(consumer), "normal", "nobody", **given)
    assert consumer.alive


def test_resubscribe_at_the_same_producer() -> None:
    """S43, S46: cancelled with the reason, its demand credited."""
    producer, consumer = Silent.start_link(tr.self()), Sink.start_link(tr.self())
    old = tr.subscribe(consumer, producer, max_demand=10, cancel="temporary")
    assert received_kind("demand") == ("demand", 10)
    tr.resubscribe(consumer, old, "moved", producer, max_demand=20)
    assert received_kind("lost") == ("lost", ("cancel", "moved"))
    assert received_kind("demand") == ("demand", 10)


def test_resubscribe_at_another_producer() -> None:
    """Decision on S43: the old one is cancelled at its own producer."""
    left, right = Silent.start_link(tr.self()), Silent.start_link()
    consumer = Sink.start_link(tr.self())
    old = tr.subscribe(consumer, left, cancel="temporary")
    made = tr.resubscribe(consumer, old, "moved", right)
    assert received_kind("lost") == ("lost", ("cancel", "moved"))
    assert made.pid == right
    right.send([1])
    assert events(1) == [1]


def test_resubscribe_an_unknown_one() -> None:
    """S44; the asynchronous form."""
    producer, consumer = Silent.start_link(tr.self()), Sink.start_link(tr.self())
    tr.resubscribe(consumer, tr.monitor(producer), "normal", producer, max_demand=4)
    assert received_kind("demand") == ("demand", 4)
    tr.async_resubscribe(consumer, tr.monitor(producer), "normal", producer, max_demand=3)
    assert received_kind("demand") == ("demand", 3)


# Manual demand


def test_manual_demand() -> None:
    """S63, S64, S66, S67: no first ask; whole messages; asks add up."""
    producer = Counter.start_link(tr.self())
    consumer = Sink.start_link(tr.self(), "manual")
    made = tr.subscribe(consumer, producer)
    made.ask(0)
    made.ask(50)
    made.ask(50)
    assert batches(2) == [list(range(50)), list(range(50, 100))]
    for bad, error in ((-1, ValueError), (1.5, TypeError), (True, TypeError)):
        with pytest.raises(error, match="n: expected an int"):
            made.ask(bad)  # type: ignore[arg-type]


def test_ask_from_outside_delivers_to_the_subscribed() -> None:
    """S69: also when a third process asks."""
    producer = Counter.start_link()
    consumer = Sink.start_link(tr.self(), "manual")
    made = tr.subscribe(consumer, producer)
    tr.spawn_link(made.ask, 2)
    assert events(2) == [0, 1]


def test_the_producing_end_may_ask_and_cancel() -> None:
    """A Subscription works the same at both ends."""

    class Host(Counter):
        def handle_subscribe(self, role: str, options: Any, sender: tr.Subscription) -> Any:
            sender.ask(3)
            self.sender = sender

        def handle_call(self, request: Any, caller: tr.From) -> Any:
            return self.sender.cancel(request)

    producer = Host.start_link()
    consumer = Sink.start_link(tr.self(), "manual")
    tr.subscribe(consumer, producer, cancel="temporary")
    assert events(3) == [0, 1, 2]
    producer.call("bye")
    assert received_kind("cancelled") == ("cancelled", ("cancel", "bye"))


# Requests and lifetime


def test_a_call_emits_before_it_answers() -> None:
    """S234."""
    producer, consumer = Silent.start_link(), Sink.start_link(tr.self())
    tr.subscribe(consumer, producer)
    assert received()[0] == "subscribed"
    assert producer.call(["a", "b"]) == 2
    assert events(2) == ["a", "b"]


def test_unknown_messages_and_requests(caplog: pytest.LogCaptureFixture) -> None:
    """S237."""

    class Bare(tr.Producer):
        def handle_demand(self, demand: int) -> Any:
            return []

    stage = Bare.start()
    watch = Watch(stage)
    stage.send("what")
    assert tr.estimate_buffered_count(stage) == 0
    assert "has no handle_info" in caplog.text
    with pytest.raises(tr.CallExit):
        stage.call("what")
    assert isinstance(watch.reason(), AttributeError)


def test_terminate() -> None:
    """S239: on stop and on a cancel-driven stop, not when killed."""

    class Last(Sink):
        def terminate(self, reason: Any) -> None:
            self.watcher.send(("terminate", reason))

    producer, consumer = Silent.start(), Last.start(tr.self())
    tr.subscribe(consumer, producer, cancel="permanent")
    producer.stop("shutdown")
    assert received_kind("terminate") == ("terminate", "shutdown")
    other = Last.start(tr.self())
    other.stop()
    assert received_kind("terminate") == ("terminate", "normal")
    killed = Last.start(tr.self())
    watch = Watch(killed)
    killed.exit("kill")
    assert watch.reason() == "killed"
    with pytest.raises(tr.ReceiveTimeout):
        tr.receive(timeout=0)


@pytest.mark.parametrize("answer", [7, object()])
def test_events_that_are_none(answer: Any) -> None:
    """S240."""

    class Odd(tr.Producer):
        def handle_demand(self, demand: int) -> Any:
            return answer

    producer, consumer = Odd.start(), Sink.start(tr.self())
    watch = Watch(producer)
    tr.subscribe(consumer, producer, cancel="temporary")
    reason = watch.reason()
    assert isinstance(reason, tr.BadReturn)
    assert reason.value is answer
    consumer.stop()


def test_any_iterable_is_a_list_of_events() -> None:
    """Decisions: any iterable is made one; what it raises ends the stage."""

    class Lazy(tr.Producer):
        def init(self) -> None:
            self.first = True

        def handle_demand(self, demand: int) -> Any:
            if self.first:
                self.first = False
                return (n * n for n in range(3))
            return (1 // 0 for _ in range(3))

    producer, consumer = Lazy.start(), Sink.start(tr.self())
    watch = Watch(producer)
    tr.subscribe(consumer, producer, max_demand=3, min_demand=0, cancel="temporary")
    assert events(3) == [0, 1, 4]
    assert isinstance(watch.reason(), ZeroDivisionError)
    consumer.stop()


@pytest.mark.parametrize("callback", ["handle_events", "handle_cancel", "handle_subscribe"])
def test_a_raise_ends_the_stage(callback: str, caplog: pytest.LogCaptureFixture) -> None:
    """S243: peers see the exception as the reason of a down notice; logged once."""

    class Broken(Sink):
        pass

    def fail(*args: Any) -> Any:
        raise ZeroDivisionError(callback)

    setattr(Broken, callback, fail)
    producer, consumer = Silent.start(tr.self()), Broken.start(tr.self())
    watch = Watch(consumer)
    tr.async_subscribe(consumer, producer, cancel="temporary")
    if callback == "handle_events":
        producer.send([1])
    if callback == "handle_cancel":
        received_kind("demand")
        producer.stop()
    assert isinstance(watch.reason(), ZeroDivisionError)
    assert caplog.text.count("ZeroDivisionError: " + callback) == 1
    if callback == "handle_events":
        assert received_kind("lost")[1][0] == "down"
    producer.exit("kill")


def test_child_spec_of_a_stage() -> None:
    """S18: under a supervisor, restarted."""
    supervisor = tr.Supervisor.start_link([tr.ChildSpec("it", (Silent.start_link, (), {}))])
    first = supervisor.which_children()[0].pid
    watch = Watch(first)
    first.exit("kill")
    assert watch.reason() == "killed"
    eventually(lambda: supervisor.which_children()[0].pid not in (first, None))
    supervisor.stop()


def test_cast_and_async_forms_never_fail(caplog: pytest.LogCaptureFixture) -> None:
    """S236, S33."""
    dead = Silent.start()
    dead.stop(timeout=LIMIT)
    dead.cast("x")
    tr.async_info(dead, "x")
    tr.demand(dead, "forward")
    with pytest.raises(tr.NoProcess):
        tr.demand(dead)
    with pytest.raises(tr.NoProcess):
        tr.sync_info(dead, "x")
    assert caplog.records == [r for r in caplog.records if r.levelno < logging.ERROR]


@pytest.mark.parametrize("callback", ["handle_cast", "handle_info", "handle_continue"])
def test_other_callbacks_emit_by_an_action_only(callback: str) -> None:
    """Decisions: a plain list from them is a bad return, NoReply(events=...) is not."""

    class Plain(Silent):
        def init(self, answer: Any) -> Any:
            self.answer = answer
            return tr.NoReply(continue_=1) if callback == "handle_continue" else None

    setattr(Plain, callback, lambda self, message: self.answer)
    good = Plain.start_link(tr.NoReply(events=(n for n in (1, 2))))
    bad = Plain.start([1, 2])
    watch = Watch(bad)
    for stage in (good, bad):
        if callback == "handle_cast":
            stage.cast("now")
        elif callback == "handle_info":
            stage.send("now")
    assert tr.estimate_buffered_count(good) == 2
    if callback != "handle_continue":  # that one may have ended before it was watched
        reason = watch.reason()
        assert isinstance(reason, tr.BadReturn)
        assert reason.value == [1, 2]


@pytest.mark.parametrize("name", ["", "a\0b", "\ud800"])
def test_names_that_nobody_can_have(name: str) -> None:
    """The argument is named."""
    with pytest.raises(ValueError, match="stage: expected a "):
        tr.demand(name)
