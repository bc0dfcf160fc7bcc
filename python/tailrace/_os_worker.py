"""Operating-system workers: processes of the system that run callbacks for processes of the engine.

A worker belongs to one process of the engine and is used by it alone: it holds one object (`make`
called with `args` there) and runs methods of it, one at a time. The process that owns it waits on
the elastic pool, in C, without the interpreter lock.

    program                                        worker (own process group)
    process of the engine ── Worker ── socket ──── _os_worker_main: recv, run, send
                                 └──── lifeline ── SIGKILL to the group when it closes

Why not a pool of the standard library's or another's: the pool of concurrent.futures (and loky's)
breaks as a whole when one worker dies, and nobody can tell which batch it was; pebble replaces
workers, but all take from one queue, so state (a server's) has no place, and a batch is copied
through it twice. multiprocessing's forkserver forks from a process that has imported who knows
what, and its workers die with the server, not with us. What is left is little: `subprocess` starts
a fresh interpreter (never a fork of a program with threads), `pickle` and cloudpickle speak.

No worker is left behind. The lifeline is a pipe of which only this program has the writing end.
When that is closed, on purpose or because the program has died in whatever way, the system sends
SIGKILL to the worker's process group, so callbacks that are stuck in C and what they have started
go too. (The usual PR_SET_PDEATHSIG does not fit: it fires when the *thread* that started the
worker ends, and the engine gives idle threads back.) A forked child closes its copies.

Who dies is replaced by its owner's rules: a server or a stage ends, and its supervisor restarts
it; a pipeline's processor fails the batch and starts a new worker before the next one. A worker
that dies before it has finished anything is not replaced: its owner ends with WorkerDied, so
that the restart intensity of the supervisors holds for it.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import signal
import socket
import subprocess
import sys
import weakref
from collections.abc import Callable
from typing import Any, Final

from ._core import uninterrupted
from ._errors import EngineError, WorkerDied
from ._wire import Channel, Frame, Gone, Hide, LoadError, Raised, Unpicklable, check_reachable, dump

_BOOT: Final = (
    "import sys; sys.path[:] = {path!r}; sys.argv[:] = {argv!r}; "
    "from tailrace._os_worker_main import main; main({socket}, {lifeline})"
)

START: Final = "at its start"

END_SECONDS: Final = 5.0
"""How long a worker that was asked to end may take: it runs its atexit functions."""

_workers: weakref.WeakSet[Process] = weakref.WeakSet()
"""All that live: a forked child has to close its copies of their pipes."""


class Descriptor:
    """A file descriptor that is closed with its last owner, also one that never got to run."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)


class Process:
    """One operating-system process, from its start to its burial. Used by one thread at a time."""

    def __init__(self) -> None:
        """Start a fresh interpreter; returns at once."""
        self.exitcode: int | None = None
        self._pidfd = -1
        uninterrupted(self._start)  # or a kill in between would leave a descriptor, or a child

    def _start(self) -> None:
        self._socket, theirs = socket.socketpair()
        end, self._lifeline = _pipe()
        with theirs, end:
            self._popen = _popen(theirs.fileno(), end.fileno())
        self.pid = self._popen.pid
        with contextlib.suppress(OSError):  # an old kernel: then only the socket tells its end
            self._pidfd = os.pidfd_open(self.pid)
        self.channel = Channel(self._socket.fileno(), self._pidfd, self.pid)
        _workers.add(self)

    def duplicate(self) -> Descriptor | None:
        """Give a descriptor of the process; None if the system has none."""
        return None if self._pidfd < 0 else uninterrupted(lambda: Descriptor(os.dup(self._pidfd)))

    def has_ended(self) -> bool:
        """Whether it has died by itself."""
        if self._pidfd < 0:
            return self._popen.poll() is not None
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def kill(self) -> None:
        """End it and everything it has started, now, and bury it."""
        uninterrupted(self._kill)

    def _kill(self) -> None:
        if self._popen.returncode is None and self._owned():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._popen.pid, signal.SIGKILL)
            self.exitcode = self._popen.wait()
        self._close()

    def end(self, seconds: float) -> None:
        """Ask it to end; kill it if it takes longer. Waits for it."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        poll = select.poll()
        if self._pidfd >= 0:
            poll.register(self._pidfd, select.POLLIN)
            poll.poll(seconds * 1000)
        self.kill()

    def _owned(self) -> bool:
        return self._socket.fileno() >= 0

    def _close(self) -> None:
        """Close this program's ends."""
        self._socket.close()
        self._lifeline.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def forget(self) -> None:
        """In a forked child: it is the parent's."""
        self._popen.returncode = 0  # nobody waits for it here
        self._close()

    def __del__(self) -> None:
        """Nobody can use it any more. At the end of the interpreter its pipe closes by itself."""
        if hasattr(self, "_popen") and not sys.is_finalizing():  # else it was never started
            self.kill()


def _pipe() -> tuple[io.FileIO, io.FileIO]:
    reading, writing = os.pipe()
    return io.FileIO(reading, "rb"), io.FileIO(writing, "wb")


