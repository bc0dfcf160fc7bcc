"""examples/first_pipeline.py does what it says."""

import runpy
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "first_pipeline.py"


def test_first_pipeline(capsys):
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "left out: no words"
    assert lines[1].startswith("a: 1, b: 1, d: 1, f: 1")
    assert lines[2] == "4 lines counted, 1 left out"
