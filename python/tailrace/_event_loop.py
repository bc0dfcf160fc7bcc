"""The event loop that the engine owns: where `async def` functions and callbacks run.

One thread of the engine's, started by the first process that needs it, runs it until the engine
ends. It is uvloop's when uvloop is installed, unless the environment variable TAILRACE_UVLOOP
is "0". Each task that a process's code makes belongs to that process: engine calls in it are
the process's, and when the process has ended its tasks are cancelled until they are done.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from . import _core
from ._log import logger

if TYPE_CHECKING:
    import asyncio
    from contextvars import Context

_AGAIN = 0.05
"""Seconds until a task that has swallowed its cancellation is cancelled again."""

_LAST = 0.2
"""Seconds that tasks get to clean up when the engine ends."""


def _new_loop() -> asyncio.AbstractEventLoop:
    if os.environ.get("TAILRACE_UVLOOP") != "0" and importlib.util.find_spec("uvloop"):
        loop: asyncio.AbstractEventLoop = importlib.import_module("uvloop").new_event_loop()
        return loop
    import asyncio

    return asyncio.new_event_loop()


def run() -> None:
    """Run the event loop on the calling thread, which is the engine's, until the engine ends."""
    loop = _new_loop()
    factory: Any = _make_child
    loop.set_task_factory(factory)
    try:
        door = _core.loop_begin(loop)
        while not door.over:
            try:
                loop.run_forever()
            except BaseException:
                # SystemExit or KeyboardInterrupt in a task: they end that task, not the engine.
                logger.exception("a task on the engine's event loop tried to end the program")
        _cancel_all(loop)
    finally:
        loop.close()


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    import asyncio

    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    with contextlib.suppress(BaseException):
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks, timeout=_LAST))
        loop.run_until_complete(asyncio.wait_for(loop.shutdown_asyncgens(), _LAST))
    for task in tasks:  # those that swallow it: nobody will run them again
        task._log_destroy_pending = False  # type: ignore[attr-defined]


def make_task(
    loop: asyncio.AbstractEventLoop, driver: Coroutine[Any, Any, Any], context: Context
) -> asyncio.Task[Any]:
    """Make the own task of a process."""
    import asyncio

    return asyncio.Task(driver, loop=loop, context=context)


def _make_child(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any
) -> asyncio.Task[Any]:
    """Make a task for the code of a process; the loop's task factory."""
    import asyncio

    owner = _core.owner()
    if owner is None:
        return asyncio.Task(coroutine, loop=loop, **options)
    driver: Any = _core.Driver(owner, coroutine)
    task: asyncio.Task[Any] = asyncio.Task(driver, loop=loop, **options)
    owner.tasks.add(task)
    task.add_done_callback(owner.tasks.discard)
    if owner.ended:
        task.cancel()
    return task


def cancel_tasks(
    loop: asyncio.AbstractEventLoop,
    own: asyncio.Task[Any] | None,
    children: set[asyncio.Task[Any]],
) -> None:
    """Cancel the tasks of a process that has ended, again and again until all are done."""
    left = [task for task in (own, *children) if task is not None and not task.done()]
    for task in left:
        task.cancel()
    if left and not loop.is_closed():
        loop.call_later(_AGAIN, cancel_tasks, loop, own, children)
