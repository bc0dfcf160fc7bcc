"""The awaitable twins of the blocking functions: acall, astop, areceive, asleep.

They may be awaited by tasks of any event loop, in any thread: of the program's own loop (that of
`asyncio.run`, of a notebook) and of the engine's. Each begins its wait in the core, which gives a
future of the running loop and a number; whoever stops waiting gives that number back, so that
nothing is left behind: no monitor, no timer, no answer that comes late.

A coroutine on the core has no loop. What it awaits is made in C (`_core.wait_...`), which answers
None to everybody else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Coroutine
from typing import Any, NamedTuple

from . import _core
from ._actions import IGNORE, UNSET
from ._core import Pid, Ref
from ._errors import CallExit, ProcessExit, make_error

NOTHING: Any = object()


class Unanswered(NamedTuple):
    """What the core gives a future instead of an answer: why there is none."""

    outcome: str
    reason: Any

    def error(self, dest: Any) -> BaseException:
        """The exception that the waiting task gets."""
        if self.outcome == "ended":
            return make_error("call_exit", self.reason)
        if self.outcome == "timeout":
            return make_error("call_timeout", dest)
        if self.outcome == "stopped":
            return make_error("stopped", None)
        _core.check_alive()  # raises, but for other tasks of a thread that has been told
        return ProcessExit(self.reason)


def acall(dest: Any, request: Any, timeout: float | None = 5.0) -> Coroutine[Any, Any, Any]:
    """Ask a server and await the answer of its `handle_call`; the awaitable twin of `call`.

    Any number of calls may be under way at once. When the waiting task is cancelled, the call is
    given up: the server may still handle the request, its answer is dropped.

    Args:
        dest: a Pid, a registered name or a handle.
        request: any object.
        timeout: seconds to wait; None waits for ever.

    Returns:
        The answer.

    Raises:
        CallTimeout: no answer came in time; a late one is dropped.
        NoProcess: nobody is there to be asked.
        CallExit: the server ended before it answered, `reason` says why.
        TypeError, ValueError: a bad argument.

    Tasks of any event loop, in any thread, may await it, and coroutines on scheduler="core".

    >>> import asyncio
    >>> import tailrace as tr
    >>> class Double(tr.GenServer):
    ...     def handle_call(self, request, caller):
    ...         return 2 * request
    >>> double = Double.start_link()
    >>> async def main():
    ...     return await asyncio.gather(*(tr.acall(double, n) for n in range(5)))
    >>> asyncio.run(main())
    [0, 2, 4, 6, 8]
    >>> double.stop()
    """
    wait = _core.wait_call(dest, request, timeout)
    return _acall(dest, request, timeout) if wait is None else wait


async def _outcome(future: Any, ref: int) -> Any:
    """Await what the core will say of a wait; whoever stops waiting gives it up."""
    try:
        return await future
    except BaseException:
        _core.await_cancel(future, ref)
        raise


async def _acall(dest: Any, request: Any, timeout: float | None) -> Any:
    answer = await _outcome(*_core.await_call(dest, request, timeout))
    if type(answer) is Unanswered:
        raise answer.error(dest)
    return answer


def astop(
    dest: Any, reason: Any = "normal", timeout: float | None = None
) -> Coroutine[Any, Any, None]:
    """Ask a server to end and await that it has; the awaitable twin of `stop`.

    Args:
        dest: a Pid, a registered name or a handle.
        reason: what it is to end with.
        timeout: seconds to wait; None waits for ever.

    Raises:
        CallTimeout: it has not ended in time; it still will.
        NoProcess: nobody is there.
        CallExit: it ended with another reason.
        TypeError, ValueError: a bad argument.

    Tasks of any event loop, in any thread, may await it, and coroutines on scheduler="core".

    >>> import asyncio
    >>> import tailrace as tr
    >>> asyncio.run(tr.astop(tr.GenServer.start()))
    """
    wait = _core.wait_stop(dest, reason, timeout)
    return _astop(dest, reason, timeout) if wait is None else wait


async def _astop(dest: Any, reason: Any, timeout: float | None) -> None:
    ended = await _outcome(*_core.await_stop(dest, reason, timeout))
    if ended.outcome != "ended" or not _same(ended.reason, reason):
        raise ended.error(dest)


def _same(one: Any, other: Any) -> bool:
    """Whether two reasons are equal; what cannot be compared is not."""
    try:
        return bool(one is other or one == other)
    except Exception:
        return False


def asleep(seconds: float) -> Coroutine[Any, Any, None]:
    """Wait in the engine, on its clock, whatever messages come; the awaitable twin of `sleep`.

    Args:
        seconds: a number >= 0.

    Raises:
        TypeError, ValueError: a bad number of seconds.
        ProcessExit: in a thread whose process an exit signal ended.

    Tasks of any event loop, in any thread, may await it, and coroutines on scheduler="core".

    >>> import asyncio
    >>> import tailrace as tr
    >>> asyncio.run(tr.asleep(0.01))
    """
    wait = _core.wait_sleep(seconds)
    return _asleep(seconds) if wait is None else wait


async def _asleep(seconds: float) -> None:
    ended = await _outcome(*_core.await_sleep(seconds))
    if ended.outcome != "timeout":
        raise ended.error(None)


def areceive(
    match: Ref | None = None, *, timeout: float | None = None, default: Any = UNSET
) -> Coroutine[Any, Any, Any]:
    """Take a message out of the caller's mailbox, awaiting one; the awaitable twin of `receive`.

    In the program's own event loop the mailbox is that of the loop's thread, whichever task waits.
    When several tasks wait, the one that waits longest gets a message that all would take.

    Args:
        match: None takes the oldest message; a `Ref` the oldest that carries it: its `Down`, the
            Ref itself, or a tuple with the Ref in it. Other messages stay, in order.
        timeout: seconds; None waits for ever. A message already there wins over a passed limit.
        default: what to return when the limit passes, instead of raising.

    Raises:
        ReceiveTimeout: the limit passed.
        TypeError, ValueError: a bad argument.
        ProcessExit: in a thread whose process an exit signal ended.

    Tasks of any event loop, in any thread, may await it, and coroutines on scheduler="core".

    >>> import asyncio
    >>> import tailrace as tr
    >>> async def main():
    ...     tr.send_after(tr.self(), "hello", 0.01)
    ...     return await tr.areceive(timeout=5.0)
    >>> asyncio.run(main())
    'hello'
    """
    wait = _core.wait_receive(match, timeout, default)
    return _areceive(match, timeout, default) if wait is None else wait


async def _areceive(match: Ref | None, timeout: float | None, default: Any) -> Any:
    message = _core.receive(match, 0, NOTHING)
    if message is not NOTHING:
        return message
    deadline = _core.deadline(timeout)
    while True:
        ended = await _mail(deadline)
        message = _core.receive(match, 0, NOTHING)
        if message is not NOTHING:
            return message
        if ended is not None:
            break
    if ended.outcome != "timeout":
        raise ended.error(None)
    if default is not UNSET:
        return default
    raise make_error("receive_timeout", timeout)


async def _mail(deadline: int) -> Unanswered | None:
    """Wait until there may be a new message (None), or until something else ended the wait."""
    waiting = _core.await_mail(deadline)
    if waiting is None:
        return None
    future, ref = waiting
    try:
        ended: Unanswered | None = await future
    finally:
        _core.mail_cancel(future, ref)
    return ended


async def started(pid: Pid, wait: tuple[Any, int], link: bool) -> Pid:
    """Await the init of a server that has been begun."""
    try:
        answer = await _outcome(*wait)
    except BaseException:
        _abandon(pid, link)
        raise
    if type(answer) is Unanswered:
        if answer.outcome == "ended":
            raise make_error("start_error", answer.reason)
        if answer.outcome == "timeout":
            _abandon(pid, link)
            raise make_error("start_error", "timeout")
        raise answer.error(pid)
    if answer is IGNORE:
        with contextlib.suppress(CallExit):
            await astop(pid)
        ignored: Any = IGNORE
        return ignored  # type: ignore[no-any-return]
    return pid


def _abandon(pid: Pid, link: bool) -> None:
    """Nobody waits for this start any more: the server must not stay."""
    if link:
        _core.unlink(pid)
    _core.exit(pid, "kill")
