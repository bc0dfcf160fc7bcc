"""The C tests of the core (tests/c) as part of the suite, one case per program."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = sorted(path.stem for path in (ROOT / "tests" / "c").glob("test_*.c"))


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")
@pytest.mark.timeout(500)  # the first case builds the core
@pytest.mark.parametrize("program", PROGRAMS)
def test_c_program(program: str) -> None:
    command = ["make", "-C", "csrc", f"-j{os.cpu_count() or 1}", "test", f"TESTS={program}"]
    # Warnings are for our own builds: a compiler that knows more of them must not fail a test.
    run = subprocess.run(
        [*command, "WARNINGS="], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"== {program}\n" in run.stdout
