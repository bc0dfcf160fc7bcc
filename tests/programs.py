"""Programs that tests run as subprocesses, because they end, fork or are interrupted."""

import subprocess
import sys
import textwrap

from support import LIMIT

PRELUDE = """
import atexit, logging, os, signal, sys, threading, time
import tailrace as tr

logging.getLogger("tailrace").setLevel(logging.ERROR)  # not of callbacks that are slow on purpose

class Server(tr.GenServer):
    def handle_call(self, request, caller):
        return request()
    def handle_cast(self, request):
        request()

def started(fn, **options):
    ready = threading.Event()
    pid = Server.start(**options)
    pid.cast(lambda: (ready.set(), fn()))
    assert ready.wait(60)
    return pid

def spin():
    while True:
        pass
"""
"""What a program begins with, unless its test gives it another beginning."""


def program(text: str, prelude: str = PRELUDE) -> list[str]:
    """The command of a program. It does not hear Python 3.12's warning of a fork beside threads."""
    return [sys.executable, "-W", "ignore::DeprecationWarning", "-c",
            prelude + textwrap.dedent(text)]


def run(
    text: str, prelude: str = PRELUDE, limit: float = LIMIT
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(program(text, prelude), capture_output=True, text=True, timeout=limit)


def assert_prints(text: str, *lines: str, prelude: str = PRELUDE, limit: float = LIMIT) -> None:
    """It ends in time and without an error, and prints these lines and nothing else."""
    done = run(text, prelude, limit)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert done.stdout.splitlines() == list(lines)
