"""`tailrace doctor`: what it finds on machines that are made up, and on this one."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from support import GIL, LIMIT

import tailrace as tr
from tailrace import _doctor, _doctor_engine, _doctor_machine
from tailrace._cli import main
from tailrace._doctor import Finding

# ---- Control groups -----------------------------------------------------------------------------


def groups(folder: Path, own: str, files: dict[str, str]) -> tuple[Path, Path]:
    """A tree of control groups: where it is mounted, and the file that names the program's own."""
    mount, names = folder / "cgroup", folder / "own"
    mount.mkdir()
    names.write_text(own)
    for name, text in files.items():
        (mount / name).parent.mkdir(parents=True, exist_ok=True)
        (mount / name).write_text(text)
    return mount, names


@pytest.mark.parametrize(
    ("own", "files", "limit"),
    [
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 0.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/a/b\n", {"a/cpu.max": "150000 100000\n", "a/b/cpu.max": "max 100000\n"}, 1.5),
        ("0::/not/there\n", {"cpu.max": "200000 100000\n"}, 2.0),
        (
            "3:cpu,cpuacct:/x\n0::/\n",
            {"cpu/x/cpu.cfs_quota_us": "25000\n", "cpu/x/cpu.cfs_period_us": "100000\n"},
            0.25,
        ),
        ("3:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ("0::/\n", {"cpu.max": "what?\n"}, None),
        ("", {}, None),
    ],
)
def test_the_smallest_share_of_all_groups_counts(
    tmp_path: Path, own: str, files: dict[str, str], limit: float | None
) -> None:
    assert _doctor_machine.core_limit(*groups(tmp_path, own, files)) == limit


def test_without_control_groups_there_is_no_limit(tmp_path: Path) -> None:
    assert _doctor_machine.core_limit(tmp_path, tmp_path / "none") is None
    assert _doctor_machine.thread_limit(tmp_path, tmp_path / "none") is None


def test_threads_are_those_that_the_tightest_group_has_left(tmp_path: Path) -> None:
    files = {
        "a/pids.max": "max\n",
        "a/pids.current": "700\n",
        "a/b/pids.max": "100\n",
        "a/b/pids.current": "97\n",
    }
    assert _doctor_machine.thread_limit(*groups(tmp_path, "0::/a/b\n", files)) == 3


@pytest.mark.parametrize(
    ("finding", "level", "word"),
    [
        (_doctor_machine.judge_core_limit(0.5), "advice", "less than one core"),
        (_doctor_machine.judge_core_limit(1.0), "ok", ""),
        (_doctor_machine.judge_core_limit(None), "ok", ""),
        (_doctor_machine.judge_threads("limit", 100_000), "ok", ""),
        (_doctor_machine.judge_threads("limit", 100), "advice", "max_threads"),
        (_doctor_machine.judge_threads("limit", 2), "bad", "raise the limit"),
    ],
)
def test_what_is_too_little_is_said(finding: Finding, level: str, word: str) -> None:
    assert finding.level == level
    assert word in finding.todo


# ---- The interpreter ----------------------------------------------------------------------------


def test_sanitizers_and_debugging_aids_in_the_environment_are_named() -> None:
    variables = {"LD_PRELOAD": "/usr/lib/libasan.so.8", "PYTHONMALLOC": "debug", "HOME": "/"}
    found = {each.name: each for each in _doctor.environment(variables)}
    assert found["LD_PRELOAD"].level == "advice"
    assert "sanitizer" in found["LD_PRELOAD"].todo
    assert found["PYTHONMALLOC"].level == "advice"
    assert set(found) == {"LD_PRELOAD", "PYTHONMALLOC"}
    harmless = list(_doctor.environment({"LD_PRELOAD": "/usr/lib/libjemalloc.so"}))
    assert [each.level for each in harmless] == ["ok"]


def test_a_lock_that_a_module_turned_on_is_laid_at_its_door() -> None:
    assert _doctor.module_that_enabled_the_lock("nothing to see") is None
    here = {each.name: each for each in _doctor.interpreter_lock()}
    assert here["interpreter lock"].value is GIL
    assert here["interpreter lock"].level == "ok" or here["free-threaded"].value is True


def test_the_core_is_of_the_packages_version_and_loaded_once() -> None:
    found = {each.name: each for each in _doctor.package()}
    assert found["core"].value == tr.__version__
    assert found["core"].level == "ok"
    assert found["core loaded from"].level == "ok"


def test_a_core_of_another_version_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_doctor, "__version__", "99.0")
    found = {each.name: each for each in _doctor.package()}
    assert found["core"].level == "bad"
    assert "install" in found["core"].todo


