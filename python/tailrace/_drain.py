"""The end of a pipeline: the terminator lets everything under way finish before the workers stop.

It is the last child of the pipeline's supervisor, so it is stopped first, and its `terminate`
holds up the rest. It drains only when the whole pipeline is being stopped (`Shared.stopping`), not
when its supervisor restarts it together with the workers before it.
"""

from __future__ import annotations

from typing import Any

from . import _core
from ._actions import UNSET, Down
from ._errors import ReceiveTimeout
from ._log import logger
from ._pipeline_state import Shared
from ._pipeline_worker import Drain, Drained
from ._server import GenServer

NANOSECONDS = 1_000_000_000


class Terminator(GenServer):
    """Drains the pipeline when it is stopped."""

    def init(self, shared: Shared) -> None:
        """Wait for the end."""
        _core.trap_exit(True)
        self.shared = shared

    def terminate(self, reason: Any) -> None:
        """Drain, unless the pipeline is to stop without."""
        if self.shared.stopping and not self.shared.ledger.halted:
            drain(self.shared)


def drain(shared: Shared) -> None:
    """End the intake and wait until the last layer has finished, or `drain_timeout` is over."""
    waiting: dict[Any, None] = {}
    for base in shared.last():
        pid = _core.whereis(shared.name(base))
        if pid is not None:
            _core.monitor(pid)
            waiting[pid] = None
    shared.draining = True
    message = Drain(_core.self())
    for base in reversed(list(shared.workers())):  # who is cut must know already that it is a drain
        pid = _core.whereis(shared.name(base))
        if pid is not None:
            _core.send(pid, message)
    if not wait(waiting, shared.plan.drain_timeout):
        logger.warning(
            "pipeline %s: drain_timeout of %s s is over, %d messages and %d workers unfinished",
            shared.plan.name,
            shared.plan.drain_timeout,
            shared.in_flight(),
            len(waiting),
        )


def wait(waiting: dict[Any, None], timeout: float) -> bool:
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
            waiting.pop(message.pid, None)
    return True