def _popen(socket: int, lifeline: int) -> subprocess.Popen[bytes]:
    if not sys.executable:
        raise EngineError(
            "sys.executable is empty: an operating-system worker needs a Python interpreter to run"
        )
    boot = _BOOT.format(path=sys.path, argv=sys.argv, socket=socket, lifeline=lifeline)
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return subprocess.Popen(
        [sys.executable, *flags, "-c", boot],
        stdin=subprocess.DEVNULL,
        pass_fds=(socket, lifeline),
        process_group=0,  # a Ctrl-C is for the program, and the group can be killed as one
    )


def _after_fork_in_child() -> None:
    for process in list(_workers):
        process.forget()
    _workers.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)


class Use:
    """What becomes of a worker, for somebody who must not keep it alive."""

    __slots__ = ("busy", "ended")

    def __init__(self) -> None:
        self.busy = False  # its owner waits for an answer, and will see it die
        self.ended = False  # its owner has ended it


class Worker:
    """What a process of the engine has of its worker. Only that process may use it."""

    def __init__(self, make: Callable[..., Any], *args: Any, hide: Hide | None = None) -> None:
        """Start a worker in which `make(*args)` makes the object whose methods `run` runs.

        Returns before that has happened. Raises Unpicklable if the arguments do not pickle; they
        are kept as they are now, for the workers that replace this one.
        """
        self._first = dump((make, args), hide).snapshot()
        self.use = Use()
        self._died: WorkerDied | None = None  # the last one
        self._hopeless: BaseException | None = None  # why another one would not fare better
        self._begin()

    def _begin(self) -> None:
        self._new = True  # it has not said that it made its object
        self.process: Process | None = Process()
        self._say(self._first, START)

    @property
    def pid(self) -> int | None:
        """The number of the process in the operating system; None if there is none."""
        return None if self.process is None else self.process.pid

    def revive(self) -> None:
        """Replace the worker if it has died.

        Raises what became of one that could not even start: another one would not fare better.
        """
        if self.process is not None and self.process.has_ended():
            self._bury(START if self._new else "while it waited for work")
        if self._hopeless is not None:
            raise self._hopeless
        if self.process is None:
            self._begin()

    def run(self, name: str, *args: Any) -> Any:
        """Run a method of the worker's object and give its result.

        Raises what the method raises, Unpicklable if the arguments do not pickle or the result
        does not, WorkerDied if the worker dies or has died; then there is none until `revive`.
        """
        return self.exchange(dump((name, args)), f"in {name}")

    def exchange(self, request: Frame, doing: str) -> Any:
        """Send a request that is pickled already, and give its result; as `run`."""
        self.use.busy = True
        try:
            self.wait_until_ready()
            self._say(request, doing)
            return self._answer(doing)
        finally:
            self.use.busy = False

    def wait_until_ready(self) -> None:
        """Wait until the worker has made its object. Raises what that raised."""
        if self._new and self.process is not None:
            try:
                self._answer(START)
            except Exception as error:
                self.kill()
                self._hopeless = error
                raise
            self._new = False

    def _say(self, frame: Frame, doing: str) -> None:
        process = self._living(doing)
        try:
            process.channel.send(frame)
        except Gone:
            raise self._bury(doing) from None
        except BaseException:  # killed, or interrupted: in the middle of a frame
            self.kill()
            raise

    def _answer(self, doing: str) -> Any:
        process = self._living(doing)
        try:
            answer = process.channel.receive()
        except Gone:
            raise self._bury(doing) from None
        except LoadError as error:
            raise Unpicklable(f"cannot load what the worker returned: {error}") from error
        except BaseException:  # killed, or interrupted: nobody will take the answer
            self.kill()
            raise
        if isinstance(answer, Raised):
            raise answer.restore()
        return answer[0]

    def _living(self, doing: str) -> Process:
        if self.process is None:
            raise self._died or WorkerDied(0, None, doing)
        return self.process

    def _bury(self, doing: str) -> WorkerDied:
        process, self.process = self.process, None
        assert process is not None
        process.kill()
        self._died = WorkerDied(process.pid, process.exitcode, doing)
        if self._new:
            self._hopeless = self._died
        return self._died

    def end(self, seconds: float = END_SECONDS) -> None:
        """Let the worker end by itself, for at most so many seconds."""
        process, self.process = self.process, None
        self.use.ended = True
        if process is not None:
            process.end(seconds)

    def kill(self) -> None:
        """Kill the worker."""
        process, self.process = self.process, None
        self.use.ended = True
        if process is not None:
            process.kill()


class Function:
    """In the worker: what `spawn(fn, scheduler="process")` runs."""

    def run(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Call the function; nobody wants its result."""
        fn(*args, **kwargs)


def run_function(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Any) -> None:
    """Run a function in a worker of its own: the process that was spawned calls this."""
    check_reachable(fn)
    worker = Worker(Function)
    try:
        worker.exchange(dump(("run", (fn, args, kwargs or {}))), "in the function")
    finally:
        worker.end()
