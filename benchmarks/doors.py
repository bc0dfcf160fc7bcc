"""The doors between Python and C: what one crossing costs, in both directions.

    python benchmarks/doors.py [--quick] [--json FILE]

The C-API door is used per message, the control door (cffi) for what is rare. The peer of each is a
call of an empty Python function in the same loop.
"""

from __future__ import annotations

from functools import partial

from harness import Row, main, row, timed

import tailrace as tr
from tailrace._control import lib
from tailrace._engine import address


def empty(one: object, two: object) -> None:
    pass


def loop(function: object, n: int) -> float:
    def work() -> None:
        call = function
        for _ in range(n):
            call(1, 2)  # type: ignore[operator]

    return timed(work, n)


def python_to_c(n: int) -> float:
    """A cast to a process that has ended: destination check and table look-up, nothing else."""
    dead = tr.spawn(int)
    ref = tr.monitor(dead)
    tr.receive(ref, timeout=60)
    cast = tr.cast

    def work() -> None:
        for _ in range(n):
            cast(dead, 2)

    return timed(work, n)


def control_door(n: int) -> float:
    tr.self()
    engine, now = address(), lib.tr_now

    def work() -> None:
        for _ in range(n):
            now(engine)

    return timed(work, n)


class Callee(tr.GenServer):
    """A server whose callback is as empty as the function it is compared with."""

    def handle_cast(self, item: object) -> None:
        pass

    def handle_call(self, request: object, caller: tr.From) -> None:
        pass


def c_to_python(n: int) -> float:
    """Only the handling of casts: they are all in the mailbox before the clock starts."""
    server = Callee.start()
    gate = tr.spawn(tr.receive)
    for _ in range(n):
        server.cast(1)
    gate.send("open")
    cost = timed(lambda: server.call("all handled", timeout=None), n)
    server.stop()
    return cost


def rows(quick: bool = False) -> list[Row]:
    n = 100_000 if quick else 1_000_000
    peers = {"Python function": partial(loop, empty, n)}
    return [
        row("Doors", "Python to C, C-API: cast to a dead Pid", partial(python_to_c, n), peers),
        row("Doors", "Python to C, cffi: tr_now", partial(control_door, n), peers),
        row("Doors", "C to Python: a cast handled", partial(c_to_python, n // 5), peers),
    ]


if __name__ == "__main__":
    main(rows)
