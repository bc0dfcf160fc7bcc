"""What a pipeline can be told: the option classes, and the plan that a start makes of them.

Each option class checks itself when it is made. A start checks everything again with the full path
in the message (`batchers.s3.batch_size: ...`) before any process exists, in the order of the
documentation, and raises for the first fault. Where an option class is expected, a mapping with
its keywords will do.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, NamedTuple, TypeAlias, TypeVar

from . import _validate as check
from ._stages import Producer
from .producers._queue import Queue
from .producers._queue_source import is_closed

Splitter: TypeAlias = Callable[[Any, Any], tuple[str, Any]]
AnyOptions = TypeVar("AnyOptions", bound="Options")


class _NotSet:
    """The type of NOT_SET."""

    def __repr__(self) -> str:
        return "NOT_SET"

    def __bool__(self) -> bool:
        return False


NOT_SET = _NotSet()
"""The context of a pipeline that was given none."""


class BatchInfo(NamedTuple):
    """What `handle_batch` is told about a batch.

    `size` messages with equal `batch_key`, for `batcher`, left by `trigger`: "size", "timeout" or
    "flush". `partition` is None.
    """

    batcher: str
    batch_key: Any
    partition: int | None
    size: int
    trigger: str


class Options:
    """What the option classes share: unknown keywords are refused with a list of the valid ones."""

    def __new__(cls: type[AnyOptions], *args: Any, **options: Any) -> AnyOptions:
        check.keywords(cls.__name__, options, cls.valid())
        return super().__new__(cls)

    def __post_init__(self) -> None:
        self.check("")

    @classmethod
    def valid(cls) -> list[str]:
        """Name the keywords."""
        return [option.name for option in fields(cls)]  # type: ignore[arg-type]

    def check(self, path: str) -> None:
        """Raise for the first fault, naming the option with `path` in front."""

    def put(self, name: str, value: object) -> None:
        """Replace an option by what the check made of it."""
        object.__setattr__(self, name, value)  # the option classes are frozen

    @classmethod
    def of(cls: type[AnyOptions], path: str, value: object) -> AnyOptions:
        """Take an instance, or a mapping with the keywords, and check it."""
        if isinstance(value, Mapping):
            check.keywords(path, check.mapping(path, value), cls.valid())
            made = object.__new__(cls)
            for option in fields(cls):  # type: ignore[arg-type]
                object.__setattr__(made, option.name, value.get(option.name, option.default))
            value = made
        made = check.instance(path, value, cls, f"a {cls.__name__} or a mapping")
        made.check(f"{path}.")
        return made


@dataclass(frozen=True)
class RateLimit(Options):
    """At most `allowed` messages (int >= 1) are released per `interval` (seconds > 0).

    Time is cut into windows; each begins with the full number, nothing is carried over. One limit
    serves all producers of a pipeline.

    >>> RateLimit(allowed=100, interval=1.0)
    RateLimit(allowed=100, interval=1.0)
    """

    allowed: int
    interval: float

    def check(self, path: str) -> None:
        check.integer(f"{path}allowed", self.allowed, 1)
        self.put("interval", check.seconds(f"{path}interval", self.interval, zero=False))

    @classmethod
    def of(cls, path: str, value: object) -> RateLimit:
        """Take an instance or a mapping, in which both options are required."""
        if isinstance(value, Mapping):
            for name in cls.valid():
                if name not in value:
                    raise ValueError(f"{path}.{name}: required, got only {sorted(value)}")
        return super().of(path, value)


@dataclass(frozen=True)
class Processors(Options):
    """The workers that run `handle_message`.

    `concurrency` workers (int >= 1, default twice the usable cores). Each asks for `max_demand`
    messages (int >= 1) and again when no more than `min_demand` (default half of it) are left, so
    it gets them in chunks of at most max_demand - min_demand. `scheduler` is where `handle_message`
    and `prepare_messages` run: "core" (the default), "thread", or "process": each worker of the
    pipeline then has an operating-system process of its own for them, for work that computes.

    >>> Processors(concurrency=2, max_demand=20).lower
    10
    """

    concurrency: int = field(default=2 * len(os.sched_getaffinity(0)))
    max_demand: int = 10
    min_demand: int | None = None
    scheduler: str | None = None

    def check(self, path: str) -> None:
        check.integer(f"{path}concurrency", self.concurrency, 1)
        check.integer(f"{path}max_demand", self.max_demand, 1)
        if self.min_demand is not None:
            check.integer(f"{path}min_demand", self.min_demand, 0, self.max_demand - 1)
        _check_scheduler(f"{path}scheduler", self.scheduler)

    @property
    def lower(self) -> int:
        """The demand at which more is asked for."""
        return self.max_demand // 2 if self.min_demand is None else self.min_demand


@dataclass(frozen=True)
class Batcher(Options):
    """How messages are grouped, and how many workers run `handle_batch` on the groups.

    A batch leaves with `batch_size` messages (int >= 1), or `batch_timeout` seconds (> 0) after
    its first message. `batch_size` may be a pair (initial accumulator, splitter): the splitter is
    called with (message, accumulator) and answers ("emit", accumulator) or ("cont", accumulator);
    `max_demand` (int >= 1, default batch_size) is then required. `concurrency` (int >= 1) is the
    number of batch processors; the batcher itself is one. `scheduler` is where `handle_batch` runs,
    as in `Processors`.

    >>> Batcher(batch_size=500, batch_timeout=0.2).upper
    500
    """

    concurrency: int = 1
    batch_size: int | tuple[Any, Splitter] = 100
    batch_timeout: float = 1.0
    max_demand: int | None = None
    scheduler: str | None = None

    def check(self, path: str) -> None:
        check.integer(f"{path}concurrency", self.concurrency, 1)
        _check_batch_size(f"{path}batch_size", self.batch_size)
        timeout = check.seconds(f"{path}batch_timeout", self.batch_timeout, zero=False)
        self.put("batch_timeout", timeout)
        if self.max_demand is not None:
            check.integer(f"{path}max_demand", self.max_demand, 1)
        elif isinstance(self.batch_size, tuple):
            raise ValueError(
                f"{path}max_demand: expected an int >= 1 because batch_size is a pair, got None"
            )
        _check_scheduler(f"{path}scheduler", self.scheduler)

    @property
    def upper(self) -> int:
        """The demand the batcher begins with."""
        if self.max_demand is not None:
            return self.max_demand
        assert isinstance(self.batch_size, int)
        return self.batch_size


def _check_scheduler(path: str, value: object) -> None:
    if value is not None:
        check.one_of(path, value, ("core", "thread", "process", "asyncio"))


def _check_batch_size(path: str, value: object) -> None:
    expected = "an int >= 1 or a pair (initial accumulator, function of 2 arguments)"
    if isinstance(value, tuple):
        if len(value) != 2:
            raise check.wrong_value(path, expected, value)
        _check_arguments(path, value[1], 2)
    elif not isinstance(value, int) or isinstance(value, bool):
        raise check.wrong_type(path, expected, value)
    else:
        check.integer(path, value, 1)


def _check_arguments(path: str, value: object, count: int) -> None:
    """Check a function that can be called with `count` arguments."""
    check.function(path, value)
    try:
        signature = inspect.signature(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return  # a builtin that does not tell
    try:
        signature.bind(*range(count))
    except TypeError:
        plural = "argument" if count == 1 else "arguments"
        raise TypeError(
            f"{path}: expected a function of {count} {plural}, got one with {signature}"
        ) from None


@dataclass(frozen=True)
class Retry(Options):
    """Run `handle_message` again on a message whose run raised one of `on`.

    Up to `max_attempts` runs in all (int >= 1). Between two runs the message waits `backoff`
    seconds (>= 0), doubled each time, or what the function `backoff(number of the failed run)`
    answers; up to the share `jitter` (0 .. 1) more, at random. The worker goes on with other
    messages meanwhile.

    >>> Retry(max_attempts=5, backoff=0.5, on=(OSError,)).max_attempts
    5
    """

    max_attempts: int = 3
    backoff: float | Callable[[int], float] = 1.0
    on: tuple[type[BaseException], ...] = (Exception,)
    jitter: float = 0.1

    def check(self, path: str) -> None:
        check.integer(f"{path}max_attempts", self.max_attempts, 1)
        if callable(self.backoff):
            _check_arguments(f"{path}backoff", self.backoff, 1)
        else:
            self.put("backoff", check.seconds(f"{path}backoff", self.backoff))
        if not isinstance(self.on, tuple) or not all(
            isinstance(kind, type) and issubclass(kind, BaseException) for kind in self.on
        ):
            raise check.wrong_type(f"{path}on", "a tuple of exception classes", self.on)
        if check.seconds(f"{path}jitter", self.jitter) > 1:
            raise check.wrong_value(f"{path}jitter", "a number 0 .. 1", self.jitter)


class Produce:
    """A producer with the options of its workers.

    `producer` is a `Producer` class, whose `init` gets the further arguments, or an instance, of
    which each worker gets a copy; or a `Queue`. `concurrency` workers (int >= 1) produce, each
    with a state of its own. `rate_limit` is a `RateLimit` for all of them together.
    `transformer(event)` makes the `Message` of each event.

    >>> Produce(Producer, concurrency=2, rate_limit=RateLimit(10, 1.0)).concurrency
    2
    """

    VALID: ClassVar[tuple[str, ...]] = ("concurrency", "rate_limit", "transformer")

    def __init__(
        self,
        producer: type[Producer] | Producer | Queue,
        *args: Any,
        concurrency: int = 1,
        rate_limit: RateLimit | None = None,
        transformer: Callable[[Any], Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.producer = producer
        self.args = args
        self.kwargs = kwargs
        self.concurrency = concurrency
        self.rate_limit = rate_limit
        self.transformer = transformer
        self.check("")

    def check(self, path: str) -> None:
        """Raise for the first fault, naming the option with `path` in front."""
        producer = self.producer
        if not is_producer(producer):
            raise check.wrong_type(
                f"{path}producer", "a Producer class or instance, or Produce(...)", producer
            )
        if not isinstance(producer, type) and (self.args or self.kwargs):
            raise TypeError(f"{path}producer: arguments are for a class, got {producer!r}")
        if isinstance(producer, Queue) and is_closed(producer):
            raise check.wrong_value(f"{path}producer", "an open queue", producer)
        check.integer(f"{path}concurrency", self.concurrency, 1)
        if self.rate_limit is not None:
            self.rate_limit = RateLimit.of(f"{path}rate_limit", self.rate_limit)
        if self.transformer is not None:
            _check_arguments(f"{path}transformer", self.transformer, 1)

    def __repr__(self) -> str:
        return f"Produce({self.producer!r}, concurrency={self.concurrency})"


def is_producer(value: object) -> bool:
    """Whether a pipeline can take this as its producer."""
    if isinstance(value, type):
        return issubclass(value, Producer)
    return isinstance(value, Producer | Queue)


@dataclass(frozen=True)
class Plan:
    """Everything a pipeline was told, checked."""

    pipeline: type
    name: str
    produce: Produce
    processors: Processors
    batchers: dict[str, Batcher]
    context: Any
    retry: Retry | None
    dead_letter: Callable[[Any], Any] | None
    drain_timeout: float
    resubscribe_interval: float
    max_restarts: int
    max_seconds: float


DEFAULTS: dict[str, Any] = {
    "name": None,
    "drain_timeout": 30.0,
    "max_restarts": 3,
    "max_seconds": 5.0,
    "resubscribe_interval": 0.1,
    "context": NOT_SET,
    "producer": None,
    "processors": Processors(),
    "batchers": {},
    "retry": None,
    "dead_letter": None,
}
"""The options of a pipeline, in the order in which they are checked."""

CALLBACKS = {"handle_message": 1, "prepare_messages": 1, "handle_batch": 3, "handle_failed": 1}
"""The callbacks of a pipeline, with the number of their arguments."""

OUT_OF_SCOPE = ("partition_by",)
"""Words of the interface's that would be ignored as class attributes: refused instead."""


