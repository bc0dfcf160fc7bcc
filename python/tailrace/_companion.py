"""Coroutines for processes that run on a thread: async def callbacks of stages and pipelines.

A stage's state machine lies on the stack of its thread while a callback runs, so such a callback
cannot be suspended. Instead the stage has a companion: a server on the engine's event loop, which
runs the coroutine and acts for the stage meanwhile (`tailrace.self()` is the stage), while the
stage waits, in the engine, for its answer. The companion is linked to the stage and ends with it;
when the stage is killed, its coroutines are cancelled.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from . import _core
from ._actions import Down, Stop
from ._server import GenServer

Outcome = tuple[bool, Any]
"""Whether it returned; and what it returned or raised."""


async def outcome(function: Callable[..., Awaitable[Any]], *args: Any) -> Outcome:
    """Call a coroutine function; what it raises is an answer, too."""
    try:
        return True, await function(*args)
    except BaseException as error:
        return False, error


async def _outcomes(function: Callable[[Any], Awaitable[Any]], items: list[Any]) -> list[Outcome]:
    import asyncio

    if len(items) == 1:
        return [await outcome(function, items[0])]
    return await asyncio.gather(*(outcome(function, item) for item in items))


class _Runner(GenServer):
    """The server on the event loop."""

    def init(self, stage: _core.Pid, instance: object) -> None:
        _core.monitor(stage)
        _core.act_for(stage, instance)

    async def handle_call(
        self, request: Callable[[], Awaitable[Any]], caller: _core.From
    ) -> Outcome:
        return await outcome(request)

    def handle_info(self, message: Any) -> Any:
        return Stop("normal") if isinstance(message, Down) else None


class Companion:
    """The companion of the process that uses it; started when it is first needed."""

    def __init__(self) -> None:
        """Nothing runs yet."""
        self._runner: _core.Pid | None = None

    def run(self, function: Callable[..., Awaitable[Any]], /, *args: Any, **kwargs: Any) -> Any:
        """Have a coroutine function called on the event loop; return or raise what it comes to.

        The coroutine is made there, by whoever runs it: of one that is made here, and never gets
        there because the stage is killed, Python would say that it was never awaited.
        """
        return self._run(function, functools.partial(function, *args, **kwargs))

    def _run(self, callback: Any, request: Callable[[], Awaitable[Any]]) -> Any:
        if self._runner is None:
            instance = getattr(callback, "__self__", None)
            self._runner = _Runner.start_link(_core.self(), instance)
        returned, value = _core.call(self._runner, request, None)
        if returned:
            return value
        raise value

    def run_all(
        self, function: Callable[[Any], Awaitable[Any]], items: list[Any]
    ) -> list[Outcome]:
        """Have a coroutine function called with each item, all at the same time."""
        request = functools.partial(_outcomes, function, items)
        outcomes: list[Outcome] = self._run(function, request)
        return outcomes

    def plain(self, callback: Any) -> Any:
        """Make a plain function of a coroutine function; any other callback stays as it is."""
        if not inspect.iscoroutinefunction(callback):
            return callback

        @functools.wraps(callback)
        def run(*args: Any, **kwargs: Any) -> Any:
            return self.run(callback, *args, **kwargs)

        return run
