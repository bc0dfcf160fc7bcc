"""Sub-interpreters: importing the package in one is a clear ImportError, and harms nobody else."""

import subprocess
import sys
import textwrap

import pytest
from support import LIMIT

PRELUDE = """
import sys
try:
    import _interpreters as interpreters  # 3.13
except ImportError:
    import _xxsubinterpreters as interpreters

IMPORT = '''
try:
    import tailrace
except ImportError as error:
    print(type(error).__name__, error, flush=True)
else:
    print("imported", flush=True)
'''

def make(kind):
    "isolated: with an interpreter lock of its own, from 3.12 on; legacy: sharing the main one's."
    if sys.version_info >= (3, 13):
        return interpreters.create(kind)
    return interpreters.create(isolated=kind == "isolated")

def import_in_another(kind, times=1):
    one = make(kind)
    for _ in range(times):
        interpreters.run_string(one, IMPORT)
    interpreters.destroy(one)

def served():
    class Server(tr.GenServer):
        def handle_call(self, request, caller):
            return request
    return Server.start().call("served", timeout=60)
"""


def lines_of(text: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PRELUDE + textwrap.dedent(text)],
        capture_output=True, text=True, timeout=LIMIT,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout.splitlines()


def assert_refused(lines: list[str], times: int) -> None:
    assert len(lines) == times
    for line in lines:
        assert line.startswith("ImportError ")
        assert "in a sub-interpreter" in line or "in subinterpreters" in line


@pytest.mark.parametrize("kind", ["isolated", "legacy"])
def test_an_import_is_refused_and_the_main_interpreter_goes_on(kind: str) -> None:
    *refused, last = lines_of(
        f"""
        import tailrace as tr
        served()
        import_in_another("{kind}", times=3)
        import_in_another("{kind}")
        print(served())
        """
    )
    assert_refused(refused, 4)
    assert last == "served"


@pytest.mark.parametrize("kind", ["isolated", "legacy"])
def test_an_import_in_the_main_interpreter_works_after_it(kind: str) -> None:
    *refused, last = lines_of(
        f"""
        import_in_another("{kind}")
        import tailrace as tr
        print(served())
        """
    )
    assert_refused(refused, 1)
    assert last == "served"


def test_sub_interpreters_come_and_go_while_the_engine_works() -> None:
    """Kills and waits find their thread states beside those of other interpreters."""
    assert lines_of(
        """
        import threading
        import tailrace as tr
        stop, me = threading.Event(), tr.self()
        def spin():
            while True:
                pass
        def kill():
            while not stop.is_set():
                tr.exit(tr.spawn(spin), "kill")
                while len(tr.processes()) > 100:  # code of theirs that runs, without the lock
                    stop.wait(0.001)
        killer = threading.Thread(target=kill)
        killer.start()
        for _ in range(10):
            one = make("legacy")
            interpreters.run_string(one, "sum(range(1000))")
            interpreters.destroy(one)
        stop.set()
        killer.join()
        print(served())
        """
    ) == ["served"]


@pytest.mark.skipif(sys.version_info < (3, 14), reason="concurrent.interpreters is new in 3.14")
def test_the_public_module_gets_the_import_error() -> None:
    (line,) = lines_of(
        """
        from concurrent import interpreters as public
        one = public.create()
        try:
            one.exec("import tailrace")
        except public.ExecutionFailed as failed:
            print(failed.excinfo.type.__name__, failed.excinfo.msg)
        one.close()
        """
    )
    assert_refused([line], 1)
