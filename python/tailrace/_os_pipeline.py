"""A pipeline's handlers in operating-system workers.

Each processor and batch processor with scheduler="process" has a worker of its own. The worker has
a copy of the pipeline's instance, as that was when the pipeline started, and runs on it
`prepare_messages`, `handle_message` and `handle_batch`. Everything else stays here:
`handle_failed`, dead letters, retries, acknowledgers.

A chunk or a batch goes there as one frame and comes back as one. What became of each message is
then played to the same code that would have run the handlers here, so that every rule about
messages is kept in one place.

What a worker cannot take or give back fails alone, with Unpicklable. When the worker dies, the
messages it had fail with WorkerDied, and it is replaced before the next ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, repeat
from typing import Any, Final

from . import _core
from ._core import Message
from ._failed import GOES_ON, fail
from ._os_worker import Worker
from ._pipeline_options import BatchInfo
from ._wire import Frame, Hide, Raised, Unpicklable, check, check_reachable, dump, raised

_FIXED: Final = frozenset({bytes, str})  # cannot change, and may be large


class Same:
    """In the place of data that has not changed."""


Packed = tuple[list[Any], dict[int, tuple[Any, ...]] | None]
"""Messages on their way: the data of each, and the rest of those that have more."""


# In the worker


class _Away:
    """Stands in a worker for the acknowledgers, which stay in the program."""

    def ack(self, ack_ref: Any, successful: list[Message], failed: list[Message]) -> None:
        """Refuse."""
        raise RuntimeError(
            'ack_now: not in an operating-system worker (scheduler="process"): the acknowledger '
            "is in the program; call it in handle_failed, or leave it to the pipeline"
        )

    def configure(self, ack_ref: Any, ack_data: Any, options: dict[str, Any]) -> Any:
        """Refuse."""
        raise RuntimeError(
            'configure_ack: not in an operating-system worker (scheduler="process"): the '
            "acknowledger is in the program"
        )


_AWAY: Final = (_Away(), None, None)


def _messages(packed: Packed, told: bool) -> list[Message]:
    data, rest = packed
    acknowledger = _AWAY if told else None
    messages = [Message(each, None, acknowledger) for each in data]
    for index, more in (rest or {}).items():
        _core.apply_packed(messages[index], data[index], more)
    return messages


def _fixed(messages: list[Message], packed: Packed) -> dict[int, Any]:
    """Give the data that need not go back if it is the same, by the id of its message."""
    data, _ = packed
    if _FIXED.isdisjoint(map(type, data)):
        return {}
    pairs = zip(messages, data, strict=True)
    return {id(message): each for message, each in pairs if type(each) in _FIXED}


def _pack(messages: list[Message], fixed: dict[int, Any]) -> Packed:
    """Pack what goes back."""
    data, rest, _ = _core.pack_messages(messages)
    if fixed:
        for index, message in enumerate(messages):
            if data[index] is fixed.get(id(message), Same):
                data[index] = Same
    return data, rest


class Handlers:
    """In the worker: the pipeline's instance."""

    def __init__(self, instance: Any) -> None:
        self._instance = instance

    def chunk(self, packed: Packed, told: bool, prepare: bool) -> Any:
        """Run the handlers on a chunk; gives the results and where each was in the chunk."""
        given = _messages(packed, told)
        fixed = _fixed(given, packed)
        messages = given
        if prepare:
            try:
                messages = self._prepared(given)
            except BaseException as error:
                return raised(error)
        results: list[Any] = []
        failed: dict[int, Raised] = {}
        handle = self._instance.handle_message
        for index, message in enumerate(messages):
            try:
                result = handle(message)
                if not isinstance(result, Message):
                    raise RuntimeError(
                        f"handle_message: expected the message to be returned, got {result!r}"
                    )
            except BaseException as error:
                failed[index] = raised(error)
                result = Message(None)
            results.append(result)
        data, rest = _pack(results, fixed)
        for index, each in failed.items():
            data[index] = each
        return (data, rest), _places(messages, given)

    def _prepared(self, messages: list[Message]) -> list[Message]:
        size = len(messages)
        prepared = self._instance.prepare_messages(messages.copy())
        _core.split(prepared)  # raises for anything but a list of messages
        if len(prepared) != size:
            raise RuntimeError(
                f"prepare_messages: expected {size} messages to be returned, got {len(prepared)}"
            )
        return list(prepared)

    def batch(self, packed: Packed, told: bool, key: str, info: BatchInfo) -> Any:
        """Run handle_batch; gives the results, where each was, and how many are ok."""
        given = _messages(packed, told)
        fixed = _fixed(given, packed)
        error, ok, failed, _, _ = _core.run_batch(
            self._instance.handle_batch, key, given.copy(), info
        )
        if error is not None:
            return raised(error)
        results = [*ok, *failed]
        return _pack(results, fixed), _places(results, given)

    def mend(self, result: Any) -> Any:
        """Take what does not pickle out of a result."""
        (data, rest), places = result
        for index, each in enumerate(data):
            more = None if rest is None else rest.get(index)
            try:
                check((each, more))
            except Unpicklable as error:
                data[index] = raised(Unpicklable(f"the handled message does not pickle: {error}"))
                if more is not None:
                    del rest[index]
        return (data, rest), places


