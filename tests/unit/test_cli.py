"""The command line: what is accepted, what is refused, and what reaches the archiver."""

import subprocess
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from tailrace._cli import main
from tailrace._examples import archiver

LIMIT = 60.0


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the archiver was called with; it answers 7."""
    seen: list[tuple[Any, ...]] = []

    def answer(*arguments: Any) -> int:
        seen.append(arguments)
        return 7

    monkeypatch.setattr(archiver, "main", answer)
    return seen


def test_demo_without_arguments_takes_the_standard_library(calls: list[tuple[Any, ...]]) -> None:
    assert main(["demo"]) == 7
    assert calls == [(Path(sysconfig.get_path("stdlib")), Path("tailrace-demo"), False)]


def test_demo_takes_folder_chaos_and_work(calls: list[tuple[Any, ...]], tmp_path: Path) -> None:
    assert main(["demo", str(tmp_path), "--chaos", "--work", "there"]) == 7
    assert calls == [(tmp_path, Path("there"), True)]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "required: command"),
        (["nonsense"], "invalid choice: 'nonsense'"),
        (["demo", "--speed"], "unrecognized arguments: --speed"),
        (["demo", "/no/such/folder"], "FOLDER: '/no/such/folder' is no folder"),
        (["demo", __file__], "is no folder"),
        (["doctor", "--xml"], "unrecognized arguments: --xml"),
        (["demo", "--work"], "--work: expected one argument"),
    ],
)
def test_wrong_usage_is_explained_and_ends_with_2(
    arguments: list[str],
    complaint: str,
    calls: list[tuple[Any, ...]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert complaint in capsys.readouterr().err
    assert calls == []


def test_help_names_every_command_and_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    assert "{demo,doctor}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "command", [[sys.executable, "-m", "tailrace"], [f"{sysconfig.get_path('scripts')}/tailrace"]]
)
def test_the_command_and_the_module_tell_the_version(command: list[str]) -> None:
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=LIMIT)
    assert (done.returncode, done.stdout) == (0, f"tailrace {version('tailrace')}\n")
