"""The engine's life: lazy start, options, stop at interpreter exit, fork.

There is one engine at a time. It starts with the first use, or with `Engine(...)` when it needs
options. It is stopped by `shutdown`, by leaving a `with Engine():` block, or when the interpreter
ends.
"""

from __future__ import annotations

import atexit
import concurrent.futures.thread  # noqa: F401  its exit hook must be registered before ours
import contextlib
import os
import sys
import threading
from types import TracebackType
from typing import NoReturn

from . import _core, _validate
from ._control import ffi, lib
from ._log import logger

_STOP_TIMEOUT = 10.0

SLOW_CALLBACK = 1.0
"""After how many seconds a callback is slow when nobody says otherwise."""

_lock = threading.RLock()
"""Held while the engine is started or stopped; a signal's handler may come in between."""


def gil_enabled() -> bool:
    """Whether one lock lets Python code run one thread at a time."""
    return getattr(sys, "_is_gil_enabled", lambda: True)()


def usable_cores() -> int:
    """How many processors this program may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def start(
    max_processes: int = 0,
    max_threads: int = 0,
    slow_callback: float | None = SLOW_CALLBACK,
    stop_timeout: float = _STOP_TIMEOUT,
) -> None:
    """Start the engine; the number 0 is the default one."""
    gil = gil_enabled()
    _core.engine_start(
        max_processes,
        max_threads,
        1 if gil else usable_cores(),
        gil,
        sys.getswitchinterval(),
        slow_callback or 0.0,
        stop_timeout,
    )


def start_lazily() -> None:
    """Start the engine unless another thread was faster."""
    with _lock:
        if _core.engine_address() == 0:
            start()


def address() -> object:
    """The running engine as a `tr_engine *` for the control door; NULL if there is none."""
    return ffi.cast("tr_engine *", _core.engine_address())


def running() -> object:
    """The engine as `address()`, started if it never was; never NULL, its memory stays.

    Raises:
        EngineStopped: it was stopped.
    """
    return ffi.cast("tr_engine *", _core.engine_running())


def is_stopping() -> bool:
    """Whether the engine is ending all processes, so that nothing is restarted and nobody is
    surprised.
    """
    engine = address()
    return engine != ffi.NULL and bool(lib.tr_engine_stopping(engine))


def shutdown(timeout: float | None = None) -> None:
    """Stop the engine: every process is asked to shut down, newest first, and has `timeout` seconds
    to end (default: the engine's `stop_timeout`, 10); then it is killed, and named in the log.

    Until it ends a process may use the engine as before, and start others, which are asked in turn;
    other threads can start none. Any thread that is no process of the engine may call this. After
    it, engine calls raise `EngineStopped` until an `Engine` is started. Does nothing when no engine
    runs. A callback that does not return keeps its thread; that is not waited for.

    >>> import tailrace as tr
    >>> tr.shutdown()
    >>> engine = tr.Engine()
    """
    limit = None if timeout is None else _validate.seconds("timeout", timeout)
    _refuse_processes("shutdown")
    with _lock:
        _core.engine_stop(limit)


def _refuse_processes(name: str) -> None:
    """Raise in a process of the engine: who stops that waits for the process to end."""
    if lib.tr_on_engine_thread(address()):
        raise RuntimeError(f"{name}() would wait for the process that calls it")


def log_unended() -> None:
    """Say which processes have used up the time of a stop."""
    from ._process import unended  # which uses this module

    processes = unended()
    shown = ", ".join(processes[:10]) + (", ..." if len(processes) > 10 else "")
    logger.error("killed, because the time to stop is over (%d): %s", len(processes), shown)


async def ashutdown(timeout: float | None = None) -> None:
    """Stop the engine as `shutdown` does, while the event loop of the caller goes on.

    Tasks of any event loop but the engine's own, in any thread, may await it.

    >>> import asyncio
    >>> import tailrace as tr
    >>> asyncio.run(tr.ashutdown())
    >>> engine = tr.Engine()
    """
    import asyncio

    _refuse_processes("ashutdown")
    await asyncio.to_thread(shutdown, timeout)


class Engine:
    """An engine with options, started at once; a context manager that stops it.

    Args:
        max_processes: how many processes may live at once (default 4,194,304).
        max_threads: how many threads the engine may start (default 512). When they are used up,
            work waits for one to be free, and a warning is logged.
        slow_callback: seconds > 0 after which a callback is logged as slow, with its stack, once,
            waits in the engine not counted; on the event loop, a step from one `await` to the
            next; None: never. What has scheduler "thread" may take as long as it likes.
        stop_timeout: how many seconds processes get to end when the engine is stopped without a
            time of its own, at the end of the interpreter too (default 10). A pipeline that is
            drained then needs at least its `drain_timeout`.

    Raises:
        EngineError: an engine runs already.
        TypeError, ValueError: a bad option.

    >>> import tailrace as tr
    >>> tr.shutdown()
    >>> with tr.Engine(max_processes=1000):
    ...     pid, ref = tr.spawn_monitor(print, "hello")
    ...     down = tr.receive(ref)
    hello
    >>> engine = tr.Engine()
    """

    def __init__(
        self,
        *,
        max_processes: int | None = None,
        max_threads: int | None = None,
        slow_callback: float | None = SLOW_CALLBACK,
        stop_timeout: float = _STOP_TIMEOUT,
    ) -> None:
        """Start the engine."""
        limit = 2**31 - 1
        processes = 0
        if max_processes is not None:
            processes = _validate.integer("max_processes", max_processes, 1, limit)
        threads = 0
        if max_threads is not None:
            threads = _validate.integer("max_threads", max_threads, 2, 65536)
        slow = _validate.optional_seconds("slow_callback", slow_callback, zero=False)
        seconds = _validate.seconds("stop_timeout", stop_timeout)
        with _lock:
            start(processes, threads, slow, seconds)

    def stop(self, timeout: float | None = None) -> None:
        """Stop it; as `tailrace.shutdown`."""
        shutdown(timeout)

    def __enter__(self) -> Engine:
        """Nothing more: it runs already."""
        return self

    async def __aenter__(self) -> Engine:
        """Nothing more: it runs already."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop it, while the event loop goes on."""
        await ashutdown()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop it."""
        self.stop()


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.RLock()
    _core.forked()


def do_nothing() -> None:
    """What a worker calls to take an interrupt that came too late for the callback it was for."""


def forked_exit() -> NoReturn:
    """End a forked child whose fork happened in a callback, when that callback returns."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(0)


def install() -> None:
    """Register the hooks for exit and fork. Once, at import.

    The threading hooks run before non-daemon threads are joined, last registered first, so the
    engine stops while everything else still works; atexit is for engines started after that. The
    hooks are functions of C, which a Ctrl-C cannot enter.
    """
    _core.fork_watch()
    threading._register_atexit(_core.engine_exit)  # type: ignore[attr-defined]
    atexit.register(_core.engine_close)
    os.register_at_fork(after_in_child=_after_fork_in_child)
