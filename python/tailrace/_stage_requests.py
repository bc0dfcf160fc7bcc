"""What can be asked of a stage from outside: subscribe, demand mode, ordered messages.

A request is an object that travels to the stage and answers itself in the stage's process: each
class here is one, and each function makes one. What the caller did wrong is raised in the caller,
or logged by the stage when nobody waits.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, Protocol

from . import _core
from . import _stage_options as options_of
from . import _validate as check
from ._core import Ref
from ._log import logger
from ._stage_options import CANCEL_MODES, Stage
from ._subscription import Subscription


class _Instance(Protocol):
    """A stage, here inside its own process."""

    _kind: ClassVar[str]


def find_producer(instance: _Instance, to: Any) -> Any:
    """Find the producer; None, logged, if nobody holds the name."""
    found = _core.whereis(to) if isinstance(to, str) else getattr(to, "pid", to)
    if found is None:
        logger.error(
            "stage %r (%s) cannot subscribe to %r: no such process",
            _core.self(),
            type(instance).__qualname__,
            to,
        )
    else:
        _core.stage_check("to", found)
    return found


def subscribe_to(instance: _Instance, to: Any, options: dict[str, Any]) -> Subscription:
    """Subscribe this stage; S30 if nobody holds the name."""
    if instance._kind == "Producer":
        raise ValueError(
            f"consumer: expected a Consumer or ProducerConsumer, got the Producer {_core.self()!r}"
        )
    producer = find_producer(instance, to)
    cancel = options["cancel"]
    if producer is None:
        if cancel != "temporary":
            _core.stage_stop("noproc")
        return Subscription(to, _core.stage_tag(), None)
    if producer == _core.self():
        raise ValueError(f"to: a stage cannot subscribe to itself, got {producer!r}")
    most, least = options["max_demand"], options["min_demand"]
    made: Subscription = _core.stage_subscribe(
        producer, options, most, least, CANCEL_MODES.index(cancel)
    )
    return made


class _Subscribe(NamedTuple):
    to: Any
    options: dict[str, Any]

    def answer(self, instance: _Instance) -> Subscription:
        return subscribe_to(instance, self.to, self.options)


class _Resubscribe(NamedTuple):
    old: Ref
    reason: Any
    to: Any
    options: dict[str, Any]

    def answer(self, instance: _Instance) -> Subscription:
        _core.stage_unsubscribe(self.old, self.reason)
        return subscribe_to(instance, self.to, self.options)


class _Info(NamedTuple):
    message: Any

    def answer(self, instance: _Instance) -> None:
        _core.stage_info(self.message)


class _Demand(NamedTuple):
    mode: str | None

    def answer(self, instance: _Instance) -> str | None:
        if self.mode is None:
            return "accumulate" if _core.stage_accumulate() else "forward"
        accumulate = self.mode == "accumulate"
        if instance._kind == "Consumer" or (accumulate and instance._kind != "Producer"):
            raise ValueError(f"mode: a {instance._kind} has no {self.mode!r} mode")
        _core.stage_accumulate(accumulate)
        return None


class _Buffered(NamedTuple):
    def answer(self, instance: _Instance) -> int:
        if instance._kind == "Consumer":
            logger.error("stage %r: a Consumer buffers no events", _core.self())
        return _core.stage_buffered()


class _Quiet(NamedTuple):
    """A request that nobody waits for."""

    request: Any

    def answer(self, instance: _Instance) -> None:
        try:
            self.request.answer(instance)
        except (TypeError, ValueError) as error:
            logger.error("stage %r: %s", _core.self(), error)


def answer(instance: _Instance, request: Any) -> tuple[bool, Any]:
    """Carry a request out; what the caller did wrong is for the caller."""
    try:
        return True, request.answer(instance)
    except (TypeError, ValueError) as error:
        return False, error


def _call(stage: Stage, request: Any, timeout: float | None) -> Any:
    good, answer = _core.stage_call(stage, request, timeout)
    if good:
        return answer
    raise answer


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
        The Subscription, when the consumer has subscribed; the producer may not know of it yet.

    Raises:
        NoProcess, CallExit, CallTimeout: the consumer does not run, ended, or did not answer.
        TypeError, ValueError: a bad argument.

    If `to` is a name that nobody holds, the consumer ends with "noproc" unless the subscription is
    temporary, and what is returned does nothing. Any thread or process but the consumer's own may
    call it; that one uses `async_subscribe`.

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
    """Replace a subscription: cancel `old` with `reason` at its producer, and subscribe to `to`.

    `old` is a Subscription or its tag; `to` may be another stage than its producer.

    The old subscription's own cancel mode decides what its end does: a permanent one stops the
    consumer, new subscription and all. An unknown `old` is ignored. All else as `subscribe`, also
    which thread may call it.

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
    """As `resubscribe`, but returns at once; what goes wrong in the consumer is logged.

    Any thread or process may call it, also the consumer for itself.

    >>> import tailrace as tr
    >>> tr.async_resubscribe("nobody", "old", "normal", "somebody")
    Traceback (most recent call last):
    TypeError: old: expected a Subscription or its tag, got 'old'
    """
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
    """As `sync_info`, but returns at once; a stage may use it on itself, to end after its events.

    Any thread or process may call it.

    >>> import tailrace as tr
    >>> class Once(tr.Producer):
    ...     def handle_demand(self, demand):
    ...         tr.async_info(tr.self(), "end")
    ...         return ["the only one"]
    ...     def handle_info(self, message):
    ...         return tr.Stop("normal")
    """
    _core.stage_cast(options_of.stage("stage", stage), _Info(message))
