"""What the benchmark files share: timing, rows, the table.

A benchmark file has `rows(quick) -> list[Row]`. Each row pairs a figure of this package with one
or more peers measured in the same run: the minimum of several runs of each, taken in turn, because
other work on the machine only ever adds time. `run.py` collects all files.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

Measured = Callable[[], float]
"""One run; returns the cost of one unit in nanoseconds (or bytes)."""


@dataclass(slots=True)
class Row:
    """One line of the table: what was measured, our figure, and the peers' by name."""

    group: str
    name: str
    unit: str
    value: float
    peers: dict[str, float] = field(default_factory=dict)

    def ratios(self) -> dict[str, float]:
        """Our figure divided by each peer's: below 1 we are cheaper."""
        return {name: self.value / peer for name, peer in self.peers.items() if peer}


def per_unit(seconds: float, units: int) -> float:
    """Nanoseconds a unit."""
    return seconds / units * 1e9


def timed(work: Callable[[], object], units: int) -> float:
    """Run once; nanoseconds a unit."""
    start = time.perf_counter()
    work()
    return per_unit(time.perf_counter() - start, units)


def best(ours: Measured, peers: dict[str, Measured], runs: int) -> tuple[float, dict[str, float]]:
    """The minimum of `runs` runs of each side, taken in turn."""
    value = float("inf")
    found = dict.fromkeys(peers, float("inf"))
    for _ in range(runs):
        value = min(value, ours())
        for name, peer in peers.items():
            found[name] = min(found[name], peer())
    return value, found


def row(
    group: str,
    name: str,
    ours: Measured,
    peers: dict[str, Measured],
    *,
    unit: str = "ns",
    runs: int = 5,
) -> Row:
    """Measure one row."""
    value, found = best(ours, peers, runs)
    return Row(group, name, unit, value, found)


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    return {
        "python": sys.version.split()[0],
        "build": " ".join(platform.python_build()),
        "implementation": platform.python_implementation(),
        "system": f"{platform.system()} {platform.machine()}",
        "gil": str(getattr(sys, "_is_gil_enabled", lambda: True)()),
    }


def table(rows: list[Row]) -> str:
    """The rows as text."""
    lines: list[str] = []
    group = ""
    for item in rows:
        if item.group != group:
            group = item.group
            lines.append(f"\n{group}")
        peers = "   ".join(
            f"{name} {item.peers[name]:,.0f} (x {ratio:.2f})"
            for name, ratio in item.ratios().items()
        )
        lines.append(f"  {item.name:<44}{item.value:>12,.0f} {item.unit:<6} {peers}")
    return "\n".join(lines)


def main(rows: Callable[[bool], list[Row]]) -> None:
    """The command line of a benchmark file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", metavar="FILE", help="write the rows there as well")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work: to try it out")
    options = parser.parse_args()
    measured = rows(options.quick)
    print("  ".join(f"{key} {value}" for key, value in machine().items()))
    print(table(measured))
    if options.json:
        with open(options.json, "w") as file:
            found = [asdict(item) for item in measured]
            json.dump({"machine": machine(), "rows": found}, file, indent=1)
