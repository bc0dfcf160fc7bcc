"""`tailrace doctor`: whether this interpreter and this machine are good for the engine.

Each check returns findings; a finding is fine ("ok"), could be better ("advice"), or keeps the
engine from working ("bad"), and says what to do. What concerns the machine is in _doctor_machine,
the test of the running engine in _doctor_engine.
"""

from __future__ import annotations

import importlib.metadata
import json
import multiprocessing
import os
import platform
import re
import sqlite3
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from . import __version__, _engine
from ._control import ffi, lib

Level = Literal["ok", "advice", "bad"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. `value` is what was found, `todo` what to do unless it is fine."""

    section: str
    name: str
    value: str | int | float | bool | None
    unit: str = ""
    level: Level = "ok"
    todo: str = ""


def judged(
    section: str,
    name: str,
    value: str | int | float | bool | None,
    *complaints: tuple[bool, Level, str],
    unit: str = "",
) -> Finding:
    """A finding with the first complaint (condition, level, what to do) whose condition holds."""
    for condition, level, todo in complaints:
        if condition:
            return Finding(section, name, value, unit, level, todo)
    return Finding(section, name, value, unit)


# ---- Interpreter --------------------------------------------------------------------------------


def optimisation(flags: str) -> str:
    """The compiler's level of optimisation: its last -O option.

    >>> optimisation("-O0 -g -O3 -Wall"), optimisation("-g")
    ('-O3', 'none')
    """
    found = re.findall(r"(?:^|\s)(-O\S*)", flags)
    return found[-1] if found else "none"


def interpreter() -> Iterator[Finding]:
    """Version and build."""
    section = "interpreter"
    implementation = sys.implementation.name
    yield judged(
        section,
        "version",
        f"{platform.python_implementation()} {platform.python_version()}",
        (implementation != "cpython", "bad", "tailrace runs on CPython"),
        (sys.version_info < (3, 11), "bad", "tailrace needs Python 3.11 or later"),
    )
    yield Finding(section, "executable", sys.executable)
    debug = hasattr(sys, "gettotalrefcount")
    yield judged(
        section,
        "debug build",
        debug,
        (debug, "advice", "a debug build is several times slower; use a release build"),
    )
    level = optimisation(sysconfig.get_config_var("PY_CFLAGS") or "-O3")
    yield judged(
        section,
        "optimised",
        level,
        (
            level in ("none", "-O0", "-Og"),
            "advice",
            "the interpreter was compiled without optimisation; callbacks will be slow",
        ),
    )
    yield from interpreter_lock()
    interval = sys.getswitchinterval()
    yield judged(
        section,
        "switch interval",
        interval,
        (
            interval > 0.01,
            "advice",
            "a callback that computes keeps the interpreter lock for so long; "
            "leave sys.setswitchinterval at 0.005",
        ),
        unit="s",
    )
    default = multiprocessing.get_start_method(allow_none=True) or "not set"
    methods = ", ".join(multiprocessing.get_all_start_methods())
    yield Finding(section, "start method", f"{default} (first of: {methods})")
    yield from environment(os.environ)


def interpreter_lock() -> Iterator[Finding]:
    """Whether the build is free-threaded, and if so, who turned the lock on."""
    free = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
    enabled = _engine.gil_enabled()
    yield Finding("interpreter", "free-threaded", free)
    todo = ""
    if free and enabled:
        todo = "the lock is on: callbacks run one at a time; " + who_enabled_the_lock()
    yield judged("interpreter", "interpreter lock", enabled, (bool(todo), "advice", todo))


def who_enabled_the_lock() -> str:
    """Why a free-threaded interpreter runs with its lock on, as far as it can be known."""
    if os.environ.get("PYTHON_GIL") == "1" or sys._xoptions.get("gil") == "1":
        return "it was asked for by PYTHON_GIL or -X gil"
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", "import tailrace"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    return (
        module_that_enabled_the_lock(done.stderr) or "a module that is not made for it was loaded"
    )


def module_that_enabled_the_lock(warnings: str) -> str | None:
    """What the interpreter's warning says.

    >>> module_that_enabled_the_lock("RuntimeWarning: The global interpreter lock (GIL) has been "
    ...     "enabled to load module 'old._c', which has not declared that it can run safely")
    "it was turned on to load the module 'old._c'; look for a newer version of it"
    """
    found = re.search(r"enabled to load module '([^']+)'", warnings)
    if not found:
        return None
    return f"it was turned on to load the module {found[1]!r}; look for a newer version of it"


def environment(variables: Mapping[str, str]) -> Iterator[Finding]:
    """What the environment asks of the interpreter and the loader that costs speed."""
    preloaded = variables.get("LD_PRELOAD", "")
    sanitizer = re.search(r"lib[atum][^/]*san", preloaded)
    yield judged(
        "interpreter",
        "LD_PRELOAD",
        preloaded or None,
        (bool(sanitizer), "advice", "a sanitizer is loaded: everything is several times slower"),
    )
    for name in ("PYTHONMALLOC", "PYTHONDEVMODE", "PYTHONASYNCIODEBUG", "PYTHONTRACEMALLOC"):
        if variables.get(name):
            todo = f"{name} is for looking for faults and costs speed; unset it otherwise"
            yield Finding("interpreter", name, variables[name], level="advice", todo=todo)


# ---- The package --------------------------------------------------------------------------------


def loaded_cores(maps: str) -> list[str]:
    """The copies of the core that are loaded, from the text of /proc/self/maps."""
    return sorted(set(re.findall(r"\S*/libtailrace\S*\.so\S*", maps)))


def package() -> Iterator[Finding]:
    """The package's version, and whether the core it has loaded is of the same."""
    section = "tailrace"
    yield Finding(section, "version", __version__)
    yield Finding(section, "place", str(Path(__file__).parent))
    core = ffi.string(lib.tr_version()).decode()
    again = "install tailrace again: the package and its core are of different versions"
    yield judged(section, "core", core, (core != __version__, "bad", again))
    maps = Path("/proc/self/maps")
    copies = loaded_cores(maps.read_text()) if maps.exists() else []
    yield judged(
        section,
        "core loaded from",
        ", ".join(copies) or None,
        (len(copies) > 1, "bad", "two copies of the core are loaded; remove all but one"),
    )
    yield from extras()


def extras(name: str = "tailrace") -> Iterator[Finding]:
    """What the package depends on, needed or as an extra, with versions."""
    try:
        requirements = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        yield Finding("tailrace", "installed", False)
        return
    for requirement in requirements:
        wanted = re.match(r"[\w.-]+", requirement)
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", requirement)
        if wanted is None or (extra and extra[1] in ("test", "dev")):
            continue
        try:
            version = importlib.metadata.version(wanted[0])
        except importlib.metadata.PackageNotFoundError:
            version = None
        level: Level = "ok" if version or extra else "bad"
        todo = "" if level == "ok" else f"install {wanted[0]}, which tailrace needs"
        label = f"{wanted[0]} (extra {extra[1]})" if extra else wanted[0]
        yield Finding("tailrace", label, version, level=level, todo=todo)


# ---- What the engine stands on ------------------------------------------------------------------


def clock() -> Iterator[Finding]:
    """The clock that timers go by."""
    resolution = time.get_clock_info("monotonic").resolution
    coarse = (resolution > 1e-3, "advice", "timers are as coarse as this clock")
    yield judged("clock", "resolution", resolution, coarse, unit="s")  # type: ignore[arg-type]


def database(folder: Path | None = None) -> Iterator[Finding]:
    """SQLite, for the durable queue."""
    yield Finding("sqlite", "version", sqlite3.sqlite_version)
    place = Path(tempfile.gettempdir()) if folder is None else folder
    todo = f"no write-ahead log in {place}: keep the files of producers.Queue on a local disk"
    try:
        with (
            tempfile.TemporaryDirectory(dir=place) as scratch,
            closing(sqlite3.connect(Path(scratch) / "try")) as connection,
        ):
            mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
            connection.execute("CREATE TABLE t (n)")
            connection.commit()
    except (sqlite3.Error, OSError) as error:
        mode = f"{type(error).__name__}: {error}"
    yield judged("sqlite", f"journal in {place}", mode, (mode != "wal", "advice", todo))


# ---- The report ---------------------------------------------------------------------------------


def examine() -> Iterator[Finding]:
    """All findings, one after the other; the engine's test, of a second or so, comes last."""
    from . import _doctor_engine, _doctor_machine

    yield from interpreter()
    yield from package()
    yield from _doctor_machine.cores()
    yield from _doctor_machine.threads()
    yield from clock()
    yield from database()
    yield from _doctor_engine.self_test()


def as_text(finding: Finding) -> str:
    """The value for a reader.

    >>> as_text(Finding("clock", "resolution", 1e-9, "s"))
    '1 ns'
    >>> as_text(Finding("interpreter", "free-threaded", False))
    'no'
    """
    value = finding.value
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if finding.unit == "s" and isinstance(value, int | float):
        for factor, unit in ((1.0, "s"), (1e3, "ms"), (1e6, "us")):
            if value * factor >= 1.0:
                return f"{value * factor:.3g} {unit}"
        return f"{value * 1e9:.3g} ns"
    if isinstance(value, int | float):
        number = f"{value:,.3g}" if isinstance(value, float) and value < 1000 else f"{value:,.0f}"
        return f"{number} {finding.unit}".rstrip()
    return value


def run(as_json: bool) -> int:
    """Print the report; 1 if something keeps the engine from working, else 0."""
    findings: list[Finding] = []
    section = ""
    for finding in examine():
        findings.append(finding)
        if as_json:
            continue
        if finding.section != section:
            section = finding.section
            print(f"\n{section}" if findings[1:] else section)
        mark = {"ok": " ", "advice": "!", "bad": "X"}[finding.level]
        print(f"{mark} {finding.name:28} {as_text(finding)}", flush=True)
    well = all(finding.level != "bad" for finding in findings)
    if as_json:
        print(json.dumps({"ok": well, "findings": [asdict(each) for each in findings]}, indent=1))
    else:
        print_advice(findings)
    return 0 if well else 1


def print_advice(findings: list[Finding]) -> None:
    """What to do, the worst first."""
    print()
    for level, mark in (("bad", "X"), ("advice", "!")):
        for finding in findings:
            if finding.level == level:
                print(f"{mark} {finding.section}, {finding.name}: {finding.todo}")
    if all(finding.level == "ok" for finding in findings):
        print("all is well")
