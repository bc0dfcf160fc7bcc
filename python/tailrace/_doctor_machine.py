"""What `tailrace doctor` looks at in the machine: cores, limits on threads.

The limits of control groups are read from the files of Linux, version 1 and 2; elsewhere, and where
they cannot be read, there is no such limit.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

from . import _engine
from ._doctor import Finding, judged

ENGINE_THREADS = 512
"""The engine's default limit."""

_MOUNT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def folders(controller: str, mount: Path = _MOUNT, own: Path = _OWN) -> list[Path]:
    """The control groups that bind this program in a controller, the innermost first.

    In a container the path that the kernel names may not be there; then the mount is the group.
    """
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return []
    found: list[Path] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top = mount
        elif controller in controllers.split(","):
            top = mount / controller
        else:
            continue
        group = top / path.lstrip("/")
        group = group if group.is_dir() else top
        found += [group, *(up for up in group.parents if up.is_relative_to(top))]
    return found


def numbers(path: Path) -> list[float]:
    """The numbers in a file; "max" is infinity; none if it cannot be read."""
    try:
        return [float("inf") if word == "max" else float(word) for word in path.read_text().split()]
    except (OSError, ValueError):
        return []


def core_limit(mount: Path = _MOUNT, own: Path = _OWN) -> float | None:
    """How many cores' worth of time the control groups allow; None: no limit."""
    limits = []
    for folder in folders("cpu", mount, own):
        new = numbers(folder / "cpu.max")
        if len(new) == 2:
            limits.append(new[0] / new[1])
        quota, period = numbers(folder / "cpu.cfs_quota_us"), numbers(folder / "cpu.cfs_period_us")
        if quota and period and quota[0] > 0:
            limits.append(quota[0] / period[0])
    least = min(limits, default=float("inf"))
    return None if least == float("inf") else least


def thread_limit(mount: Path = _MOUNT, own: Path = _OWN) -> int | None:
    """How many more threads the control groups allow; None: no limit."""
    left = []
    for folder in folders("pids", mount, own):
        most, now = numbers(folder / "pids.max"), numbers(folder / "pids.current")
        if most and now:
            left.append(most[0] - now[0])
    least = min(left, default=float("inf"))
    return None if least == float("inf") else max(int(least), 0)


def cores() -> Iterator[Finding]:
    """How much of the processors this program may use."""
    section = "cores"
    yield Finding(section, "of the machine", os.cpu_count())
    yield Finding(section, "usable", _engine.usable_cores())
    yield judge_core_limit(core_limit())


def judge_core_limit(limit: float | None) -> Finding:
    """A share of a core is given in slices with long pauses between them."""
    short = limit is not None and limit < 1.0
    todo = (
        "the control group allows less than one core: when the share is used up everything stands "
        "still for up to 0.1 s, timers and hand-offs too; allow one core or more"
    )
    return judged("cores", "control group limit", limit, (short, "advice", todo))


def threads() -> Iterator[Finding]:
    """How many threads the engine can have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    user = None if soft == resource.RLIM_INFINITY or os.geteuid() == 0 else soft
    yield judge_threads("user limit (ulimit -u)", user)
    yield judge_threads("left in control group", thread_limit())


def judge_threads(name: str, limit: int | None) -> Finding:
    """The engine wants up to 512; with a handful it works, without any it does not."""
    few = limit is not None and limit < ENGINE_THREADS
    none = limit is not None and limit < 4
    todo = (
        f"the engine starts up to {ENGINE_THREADS} threads when callbacks block; raise the limit, "
        "or start it with tailrace.Engine(max_threads=...) below it"
    )
    return judged("threads", name, limit, (none, "bad", todo), (few, "advice", todo))
