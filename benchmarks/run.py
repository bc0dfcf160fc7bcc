"""All benchmarks, one table.

    python benchmarks/run.py [--quick] [--json FILE] [GROUP ...]

A group is the name of a file beside this one. Every row pairs us with peers in the same run;
figures are the best of several runs, so read the ratios, not single times. Never part of the test
suite: a test must not fail because a machine is slow.
"""

from __future__ import annotations

import argparse
import importlib
import json
from dataclasses import asdict

from harness import Row, machine, table

GROUPS = (
    "doors",
    "processes",
    "coroutines",
    "asynchronous",
    "stages",
    "pipelines",
    "os_workers",
    "durable_queue",
    "schedulers",
    "parallel",
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure this package beside its peers.")
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(GROUPS)}")
    parser.add_argument("--json", metavar="FILE", help="write the rows there as well")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work: to try it out")
    options = parser.parse_args()
    unknown = set(options.groups) - set(GROUPS)
    if unknown:
        parser.error(f"unknown group {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}")
    print("  ".join(f"{key} {value}" for key, value in machine().items()), flush=True)
    rows: list[Row] = []
    for group in options.groups or GROUPS:
        found = importlib.import_module(group).rows(options.quick)
        print(table(found), flush=True)
        rows.extend(found)
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"machine": machine(), "rows": [asdict(r) for r in rows]}, file, indent=1)


if __name__ == "__main__":
    main()
