"""What callbacks return when a plain value does not say it, and the engine's own messages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple, final

from . import _validate
from ._core import Pid, Ref


@final
class _Constant:
    """A named value that is only ever compared by identity."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name

    def __reduce__(self) -> str:
        return self._name.rpartition(".")[2]


NOREPLY: Final = _Constant("tailrace.NOREPLY")
"""From `handle_call`: the answer comes later, by `tailrace.reply`."""

IGNORE: Final = _Constant("tailrace.IGNORE")
"""From `init`: do not start; `start_link` returns it."""

UNSET: Final = _Constant("UNSET")


class _Action:
    __slots__: tuple[str, ...] = ()

    def __repr__(self) -> str:
        names = sorted(self.__slots__, key="value".__ne__)  # the value first
        shown = ((name, getattr(self, name)) for name in names)
        fields = ", ".join(f"{n}={v!r}" for n, v in shown if v is not UNSET and v is not None)
        return f"{type(self).__name__}({fields})"


@final
class Reply(_Action):
    """Answer a call, and more.

    `events` are emitted by a stage before the answer goes out; `continue_` is handed to
    `handle_continue` before any other message; `timeout` (seconds) runs `handle_timeout` if no
    message comes by then.

    >>> import tailrace as tr
    >>> tr.Reply(1, timeout=2.0)
    Reply(value=1, timeout=2.0)
    """

    __slots__ = ("continue_", "events", "timeout", "value")

    def __init__(
        self,
        value: Any,
        *,
        events: Iterable[Any] | None = None,
        continue_: Any = UNSET,
        timeout: float | None = None,
    ) -> None:
        """Make the action."""
        self.value = value
        self.events = events
        self.continue_ = continue_
        if timeout is not None:
            _validate.seconds("timeout", timeout, forever=True)
        self.timeout = timeout


@final
class NoReply(_Action):
    """Go on without an answer; the fields are those of `Reply`.

    >>> import tailrace as tr
    >>> tr.NoReply(continue_="load")
    NoReply(continue_='load')
    """

    __slots__ = ("continue_", "events", "timeout")

    def __init__(
        self,
        *,
        events: Iterable[Any] | None = None,
        continue_: Any = UNSET,
        timeout: float | None = None,
    ) -> None:
        """Make the action."""
        self.events = events
        self.continue_ = continue_
        if timeout is not None:
            _validate.seconds("timeout", timeout, forever=True)
        self.timeout = timeout


@final
class Stop(_Action):
    """End the server with `reason`; a call is answered with `reply` if one is given.

    >>> import tailrace as tr
    >>> tr.Stop("shutdown", reply="bye")
    Stop(reason='shutdown', reply='bye')
    """

    __slots__ = ("reason", "reply")

    def __init__(self, reason: Any = "normal", *, reply: Any = UNSET) -> None:
        """Make the action."""
        self.reason = reason
        self.reply = reply


class Down(NamedTuple):
    """A watched process ended: the Ref of `monitor`, the process (or the name it was watched by)
    and its exit reason."""

    ref: Ref
    pid: Pid | str
    reason: Any


class Exit(NamedTuple):
    """An exit signal, received by a process that traps exits."""

    pid: Pid
    reason: Any
