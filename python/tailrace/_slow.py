"""What is logged of callbacks that take long, and when threads run out (see csrc/core/slow.h)."""

from __future__ import annotations

import linecache
import traceback
from types import CodeType
from typing import Any, TypeAlias

from ._core import Pid
from ._log import logger, short

Stack: TypeAlias = list[tuple[CodeType, int, dict[str, Any]]]
"""Code, line and globals of each frame; the innermost is the first."""

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

_HOW_ON_LOOP = {
    "blocks": (
        "it blocks the event loop, so that no other async callback runs; await something that "
        "does not, or `await asyncio.to_thread(...)`"
    ),
    "computes": (
        "it computes on the event loop, so that no other async callback runs; that belongs into "
        "`await asyncio.to_thread(...)`, or into a function or handler with another scheduler"
    ),
}

_BELOW = ("asyncio.", "uvloop", "tailrace._event_loop", "tailrace._companion")
"""What runs the steps of the event loop."""


def _above(stack: Stack) -> Stack:
    """The frames of a step on the event loop, without those that run it."""
    count = len(stack)
    while count and str(stack[count - 1][2].get("__name__")).startswith(_BELOW):
        count -= 1
    return stack[:count]


def _name(subject: object, callback: str, stack: Stack) -> str:
    """The callback: a function's name, or the class's and the method's."""
    if not callback and callable(subject) and hasattr(subject, "__qualname__"):
        return str(subject.__qualname__)
    if not callback and stack:  # a stage's, an async server's: the outermost frame is it
        callback = stack[-1][0].co_name
    owner = "" if subject is None else type(subject).__qualname__
    return ".".join(filter(None, (owner, callback))) or "a callback"


def _format(stack: Stack) -> str:
    frames = []
    for code, line, names in reversed(stack):
        linecache.checkcache(code.co_filename)
        linecache.lazycache(code.co_filename, names)
        frames.append(traceback.FrameSummary(code.co_filename, line, code.co_name))
    return "".join(traceback.StackSummary.from_list(frames).format()).rstrip("\n")


def callback(
    pid: Pid,
    subject: object,
    callback: str,
    how: str,
    seconds: float,
    over: bool,
    on_loop: bool,
    stack: Stack,
) -> None:
    """Log a slow callback: who, which, how long and in what way; where, while it still runs."""
    stack = _above(stack) if on_loop else stack
    name = _name(subject, callback, stack)
    hint = _HOW_ON_LOOP[how] if on_loop else _HOW[how]
    took = f"{'took' if over else 'has taken'} {seconds:.3g} s"
    going_on = "" if over else " and goes on"
    where = ""
    if stack:
        where = "\nStack (most recent call last):\n" + _format(stack)
    who = short(pid)
    logger.warning("process %s: %s %s%s; %s%s", who, name, took, going_on, hint, where)


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
