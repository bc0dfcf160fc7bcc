"""Pipelines: the class users derive from, the handle of a running one, and `run`."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from . import _core
from . import _validate as check
from ._actions import UNSET
from ._child_spec import ChildSpec
from ._core import Message, Pid, Ref
from ._errors import AlreadyStarted, CallExit, NoProcess, StartError
from ._log import logger, short
from ._pipeline_options import (
    DEFAULTS,
    NOT_SET,
    Batcher,
    Plan,
    Processors,
    Produce,
    Retry,
    check_callbacks,
    make_plan,
)
from ._pipeline_producer import Push
from ._pipeline_state import Shared
from ._pipeline_tree import FINISH, Top
from ._process import process_info
from ._stages import Producer


@dataclass(frozen=True)
class Summary:
    """How a pipeline went: `reason` it ended for, `duration` in seconds, and counts of messages.

    `successful` and `failed` were acknowledged so, also those without an acknowledger; `retried`
    runs were repeated; `dead` messages were taken by the dead letter (and are among the
    successful).
    """

    successful: int
    failed: int
    retried: int
    dead: int
    duration: float
    reason: Any


@dataclass(frozen=True)
class Stats:
    """What became of a pipeline's messages so far: the counts of `Summary`, and those under way.

    `in_flight` messages are in the hands of processors, batchers and batch processors. `queued`
    says for each worker, by its registered name, how many messages of whatever kind wait in its
    mailbox; `demand` for each producer, how many messages it was asked for and has not emitted.
    """

    successful: int
    failed: int
    retried: int
    dead: int
    in_flight: int
    queued: dict[str, int]
    demand: dict[str, int]


class PipelineHandle:
    """A running pipeline. Any thread may use it; accepted wherever a Pid is."""

    def __init__(self, shared: Shared, pid: Pid) -> None:
        self._shared = shared
        self.pid = pid
        self.name = shared.plan.name

    def __repr__(self) -> str:
        return f"<PipelineHandle {self.name!r} {self.pid!r}>"

    def push(self, messages: list[Message]) -> None:
        """Hand messages (a list of `Message`) to one of the producers, past demand and rate limit.

        Returns when the producer has queued them. Raises NoProcess if the pipeline has ended.
        """
        if not isinstance(messages, list) or not all(isinstance(m, Message) for m in messages):
            raise TypeError(f"messages: expected a list of Message, got {messages!r}")
        self._check_alive()
        producers = self._shared.producers()
        producer = producers[_core.now() % len(producers)]
        if messages:
            _core.call(self._shared.name(producer), Push(messages.copy()))

    def test_message(
        self,
        data: Any,
        *,
        metadata: Mapping[str, Any] | None = None,
        acknowledger: Callable[[Any, tuple[Pid, Ref]], Any] | None = None,
    ) -> Ref:
        """Push one message in flush mode; returns a Ref.

        The calling process or thread gets `("ack", ref, successful, failed)`. `metadata` becomes
        the message's; `acknowledger(data, (caller, ref))` makes the acknowledger triple instead of
        the one that sends to the caller.
        """
        return self._test([data], metadata, acknowledger, "flush")

    def test_batch(
        self,
        batch: list[Any],
        *,
        metadata: Mapping[str, Any] | None = None,
        acknowledger: Callable[[Any, tuple[Pid, Ref]], Any] | None = None,
        batch_mode: str = "bulk",
    ) -> Ref:
        """Push messages with these data to one producer; returns their common Ref.

        The calling process or thread gets `("ack", ref, successful, failed)`, once per chunk or
        batch that the messages end up in. The options are those of `test_message`; `batch_mode` is
        "bulk" or "flush".
        """
        check.one_of("batch_mode", batch_mode, ("bulk", "flush"))
        check.instance("batch", batch, list, "a list")
        return self._test(batch, metadata, acknowledger, batch_mode)

    def _test(
        self,
        batch: list[Any],
        metadata: Mapping[str, Any] | None,
        acknowledger: Callable[[Any, tuple[Pid, Ref]], Any] | None,
        batch_mode: str,
    ) -> Ref:
        if metadata is not None and not isinstance(metadata, Mapping):
            raise check.wrong_type("metadata", "a mapping", metadata)
        if acknowledger is not None:
            check.function("acknowledger", acknowledger)
        ref = _core.stage_tag()
        caller = (_core.self(), ref)
        messages = []
        for data in batch:
            triple = (CALLER, caller, None) if acknowledger is None else acknowledger(data, caller)
            message = Message(data, None if metadata is None else dict(metadata), triple)
            message.batch_mode = batch_mode
            messages.append(message)
        self.push(messages)
        return ref

    def stop(self, drain: bool = True, timeout: float | None = None) -> None:
        """Stop the pipeline and return when it and all its workers are gone.

        With `drain` the intake ends, everything under way is finished and acknowledged, for at most
        `drain_timeout` seconds. Without, no further callback starts; running ones may finish.
        Raises CallTimeout after `timeout` seconds (None: waits), RuntimeError from one of the
        pipeline's own callbacks. Does nothing if the pipeline has ended.
        """
        check.boolean("drain", drain)
        check.optional_seconds("timeout", timeout)
        name = _core.self().name
        if name is not None and name.startswith(f"{self.name}.") and _core.self() in self:
            raise RuntimeError(
                f"stop: pipeline {self.name} cannot be stopped from one of its own callbacks, "
                "which it would wait for"
            )
        if not drain:
            self._shared.ledger.halt()
        try:
            _core.stop(self.pid, "normal", timeout)
        except NoProcess:
            pass  # it has ended already
        except CallExit as error:
            if error.reason == "timeout":
                raise

    def __contains__(self, pid: object) -> bool:
        """Whether a process is one of the pipeline's workers."""
        return any(pid == _core.whereis(self._shared.name(b)) for b in self._shared.workers())

    def update_rate_limit(
        self,
        allowed: int | None = None,
        interval: float | None = None,
        reset: bool = False,
    ) -> None:
        """Change the rate limit; what is None stays.

        Holds from the end of the window in progress, or, with `reset`, from now on with a full
        window. RuntimeError if the pipeline has no rate limit.
        """
        if allowed is not None:
            check.integer("allowed", allowed, 1)
        if interval is not None:
            interval = check.seconds("interval", interval, zero=False)
        check.boolean("reset", reset)
        self._check_alive()
        if self._shared.plan.produce.rate_limit is None:
            raise RuntimeError(f"rate limiting is not enabled in pipeline {self.name}")
        _core.call(self._shared.name("RateLimiter"), (allowed, interval, reset))

    def topology(self) -> tuple[list[dict[str, Any]], ...]:
        """Describe the layers: three lists of mappings: producers, processors, batchers."""
        self._check_alive()
        return self._shared.topology()

    def stats(self) -> Stats:
        """Count what became of the messages so far, and what waits where."""
        self._check_alive()
        queued = {}
        for base in self._shared.workers():
            pid = _core.whereis(self._shared.name(base))
            info = None if pid is None else process_info(pid)
            queued[self._shared.name(base)] = 0 if info is None else info.message_queue_len
        ledger = self._shared.ledger
        return Stats(
            ledger.successful,
            ledger.failed,
            ledger.retried,
            ledger.dead,
            self._shared.in_flight(),
            queued,
            {self._shared.name(base): each.number for base, each in self._shared.owed.items()},
        )

    def _check_alive(self) -> None:
        if not self.pid.alive:
            _core.send(self.pid, None)  # raises for a pid of the parent's, in a forked child
            raise NoProcess("noproc", f"pipeline {self.name} has ended")


