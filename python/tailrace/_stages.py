"""Stages: producers, consumers and both, which pass events on by demand.

A consumer asks its producers for as many events as it can take; nobody ever sends more. A stage is a
GenServer, so everything a server can do a stage can do too.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Final, NamedTuple

from . import _core
from . import _stage_options as options_of
from . import _validate as check
from ._core import Pid, Ref
from ._errors import ProcessExit
from ._log import logger, short
from ._server import _CALLBACKS, GenServer
from ._stage_options import CANCEL_MODES, DemandDispatcher, Stage, StageOptions

__all__ = [
    "Consumer",
    "DemandDispatcher",
    "Producer",
    "ProducerConsumer",
    "StageOptions",
    "Subscription",
    "async_info",
    "async_resubscribe",
    "async_subscribe",
    "demand",
    "estimate_buffered_count",
    "resubscribe",
    "subscribe",
    "sync_info",
]

_KINDS: Final = {"Producer": 0, "ProducerConsumer": 1, "Consumer": 2}
_UNLIMITED: Final = 2**64 - 1
_MOST: Final = 2**63 - 1


class Subscription:
    """One subscription, as one of its ends sees it.

    `pid` is the peer at the other end, `tag` a Ref that is the same at both ends. Made by the engine;
    any thread may use it. Subscriptions with equal tags are equal.

    >>> import tailrace as tr
    >>> class Numbers(tr.Producer):
    ...     def handle_demand(self, demand):
    ...         return range(demand)
    >>> class Sink(tr.Consumer):
    ...     def handle_events(self, events, sender):
    ...         pass
    >>> numbers, sink = Numbers.start_link(), Sink.start_link()
    >>> subscription = tr.subscribe(sink, numbers, cancel="temporary", max_demand=10)
    >>> subscription.pid == numbers
    True
    >>> subscription.cancel("normal")
    >>> sink.stop(); numbers.stop()
    """

    __slots__ = ("_producer", "pid", "tag")

    def __init__(self, pid: Any, tag: Ref, producer: Pid | None) -> None:
        """Name the peer, the tag and the producing end; None there makes one that does nothing."""
        self.pid = pid
        self.tag = tag
        self._producer = producer

    def ask(self, n: int) -> None:
        """Ask the producer for `n` more events (int >= 0), for the subscribed consumer.

        For subscriptions whose `handle_subscribe` chose "manual"; on others what comes is in excess.

        Raises:
            TypeError, ValueError: `n` is no int, or negative.
        """
        check.integer("n", n, 0)
        if n and self._producer is not None:
            _core.stage_ask(self._producer, self.tag, min(n, _MOST))

    def cancel(self, reason: Any) -> None:
        """Ask the producing end to end the subscription with `reason`; returns at once."""
        if self._producer is not None:
            _core.stage_cancel(self._producer, self.tag, reason)

    def __eq__(self, other: object) -> bool:
        """Compare the tags."""
        return isinstance(other, Subscription) and self.tag == other.tag

    def __hash__(self) -> int:
        """Hash the tag."""
        return hash(self.tag)

    def __repr__(self) -> str:
        """Show the peer and the tag."""
        return f"<Subscription {self.tag!r} with {self.pid!r}>"


class _StageBase(GenServer):
    """What all kinds of stages have in common."""

    _kind: ClassVar[str]
    _callbacks = (
        *_CALLBACKS,
        "handle_demand",
        "handle_events",
        "handle_subscribe",
        "handle_cancel",
        "format_discarded",
    )

    options: ClassVar[StageOptions] = StageOptions()
    """The options of every stage of this class, unless `init` or the start says otherwise."""

    @classmethod
    def start_link(
        cls,
        *args: Any,
        options: StageOptions | None = None,
        name: str | None = None,
        timeout: float | None = None,
        scheduler: str | None = None,
        priority: str = "normal",
        **kwargs: Any,
    ) -> Pid:
        """Start a stage linked to the caller; returns when it has set itself up and subscribed.

        Args:
            options: win over those of the class and of `init`, option by option.
            name, timeout, scheduler, priority: as `GenServer.start_link`.

        Raises:
            StartError: `init` failed; its reason is "noproc" if a name in `subscribe_to` is nobody's.
            TypeError, ValueError: a bad option.

        Any thread or process may call it.
        """
        return cls._start(
            args, kwargs or None, options, True, (name, timeout, scheduler, priority)
        )

    @classmethod
    def start(
        cls,
        *args: Any,
        options: StageOptions | None = None,
        name: str | None = None,
        timeout: float | None = None,
        scheduler: str | None = None,
        priority: str = "normal",
        **kwargs: Any,
    ) -> Pid:
        """As `start_link`, without the link."""
        return cls._start(
            args, kwargs or None, options, False, (name, timeout, scheduler, priority)
        )

    @classmethod
    def _start(
        cls,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any] | None,
        options: StageOptions | None,
        link: bool,
        settings: tuple[Any, Any, Any, str],
    ) -> Pid:
        if options is not None:
            check.instance("options", options, StageOptions, "a StageOptions")
        check.instance(f"{cls.__name__}.options", cls.options, StageOptions, "a StageOptions")
        options_of.merge(cls._kind, cls.options, options)
        make: Any = partial(_make, cls, options)
        pid: Pid = _core.start_stage(make, args, kwargs, link, *settings)
        return pid

    def handle_subscribe(
        self, role: str, options: dict[str, Any], sender: Subscription
    ) -> Any:
        """A subscription begins; `role` is what the peer is, "producer" or "consumer".

        Returns "automatic" (or None); with a producer also "manual": then events are asked for with
        `sender.ask(n)` only; or `Stop(reason)`. `options` are those of the subscription.
        """
        return None

    def handle_cancel(self, reason: tuple[str, Any], sender: Subscription) -> Any:
        """A subscription ended: ("cancel", reason), or ("down", reason) with the peer's exit reason.

        Returns events or an action. A consumer may stop after it, see `subscribe`.
        """
        return None


class Producer(_StageBase):
    """A stage that only emits: define `handle_demand(demand)`.

    It returns up to `demand` events, a list, which must then not be touched any more. What is missing
    is owed: demand is announced once. More are allowed, and wait for demand in the stage's buffer. Any
    other callback emits with `NoReply(events=[...])` or `Reply(value, events=[...])`.

    >>> import tailrace as tr
    >>> class Counter(tr.Producer):
    ...     def init(self, start):
    ...         self.next = start
    ...     def handle_demand(self, demand):
    ...         events = list(range(self.next, self.next + demand))
    ...         self.next += demand
    ...         return events
    >>> me = tr.self()
    >>> class Reporter(tr.Consumer):
    ...     def handle_events(self, events, sender):
    ...         me.send(events)
    >>> counter = Counter.start_link(7)
    >>> reporter = Reporter.start_link(
    ...     options=tr.StageOptions(subscribe_to=[(counter, {"max_demand": 4})]))
    >>> tr.receive(timeout=5)
    [7, 8]
    >>> reporter.stop(); counter.stop()
    """

    _kind = "Producer"

    def handle_demand(self, demand: int) -> Any:
        """Give up to `demand` (int >= 1) more events."""
        raise NotImplementedError

    def format_discarded(self, n: int) -> Any:
        """The buffer had to drop `n` events: a false answer keeps that out of the log."""
        return True


class Consumer(_StageBase):
    """A stage that only takes: define `handle_events(events, sender)`.

    `events` is a list that belongs to the callback, `sender` the Subscription they came by.

    >>> import tailrace as tr
    >>> class Printer(tr.Consumer):
    ...     def handle_events(self, events, sender):
    ...         print(events)
    """

    _kind = "Consumer"

    def handle_events(self, events: list[Any], sender: Subscription) -> Any:
        """Handle a batch of events. Returns None or an action."""
        raise NotImplementedError


class ProducerConsumer(_StageBase):
    """A stage that takes, transforms and emits: define `handle_events(events, sender)`.

    It returns the events to emit. It is called only while somebody wants what it emits.

    >>> import tailrace as tr
    >>> class Doubler(tr.ProducerConsumer):
    ...     def handle_events(self, events, sender):
    ...         return [2 * event for event in events]
    """

    _kind = "ProducerConsumer"

    def handle_events(self, events: list[Any], sender: Subscription) -> Any:
        """Handle a batch of events. Returns the events to emit, None, or an action."""
        raise NotImplementedError

    def format_discarded(self, n: int) -> Any:
        """The buffer had to drop `n` events: a false answer keeps that out of the log."""
        return True


# The start, inside the stage's process


def _make(cls: type[_StageBase], options: StageOptions | None) -> _StageBase:
    instance = cls()
    instance.__dict__["_start_options"] = options
    return instance


def _resolve(instance: _StageBase, result: Any) -> tuple[Any, ...]:
    """Make one set of options of those of the class, of init and of the start.

    Returns what the core makes the stage of, and what is left of init's result for the server.
    """
    at_start = instance.__dict__.pop("_start_options")
    kind = instance._kind
    callback = "handle_demand" if kind == "Producer" else "handle_events"
    if getattr(type(instance), callback) is getattr(_BASES[kind], callback) and (
        callback not in instance.__dict__
    ):
        raise TypeError(f"{type(instance).__qualname__}.{callback}: a {kind} must define it")
    from_init = result if isinstance(result, StageOptions) else None
    merged = options_of.merge(kind, type(instance).options, from_init, at_start)
    size = merged.get("buffer_size", 10_000 if kind == "Producer" else None)
    dispatcher = merged.get("dispatcher", DemandDispatcher())
    if isinstance(dispatcher, DemandDispatcher):
        dispatcher = dispatcher.template()
    return (
        _KINDS[kind],
        dispatcher,
        _UNLIMITED if size is None else size,
        merged.get("buffer_keep") == "first",
        merged.get("demand") == "accumulate",
        merged.get("subscribe_to", []),
        None if from_init is not None else result,
    )


_BASES: Final[dict[str, type[_StageBase]]] = {
    base._kind: base for base in (Producer, ProducerConsumer, Consumer)
}


def _subscribe_at_start(instance: _StageBase, entries: list[tuple[Any, dict[str, Any]]]) -> None:
    """Subscribe to what `subscribe_to` names, in order (S1, S15)."""
    for to, options in entries:
        if _producer(instance, to) is not None:
            _subscribe_to(instance, to, options)
        elif options["cancel"] != "temporary":
            raise ProcessExit("noproc")


def _producer(instance: _StageBase, to: Any) -> Any:
    """Find the producer; None, logged, if nobody holds the name."""
    found = _core.whereis(to) if isinstance(to, str) else getattr(to, "pid", to)
    if found is None:
        logger.error(
            "stage %r (%s) cannot subscribe to %r: no such process",
            _core.self(),
            type(instance).__qualname__,
            to,
        )
    return found


def _subscribe_to(instance: _StageBase, to: Any, options: dict[str, Any]) -> Subscription:
    """Subscribe this stage; S30 if nobody holds the name."""
    if instance._kind == "Producer":
        raise ValueError(
            f"consumer: expected a Consumer or ProducerConsumer, got the Producer {_core.self()!r}"
        )
    producer = _producer(instance, to)
    cancel = options["cancel"]
    if producer is None:
        if cancel != "temporary":
            _core.stage_stop("noproc")
        return Subscription(to, _core.stage_tag(), None)
    if producer == _core.self():
        raise ValueError(f"to: a stage cannot subscribe to itself, got {producer!r}")
    return _core.stage_subscribe(
        producer, options, options["max_demand"], options["min_demand"], CANCEL_MODES.index(cancel)
    )


# Requests: made by any thread, answered inside the stage's process


class _Subscribe(NamedTuple):
    to: Any
    options: dict[str, Any]

    def answer(self, instance: _StageBase) -> Subscription:
        return _subscribe_to(instance, self.to, self.options)


class _Resubscribe(NamedTuple):
    old: Ref
    reason: Any
    to: Any
    options: dict[str, Any]

    def answer(self, instance: _StageBase) -> Subscription:
        _core.stage_unsubscribe(self.old, self.reason)
        return _subscribe_to(instance, self.to, self.options)


class _Info(NamedTuple):
    message: Any

    def answer(self, instance: _StageBase) -> None:
        _core.stage_info(self.message)


class _Demand(NamedTuple):
    mode: str | None

    def answer(self, instance: _StageBase) -> str | None:
        if self.mode is None:
            return "accumulate" if _core.stage_accumulate() else "forward"
        accumulate = self.mode == "accumulate"
        if instance._kind == "Consumer" or (accumulate and instance._kind != "Producer"):
            raise ValueError(f"mode: a {instance._kind} has no {self.mode!r} mode")
        _core.stage_accumulate(accumulate)
        return None


class _Buffered(NamedTuple):
    def answer(self, instance: _StageBase) -> int:
        if instance._kind == "Consumer":
            logger.error("stage %r: a Consumer buffers no events", _core.self())
        return _core.stage_buffered()


class _Quiet(NamedTuple):
    """A request that nobody waits for."""

    request: Any

    def answer(self, instance: _StageBase) -> None:
        try:
            self.request.answer(instance)
        except ValueError as error:
            logger.error("stage %r: %s", _core.self(), error)


def _answer(instance: _StageBase, request: Any) -> tuple[bool, Any]:
    """Carry a request out; what the caller did wrong is for the caller."""
    try:
        return True, request.answer(instance)
    except ValueError as error:
        return False, error


def _call(stage: Stage, request: Any, timeout: float | None) -> Any:
    good, answer = _core.stage_call(stage, request, timeout)
    if good:
        return answer
    raise answer


def _log(what: str, pid: Pid, who: Any, count: int, limit: int, detail: Any) -> None:
    """Log what the core reports."""
    if what == "excess":
        logger.error("stage %r received %d events in excess from %r", pid, count, who)
    elif what == "large_ask":
        logger.warning(
            "stage %r: %r asked for %d events, expected at most %d", pid, who, count, limit
        )
    elif what == "lost":
        logger.error("stage %r is a Consumer, events it emits are lost: %s", pid, short(detail))
    elif what == "ends":
        logger.info("stage %r ends, as its subscription %r did: %s", pid, who, short(detail))
    elif what == "target":
        logger.error("stage %r is a Consumer, %r cannot subscribe to it", pid, who)
    elif what == "duplicate":
        logger.error("stage %r: %r used the tag of a living subscription", pid, who)
    else:
        logger.warning("stage %r discarded %d events: its buffer is full", pid, count)


_core.configure_stages(
    Subscription=Subscription,
    resolve=_resolve,
    subscribe=_subscribe_at_start,
    request=_answer,
    log=_log,
)


# The public functions


def _options(
    max_demand: int, min_demand: int | None, cancel: str, more: dict[str, Any]
) -> dict[str, Any]:
    given = {"max_demand": max_demand, "min_demand": min_demand, "cancel": cancel, **more}
    return options_of.subscription("", given)


def subscribe(
    consumer: Stage,
    to: Stage,
    *,
    max_demand: int = 1000,
    min_demand: int | None = None,
    cancel: str = "permanent",
    timeout: float | None = 5.0,
    **options: Any,
) -> Subscription:
    """Make a stage take events from another.

    Args:
        consumer: the Consumer or ProducerConsumer that is to take them.
        to: the stage to take them from.
        max_demand: how many events may be on their way at most, an int >= 1.
        min_demand: more are asked for when no more than this many are outstanding, an int
            0 .. max_demand - 1; default max_demand // 2. `handle_events` gets at most
            max_demand - min_demand events at a time.
        cancel: what the end of the subscription does to the consumer: "permanent" stops it,
            "transient" only if the reason is not "normal", "shutdown" or ("shutdown", x),
            "temporary" never.
        timeout: seconds to wait for the consumer, None for ever.
        options: handed to both `handle_subscribe` and to the dispatcher.

    Returns:
        The Subscription, when the consumer has subscribed; the producer may not have heard of it yet.

    Raises:
        NoProcess, CallExit, CallTimeout: the consumer does not run, ended, or did not answer.
        TypeError, ValueError: a bad argument.

    If `to` is a name that nobody holds, the consumer ends with "noproc" unless the subscription is
    temporary, and what is returned does nothing. Any thread or process but the consumer's own may call
    it; that one uses `async_subscribe`.

    >>> import tailrace as tr
    >>> tr.subscribe("nobody", "somebody", max_demand=0)
    Traceback (most recent call last):
    ValueError: max_demand: expected an int >= 1, got 0
    """
    request = _Subscribe(
        options_of.stage("to", to), _options(max_demand, min_demand, cancel, options)
    )
    answer: Subscription = _call(options_of.stage("consumer", consumer), request, timeout)
    return answer


def async_subscribe(
    consumer: Stage,
    to: Stage,
    *,
    max_demand: int = 1000,
    min_demand: int | None = None,
    cancel: str = "permanent",
    **options: Any,
) -> None:
    """As `subscribe`, but returns at once; what goes wrong in the consumer is logged.

    Any thread or process may call it, also the consumer for itself.

    >>> import tailrace as tr
    >>> tr.async_subscribe("nobody", "somebody")
    """
    request = _Subscribe(
        options_of.stage("to", to), _options(max_demand, min_demand, cancel, options)
    )
    _core.stage_cast(options_of.stage("consumer", consumer), _Quiet(request))


def _old(old: object) -> Ref:
    tag = old.tag if isinstance(old, Subscription) else old
    return check.instance("old", tag, Ref, "a Subscription or its tag")


def resubscribe(
    consumer: Stage,
    old: Subscription | Ref,
    reason: Any,
    to: Stage,
    *,
    max_demand: int = 1000,
    min_demand: int | None = None,
    cancel: str = "permanent",
    timeout: float | None = 5.0,
    **options: Any,
) -> Subscription:
    """Replace a subscription: cancel `old` (a Subscription, or its tag) with `reason` at its producer,
    and subscribe to `to`, which may be another one.

    The old subscription's own cancel mode decides what its end does: a permanent one stops the
    consumer, new subscription and all. An unknown `old` is ignored. All else as `subscribe`.

    >>> import tailrace as tr
    >>> tr.resubscribe("nobody", "old", "normal", "somebody")
    Traceback (most recent call last):
    TypeError: old: expected a Subscription or its tag, got 'old'
    """
    resolved = _options(max_demand, min_demand, cancel, options)
    request = _Resubscribe(_old(old), reason, options_of.stage("to", to), resolved)
    answer: Subscription = _call(options_of.stage("consumer", consumer), request, timeout)
    return answer


def async_resubscribe(
    consumer: Stage,
    old: Subscription | Ref,
    reason: Any,
    to: Stage,
    *,
    max_demand: int = 1000,
    min_demand: int | None = None,
    cancel: str = "permanent",
    **options: Any,
) -> None:
    """As `resubscribe`, but returns at once; what goes wrong in the consumer is logged."""
    resolved = _options(max_demand, min_demand, cancel, options)
    request = _Resubscribe(_old(old), reason, options_of.stage("to", to), resolved)
    _core.stage_cast(options_of.stage("consumer", consumer), _Quiet(request))


def demand(stage: Stage, mode: str | None = None, *, timeout: float | None = 5.0) -> str | None:
    """Read a stage's mode, or set it.

    Args:
        stage: the stage.
        mode: "forward", or "accumulate", which only Producers have: demand and events are held back
            inside the stage, without limit, until it is set to "forward".
        timeout: seconds to wait for the answer when reading.

    Returns:
        The mode; None when one is set, which takes effect before any later request of the caller.

    Raises:
        NoProcess, CallExit, CallTimeout: reading, the stage does not run or did not answer.
        TypeError, ValueError: a bad argument.

    Any thread or process may call it; a stage cannot read its own.

    >>> import tailrace as tr
    >>> class Silent(tr.Producer):
    ...     def handle_demand(self, demand):
    ...         return []
    >>> stage = Silent.start_link(options=tr.StageOptions(demand="accumulate"))
    >>> tr.demand(stage)
    'accumulate'
    >>> tr.demand(stage, "forward")
    >>> tr.demand(stage)
    'forward'
    >>> stage.stop()
    """
    options_of.stage("stage", stage)
    if mode is None:
        answer: str = _call(stage, _Demand(None), timeout)
        return answer
    check.one_of("mode", mode, ("forward", "accumulate"))
    _core.stage_cast(stage, _Quiet(_Demand(mode)))
    return None


def estimate_buffered_count(stage: Stage, *, timeout: float | None = 5.0) -> int:
    """Count the events in a stage's output buffer; 0, logged as an error, for a Consumer.

    Events held back by "accumulate" and the unprocessed input of a ProducerConsumer do not count.

    Raises:
        NoProcess, CallExit, CallTimeout: the stage does not run, ended or did not answer.

    Any thread or process but the stage's own may call it.

    >>> import tailrace as tr
    >>> class Silent(tr.Producer):
    ...     def handle_demand(self, demand):
    ...         return []
    ...     def handle_info(self, message):
    ...         return tr.NoReply(events=message)
    >>> stage = Silent.start_link()
    >>> stage.send([1, 2, 3])
    >>> tr.estimate_buffered_count(stage)
    3
    >>> stage.stop()
    """
    answer: int = _call(options_of.stage("stage", stage), _Buffered(), timeout)
    return answer


def sync_info(stage: Stage, message: Any, *, timeout: float | None = 5.0) -> None:
    """Queue a message that reaches `handle_info` after every event emitted before it has left.

    Returns when it is queued.

    Raises:
        NoProcess, CallExit, CallTimeout: the stage does not run, ended or did not answer.

    Any thread or process but the stage's own may call it.

    >>> import tailrace as tr
    >>> me = tr.self()
    >>> class Silent(tr.Producer):
    ...     def handle_demand(self, demand):
    ...         return []
    ...     def handle_info(self, message):
    ...         me.send(message)
    >>> stage = Silent.start_link()
    >>> tr.sync_info(stage, "all gone")
    >>> tr.receive(timeout=5)
    'all gone'
    >>> stage.stop()
    """
    _call(options_of.stage("stage", stage), _Info(message), timeout)


def async_info(stage: Stage, message: Any) -> None:
    """As `sync_info`, but returns at once; a stage may use it on itself, to end after its last events.

    >>> import tailrace as tr
    >>> class Once(tr.Producer):
    ...     def handle_demand(self, demand):
    ...         tr.async_info(tr.self(), "end")
    ...         return ["the only one"]
    ...     def handle_info(self, message):
    ...         return tr.Stop("normal")
    """
    _core.stage_cast(options_of.stage("stage", stage), _Info(message))
