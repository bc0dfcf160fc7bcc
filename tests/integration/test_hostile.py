"""A hostile program stops nobody and leaves nothing behind: tests/hostile.py, for a short while."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).parent.parent / "hostile.py"
LIMIT = 1200.0
"""Seconds; the program has limits of its own, which are shorter."""


def run(*arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", str(PROGRAM), *arguments],
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, f"{done.stdout[-8000:]}\n{done.stderr[-8000:]}"
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_troublemakers_of_every_kind_beside_a_fork_stop_nobody_and_leave_nothing() -> None:
    found = run("--seconds", "20")
    assert found["failures"] == []
    assert min(found["progress"].values()) > 0
    assert found["delay_ms"]["normal"]["max"] < 60_000


def test_a_hostile_program_with_a_fork_ends_in_time_whatever_ends_it() -> None:
    found = run("--exits", "8")
    assert found["failures"] == []
    assert found["programs"] == 8