class CallerAcknowledger:
    """Tells the process that made a test message: ack_ref is (pid, ref) (P113)."""

    def ack(self, ack_ref: Any, successful: list[Message], failed: list[Message]) -> None:
        """Send ("ack", ref, successful, failed)."""
        pid, ref = ack_ref
        _core.send(pid, ("ack", ref, successful, failed))

    def configure(self, ack_ref: Any, ack_data: Any, options: dict[str, Any]) -> Any:
        """Send ("configure", ref, options), and change nothing."""
        pid, ref = ack_ref
        _core.send(pid, ("configure", ref, options))
        return ack_data


CALLER = CallerAcknowledger()


class Pipeline:
    """Draws messages from a producer, runs your code on them, acknowledges each.

    Derive from it, set the attributes, define the callbacks, call `run` or `start_link`. Every
    attribute is also a keyword of both, which wins.

    Callbacks run in the pipeline's workers; `self` is one object, shared by all of them:

    * `handle_message(message) -> Message` is called for each message. What it raises fails that
      message alone.
    * `prepare_messages(messages) -> list` sees each chunk before (optional).
    * `handle_batch(batcher, messages, info) -> list` is called for each batch; required with
      `batchers`.
    * `handle_failed(messages) -> list` sees failed messages before they are acknowledged
    (optional).

    >>> import tailrace as tr
    >>> class Squares(tr.Pipeline):
    ...     producer = tr.producers.Iterable(range(1000))
    ...     def handle_message(self, message):
    ...         message.data **= 2
    ...         return message
    >>> Squares.run().successful
    1000
    """

    producer: ClassVar[Produce | type[Producer] | Producer | Any]
    processors: ClassVar[Processors | Mapping[str, Any]]
    batchers: ClassVar[Mapping[str, Batcher | Mapping[str, Any]]]
    retry: ClassVar[Retry | None]
    drain_timeout: ClassVar[float]
    name: ClassVar[str | None]

    context: Any = NOT_SET

    @classmethod
    def start_link(cls, **options: Any) -> PipelineHandle:
        """Start the pipeline, linked to the caller; returns its handle.

        `options` are the class attributes and `max_restarts` (3) in `max_seconds` (5.0),
        `resubscribe_interval` (0.1 s). They are checked before anything starts: TypeError,
        ValueError. AlreadyStarted if a pipeline of this name runs.
        """
        shared = _prepare(make_plan(cls, options))
        return PipelineHandle(shared, _started(Top.start_link, shared))

    @classmethod
    def child_spec(cls, **options: Any) -> ChildSpec:
        """Describe the pipeline as a supervisor's child: start_link with these options."""
        check.keywords(f"{cls.__name__}.child_spec", options, [*DEFAULTS, *CHILD_FIELDS])
        fields = {field: options.pop(field) for field in CHILD_FIELDS if field in options}
        spec = {"id": cls, "restart": "permanent", "shutdown": None, "type": "supervisor", **fields}
        return ChildSpec(start=(cls.start_link, (), options), **spec)

    @classmethod
    def run(cls, **options: Any) -> Summary:
        """Run the pipeline until its producers are exhausted or a signal comes; returns a Summary.

        Options and errors are those of `start_link`. In the main thread SIGINT and SIGTERM drain
        the pipeline, a second one kills its workers at once. Raises what ended the producer (an
        exception of an iterable), or CallExit with the reason if the pipeline died, after too many
        restarts.
        """
        started = time.monotonic()
        shared = _prepare(make_plan(cls, options))
        with _signals(shared):
            reason = _to_its_end(shared)
        if shared.failure is not None:
            raise shared.failure
        if shared.died or reason not in ("normal", "shutdown"):
            raise _death(shared, reason)
        ledger = shared.ledger
        return Summary(
            ledger.successful,
            ledger.failed,
            ledger.retried,
            ledger.dead,
            time.monotonic() - started,
            reason,
        )


