"""The end of a pipeline: the terminator lets everything under way finish before the workers stop.

It is the last child of the pipeline's supervisor, so it is stopped first, and its `terminate`
holds up the rest. It drains only when the whole pipeline is being stopped (`Shared.stopping`), not
when its supervisor restarts it together with the workers before it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from . import _core
from ._actions import UNSET, Down
from ._core import Pid
from ._errors import ReceiveTimeout
from ._log import logger
from ._pipeline_state import Shared
from ._pipeline_worker import Drain, Drained, Quiet
from ._server import GenServer

NANOSECONDS = 1_000_000_000


class Terminator(GenServer):
    """Drains the pipeline when it is stopped."""

    def init(self, shared: Shared) -> None:
        """Wait for the end."""
        _core.trap_exit(True)
        self.shared = shared

    def terminate(self, reason: Any) -> None:
        """Drain, unless the pipeline is to stop without; then let running callbacks finish."""
        shared = self.shared
        if not shared.stopping:
            return
        if shared.ledger.halted or not drain(shared):
            shared.ledger.halt()
            quiesce(shared)


def living(shared: Shared, bases: Iterable[str]) -> list[Pid]:
    """Give the pids of those workers that run."""
    found = (_core.whereis(shared.name(base)) for base in bases)
    return [pid for pid in found if pid is not None]


def drain(shared: Shared) -> bool:
    """End the intake and wait until the last layer has finished, or `drain_timeout` is over.

    Whether it finished in time.
    """
    waiting = set(living(shared, shared.last()))
    for pid in waiting:
        _core.monitor(pid)
    shared.draining = True
    message = Drain(_core.self())
    for pid in reversed(living(shared, shared.workers())):
        _core.send(pid, message)  # the last layer first: who is cut knows that it is a drain
    finished = wait(waiting, shared.plan.drain_timeout)
    if not finished:
        logger.warning(
            "pipeline %s: drain_timeout of %s s is over, %d messages and %d workers unfinished",
            shared.plan.name,
            shared.plan.drain_timeout,
            shared.in_flight(),
            len(waiting),
        )
    return finished


def quiesce(shared: Shared) -> None:
    """Let all running callbacks finish, for `drain_timeout` in all; kill who is still in one."""
    waiting = set(living(shared, shared.workers()))
    message = Quiet(_core.self())
    for pid in waiting:
        _core.monitor(pid)
        _core.send(pid, message)
    if not wait(waiting, shared.plan.drain_timeout):
        for pid in waiting:
            _core.exit(pid, "kill")


def wait(waiting: set[Pid], timeout: float) -> bool:
    """Take processes that finish or end out of `waiting`; whether it got empty in time
    (seconds).
    """
    deadline = _core.now() + int(timeout * NANOSECONDS)
    while waiting:
        left = max(0, deadline - _core.now()) / NANOSECONDS
        try:
            message = _core.receive(None, left, UNSET)
        except ReceiveTimeout:
            return False
        if isinstance(message, Drained | Down):
            waiting.discard(message.pid)
    return True