def make_plan(pipeline: type, keywords: Mapping[str, Any]) -> Plan:
    """Check what the class says and what the keywords override."""
    check.keywords(pipeline.__name__, keywords, DEFAULTS)
    check.keywords(
        pipeline.__name__, [word for word in OUT_OF_SCOPE if hasattr(pipeline, word)], DEFAULTS
    )
    given = {
        word: keywords[word] if word in keywords else getattr(pipeline, word, default)
        for word, default in DEFAULTS.items()
    }
    name = pipeline.__name__ if given["name"] is None else check.text("name", given["name"])
    drain_timeout = check.seconds("drain_timeout", given["drain_timeout"], zero=False)
    max_restarts = check.integer("max_restarts", given["max_restarts"], 0)
    max_seconds = check.seconds("max_seconds", given["max_seconds"], zero=False)
    interval = check.seconds("resubscribe_interval", given["resubscribe_interval"])
    plan = Plan(
        pipeline=pipeline,
        name=name,
        produce=_produce(given["producer"], given),
        processors=Processors.of("processors", given["processors"]),
        batchers={
            key: Batcher.of(f"batchers.{key}", value)
            for key, value in check.mapping("batchers", given["batchers"]).items()
        },
        context=given["context"],
        retry=None if given["retry"] is None else Retry.of("retry", given["retry"]),
        dead_letter=_dead_letter(given["dead_letter"]),
        drain_timeout=drain_timeout,
        resubscribe_interval=interval,
        max_restarts=max_restarts,
        max_seconds=max_seconds,
    )
    _check_callbacks(plan)
    return plan