def _to_its_end(shared: Shared) -> Any:
    """Run the tree; gives the reason of its end."""
    try:
        pid = _started(Top.start, shared)
    except StartError:
        if shared.ledger.halted:  # by the second signal, which came before it ran
            return "shutdown"
        raise
    if shared.signalled:
        _core.send(pid, FINISH)
    reason = _core.receive(_core.monitor(pid), None, UNSET).reason
    return shared.reason if reason == "noproc" else reason  # it had ended before it was watched


CHILD_FIELDS = ("id", "restart", "shutdown", "significant")


def _death(shared: Shared, reason: Any) -> CallExit:
    """Make the error for a pipeline that died; its cause is what ended a worker last."""
    text = f"pipeline {shared.plan.name} ended: {reason!r}"
    if shared.died and shared.crash is not None:
        text += f", after too many restarts; the last was because of {short(shared.crash)}"
    error = CallExit(reason, text)
    error.__cause__ = shared.crash
    return error


def _prepare(plan: Plan) -> Shared:
    """Make the one instance of the user's class, and what the workers share."""
    instance = plan.pipeline()
    check_callbacks(instance)
    instance.context = plan.context
    return Shared(plan, instance)


def _started(start: Callable[..., Pid], shared: Shared) -> Pid:
    """Start the process above everything; a failure says what failed, however deep in the tree."""
    try:
        return start(shared, name=shared.plan.name)
    except AlreadyStarted:
        raise
    except StartError as error:
        reason = error.reason
        while (inner := _inner(reason)) is not reason:
            reason = inner
        if reason is error.reason:
            raise
        raise StartError(reason) from (reason if isinstance(reason, BaseException) else error)


def _inner(reason: Any) -> Any:
    """Take one layer of supervision off the reason of a failed start."""
    match reason:
        case StartError():
            return reason.reason
        case ("shutdown", ("failed_to_start_child", _, inner)):
            return inner
        case _:
            return reason


@contextmanager
def _signals(shared: Shared) -> Iterator[None]:
    """SIGINT and SIGTERM: the first drains, the second kills. Only in the main thread.

    In force before the pipeline starts, so that none is missed; `run` looks at `signalled` once it
    has started.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(number: int, frame: Any) -> None:
        if shared.signalled:
            _kill(shared)
            return
        shared.signalled = True
        logger.info("pipeline %s: %s, draining", shared.plan.name, signal.strsignal(number))
        if shared.top is not None:
            _core.send(shared.top, FINISH)

    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in former:
            signal.signal(number, on_signal)
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _kill(shared: Shared) -> None:
    """Kill everything that could still take time."""
    shared.ledger.halt()
    for base in ("Terminator", *shared.workers()):
        pid = _core.whereis(shared.name(base))
        if pid is not None:
            _core.exit(pid, "kill")
