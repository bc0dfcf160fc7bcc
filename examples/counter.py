"""A server with state: three threads count in it at once, and one of them is told the sum later.

    python examples/counter.py
"""

from __future__ import annotations

import tailrace as tr


class Counter(tr.GenServer):
    """Adds up what it is cast; answers `when` once the sum has got that far."""

    def init(self, start: int = 0) -> None:
        self.sum = start
        self.waiting: list[tuple[int, tr.From]] = []

    def handle_cast(self, amount: int) -> None:
        self.sum += amount
        ready = [entry for entry in self.waiting if entry[0] <= self.sum]
        for entry in ready:
            self.waiting.remove(entry)
            tr.reply(entry[1], self.sum)

    def handle_call(self, request: str | tuple[str, int], caller: tr.From) -> object:
        match request:
            case "sum":
                return self.sum
            case ("when", int(goal)) if goal <= self.sum:
                return self.sum
            case ("when", int(goal)):
                self.waiting.append((goal, caller))
                return tr.NOREPLY
            case _:
                return tr.Stop(("unknown request", request))


def count(counter: tr.Pid, times: int) -> None:
    for _ in range(times):
        counter.cast(1)


def main() -> None:
    counter = Counter.start_link()
    for _ in range(3):
        tr.spawn(count, counter, 1000)
    print("all counted:", counter.call(("when", 3000), timeout=60))
    counter.stop()


if __name__ == "__main__":
    main()
