"""The package's exceptions."""

from __future__ import annotations

import signal
from typing import Any

from ._log import short


class EngineError(Exception):
    """Base of all errors that the package raises itself."""


class EngineStopped(EngineError):
    """The engine is stopping or was stopped; start one with `tailrace.Engine()`."""


class SystemLimit(EngineError):
    """The engine's number of processes or threads is reached; see `tailrace.Engine`."""


class CallExit(EngineError):
    """The other side of a call, stop or wait ended before it answered.

    `reason` is its exit reason.
    """

    def __init__(self, reason: Any, text: str | None = None) -> None:
        """Make the error for an exit reason."""
        super().__init__(text if text is not None else f"the process ended: {short(reason)}")
        self.reason = reason


class CallTimeout(CallExit, TimeoutError):
    """No answer came within the limit. The other side goes on; a late answer is dropped."""


class NoProcess(CallExit, LookupError):
    """The Pid is of a process that ended, or nobody holds the name."""


class DeadlockError(CallExit):
    """The call would wait for ever: `cycle` is who waits for each other, the caller first."""

    def __init__(self, cycle: tuple[Any, ...]) -> None:
        """Make the error for a cycle of waiting processes."""
        names = " -> ".join(repr(pid) for pid in (*cycle, *cycle[:1]))
        super().__init__("deadlock", f"the call would wait for ever: {names}")
        self.cycle = cycle


class ReceiveTimeout(EngineError, TimeoutError):
    """No message that matches came within the limit."""


class StartError(EngineError):
    """A start function failed; `reason` says why."""

    def __init__(self, reason: Any, text: str | None = None) -> None:
        """Make the error for the reason of the failure."""
        super().__init__(text if text is not None else f"the start failed: {short(reason)}")
        self.reason = reason


class AlreadyStarted(StartError):
    """The name is held by a live process, `pid`."""

    def __init__(self, pid: Any) -> None:
        """Make the error for the holder of the name."""
        super().__init__(("already_started", pid), f"already started: {pid!r} holds the name")
        self.pid = pid


class AlreadyRegistered(EngineError, ValueError):
    """The name is held by a live process, `pid`."""

    def __init__(self, pid: Any) -> None:
        """Make the error for the holder of the name."""
        super().__init__(f"name: already registered by {pid!r}")
        self.pid = pid


class ChildError(EngineError):
    """A supervisor refused; `code` is 'running', 'restarting', 'not_found', 'already_present' or
    'already_started'."""

    def __init__(self, code: str) -> None:
        """Make the error for one of the codes."""
        super().__init__(code)
        self.code = code


class BadReturn(EngineError):
    """A callback returned something it must not: `callback` is which, `value` what."""

    def __init__(self, value: Any, callback: str = "a callback") -> None:
        """Make the error for the value that `callback`, as "Class.method", returned."""
        super().__init__(f"{callback} returned {short(value)}, which is not allowed there")
        self.value = value
        self.callback = callback

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what it was made of."""
        return type(self), (self.value, self.callback)


class QueueError(EngineError):
    """A durable queue's file is locked, full, broken or no queue; the text begins with its path.

    The cause, where there is one, is the `sqlite3.Error` or `OSError`.
    """


class WorkerDied(EngineError):
    """An operating-system worker died: killed, crashed, out of memory, or by `os._exit`.

    `exitcode` is its exit status, or the negative number of the signal that killed it, or None if
    nobody knows; `signal` that signal's name, or None; `pid` its number in the operating system.
    """

    def __init__(self, pid: int, exitcode: int | None, doing: str = "at its work") -> None:
        """Make the error for an exit status."""
        super().__init__(pid, exitcode, doing)
        self.pid = pid
        self.exitcode = exitcode
        self.doing = doing

    @property
    def signal(self) -> str | None:
        """The name of the signal that killed it."""
        if self.exitcode is None or self.exitcode >= 0:
            return None
        try:
            return signal.Signals(-self.exitcode).name
        except ValueError:  # a real-time signal
            return f"signal {-self.exitcode}"

    def __str__(self) -> str:
        """Say how, and what might have been the reason."""
        if self.exitcode is None:
            how = "nobody knows how"
        elif self.signal is None:
            how = f"exit status {self.exitcode}"
        else:
            how = self.signal
        hint = "; the system may have been out of memory" if self.signal == "SIGKILL" else ""
        return f"worker {self.pid} (an operating-system process) died {self.doing}: {how}{hint}"


class RemoteError(EngineError):
    """Stands for an exception of a worker's that does not pickle; `kind` is the name of its class.

    Its cause shows the traceback in the worker.
    """

    def __init__(self, error: BaseException | str, kind: str | None = None) -> None:
        """Make the error for an exception, or for its text and the name of its class."""
        if kind is None:
            kind, error = f"{type(error).__module__}.{type(error).__qualname__}", str(error)
        super().__init__(error, kind)
        self.kind = kind

    def __str__(self) -> str:
        """Say what it stands for."""
        return f"{self.kind}: {self.args[0]}"


class RemoteTraceback(Exception):
    """The cause of an exception that was raised in a worker: the traceback there, as text."""

    def __str__(self) -> str:
        """Show the text."""
        return f'\n"""\n{self.args[0]}"""'


class ProcessExit(BaseException):
    """Raised by a process to end with `reason`; and in a thread whose process an exit signal ended.

    A `BaseException`, so that `except Exception` does not swallow it.
    """

    def __init__(self, reason: Any = "normal") -> None:
        """Make the exit for a reason."""
        super().__init__(reason)
        self.reason = reason


def _no_process(dest: Any) -> NoProcess:
    return NoProcess("noproc", f"no such process: {short(dest)}")


def _call_timeout(dest: Any) -> CallTimeout:
    return CallTimeout("timeout", f"no answer in time from {short(dest)}")


def make_error(code: str, detail: Any) -> BaseException:
    """Make the exception for one of the C module's codes."""
    match code:
        case "stopped":
            return EngineStopped(
                "the engine was stopped; start one with tailrace.Engine() before using it again"
            )
        case "running":
            return EngineError("an engine runs already; stop it with tailrace.shutdown() first")
        case "limit":
            return SystemLimit(
                "the engine's limit is reached; raise max_processes or max_threads of "
                "tailrace.Engine(...)"
            )
        case "foreign_pid":
            return EngineError(
                f"dest: {detail!r} belongs to another program's engine, such as the parent's after "
                "a fork; a process can only be reached from the program that started it"
            )
        case "noproc" | "noname":
            return _no_process(detail)
        case "call_exit":
            if isinstance(detail, str) and detail == "noproc":
                return NoProcess("noproc", "the process had ended")
            return _caused(CallExit(detail), detail)
        case "call_timeout":
            return _call_timeout(detail)
        case "calling_self":
            return CallExit("calling_self", "a process cannot call or stop itself")
        case "deadlock":
            return DeadlockError(detail)
        case "receive_timeout":
            return ReceiveTimeout(f"no message came within {detail} s")
        case "start_error":
            return _caused(StartError(detail), detail)
        case "already_started":
            return AlreadyStarted(detail)
        case "already_registered":
            return AlreadyRegistered(detail)
        case _:
            kind, callback, value = detail
            return BadReturn(value, f"{kind.__qualname__}.{callback}")


def _caused(error: EngineError, reason: Any) -> EngineError:
    if isinstance(reason, BaseException):
        error.__cause__ = reason
    return error
