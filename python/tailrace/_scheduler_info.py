"""What the engine's schedulers have done and do now."""

from __future__ import annotations

from dataclasses import dataclass

from . import _engine
from ._control import ffi, lib

_PRIORITIES = ("low", "normal", "high", "max")


@dataclass(frozen=True, slots=True)
class Latency:
    """Times that were taken: how many, their sum and the longest, in seconds."""

    count: int
    total: float
    longest: float

    @property
    def mean(self) -> float:
        """The average; 0.0 if there was none."""
        return self.total / self.count if self.count else 0.0


@dataclass(frozen=True, slots=True)
class SchedulerInfo:
    """What `scheduler_info` knows. Counts are since the engine's start, times are seconds.

    Attributes:
        parallel: how many core callbacks may run at once: 1 under an interpreter lock.
        run_queue: processes that wait for a core worker, by priority; those that the callback which
            runs now has woken are added when it ends.
        thread_queue: processes of scheduler "thread" that wait for a thread.
        loop_queue: processes of scheduler "asyncio" that wait for the engine's event loop.
        processes: alive now.
        spawned: processes made so far.
        slices: turns given to processes.
        callbacks: messages and functions that were run.
        handoffs: callbacks that lost the core to another worker, as they blocked, waited, or took
            long.
        handoff_latency: of those among them that waited in the engine while others were queued,
            under an interpreter lock: the time until another worker had taken the next process.
            When other callbacks began to block, nobody knows.
        steals: processes that a core worker took from another one's queue; 0 under an interpreter
            lock.
        threads: the engine's workers by role. "core" runs callbacks, "standby" is ready to take
            over from one that blocks, "elastic" runs what has scheduler "thread", "detached" is
            inside a callback that lost the core, "loop" runs the engine's event loop, "idle"
            sleeps.
        thread_limit: `max_threads` of the engine.
        thread_limit_hits: how often a thread was wanted when there was none left.
        uptime: the engine's age.
        busy: how much of this time the core workers had something to run, 0.0 to 1.0 of what
            `parallel` can do. Callbacks that lost the core are not in it.
        busy_recent: the same for the last whole interval of a second or more.
        interrupts: killed callbacks that have not unwound yet.
        timers: pending.
        ticks: of the engine's clock thread, which sleeps while nothing is to be done.
    """

    parallel: int
    run_queue: dict[str, int]
    thread_queue: int
    loop_queue: int
    processes: int
    spawned: int
    slices: int
    callbacks: int
    handoffs: int
    handoff_latency: Latency
    steals: int
    threads: dict[str, int]
    thread_limit: int
    thread_limit_hits: int
    uptime: float
    busy: float
    busy_recent: float
    interrupts: int
    timers: int
    ticks: int


def _share(busy: int, time: int, parallel: int) -> float:
    return min(busy / (time * parallel), 1.0) if time else 0.0


def scheduler_info() -> SchedulerInfo:
    """What the engine's schedulers have done and do now.

    Any thread may call it, also while the engine is busy: it waits for no callback. The difference
    between two answers tells what happened in between.

    Raises:
        EngineStopped: the engine was stopped.

    >>> import tailrace as tr
    >>> info = tr.scheduler_info()
    >>> sorted(info.threads)
    ['core', 'detached', 'elastic', 'idle', 'loop', 'standby']
    >>> 0.0 <= info.busy <= 1.0
    True
    """
    counters = ffi.new("tr_counters *")
    lib.tr_engine_counters(_engine.running(), counters)
    return SchedulerInfo(
        parallel=counters.parallel,
        run_queue=dict(zip(_PRIORITIES, counters.run_queues, strict=True)),
        thread_queue=counters.elastic_queue,
        loop_queue=counters.loop_queue,
        processes=counters.processes,
        spawned=counters.spawned,
        slices=counters.slices,
        callbacks=counters.callbacks,
        handoffs=counters.handoffs,
        handoff_latency=Latency(
            counters.handoffs_timed, counters.handoff_time / 1e9, counters.handoff_longest / 1e9
        ),
        steals=counters.steals,
        threads={
            "core": counters.threads_core,
            "standby": counters.threads_standby,
            "elastic": counters.threads_elastic,
            "detached": counters.threads_detached,
            "loop": counters.threads_loop,
            "idle": counters.threads_idle,
        },
        thread_limit=counters.threads_limit,
        thread_limit_hits=counters.threads_limit_hits,
        uptime=counters.uptime / 1e9,
        busy=_share(counters.busy, counters.uptime, counters.parallel),
        busy_recent=_share(counters.recent_busy, counters.recent, counters.parallel),
        interrupts=counters.interrupts,
        timers=counters.timers,
        ticks=counters.ticks,
    )


def schedulers_online() -> int:
    """How many processor cores the program may use: into so many parts work is best divided.

    Under an interpreter lock Python code runs on one of them at a time (`SchedulerInfo.parallel`);
    what releases the lock uses the others. Any thread may call it.

    >>> import tailrace as tr
    >>> tr.schedulers_online() >= 1
    True
    """
    return _engine.usable_cores()
