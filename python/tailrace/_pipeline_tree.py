"""The processes of a pipeline: a process above everything, and the supervision tree below it.

    <name>                          starts and stops the tree, ends with the pipeline's reason
    └─ <name>.Supervisor            rest for one: who started later is restarted with who failed
       ├─ RateLimiter               only with a rate limit
       ├─ ProducerSupervisor        one for one
       │  └─ Producer_0 ..., and Handover for an iterable
       ├─ ProcessorSupervisor       one for all, no restart of its own: a crash goes up
       │  └─ Processor_default_0 ...
       ├─ BatchersSupervisor        one for one; only with batchers
       │  └─ BatcherSupervisor_<key>          rest for one
       │     ├─ Batcher_<key>
       │     └─ BatchProcessorSupervisor_<key>   one for all, no restart of its own
       │        └─ BatchProcessor_<key>_0 ...
       └─ Terminator                drains, see _drain

All are registered, each as <name>.<its name here>.
"""

from __future__ import annotations

import contextlib
import inspect
from typing import Any

from . import _core
from ._actions import NOREPLY, Exit, Stop
from ._batcher import BatcherWorker, BatchProcessor
from ._child_spec import ChildSpec
from ._drain import Terminator
from ._errors import NoProcess
from ._log import logger, short
from ._pipeline_processor import LastProcessor, Processor
from ._pipeline_producer import HELPER, Broken, Exhausted, ProducerWorker
from ._pipeline_state import Shared
from ._rate_limit import RateLimiter, new_window
from ._server import GenServer
from ._supervisor import Supervisor


class Finish:
    """To the process above: drain and end."""


FINISH = Finish()


class Top(GenServer):
    """The process above everything: its end is the end of the pipeline."""

    def init(self, shared: Shared) -> None:
        """Start the tree."""
        _core.trap_exit(True)
        self.shared = shared
        self.exhausted: set[int] = set()
        shared.top = _core.self()
        self.supervisor: Any = Supervisor.start_link(
            children(shared),
            strategy="rest_for_one",
            max_restarts=shared.plan.max_restarts,
            max_seconds=shared.plan.max_seconds,
            name=shared.name("Supervisor"),
        )

    def handle_info(self, message: Any) -> Any:
        """Take note of sources that end, and of the end of the tree (P157, P163)."""
        if isinstance(message, Exhausted):
            self.exhausted.add(message.producer)
            if len(self.exhausted) == self.shared.plan.produce.concurrency:
                return Stop("normal")
        elif isinstance(message, Broken):
            self.shared.failure = message.error
            return Stop(message.error)
        elif message is FINISH:
            return Stop("shutdown")
        elif isinstance(message, Exit) and message.pid == self.supervisor.pid:
            self.supervisor = None
            self.shared.died = True
            return Stop(message.reason)
        return None

    def handle_call(self, request: Any, caller: Any) -> Any:
        """Answer nobody: a pipeline takes no calls, and does not end because of one."""
        logger.warning("pipeline %s: unexpected call %s", self.shared.plan.name, short(request))
        return NOREPLY

    def handle_cast(self, request: Any) -> None:
        """Ignore a cast likewise."""
        logger.warning("pipeline %s: unexpected cast %s", self.shared.plan.name, short(request))

    def terminate(self, reason: Any) -> None:
        """Stop the tree; the terminator in it drains."""
        self.shared.stopping = True
        self.shared.reason = reason
        if self.supervisor is not None:
            with contextlib.suppress(NoProcess):  # it has ended by itself meanwhile
                self.supervisor.stop("shutdown")


def children(shared: Shared) -> list[ChildSpec]:
    """Give the children of the pipeline's supervisor."""
    plan = shared.plan
    limit = plan.produce.rate_limit
    window = None if limit is None else new_window(limit)
    found = []
    if window is not None:
        found.append(worker(shared, "RateLimiter", RateLimiter, window))
    found.append(
        group(
            shared,
            "ProducerSupervisor",
            [
                worker(shared, base, ProducerWorker, shared, base, index, window)
                for base, index in producers(shared)
            ],
            strategy="one_for_one",
            max_restarts=2 * plan.produce.concurrency,
            max_seconds=float(plan.produce.concurrency),
        )
    )
    kind = Processor if plan.batchers else LastProcessor
    found.append(
        group(
            shared,
            "ProcessorSupervisor",
            [
                worker(shared, base, kind, shared, base, scheduler=plan.processors.scheduler)
                for base in shared.processors()
            ],
            strategy="one_for_all",
            max_restarts=0,
        )
    )
    if plan.batchers:
        found.append(batchers(shared))
    terminator = worker(shared, "Terminator", Terminator, shared, shutdown=None)
    return [*found, terminator]


def producers(shared: Shared) -> list[tuple[str, int]]:
    """Give base and number of each producer."""
    found = [(base, index) for index, base in enumerate(shared.producers())]
    return [*found, *((base, HELPER) for base in shared.helpers())]


def batchers(shared: Shared) -> ChildSpec:
    """Give the part of the tree with the batchers and their batch processors."""
    count = len(shared.plan.batchers)
    return group(
        shared,
        "BatchersSupervisor",
        [batcher(shared, key) for key in shared.plan.batchers],
        strategy="one_for_one",
        max_restarts=2 * count,
        max_seconds=float(count),
    )


def batcher(shared: Shared, key: str) -> ChildSpec:
    """Give one batcher with its batch processors."""
    base = f"Batcher_{key}"
    scheduler = shared.plan.batchers[key].scheduler
    workers = group(
        shared,
        f"BatchProcessorSupervisor_{key}",
        [
            worker(shared, each, BatchProcessor, shared, each, key, scheduler=scheduler)
            for each in shared.batch_processors(key)
        ],
        strategy="one_for_all",
        max_restarts=0,
    )
    return group(
        shared,
        f"BatcherSupervisor_{key}",
        [worker(shared, base, BatcherWorker, shared, base, key), workers],
        strategy="rest_for_one",
        max_restarts=4,
        max_seconds=2.0,
    )


def worker(
    shared: Shared, base: str, kind: type[GenServer], *args: Any, **overrides: Any
) -> ChildSpec:
    """Give the child spec of a worker, registered under its name."""
    shutdown = overrides.get("shutdown", shared.plan.drain_timeout)
    scheduler = overrides.get("scheduler")
    names = getattr(kind, "user_callbacks", ())
    if any(inspect.iscoroutinefunction(getattr(shared.instance, name, None)) for name in names):
        scheduler = scheduler or "asyncio"
    options = {"name": shared.name(base), "scheduler": scheduler}
    return ChildSpec(base, (kind.start_link, args, options), shutdown=shutdown)


def group(shared: Shared, base: str, specs: list[ChildSpec], **options: Any) -> ChildSpec:
    """Give the child spec of a supervisor, registered under its name."""
    start = (Supervisor.start_link, (specs,), {"name": shared.name(base), **options})
    return ChildSpec(base, start, type="supervisor")
