"""Stages: producers, consumers and both, which pass events on by demand.

A consumer asks its producers for as many events as it can take; nobody ever sends more. A stage is
a GenServer, so everything a server can do a stage can do too. Callbacks that are async def run on
the engine's event loop, one at a time, while the stage waits on a thread (_companion.py).

What is here runs in the caller of a start, then, by way of the core, inside the stage's process.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, Final, TypeVar

from . import _core
from . import _stage_options as options_of
from . import _validate as check
from ._asynchronous import started
from ._companion import Companion
from ._core import Pid
from ._errors import ProcessExit
from ._log import logger, short
from ._server import _CALLBACKS, GenServer, MissingCallback
from ._stage_options import DemandDispatcher, StageOptions
from ._stage_requests import (
    answer,
    async_info,
    async_resubscribe,
    async_subscribe,
    demand,
    estimate_buffered_count,
    find_producer,
    resubscribe,
    subscribe,
    subscribe_to,
    sync_info,
)
from ._subscription import Subscription

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

T = TypeVar("T")

_KINDS: Final = {"Producer": 0, "ProducerConsumer": 1, "Consumer": 2}
_UNLIMITED: Final = 2**64 - 1  # as the core's buffer size


class _StageBase(GenServer):
    """What all kinds of stages have in common."""

    _kind: ClassVar[str]
    _runs_coroutines: ClassVar[bool] = False  # other than by callbacks of its own
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
            StartError: `init` failed; reason "noproc": nobody holds a name in `subscribe_to`.
            TypeError, ValueError: a bad option.

        Any thread or process may call it.
        """
        settings = (name, timeout, scheduler, priority)
        pid: Pid = cls._start(_core.start_stage, args, kwargs or None, options, True, settings)
        return pid

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
        settings = (name, timeout, scheduler, priority)
        pid: Pid = cls._start(_core.start_stage, args, kwargs or None, options, False, settings)
        return pid

    @classmethod
    def _choose_scheduler(cls, scheduler: str | None) -> str | None:
        """Say that only coroutines of a stage run on the event loop."""
        if scheduler == "asyncio" and not (cls._asynchronous or cls._runs_coroutines):
            expected = f"anything but 'asyncio', as {cls.__name__} has no async def callbacks"
            raise check.wrong_value("scheduler", expected, scheduler)
        return super()._choose_scheduler(scheduler)

    @classmethod
    async def astart_link(
        cls,
        *args: Any,
        options: StageOptions | None = None,
        name: str | None = None,
        timeout: float | None = None,
        scheduler: str | None = None,
        priority: str = "normal",
        **kwargs: Any,
    ) -> Pid:
        """As `start_link`, awaited by a task of any event loop, which goes on meanwhile."""
        settings = (name, timeout, scheduler, priority)
        begun = cls._start(_core.begin_stage, args, kwargs or None, options, True, settings)
        return await started(*begun, True)

    @classmethod
    async def astart(
        cls,
        *args: Any,
        options: StageOptions | None = None,
        name: str | None = None,
        timeout: float | None = None,
        scheduler: str | None = None,
        priority: str = "normal",
        **kwargs: Any,
    ) -> Pid:
        """As `astart_link`, without the link."""
        settings = (name, timeout, scheduler, priority)
        begun = cls._start(_core.begin_stage, args, kwargs or None, options, False, settings)
        return await started(*begun, False)

    @classmethod
    def _start(
        cls,
        start: Callable[..., T],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any] | None,
        options: StageOptions | None,
        link: bool,
        settings: tuple[str | None, float | None, str | None, str],
    ) -> T:
        name, timeout, scheduler, priority = settings
        scheduler = cls._choose_scheduler(scheduler)
        if options is not None:
            check.instance("options", options, StageOptions, "a StageOptions")
        check.instance(f"{cls.__name__}.options", cls.options, StageOptions, "a StageOptions")
        options_of.merge(cls._kind, cls.options, options)
        make: Any = partial(_make, cls._factory(scheduler), options)
        return start(make, args, kwargs, link, name, timeout, scheduler, priority)

    def handle_subscribe(self, role: str, options: dict[str, Any], sender: Subscription) -> Any:
        """A subscription begins; `role` is what the peer is, "producer" or "consumer".

        Returns "automatic" (or None); with a producer also "manual": then events are asked for with
        `sender.ask(n)` only; or `Stop(reason)`. `options` are those of the subscription.
        """
        return None

    def handle_cancel(self, reason: tuple[str, Any], sender: Subscription) -> Any:
        """A subscription ended: ("cancel", reason), or ("down", the peer's exit reason).

        Returns events or an action. A consumer may stop after it, see `subscribe`.
        """
        return None


class Producer(_StageBase):
    """A stage that only emits: define `handle_demand(demand)`.

    It returns up to `demand` events, a list, which must then not be touched any more. What is
    missing is owed: demand is announced once. More are allowed, and wait for demand in the stage's
    buffer. Another iterable is made a list, and refused if it gives more than demand and buffer
    take. Any other callback emits with `NoReply(events=[...])` or `Reply(value, events=[...])`.

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
    ...         return tr.Stop("normal")
    >>> counter = Counter.start_link(7)
    >>> reporter = Reporter.start_link(
    ...     options=tr.StageOptions(subscribe_to=[(counter, {"max_demand": 4})])
    ... )
    >>> tr.receive(timeout=5)
    [7, 8]
    >>> counter.stop()
    """

    _kind = "Producer"

    def handle_demand(self, demand: int) -> Any:
        """Give up to `demand` (int >= 1) more events."""
        raise MissingCallback(self, "handle_demand", demand)

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
        raise MissingCallback(self, "handle_events", events)


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
        raise MissingCallback(self, "handle_events", events)

    def format_discarded(self, n: int) -> Any:
        """The buffer had to drop `n` events: a false answer keeps that out of the log."""
        return True


# The start, inside the stage's process


def _make(factory: Any, options: StageOptions | None) -> _StageBase:
    instance: _StageBase = factory()
    instance.__dict__["_start_options"] = options
    if instance._asynchronous:
        companion = Companion()
        for name in instance._callbacks:
            if inspect.iscoroutinefunction(callback := getattr(instance, name, None)):
                instance.__dict__[name] = companion.plain(callback)
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
        if find_producer(instance, to) is not None:
            subscribe_to(instance, to, options)
        elif options["cancel"] != "temporary":
            raise ProcessExit("noproc")


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
    request=answer,
    log=_log,
)
