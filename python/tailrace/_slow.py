"""What is logged of callbacks that take long, and when threads run out (see csrc/core/slow.h)."""

from __future__ import annotations

import traceback
from types import FrameType

from ._core import Pid
from ._log import logger, short

_HOW = {
    "blocks": (
        "its thread waits in a blocking call; processes that do so on purpose are better started "
        'with scheduler="thread"'
    ),
    "computes": "it computes",
    "stalls": (
        "native stall: native code in it keeps the interpreter lock, so that nothing else runs; "
        'such work belongs into a function or handler with scheduler="process"'
    ),
    "starves": (
        "nobody gets the interpreter lock: native code in it, or in a thread outside the engine, "
        "keeps it"
    ),
}


def _name(subject: object, callback: str, frame: FrameType | None) -> str:
    """The callback: a function's name, or the class's and the method's."""
    if not callback and callable(subject) and hasattr(subject, "__qualname__"):
        return str(subject.__qualname__)
    if not callback and frame is not None:  # a stage's: the outermost frame is it
        while frame.f_back is not None:
            frame = frame.f_back
        callback = frame.f_code.co_name
    owner = "" if subject is None else type(subject).__qualname__
    return ".".join(filter(None, (owner, callback))) or "a callback"


def callback(
    pid: Pid,
    subject: object,
    callback: str,
    how: str,
    seconds: float,
    over: bool,
    frame: FrameType | None,
) -> None:
    """Log a slow callback: who, which, how long and in what way; where, while it still runs."""
    name = _name(subject, callback, frame)
    took = f"{'took' if over else 'has taken'} {seconds:.3g} s"
    going_on = "" if over else " and goes on"
    stack = ""
    if frame is not None:
        lines = traceback.StackSummary.extract(traceback.walk_stack(frame))
        lines.reverse()
        stack = "\nStack (most recent call last):\n" + "".join(lines.format()).rstrip("\n")
    who = short(pid)
    logger.warning("process %s: %s %s%s; %s%s", who, name, took, going_on, _HOW[how], stack)


def out_of_threads(limit: int, by_system: bool) -> None:
    """Log that work waits for a thread."""
    if by_system:
        logger.warning(
            "the system gives the engine no more threads, so work waits for one to be free; raise "
            "the limit (ulimit -u, the control group's pids.max); 'tailrace doctor' shows both"
        )
        return
    logger.warning(
        "all threads that max_threads=%d allows are in use, so work waits for one to be free; "
        "callbacks and functions that block keep them: let fewer block at a time, or start the "
        "engine with a larger tailrace.Engine(max_threads=...)",
        limit,
    )
