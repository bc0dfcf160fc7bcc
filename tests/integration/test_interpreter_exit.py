"""Interpreters that end at any moment, whatever their processes are doing, end clean and soon.

The mixtures and the moments are those of tests/exiting.py, by seed.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import GIL, LIMIT

import tailrace as tr

PROGRAM = Path(__file__).resolve().parent.parent / "exiting.py"
# Without the interpreter lock a program takes a second to begin and to end: fewer do there.
COUNT = 200 if GIL else 50
BESIDE_EACH_OTHER = 4

CODES = {
    "falls off": {0},
    "exit": {7},
    "raises": {1},
    "thread": {0},
    "shutdown": {0},
    "interrupt": {0, 1, 130, -2, -14},  # wherever it hits, after Python's own handlers too
}
"""What may come out of an ending."""

SAID = "killed, because the time to stop is over"


class Exit:
    """One interpreter on its way out."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed = seed
        self.files = [folder / f"{seed}.out", folder / f"{seed}.err"]
        with self.files[0].open("w") as out, self.files[1].open("w") as err:
            # The package that is tested here is the one that the program imports.
            environment = {**os.environ, "PYTHONPATH": str(Path(tr.__file__).parent.parent),
                           "PYTHONFAULTHANDLER": "1"}
            self.process = subprocess.Popen(
                [sys.executable, PROGRAM, str(seed)], stdout=out, stderr=err, env=environment
            )

    def check(self) -> str | None:
        """What is wrong with how it ended, or None."""
        try:
            code = self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            code = None
        ending, printed = (file.read_text() for file in self.files)
        ending = ending.strip()
        lines = [line for line in printed.splitlines() if SAID not in line]
        if code not in CODES.get(ending, {0}):
            return f"seed {self.seed}: {ending!r} ended with {code}:\n{printed}"
        if lines and ending not in ("raises", "interrupt"):  # which print their traceback
            return f"seed {self.seed}: {ending!r} printed:\n{printed}"
        if "Fatal Python error" in printed:
            return f"seed {self.seed}: {ending!r}:\n{printed}"
        return None


@pytest.mark.parametrize("first", range(0, COUNT, 50))
def test_200_interpreters_end_at_random_moments(first: int, tmp_path: Path) -> None:
    running: list[Exit] = []
    wrong: list[str] = []
    for seed in range(first, first + 50):
        running.append(Exit(seed, tmp_path))
        while len(running) >= BESIDE_EACH_OTHER:
            done = [one for one in running if one.process.poll() is not None]
            if not done:
                time.sleep(0.005)
            for one in done:
                running.remove(one)
                wrong += filter(None, [one.check()])
    for one in running:
        wrong += filter(None, [one.check()])
    assert wrong == []
