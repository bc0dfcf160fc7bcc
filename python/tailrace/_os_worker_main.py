"""The other side of `_os_worker`: what an operating-system worker does from its start to its end.

It makes an object as the first frame says, then runs a method of it for each further one, until
the program closes the socket. It has no part in the program's engine: a Pid can be looked at and
sent back, but not talked to.

Signals: Ctrl-C and SIGTERM are the program's business, which drains and then ends its workers; so
both do nothing here, by a handler, which other programs that a callback starts do not inherit.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
from typing import Any, Final

from ._wire import Channel, Frame, Gone, LoadError, Unpicklable, dump, raised

_F_SETSIG: Final = getattr(fcntl, "F_SETSIG", 10)  # Linux; the module lacks it before 3.14


def main(socket: int, lifeline: int) -> None:
    """Serve until the program closes the socket."""
    _die_with(lifeline)
    os.set_inheritable(socket, False)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the engine's threads block everything
    with contextlib.suppress(Gone):
        _serve(Channel(socket))


def _die_with(lifeline: int) -> None:
    """Be killed, with all of the process group, when the program's end of this pipe is closed."""
    os.set_inheritable(lifeline, False)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(lifeline, _F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    os.set_blocking(lifeline, False)
    with contextlib.suppress(BlockingIOError):
        os.read(lifeline, 1)  # nobody ever writes: the program is gone already
        os.kill(0, signal.SIGKILL)


def _serve(channel: Channel) -> None:
    target: Any = None
    while True:
        try:  # whatever else this raises ends the worker: nobody knows where the next frame begins
            name, args = channel.receive()
        except LoadError as error:
            _fail(channel, Unpicklable(f"a worker cannot load what it was sent: {error}"))
            continue
        try:
            if target is None:
                target, result = name(*args), None
            else:
                result = getattr(target, name)(*args)
        except BaseException as error:
            _fail(channel, error)
        else:
            _succeed(channel, target, result)
        with contextlib.suppress(AttributeError, OSError, ValueError):  # none, or closed
            sys.stdout.flush()


def _succeed(channel: Channel, target: Any, result: Any) -> None:
    try:
        frame = _result(target, result)
    except Unpicklable as error:
        _fail(channel, Unpicklable(f"what the worker returned does not pickle: {error}"))
    else:
        channel.send(frame)


def _result(target: Any, result: Any) -> Frame:
    try:
        return dump((result,))
    except Unpicklable:
        if not hasattr(target, "mend"):
            raise
        return dump((target.mend(result),))


def _fail(channel: Channel, error: BaseException) -> None:
    channel.send(dump(raised(error)))
