"""What holds for the whole suite: which build is tested, and a clean engine for every test."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import GIL

import tailrace as tr

LIMIT = 30.0  # seconds in which a killed process must be gone; it takes a few milliseconds


def pytest_report_header() -> str:
    """Which tailrace is tested, and how: the suite runs against many builds and interpreters."""
    return f"tailrace: {Path(tr.__file__).parent}, interpreter lock {'on' if GIL else 'off'}"


def _own() -> tr.Pid:
    """The process of this thread, in a running engine."""
    while True:
        try:
            return tr.self()
        except tr.EngineStopped:
            tr.Engine()
        except tr.ProcessExit:
            pass  # what ended it was told; the next call has a fresh one


def _end_own() -> None:
    """A fresh process for this thread: no messages, links, monitors, names, flags."""
    with contextlib.suppress(tr.ProcessExit):
        tr.exit(_own(), "kill")


@pytest.fixture(autouse=True)
def engine_is_clean() -> Iterator[None]:
    """A fresh process for the test; what the test started ends with it, or the test fails."""
    _end_own()
    before = {*tr.processes(), _own()}
    yield
    _end_own()
    before.add(_own())
    deadline = time.monotonic() + LIMIT
    while left := [pid for pid in tr.processes() if pid not in before]:
        for pid in left:
            pid.exit("kill")  # again and again: what dies may start others
        if time.monotonic() > deadline:
            pytest.fail(f"processes left behind that cannot be ended: {left}")
        time.sleep(0.001)
