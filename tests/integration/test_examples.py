"""Every example runs by itself, as its first lines say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

EXPECTED = {
    "counter": ["all counted: 3000"],
    "stages": [
        "[0, 2, 4, 6, 8]",
        "[10, 12, 14, 16, 18]",
        "[20, 22, 24, 26, 28]",
        "[30, 32, 34, 36, 38]",
    ],
    "supervision": [
        "6 / 3 = 2.0",
        "1 / 0 : division by zero",
        "6 / 2 = 3.0",
        "the same process: False",
    ],
}
"""What the small ones print; the archiver has tests of its own."""


@pytest.mark.parametrize("name", EXPECTED)
def test_the_example_runs_and_prints_what_it_is_about(name: str) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py")],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.stdout.splitlines() == EXPECTED[name], done.stderr
    assert done.stderr == ""
    assert done.returncode == 0


def test_every_example_has_a_test() -> None:
    tested_elsewhere = {"__init__", "archiver", "object_store", "first_pipeline"}
    assert {path.stem for path in EXAMPLES.glob("*.py")} - tested_elsewhere == set(EXPECTED)