def check_callbacks(instance: object) -> None:
    """Check how many arguments the callbacks of the user's class take."""
    for name, count in CALLBACKS.items():
        callback = getattr(instance, name, None)
        if callback is not None:
            _check_arguments(f"{type(instance).__name__}.{name}", callback, count)


def _produce(value: object, given: Mapping[str, Any]) -> Produce:
    if value is None:
        received = [word for word, other in given.items() if other is not DEFAULTS[word]]
        raise ValueError(f"producer: required, got only {received}")
    if is_producer(value):
        value = Produce(value)  # type: ignore[arg-type]
    produce = check.instance(
        "producer", value, Produce, "a Producer class or instance, or Produce(...)"
    )
    produce.check("producer.")
    return produce


def _dead_letter(value: Any) -> Callable[[Any], Any] | None:
    """A callable, or a durable queue, which takes the data of the message."""
    if value is None:
        return None
    put = getattr(value, "put", None)
    if not callable(value) and callable(put):
        return lambda message: put(message.data)
    _check_arguments("dead_letter", value, 1)
    return value  # type: ignore[no-any-return]


def _check_callbacks(plan: Plan) -> None:
    required = ["handle_message"] + (["handle_batch"] if plan.batchers else [])
    for name in CALLBACKS:
        callback = getattr(plan.pipeline, name, None)
        if callback is None:
            if name in required:
                why = " because there are batchers" if name == "handle_batch" else ""
                raise ValueError(f"{plan.pipeline.__name__}.{name}: required{why}, not defined")
        elif not callable(callback):
            raise check.wrong_type(f"{plan.pipeline.__name__}.{name}", "a function", callback)
        elif inspect.isasyncgenfunction(callback):
            raise TypeError(
                f"{plan.pipeline.__name__}.{name}: expected no generator, got an async one"
            )
    _check_async(plan, "processors", plan.processors.scheduler, "handle_message")
    for key, batcher in plan.batchers.items():
        _check_async(plan, f"batchers.{key}", batcher.scheduler, "handle_batch")


def _check_async(plan: Plan, path: str, scheduler: str | None, name: str) -> None:
    """An async def runs on the event loop and nothing else does."""
    is_async = inspect.iscoroutinefunction(getattr(plan.pipeline, name))
    if scheduler is not None and is_async != (scheduler == "asyncio"):
        expected = "'asyncio' for an" if is_async else "anything but 'asyncio' without"
        raise check.wrong_value(f"{path}.scheduler", f"{expected} async def {name}", scheduler)
