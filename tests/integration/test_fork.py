"""Forks in the middle of load, from wherever: the child is usable, the parent goes on.

In the child the engine is gone with its threads; the first use starts a fresh one, and a Pid of the
parent's raises an error that says so.
"""

import subprocess
import sys
import textwrap

import pytest
from support import GIL, LIMIT

PRELUDE = """
import atexit, contextvars, os, sys, threading, time
import tailrace as tr

class Server(tr.GenServer):
    def handle_call(self, request, caller):
        return request()
    def handle_cast(self, request):
        request()
    def handle_info(self, message):
        pass

stop = threading.Event()

def spin():
    while True:
        pass

def load():
    "Callbacks, timers, calls, kills, blockers and spinners, in the engine and beside it."
    other = Server.start()
    def work():
        if not stop.is_set():
            tr.self().cast(work)
    for scheduler in ("core", "core", "thread"):
        Server.start(scheduler=scheduler).cast(work)
    def storm():
        while not stop.is_set():
            tr.exit(tr.spawn(time.sleep, 0.001), "kill")
            tr.exit(tr.spawn(spin), "kill")
            tr.send_after(other, 1, 0.001)
            other.call(int, timeout=60)
    thread = threading.Thread(target=storm)
    thread.start()
    tr.spawn(storm)
    return thread

def child_checks():
    assert tr.processes() == []
    try:
        parents.call(int)
    except tr.EngineError as error:
        assert "another program's engine" in str(error), error
    else:
        raise AssertionError("a parent's pid was taken")
    assert tr.whereis("parents") is None
    server = Server.start(name="parents")
    assert server.call(lambda: "served", timeout=60) == "served"
    pid, ref = tr.spawn_monitor(spin)
    tr.exit(pid, "kill")
    assert tr.receive(ref, timeout=60).reason == "killed"
    timer = tr.send_after(tr.self(), "timer", 0.001)
    assert tr.receive(timeout=60) == "timer"

def in_child(check=child_checks):
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            check()
            code = 0
        finally:
            sys.stdout.flush(); sys.stderr.flush()
            os._exit(code)
    return code_of(pid)

def code_of(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def assert_prints(text: str, *lines: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PRELUDE + textwrap.dedent(text)],
        capture_output=True, text=True, timeout=LIMIT * 1.5,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert done.stdout.splitlines() == list(lines)


@pytest.mark.parametrize(
    "where",
    [
        pytest.param("[in_child() for _ in range(FORKS)]", id="the main thread"),
        pytest.param("in_thread(lambda: [in_child() for _ in range(FORKS)])", id="another thread"),
        pytest.param("[parents.call(in_child, timeout=60) for _ in range(FORKS)]", id="a callback"),
        pytest.param("in_process(lambda: [in_child() for _ in range(FORKS)])", id="a process"),
    ],
)
def test_forks_under_load(where: str) -> None:
    """75 from each of four places: 300. Where the load has all processors, a third of them."""
    forks = 75 if GIL else 25
    assert_prints(
        f"""
        FORKS = {forks}
        parents = Server.start(name="parents")
        thread = load()
        def in_thread(run):
            got = []
            one = threading.Thread(target=lambda: got.extend(run()))
            one.start()
            one.join()
            return got
        def in_process(run):
            me = tr.self()
            tr.spawn(lambda: me.send(run()))
            return tr.receive(timeout=90)
        codes = {where}
        print(len(codes) == FORKS, set(codes))
        stop.set()
        thread.join()
        print(parents.call(lambda: "parent lives", timeout=60))
        """,
        "True {0}", "parent lives",
    )


def test_other_ways_to_fork_under_load() -> None:
    assert_prints(
        """
        import multiprocessing, subprocess
        parents = Server.start(name="parents")
        thread = load()
        context = multiprocessing.get_context("fork")
        for _ in range(5):
            process = context.Process(target=child_checks)
            process.start()
            process.join()
            assert process.exitcode == 0
        def work(n):
            return Server.start().call(lambda: n * n, timeout=60)
        with context.Pool(2) as pool:
            assert pool.map(work, range(10)) == [n * n for n in range(10)]
        for _ in range(10):
            done = subprocess.run(["true"], preexec_fn=os.getpid)
            assert done.returncode == 0
            assert parents.call(lambda: subprocess.run(["true"]).returncode, timeout=60) == 0
        for _ in range(10):
            pid, fd = os.forkpty()
            if pid == 0:
                code = 1
                try:
                    child_checks()
                    code = 0
                finally:
                    os._exit(code)
            while True:  # a terminal that is not read from stops its writer
                try:
                    if not os.read(fd, 1024): break
                except OSError:
                    break
            os.close(fd)
            assert code_of(pid) == 0
        stop.set()
        thread.join()
        print(parents.call(lambda: "parent lives", timeout=60))
        """,
        "parent lives",
    )


def test_what_a_child_keeps_and_what_it_runs_at_its_end() -> None:
    """Context variables as of the fork; atexit functions, then the end of its own engine."""
    assert_prints(
        """
        parents, name = Server.start(), contextvars.ContextVar("name", default="none")
        name.set("as of the fork")
        class Traps(Server):
            def init(self): tr.trap_exit()
            def terminate(self, reason): print("terminate", reason, flush=True)
        atexit.register(lambda: print("atexit", flush=True))
        keep = Traps.start()
        pid = os.fork()
        if pid == 0:
            child_checks()
            print(name.get(), Server.start().call(name.get, timeout=60), flush=True)
            mine = Traps.start()
            sys.exit(3)
        print("code", code_of(pid), flush=True)
        assert keep.call(name.get, timeout=60) == "as of the fork"
        """,
        "as of the fork as of the fork", "terminate shutdown", "atexit", "code 3",
        "terminate shutdown", "atexit",
    )


def test_a_server_that_runs_on_in_a_child_is_told() -> None:
    """The child of a callback is a copy of its thread: what it asks of the old engine raises."""
    assert_prints(
        """
        parents, other = Server.start(), Server.start()
        timer, ref = tr.send_after(other, 1, 1000), tr.monitor(other)
        def fork():
            pid = os.fork()
            if pid == 0:
                told = set()
                for use in (lambda: other.call(int), lambda: other.send(1), other.stop,
                            lambda: tr.monitor(other), lambda: tr.link(other)):
                    try:
                        use()
                    except tr.EngineError as error:
                        told.add("another program's engine" in str(error))
                timer.cancel()
                print(told, tr.self() in tr.processes(), flush=True)
            return pid
        pid = parents.call(fork, timeout=60)
        print("code", code_of(pid), parents.call(lambda: "parent lives", timeout=60))
        """,
        "{True} True", "code 0 parent lives",
    )
