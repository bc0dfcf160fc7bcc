"""The engine's life: lazy start, options, stop at interpreter exit, fork.

There is one engine at a time. It starts with the first use, or with `Engine(...)` when it needs
options. It is stopped by `shutdown`, by leaving a `with Engine():` block, or when the interpreter
ends. Everything here goes through the control door (cffi), which waits without the interpreter
lock.
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

_STOP_SECONDS = 10.0
"""How long processes get to end by themselves when nobody says otherwise."""

_lock = threading.Lock()


def _gil_enabled() -> bool:
    return getattr(sys, "_is_gil_enabled", lambda: True)()


def usable_cores() -> int:
    """How many processors this program may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def start(max_processes: int = 0, max_threads: int = 0) -> None:
    """Start the engine; 0 is the default number."""
    gil = _gil_enabled()
    _core.engine_start(
        max_processes, max_threads, 1 if gil else usable_cores(), gil, sys.getswitchinterval()
    )


def start_lazily() -> None:
    """Start the engine unless another thread was faster."""
    with _lock:
        if _core.engine_address() == 0:
            start()


def address() -> object:
    """The running engine as a `tr_engine *` for the control door; NULL if there is none."""
    return ffi.cast("tr_engine *", _core.engine_address())


def shutdown(timeout: float | None = None) -> None:
    """Stop the engine: every process is asked to shut down, newest first, and has `timeout` seconds
    (default 10) to end; then it is killed.

    Any thread that is no process of the engine may call it. After it, engine calls raise
    `EngineStopped` until an `Engine` is started. Does nothing when no engine runs. A callback that
    does not return keeps its thread; that is not waited for.

    >>> import tailrace as tr
    >>> tr.shutdown()
    >>> engine = tr.Engine()
    """
    limit = _STOP_SECONDS if timeout is None else _validate.seconds("timeout", timeout)
    with _lock:
        engine = address()
        if engine == ffi.NULL:
            return
        if lib.tr_on_engine_thread(engine):
            raise RuntimeError("shutdown() would wait for the process that calls it")
        lib.tr_engine_stop(engine, lib.tr_now(engine) + int(limit * 1e9))
        _core.engine_stopped()


class Engine:
    """An engine with options, started at once; a context manager that stops it.

    Args:
        max_processes: how many processes may live at once (default 4,194,304).
        max_threads: how many threads the engine may start (default 512).

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

    def __init__(self, *, max_processes: int | None = None, max_threads: int | None = None) -> None:
        """Start the engine."""
        limit = 2**31 - 1
        processes = 0
        if max_processes is not None:
            processes = _validate.integer("max_processes", max_processes, 1, limit)
        threads = 0
        if max_threads is not None:
            threads = _validate.integer("max_threads", max_threads, 2, 65536)
        with _lock:
            start(processes, threads)

    def stop(self, timeout: float | None = None) -> None:
        """Stop it; as `tailrace.shutdown`."""
        shutdown(timeout)

    def __enter__(self) -> Engine:
        """Nothing more: it runs already."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop it."""
        self.stop()


def _at_exit() -> None:
    # A Ctrl-C that comes meanwhile is raised after the stop: there is nothing left to interrupt.
    with contextlib.suppress(Exception, KeyboardInterrupt):
        shutdown()


def _after_exit() -> None:
    _at_exit()
    _core.engine_close()


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()
    _core.forked()


def forked_exit() -> NoReturn:
    """End a forked child whose fork happened in a callback, when that callback returns."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(0)


def install() -> None:
    """Register the hooks for exit and fork. Once, at import.

    The threading hooks run before non-daemon threads are joined, last registered first, so the
    engine stops while everything else still works; atexit is for engines started after that.
    """
    _core.fork_watch()
    threading._register_atexit(_at_exit)  # type: ignore[attr-defined]
    atexit.register(_after_exit)
    os.register_at_fork(after_in_child=_after_fork_in_child)