def test_copies_of_the_core_are_counted_by_place() -> None:
    maps = "1-2 r /a/libtailrace.so\n2-3 x /a/libtailrace.so\n3-4 r /b/libtailrace.so\n4-5 r /libc"
    assert _doctor.loaded_cores(maps) == ["/a/libtailrace.so", "/b/libtailrace.so"]


def test_extras_are_those_the_package_declares(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = ["pytest>=9", "no-such-thing>=1", 'nothing; extra == "fast"', 'x; extra == "test"']
    monkeypatch.setattr(_doctor.importlib.metadata, "requires", lambda name: declared)
    found = {each.name: (each.value, each.level) for each in _doctor.extras()}
    assert found["pytest"] == (_doctor.importlib.metadata.version("pytest"), "ok")
    assert found["no-such-thing"] == (None, "bad")
    assert found["nothing (extra fast)"] == (None, "ok")
    assert len(found) == 3


def test_a_folder_that_cannot_hold_a_database_is_said(tmp_path: Path) -> None:
    assert [each.level for each in _doctor.database(tmp_path)] == ["ok", "ok"]
    journal = list(_doctor.database(tmp_path / "missing"))[1]
    assert journal.level == "advice"
    assert "FileNotFoundError" in str(journal.value)


# ---- The engine ---------------------------------------------------------------------------------


def test_the_engine_is_tested_by_running_it() -> None:
    found = list(_doctor_engine.self_test())
    assert [each.name for each in found] == [step[0] for step in _doctor_engine.STEPS]
    assert all(each.level != "bad" for each in found)
    assert all(isinstance(each.value, float) and 0 < each.value < math.inf for each in found)


def test_an_engine_that_does_not_answer_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> float:
        raise tr.CallTimeout("timeout")

    steps = [("start", fail, "s", bool, ""), *_doctor_engine.STEPS[1:]]
    monkeypatch.setattr(_doctor_engine, "STEPS", steps)
    (only,) = _doctor_engine.self_test()
    assert only.level == "bad"
    assert "CallTimeout" in str(only.value)


# ---- The report ---------------------------------------------------------------------------------

FINE = Finding("clock", "resolution", 1e-9, "s")
POOR = Finding("cores", "limit", 0.5, level="advice", todo="allow more")
BAD = Finding("engine", "start", "CallTimeout", level="bad", todo="look above")


@pytest.mark.parametrize(("found", "code"), [([FINE], 0), ([FINE, POOR], 0), ([BAD, FINE], 1)])
@pytest.mark.parametrize("arguments", [["doctor"], ["doctor", "--json"]])
def test_the_exit_code_says_whether_the_engine_works(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], found: list[Finding], code: int
) -> None:
    monkeypatch.setattr(_doctor, "examine", lambda: iter(found))
    assert main(arguments) == code


def test_the_table_marks_what_is_poor_and_ends_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_doctor, "examine", lambda: iter([FINE, POOR, BAD]))
    main(["doctor"])
    text = capsys.readouterr().out
    assert "! limit" in text
    assert "X start" in text
    assert text.endswith("X engine, start: look above\n! cores, limit: allow more\n")
    monkeypatch.setattr(_doctor, "examine", lambda: iter([FINE]))
    main(["doctor"])
    assert capsys.readouterr().out.endswith("all is well\n")


def test_the_command_prints_one_json_document() -> None:
    command = [sys.executable, "-m", "tailrace", "doctor", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * LIMIT)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["ok"] is True
    sections = {finding["section"] for finding in report["findings"]}
    assert sections == {"interpreter", "tailrace", "cores", "threads", "clock", "sqlite", "engine"}