def _places(messages: list[Message], given: list[Message]) -> list[int] | None:
    """Say which of the given messages each one is, -1 for a new one; None if they are the same."""
    if messages is given or messages == given:
        return None
    places = {id(message): index for index, message in enumerate(given)}
    return [places.get(id(message), -1) for message in messages]


# In the program


class Outcomes:
    """Stands for handle_message: gives, message by message, what became of it in the worker.

    Knows nothing of the worker, which the traceback of what is raised here would keep alive.
    """

    __slots__ = ("_next",)

    def __init__(self) -> None:
        self._next: Iterator[tuple[Any, Any]] = iter(())

    def play(self, outcomes: Iterable[tuple[Any, Any]]) -> None:
        """Take the outcomes of the messages that come next."""
        self._next = iter(outcomes)

    def __call__(self, message: Message) -> Message:
        """Do to a message what was done to it."""
        data, rest = next(self._next)
        if isinstance(data, Raised):
            raise data.error.with_traceback(None)
        _core.apply_packed(message, message.data if data is Same else data, rest)
        return message


def _outcomes(packed: Packed) -> list[tuple[Any, Any]]:
    """Give what came of each message: its data, or the Raised; and the rest."""
    data, rest = packed
    pairs: list[tuple[Any, Any]] = list(zip(data, repeat(None)))
    for each in data:
        if isinstance(each, Raised):
            each.restore()
    for index, more in (rest or {}).items():
        pairs[index] = (data[index], more)
    return pairs


class Remote:
    """What a processor or a batch processor has of its worker."""

    def __init__(self, instance: Any, name: str) -> None:
        """Start the worker; it is ready when it is used first."""
        hidden = [
            kind.__dict__[word]
            for kind in type(instance).__mro__
            for word in ("producer", "dead_letter")
            if word in kind.__dict__
        ]
        try:
            check_reachable(type(instance))
            self._worker = Worker(Handlers, instance, hide=Hide(hidden))
        except Unpicklable as error:
            raise Unpicklable(
                f'{name}: scheduler="process" needs a pipeline whose class, attributes and context '
                f"pickle: {error}"
            ) from error
        self.outcome = Outcomes()

    def handle(self, messages: list[Message], prepare: bool) -> list[Message]:
        """Have a chunk handled: gives the messages, of which `outcome` now tells what became.

        Raises what prepare_messages raised.
        """
        fit, frame, refused = _request("chunk", messages, prepare)
        outcomes: Iterable[tuple[Any, Any]] = ()
        if frame is not None:
            try:
                answer = self._exchange(frame, "in handle_message")
            except GOES_ON:
                raise
            except Exception as error:
                outcomes = [(Raised(error, ""), None)] * len(fit)
            else:
                if isinstance(answer, Raised):
                    raise answer.restore()
                packed, places = answer
                outcomes = _outcomes(packed)
                fit = _placed(fit, places)
        self.outcome.play(chain(outcomes, [(Raised(error, ""), None) for _, error in refused]))
        return fit + [message for message, _ in refused]

    def run_batch(self, key: str, messages: list[Message], info: BatchInfo) -> Any:
        """Have a batch handled; the answer is that of `_core.run_batch`."""
        fit, frame, refused = _request("batch", messages, key, info)
        for message, error in refused:
            fail([message], error)
        lost = [message for message, _ in refused]
        if frame is None:
            return None, [], lost, True, len(lost)
        try:
            answer = self._exchange(frame, "in handle_batch")
            if isinstance(answer, Raised):
                raise answer.restore()
        except GOES_ON:
            raise
        except BaseException as error:
            return error.with_traceback(None), [], messages, True, 0
        packed, places = answer
        self.outcome.play(_outcomes(packed))
        returned = [self.outcome(message) for message in _placed(fit, places)]
        ok, failed, told = _core.split(returned)
        return None, ok, failed + lost, told or bool(lost), len(returned) + len(lost)

    def _exchange(self, request: Frame, doing: str) -> Any:
        self._worker.revive()
        return self._worker.exchange(request, doing)

    def revive(self) -> None:
        """After a chunk or a batch: replace the worker if it died.

        Raises what became of a worker that could not even start.
        """
        self._worker.revive()

    def end(self) -> None:
        """The process that owns this ends: end the worker."""
        self._worker.end()

    def kill(self) -> None:
        """The process that owned this is gone: kill the worker."""
        self._worker.kill()


Refused = list[tuple[Message, BaseException]]


def _request(
    name: str, messages: list[Message], *args: Any
) -> tuple[list[Message], Frame | None, Refused]:
    """Make the frame for messages: those in it, the frame, and those that do not pickle."""
    try:
        return messages, _frame(name, messages, args), []
    except Unpicklable:
        refused: Refused = []
        for message in messages:
            try:
                check(_core.pack_messages([message]))
            except Unpicklable as error:
                refused.append((message, error))
        if not refused:
            raise
        lost = {id(message) for message, _ in refused}
        fit = [message for message in messages if id(message) not in lost]
        return fit, _frame(name, fit, args) if fit else None, refused


def _frame(name: str, messages: list[Message], args: tuple[Any, ...]) -> Frame:
    data, rest, told = _core.pack_messages(messages)
    return dump((name, ((data, rest), told, *args)))


def _placed(messages: list[Message], places: list[int] | None) -> list[Message]:
    """Give the messages in the order they came back in, with new ones where there were new ones."""
    if places is None:
        return messages
    return [Message(None) if index < 0 else messages[index] for index in places]
