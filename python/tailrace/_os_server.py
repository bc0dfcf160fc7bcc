"""Servers and stages in operating-system workers: start_link(..., scheduler="process").

The instance is made in the worker, lives there as long as the server, and all its callbacks run
there, `init` first and `terminate` last. Here lives a stand-in, whose callbacks send the request to
the worker and give back what comes of it: so calls, timeouts, demand, ends are those of any other
server. Callbacks that the class does not define are not sent anywhere.

The state cannot outlive its process: when the worker dies, the server ends with WorkerDied, during
a callback or between two, and `terminate` is not called. A watcher, a process of the engine linked
to the server, sees to the time between two.
"""

from __future__ import annotations

import contextlib
import os
import socket
from functools import partial
from typing import Any

from . import _core
from ._actions import IGNORE, Stop
from ._errors import ProcessExit, WorkerDied
from ._log import short
from ._os_worker import Descriptor, Use, Worker
from ._wire import Unpicklable, check, check_reachable, dump, raised


def base_of(cls: type) -> type:
    """Give the class of this package that a user's class derives from."""
    return next(each for each in cls.__mro__ if each.__module__.startswith("tailrace._"))


class Host:
    """In the worker: the instance of the user's class."""

    def __init__(self, cls: Any) -> None:
        self._instance = cls()

    def init(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, list[str]]:
        """Run init; gives its result and the names of the callbacks that are the user's."""
        result = self._instance.init(*args, **kwargs)
        return result, [name for name in self._instance._callbacks if self._has_own(name)]

    def _has_own(self, name: str) -> bool:
        kind = type(self._instance)
        inherited = getattr(base_of(kind), name, None)
        return getattr(kind, name, None) is not inherited or name in self._instance.__dict__

    def run(self, name: str, *args: Any) -> Any:
        """Run a callback."""
        return getattr(self._instance, name)(*args)


class Away:
    """A mix-in for servers and stages: the stand-in for an instance that lives in a worker."""

    _away: type  # the user's class
    _worker: Worker | None = None
    _watcher: Any = None
    _terminates = False

    def init(self, *args: Any, **kwargs: Any) -> Any:
        """Start the worker and have it run `init`."""
        check_reachable(self._away)
        self._worker = worker = Worker(Host, self._away)
        try:
            result, names = worker.run("init", args, kwargs)
        except BaseException:
            worker.kill()
            raise
        for name in names:
            if name == "terminate":
                self._terminates = True
            elif name != "init":
                # Not a method of this object, which would then be part of a cycle.
                self.__dict__[name] = partial(run_callback, worker, name)
        if result is IGNORE or isinstance(result, Stop):
            worker.end()
        else:
            self._watcher = watch(worker)
        return result

    def terminate(self, reason: Any) -> None:
        """Have the worker run `terminate`, and end it."""
        if self._watcher is not None:
            _core.unlink(self._watcher)
        if self._worker is None or self._worker.pid is None:
            return
        try:
            if self._terminates:
                run_callback(self._worker, "terminate", _portable(reason))
        finally:
            self._worker.end()

    def _let_go(self) -> None:
        """End the worker of a server that was killed."""
        if self._worker is not None:
            self._worker.kill()


def stand_in(cls: type) -> type:
    """Make the class of the stand-ins for instances of `cls`."""
    names: dict[str, Any] = {
        "_away": cls,
        "__qualname__": cls.__qualname__,
        "__module__": cls.__module__,
    }
    if hasattr(cls, "options"):
        names["options"] = cls.options
    return type(cls.__name__, (Away, base_of(cls)), names)


def run_callback(worker: Worker, name: str, *args: Any) -> Any:
    """Have the worker run a callback of its instance."""
    return worker.exchange(dump(("run", (name, *args))), f"in {name}")


def _portable(reason: Any) -> Any:
    """Give a reason that pickles."""
    try:
        check(reason)
    except Unpicklable:
        return short(reason)
    return raised(reason).error if isinstance(reason, BaseException) else reason


# The watcher


def watch(worker: Worker) -> Any:
    """Start a process that ends the calling one, which it is linked to, if the worker dies idle."""
    process = worker.process
    assert process is not None
    pidfd = process.duplicate()
    if pidfd is None:  # an old kernel: it is noticed in the next callback
        return None
    return _core.spawn_link(_watch, pidfd, process.pid, worker.use)


def _watch(pidfd: Descriptor, pid: int, use: Use) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        _core.worker_receive(ours.fileno(), pidfd.number, 0, bytearray(1), 1)
    if use.busy or use.ended:
        return  # whoever uses the worker knows
    with contextlib.suppress(ChildProcessError):  # it has been buried: its owner knows
        info = os.waitid(os.P_PIDFD, pidfd.number, os.WEXITED | os.WNOWAIT)
        if info is not None:
            code = info.si_status if info.si_code == os.CLD_EXITED else -info.si_status
            raise ProcessExit(WorkerDied(pid, code, "while it waited for work"))
