"""The programs in the README and in the tutorial run as they stand and print what they should."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIMIT = 100.0


def run(document: str, folder: Path) -> str:
    """Run all Python blocks of a document as one program; returns what it printed."""
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / document).read_text(), re.M | re.S)
    program = folder / "program.py"
    program.write_text("\n".join(blocks))
    done = subprocess.run(
        [sys.executable, program], cwd=folder, capture_output=True, text=True, timeout=LIMIT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_first_program_squares_in_groups_of_five(tmp_path: Path) -> None:
    *sums, last = run("README.md", tmp_path).splitlines()
    assert last == "10 done"
    assert sum(map(int, sums)) == sum(n * n for n in range(1, 11))
    assert len(sums) == 2


def test_the_tutorial_runs_from_top_to_bottom(tmp_path: Path) -> None:
    assert run("docs/tutorial.md", tmp_path).splitlines() == [
        "3 0",
        "failed: -2 negative",
        "2 1",
        "('even', 10, 'size') ('even', 10, 'size') ('odd', 10, 'size') ('odd', 10, 'size')",
        "a attempt 1",
        "b attempt 1",
        "c attempt 1",
        "b attempt 2",
        "0 left",
    ]


@pytest.mark.skipif(find_spec("cloudpickle") is None, reason="what __main__ defines needs it")
def test_the_guide_to_workers_runs_from_top_to_bottom(tmp_path: Path) -> None:
    assert run("docs/workers.md", tmp_path).splitlines() == ["20", "3.0", "terminated"]


def test_the_guide_to_asyncio_runs_from_top_to_bottom(tmp_path: Path) -> None:
    lines = run("docs/asyncio.md", tmp_path).splitlines()
    assert lines == [
        "1000",
        "no message",
        "[0, 1, 2]",
        "19 asyncio",
        "('w', 0, True) ('w', 1, True) ('w', 2, True)",
        "normal",
        "100",
    ]


@pytest.mark.parametrize(
    "document", ["docs/processes.md", "docs/queue.md", "docs/supervisors.md", "docs/diagnostics.md"]
)
def test_the_guide_runs_from_top_to_bottom(document: str, tmp_path: Path) -> None:
    run(document, tmp_path)


def test_two_commands_are_exactly_two_shell_blocks() -> None:
    section = (ROOT / "README.md").read_text().split("\n## Two commands\n")[1].split("\n## ")[0]
    first, second = re.findall(r"^```sh\n(.*?)^```", section, re.M | re.S)
    assert first.strip().endswith("tailrace demo")
    assert second.strip().endswith("-m pytest")


DOCUMENTS = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    place = ROOT / document
    for target in re.findall(r"\]\(([^)#]+)\)", place.read_text()):
        assert (place.parent / target).exists(), target
