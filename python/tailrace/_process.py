"""Processes from Python: spawn, receive, and what can be known about a process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import _core
from ._actions import UNSET
from ._control import ffi, lib
from ._core import Pid, Ref
from ._engine import address

_STATUS = ("waiting", "runnable", "running", "exiting")
_PRIORITY = ("low", "normal", "high", "max")
_SCHEDULER = ("core", "thread", "thread", "process", "asyncio")


def receive(
    match: Ref | None = None, *, timeout: float | None = None, default: Any = UNSET
) -> Any:
    """Take a message out of the caller's mailbox, waiting for one if need be.

    Args:
        match: None takes the oldest message; a `Ref` the oldest that carries it: its `Down`, the
            Ref itself, or a tuple with the Ref in it. Other messages stay, in order.
        timeout: seconds; None waits for ever. A message already there wins over a passed limit.
        default: what to return when the limit passes, instead of raising.

    Raises:
        ReceiveTimeout: the limit passed.
        TypeError, ValueError: a bad argument.
        ProcessExit: in a thread whose process an exit signal ended.

    Any thread or process may call it; it waits for its own messages.

    >>> import tailrace as tr
    >>> tr.self().send("hello")
    >>> tr.receive()
    'hello'
    >>> tr.receive(timeout=0, default="nothing")
    'nothing'
    """
    return _core.receive(match, timeout, default)


def trap_exit(flag: bool = True) -> bool:
    """Turn exit signals to the caller into `Exit` messages; returns the previous flag.

    Neither "kill" nor what the process does to itself can be trapped.

    Args:
        flag: whether to trap from now on; messages that came before stay.

    Raises:
        TypeError: `flag` is no bool.

    Any thread or process may call it.

    >>> import tailrace as tr
    >>> tr.trap_exit()
    False
    >>> tr.trap_exit(False)
    True
    """
    return _core.trap_exit(flag)


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """What `process_info` knows of a process.

    `status` is "waiting", "runnable", "running" or "exiting"; `memory` is bytes held by the engine
    for the process and its mailbox; `reductions` the callbacks it has run.
    """

    pid: Pid
    name: str | None
    status: str
    priority: str
    scheduler: str
    message_queue_len: int
    memory: int
    reductions: int
    links: tuple[Pid, ...]
    monitors: tuple[Pid, ...]
    monitored_by: tuple[Pid, ...]
    trap_exit: bool
    parent: Pid | None


def _pids(fill: Callable[[Any, int], int]) -> tuple[Pid, ...]:
    """Call a function of the core that fills an array, with an array that is large enough."""
    size = 16
    while True:
        array = ffi.new("tr_pid[]", size)
        count = fill(array, size)
        if count <= size:
            return tuple(_core.pid_from_number(array[i]) for i in range(count))
        size = count + count // 4


def process_info(pid: Pid) -> ProcessInfo | None:
    """What is known of a process now; None if it has ended. Any thread may call it.

    >>> import tailrace as tr
    >>> tr.process_info(tr.self()).status
    'running'
    """
    number = _core.pid_number(pid)
    engine = address()
    info = ffi.new("tr_info *")
    if number == 0 or lib.tr_process_info(engine, number, info) != 0:
        return None

    def bonds(which: int) -> tuple[Pid, ...]:
        return _pids(lambda pids, size: lib.tr_process_bonds(engine, number, which, pids, size))

    return ProcessInfo(
        pid=_core.pid_from_number(number),
        name=ffi.string(info.name).decode(errors="replace") or None,
        status=_STATUS[info.status],
        priority=_PRIORITY[info.priority],
        scheduler=_SCHEDULER[info.kind],
        message_queue_len=info.message_queue_len,
        memory=info.memory,
        reductions=info.reductions,
        links=bonds(lib.TR_LINKS),
        monitors=bonds(lib.TR_MONITORS),
        monitored_by=bonds(lib.TR_MONITORED_BY),
        trap_exit=info.trap_exit,
        parent=_core.pid_from_number(info.parent) if info.parent else None,
    )


def processes() -> list[Pid]:
    """The Pids of all processes, of those that are just ending too. Any thread may call it; it
    makes no process for the caller.

    >>> import tailrace as tr
    >>> tr.self() in tr.processes()
    True
    """
    _core.engine_running()
    return list(_all())


def _all() -> tuple[Pid, ...]:
    return _pids(lambda pids, size: lib.tr_processes(address(), pids, size))


def unended() -> list[str]:
    """The engine's own processes that have not ended, each with its status, as text for a log."""
    info = ffi.new("tr_info *")
    found = []
    for pid in _all():
        alive = lib.tr_process_info(address(), _core.pid_number(pid), info) == lib.TR_OK
        if alive and info.kind != lib.TR_KIND_THREAD_OWN:
            found.append(f"{pid!r} ({_STATUS[info.status]})")
    return found
