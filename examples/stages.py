"""Three stages: the consumer's demand, five at a time, is what makes the others work.

    python examples/stages.py

    Numbers --> Double --> Printer
            <--        <--            demand
"""

from __future__ import annotations

import tailrace as tr


class Numbers(tr.Producer):
    """Counts, as far as it is asked to."""

    def init(self) -> None:
        self.next = 0

    def handle_demand(self, demand: int) -> list[int]:
        first, self.next = self.next, self.next + demand
        return list(range(first, self.next))


class Double(tr.ProducerConsumer):
    """Doubles each number."""

    def handle_events(self, events: list[int], sender: tr.Subscription) -> list[int]:
        return [2 * event for event in events]


class Printer(tr.Consumer):
    """Prints each batch it gets, and ends after a few."""

    def init(self, batches: int) -> None:
        self.left = batches

    def handle_events(self, events: list[int], sender: tr.Subscription) -> object:
        print(events)
        self.left -= 1
        return tr.Stop("normal") if self.left == 0 else None


def main() -> None:
    numbers, double, printer = Numbers.start(), Double.start(), Printer.start(4)
    ended = tr.monitor(printer)
    tr.subscribe(double, numbers, max_demand=10, min_demand=5)
    tr.subscribe(printer, double, max_demand=5, min_demand=0)
    tr.receive(ended, timeout=60)
    tr.stop(double)
    tr.stop(numbers)


if __name__ == "__main__":
    main()
