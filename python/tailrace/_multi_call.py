"""Requests to many servers at once.

A call waits for one answer at a time, so each destination gets a process that asks it; they answer
to a collecting process, which the caller calls. What comes late reaches nobody: its process has
ended.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from . import _core, _validate
from ._actions import Down
from ._process import receive


def _ask(collector: _core.Pid, index: int, dest: Any, request: Any, left: float | None) -> None:
    try:
        answer = _core.call(dest, request, left)
    except Exception:
        collector.send((index, False, None))
    else:
        collector.send((index, True, answer))


def _collect(asker: _core.Pid, dests: list[Any], request: Any, timeout: float | None) -> None:
    watch = _core.monitor(asker)
    question = receive()
    if isinstance(question, Down):
        return
    _core.demonitor(watch, flush=True)
    caller = question[1]
    deadline = None if timeout is None else time.monotonic() + timeout
    answers: dict[int, Any] = {}
    for index, dest in enumerate(dests):
        _core.spawn(_ask, _core.self(), index, dest, request, timeout)
    for _ in dests:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        message = receive(timeout=left, default=None)
        if message is None:
            break
        index, answered, answer = message
        if answered:
            answers[index] = answer
    replies = [(dest, answers[i]) for i, dest in enumerate(dests) if i in answers]
    bad = [dest for i, dest in enumerate(dests) if i not in answers]
    _core.reply(caller, (replies, bad))


def multi_call(
    dests: Iterable[Any], request: Any, timeout: float | None = None
) -> tuple[list[tuple[Any, Any]], list[Any]]:
    """Ask many servers the same, all at once, and wait for the answers (O121).

    Args:
        dests: Pids, registered names or handles.
        request: what each `handle_call` gets.
        timeout: seconds for all of them together; None waits for ever.

    Returns:
        `(replies, bad)`: pairs of destination and answer, and the destinations that were missing,
        ended or did not answer in time; both in the order given.

    Raises:
        TypeError, ValueError: a bad timeout.

    Any thread or process may call it.

    >>> import tailrace as tr
    >>> class Echo(tr.GenServer):
    ...     def handle_call(self, request, caller):
    ...         return request
    >>> echo = Echo.start()
    >>> replies, bad = tr.multi_call([echo, "nobody"], "hello", timeout=5)
    >>> [answer for _, answer in replies], bad
    (['hello'], ['nobody'])
    >>> echo.stop()
    """
    _validate.optional_seconds("timeout", timeout)
    collector = _core.spawn(_collect, _core.self(), list(dests), request, timeout)
    result: tuple[list[tuple[Any, Any]], list[Any]] = _core.call(collector, "collect", None)
    return result


def abcast(dests: Iterable[Any], request: Any) -> None:
    """Cast the same request to many servers; missing ones are passed over (O121).

    Any thread or process may call it; it never waits.

    >>> import tailrace as tr
    >>> tr.abcast(["nobody"], "hello")
    """
    for dest in list(dests):
        _core.cast(dest, request)
