"""A supervisor that keeps a fragile server alive, and what its clients see of it.

    python examples/supervision.py

      Supervisor  (one_for_one)
          |
      "divider"   a server that crashes when it is asked to divide by zero
"""

from __future__ import annotations

import logging

import tailrace as tr


class Divider(tr.GenServer):
    """Divides; has no idea of zero."""

    def handle_call(self, request: tuple[int, int], caller: tr.From) -> float:
        dividend, divisor = request
        return dividend / divisor


def main() -> None:
    logging.getLogger("tailrace").setLevel(logging.CRITICAL)  # the crash below is meant
    supervisor = tr.Supervisor.start_link([Divider.child_spec(name="divider")])
    first = tr.whereis("divider")
    print("6 / 3 =", tr.call("divider", (6, 3)))

    restarted = tr.monitor("divider")
    try:
        tr.call("divider", (1, 0))
    except tr.CallExit as error:
        print("1 / 0 :", error.reason)
    tr.receive(restarted, timeout=60)  # the old one is gone, its name is free

    supervisor.which_children()  # answered when the restart is done
    print("6 / 2 =", tr.call("divider", (6, 2)))
    print("the same process:", tr.whereis("divider") == first)
    supervisor.stop()


if __name__ == "__main__":
    main()
