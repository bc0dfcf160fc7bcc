"""Who holds a lease: a process, named so that others can tell whether it still runs.

A process id alone is given out again sooner or later, so the name also has the boot of the machine
and the start time of the process. The pid namespace is in it because a process in another container
cannot be seen from here; its leases are left to end by themselves.
"""

from __future__ import annotations

import os
from pathlib import Path

_SEPARATOR = "|"


def name() -> str:
    """Return the name of this process as the owner of leases."""
    pid = os.getpid()
    return _SEPARATOR.join((_boot(), _namespace(), str(pid), _start(pid) or ""))


def is_gone(owner: str) -> bool:
    """Tell whether the process called `owner` has ended for sure. A zombie has."""
    parts = owner.split(_SEPARATOR)
    if len(parts) != 4 or not parts[2].isdecimal():
        return False
    boot, namespace, pid, start = parts
    if boot != _boot():
        return bool(boot)
    if namespace != _namespace():
        return False
    if not _exists(int(pid)):
        return True
    now = _start(int(pid))
    return now is not None and now != start


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _start(pid: int) -> str | None:
    """Return the start time of `pid` in ticks, "" for a zombie, None when it cannot be read."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    # The second field, the program's name, may itself hold blanks and parentheses.
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] in ("Z", "X") else fields[19]


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
