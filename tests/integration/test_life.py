"""The engine's life: lazy start, shutdown, interpreter exit, signals, fork.

Each program here is a subprocess of its own, because it ends, forks or is interrupted.
"""

import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from support import LIMIT

import tailrace as tr

SOON = 25.0
"""Seconds in which a program must end whatever its processes do: the engine gives them ten."""

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


def program(text: str) -> list[str]:
    return [sys.executable, "-W", "ignore::DeprecationWarning", "-c",
            PRELUDE + textwrap.dedent(text)]


def run(text: str, limit: float = LIMIT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(program(text), capture_output=True, text=True, timeout=limit)


def assert_prints(text: str, *lines: str, limit: float = LIMIT) -> None:
    done = run(text, limit)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert done.stdout.splitlines() == list(lines)


# ---- Start and stop -----------------------------------------------------------------------------


def test_import_starts_nothing() -> None:
    assert_prints(
        """
        print(threading.active_count(), len(os.listdir("/proc/self/task")))
        print(tr._core.engine_address())
        tr.self()
        print(tr._core.engine_address() != 0)
        """,
        "1 1", "0", "True",
    )


def test_the_engine_starts_once_though_many_threads_need_it_first() -> None:
    assert_prints(
        """
        barrier, pids = threading.Barrier(8), []
        def use():
            barrier.wait()
            pids.append(tr.spawn(int))
        threads = [threading.Thread(target=use) for _ in range(8)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        print(len(set(pids)))
        """,
        "8",
    )


def test_shutdown_and_a_new_engine() -> None:
    old = tr.spawn(tr.receive)
    timer = tr.send_after(old, "never", 100)
    tr.shutdown()
    assert not old.alive
    for use in (tr.self, lambda: tr.spawn(int), lambda: tr.send(old, 1), lambda: old.send(1),
                lambda: tr.receive(timeout=0), lambda: tr.register("x"), tr.processes,
                lambda: tr.sleep(0), tr.registered, lambda: tr.whereis("x"), old.info,
                lambda: old.call(1), lambda: old.stop(), lambda: old.exit("x"),
                tr.GenServer.start, tr.GenServer.start_link):
        with pytest.raises(tr.EngineStopped, match=r"tailrace\.Engine"):
            use()
    tr.shutdown()  # does nothing
    assert timer.cancel() is None or timer.cancel() is None
    with tr.Engine() as engine:
        assert type(engine) is tr.Engine
        new = tr.spawn(tr.receive)
        assert new != old
        assert not old.alive
        assert old.name is None
        assert repr(old)
        assert old.send("to the dead") is None
        with pytest.raises(tr.NoProcess):
            old.call(1)
        with pytest.raises(tr.EngineError, match="an engine runs already"):
            tr.Engine()
    with pytest.raises(tr.EngineStopped):
        tr.self()


def test_engines_start_and_stop_many_times() -> None:
    for n in range(50):
        tr.shutdown()
        tr.Engine()
        me = tr.self()
        pids = [tr.spawn(lambda n=n, me=me: (me.send(n), tr.receive())) for _ in range(5)]
        assert [tr.receive(timeout=LIMIT) for _ in pids] == [n] * 5


def test_options_of_an_engine() -> None:
    tr.shutdown()
    with tr.Engine(max_processes=10, max_threads=4):
        tr.self()
        pids = [tr.GenServer.start() for _ in range(9)]
        with pytest.raises(tr.SystemLimit, match="max_processes"):
            tr.GenServer.start()
        with pytest.raises(tr.SystemLimit):
            tr.spawn(int)
        pids[0].stop()
        deadline = time.monotonic() + LIMIT
        while True:  # its place is free when it is buried
            try:
                tr.GenServer.start().stop()
                break
            except tr.SystemLimit:
                assert time.monotonic() < deadline


def test_shutdown_ends_processes_newest_first_and_lets_them_terminate() -> None:
    ended = []

    class Traps(tr.GenServer):
        def init(self, n: int) -> None:
            self.n = n
            tr.trap_exit()

        def terminate(self, reason: object) -> None:
            ended.append((self.n, reason))

    for n in range(5):
        Traps.start(n)
    tr.shutdown()
    assert sorted(ended) == [(n, "shutdown") for n in range(5)]


def test_shutdown_kills_who_does_not_end_in_time() -> None:
    class Stubborn(tr.GenServer):
        def init(self) -> None:
            tr.trap_exit()

        def handle_info(self, message: object) -> None:
            while True:
                pass

    pid = Stubborn.start()
    pid.send("spin")
    tr.shutdown(timeout=0.05)
    assert not pid.alive


def test_shutdown_in_a_process_is_refused() -> None:
    _pid, ref = tr.spawn_monitor(tr.shutdown)
    reason = tr.receive(ref, timeout=LIMIT).reason
    assert isinstance(reason, RuntimeError)
    assert tr.self().alive


# ---- Interpreter exit ---------------------------------------------------------------------------

EXITS = {
    "nothing": "",
    "used": "tr.self()",
    "idle": "pids = [Server.start() for _ in range(100)]",
    "spawned": "pids = [tr.spawn(tr.receive) for _ in range(20)]",
    "linked": "pids = [Server.start_link() for _ in range(10)]",
    "busy": """
        def work():
            me = tr.self()
            me.cast(work)
        for _ in range(5):
            Server.start().cast(work)
        """,
    "core blocked in the engine": "started(tr.receive)",
    "blocked in a lock": "lock = threading.Lock(); lock.acquire(); started(lock.acquire)",
    "blocked in a sleep": "started(lambda: time.sleep(10000))",
    "a thread process in a sleep": "tr.spawn(time.sleep, 10000)",
    "blocked in a read": "r, w = os.pipe(); started(lambda: os.read(r, 1))",
    "spinning": "started(spin)",
    "spinning thread processes": "[tr.spawn(spin) for _ in range(3)]",
    "timers": "[tr.send_after(tr.self(), n, 1000) for n in range(100)]",
    "a waiting call in a thread": """
        pid = started(lambda: time.sleep(10000))
        def call():
            try:
                pid.call(1, timeout=None)
            except tr.EngineError:
                pass
        threading.Thread(target=call, daemon=True).start()
        """,
    "a daemon thread in receive": "threading.Thread(target=tr.receive, daemon=True).start()",
    "killed and still blocked": "started(lambda: time.sleep(10000)).exit('kill')",
    "an exception": "Server.start().cast(spin); raise SystemExit(0)",
    "a process that starts others": """
        def breed():
            try:
                for _ in range(2):
                    tr.spawn(breed)
                tr.receive(timeout=0.05, default=None)
            except tr.EngineError:
                pass
        breed()
        """,
    "a terminate that blocks": """
        tr.Engine(stop_timeout=0.5)
        class Blocks(Server):
            def init(self): tr.trap_exit()
            def terminate(self, reason): time.sleep(10000)
        Blocks.start(name="culprit")
        """,
    "a terminate that spins": """
        tr.Engine(stop_timeout=0.5)
        class Spins(Server):
            def init(self): tr.trap_exit()
            def terminate(self, reason): spin()
        Spins.start(name="culprit")
        """,
    "catches everything": """
        def stubborn():
            while True:
                try:
                    spin()
                except BaseException:
                    pass
        tr.spawn(stubborn)
        """,
    "held in globals": "keep = [tr.self(), Server.start(), tr.send_after(tr.self(), 1, 100)]",
    "an executor": """
        import concurrent.futures
        pool = concurrent.futures.ThreadPoolExecutor(2)
        pool.submit(Server.start)
        """,
}


@pytest.mark.parametrize("name", EXITS)
def test_an_interpreter_ends_in_bounded_time(name: str) -> None:
    done = run(EXITS[name], limit=SOON)
    assert done.returncode == 0
    if name.startswith("a terminate"):  # it takes all the time there is: the log says who did
        said = "killed, because the time to stop is over "
        assert re.search(said + r'\(1\): <pid 0[.]\d+ "culprit"> \(running\)', done.stderr)
    else:
        assert done.stderr == ""


def test_a_stop_waits_for_as_long_as_the_engine_was_told(caplog: pytest.LogCaptureFixture) -> None:
    ended = []

    class Slow(tr.GenServer):
        def init(self) -> None:
            tr.trap_exit()

        def terminate(self, reason: object) -> None:
            time.sleep(0.2)
            ended.append(reason)

    tr.shutdown()
    tr.Engine(stop_timeout=LIMIT)
    slow = Slow.start()
    tr.shutdown()
    assert ended == ["shutdown"]
    assert caplog.text == ""
    tr.Engine(stop_timeout=0)
    slow = Slow.start()
    tr.shutdown()
    assert repr(slow) in caplog.text
    for wrong in (-1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="stop_timeout"):
            tr.Engine(stop_timeout=wrong)
    for wrong in (True, "1", None):
        with pytest.raises(TypeError, match="stop_timeout"):
            tr.Engine(stop_timeout=wrong)  # type: ignore[arg-type]
    tr.Engine()


def test_ctrl_c_does_not_keep_the_engine_from_being_stopped_at_exit() -> None:
    """Whenever it comes: each process has its terminate, and the program ends."""
    assert_prints(
        """
        class Traps(Server):
            def init(self): tr.trap_exit()
            def terminate(self, reason):
                os.kill(os.getpid(), signal.SIGINT)
                os.write(1, f"{reason}\\n".encode())  # in one piece: all three end at once
        keep = [Traps.start() for _ in range(3)]
        """,
        *["shutdown"] * 3,
    )


@pytest.mark.parametrize("name", ["idle", "busy", "blocked in a sleep", "spinning", "spawned"])
def test_many_exits_in_a_row(name: str) -> None:
    """The race of an exit with the workers: 1 in 800 crashed without a hook, says experience."""
    running: list[subprocess.Popen[bytes]] = []
    for _ in range(12):
        running.append(subprocess.Popen(program(EXITS[name]), stderr=subprocess.PIPE))
        if len(running) == 3:
            for child in running:
                assert child.communicate(timeout=SOON)[1] == b""
                assert child.returncode == 0
            running.clear()


def test_exit_while_processes_are_started_and_killed() -> None:
    for _ in range(5):
        done = run(
            """
            def storm():
                while True:
                    try:
                        tr.spawn(int)
                        tr.exit(tr.spawn(spin), "kill")
                    except tr.EngineError:
                        return
            threading.Thread(target=storm, daemon=True).start()
            time.sleep(0.05)
            """,
            limit=SOON,
        )
        assert (done.returncode, done.stderr) == (0, "")


def test_atexit_functions_find_the_engine_stopped_and_threads_do_not() -> None:
    assert_prints(
        """
        class Traps(Server):
            def init(self): tr.trap_exit()
            def terminate(self, reason): print("terminate", reason, flush=True)
        def at_exit():
            try:
                tr.self()
            except tr.EngineStopped:
                print("atexit: stopped")
        atexit.register(at_exit)
        Traps.start()
        print("main is over", flush=True)
        """,
        "main is over", "terminate shutdown", "atexit: stopped",
    )


def test_an_engine_started_at_exit_is_stopped_too() -> None:
    done = run(
        """
        def at_exit():
            with_engine = tr.Engine()
            Server.start().cast(spin)
        atexit.register(at_exit)
        """,
        limit=SOON,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_an_exception_at_exit_is_logged_not_raised() -> None:
    done = run(
        """
        class Fails(Server):
            def init(self): tr.trap_exit()
            def terminate(self, reason): raise ValueError("at the very end")
        Fails.start()
        """
    )
    assert done.returncode == 0
    assert done.stderr.count("at the very end") >= 1


def test_sys_exit_in_a_callback_does_not_end_the_program() -> None:
    done = run(
        """
        pid = Server.start()
        ref = tr.monitor(pid)
        pid.cast(lambda: sys.exit(3))
        print(repr(tr.receive(ref, timeout=60).reason))
        """
    )
    assert done.returncode == 0
    assert done.stdout == "SystemExit(3)\n"


# ---- Signals ------------------------------------------------------------------------------------

WAITS = {
    "receive": "tr.receive()",
    "receive with a limit": "tr.receive(timeout=10000)",
    "sleep": "tr.sleep(10000)",
    "call": "Server.start().call(lambda: time.sleep(10000), timeout=None)",
    "stop": "p = started(lambda: time.sleep(10000)); p.stop()",
    "start with a limit": """
    class Slow(Server):
        def init(self): time.sleep(10000)
    Slow.start(timeout=10000)
    """,
    "receive beside a busy engine": """
    def work():
        tr.self().cast(work)
    for _ in range(3): Server.start().cast(work)
    tr.receive()
    """,
    "receive beside spinners": """
    for _ in range(2): tr.spawn(spin)
    tr.receive()
    """,
}


@pytest.mark.parametrize("name", WAITS)
def test_ctrl_c_ends_a_wait_and_leaves_the_engine_usable(name: str) -> None:
    wait = textwrap.indent(textwrap.dedent(WAITS[name]).strip(), "    ")
    text = f"""
print("waiting", flush=True)
try:
{wait}
except KeyboardInterrupt:
    print("interrupted", flush=True)
tr.self().send("usable")
while (got := tr.receive(timeout=60)) != "usable": pass
print(got, flush=True)
print(Server.start().call(lambda: "served", timeout=60), flush=True)
os._exit(0)
"""
    child = subprocess.Popen(
        [sys.executable, "-c", PRELUDE + text],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "waiting\n"
    time.sleep(0.1)  # so that it most likely waits; right if it does not, too
    start = time.monotonic()
    child.send_signal(signal.SIGINT)
    assert child.stdout.readline() == "interrupted\n"
    assert time.monotonic() - start < 20
    assert child.stdout.read() == "usable\nserved\n"
    assert child.stderr is not None
    assert child.stderr.read() == ""
    assert child.wait(LIMIT) == 0


def test_ctrl_c_between_any_two_instructions() -> None:
    """Interrupts at random moments of many waits: each is one KeyboardInterrupt, none is lost.

    The next is sent when the last was caught and the program is back where it catches it.
    """
    assert_prints(
        """
        import random
        main, server = threading.get_ident(), Server.start()
        armed, caught, over = False, 0, False
        def interrupt(number, frame):
            global armed
            armed = False
            raise KeyboardInterrupt
        def send():
            global over
            for n in range(200):
                while not armed: time.sleep(0.0001)
                time.sleep(random.random() * 0.002)
                signal.pthread_kill(main, signal.SIGINT)
                while caught == n: time.sleep(0.0001)
            over = True
        signal.signal(signal.SIGINT, interrupt)
        threading.Thread(target=send).start()
        while not over:  # not is_alive(): an interrupt in there takes the thread for ended
            try:
                armed = True
                while not over:
                    tr.receive(timeout=0.001, default=None)
                    server.call(lambda: 1)
                    tr.sleep(0.0001)
            except KeyboardInterrupt:
                caught += 1
        print(caught)
        """,
        "200",
    )


def test_a_signal_handler_may_use_the_engine() -> None:
    assert_prints(
        """
        me = tr.self()
        signal.signal(signal.SIGALRM, lambda *args: me.send("alarm"))
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        print(tr.receive(timeout=60))
        """,
        "alarm",
    )


def test_ctrl_c_is_prompt_when_another_thread_imported_the_package() -> None:
    text = """
import threading
def use():
    global tr
    import tailrace as tr
    tr.spawn(int)
t = threading.Thread(target=use); t.start(); t.join()
print("waiting", flush=True)
try:
    tr.receive()
except KeyboardInterrupt:
    print("interrupted")
"""
    child = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "waiting\n"
    time.sleep(0.1)
    child.send_signal(signal.SIGINT)
    try:
        assert child.wait(20) == 0
        assert child.stdout.read() == "interrupted\n"
    finally:
        child.kill()


def test_sigterm_ends_a_program_that_waits() -> None:
    child = subprocess.Popen(program("print('waiting', flush=True); tr.receive()"),
                             stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    child.terminate()
    assert child.wait(LIMIT) == -signal.SIGTERM


# ---- Fork ---------------------------------------------------------------------------------------

CHILD = """
def child_checks():
    "What must hold in a forked child."
    assert tr.processes() == []
    assert [tr.self()] == tr.processes()
    for use in (lambda: parents.call(int), lambda: parents.send(1), lambda: tr.monitor(parents),
                lambda: parents.exit("kill"), lambda: tr.link(parents), parents.stop,
                lambda: tr.send_after(parents, 1, 0), lambda: parents.cast(1),
                lambda: tr.process_info(parents)):
        try:
            use()
        except tr.EngineError as error:
            assert "another program's engine" in str(error), error
        else:
            raise AssertionError("a parent's pid was taken")
    assert not parents.alive
    assert repr(parents).startswith("<pid ")
    assert tr.whereis("parents") is None
    tr.self().send("own")
    assert tr.receive(timeout=60) == "own"
    assert Server.start(name="parents").call(lambda: "served", timeout=60) == "served"
    tr.exit(tr.spawn(spin), "kill")

def in_child(check):
    "Run a check in a forked child; its exit code."
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
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def assert_fork_prints(text: str, *lines: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c",
         PRELUDE + CHILD + textwrap.dedent(text)],
        capture_output=True, text=True, timeout=LIMIT,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert done.stdout.splitlines() == list(lines)


def test_a_child_has_a_fresh_engine_and_an_error_for_its_parents_pids() -> None:
    assert_fork_prints(
        """
        parents = Server.start(name="parents")
        tr.self().send("the parent's")
        print(in_child(child_checks))
        print(tr.receive(timeout=60), parents.call(lambda: "parent lives", timeout=60))
        """,
        "0", "the parent's parent lives",
    )


def test_fork_before_the_engine_was_used() -> None:
    assert_fork_prints(
        """
        def check():
            assert Server.start().call(lambda: 1) == 1
        print(in_child(check))
        print(Server.start().call(lambda: "parent"))
        """,
        "0", "parent",
    )


def test_fork_after_shutdown_and_a_child_that_ends_normally() -> None:
    assert_fork_prints(
        """
        Server.start(); tr.shutdown()
        def check():
            assert Server.start().call(lambda: 1) == 1
            tr.shutdown()
        print(in_child(check))
        """,
        "0",
    )


def test_fork_under_load() -> None:
    assert_fork_prints(
        """
        class Parents(Server):
            def handle_info(self, message): pass
        parents, stop = Parents.start(name="parents"), threading.Event()
        def work():
            if not stop.is_set():
                tr.self().cast(work)
        for _ in range(3): Server.start().cast(work)
        def storm():
            while not stop.is_set():
                tr.exit(tr.spawn(time.sleep, 0.001), "kill")
                tr.send_after(parents, 1, 0.001)
        thread = threading.Thread(target=storm)
        thread.start()
        tr.spawn(storm)
        print({in_child(child_checks) for _ in range(25)})
        stop.set()
        thread.join()
        print(parents.call(lambda: "parent lives", timeout=60))
        """,
        "{0}", "parent lives",
    )


def test_fork_in_another_thread() -> None:
    assert_fork_prints(
        """
        parents, codes = Server.start(), []
        tr.self()
        t = threading.Thread(target=lambda: (tr.self(), codes.append(in_child(child_checks))))
        t.start(); t.join()
        print(codes, parents.call(lambda: "parent lives"))
        """,
        "[0] parent lives",
    )


def test_fork_in_a_callback() -> None:
    assert_fork_prints(
        """
        parents, server = Server.start(), Server.start()
        print(server.call(lambda: in_child(child_checks), timeout=60))
        print(server.call(lambda: "parent lives"))
        """,
        "0", "parent lives",
    )


@pytest.mark.parametrize("where", ["Server.start().call", "run"])
def test_a_callback_that_returns_in_the_child_ends_the_child(where: str) -> None:
    assert_fork_prints(
        f"""
        def run(fn, timeout):
            me, parent = tr.self(), os.getpid()
            def report():
                result = fn()
                if os.getpid() == parent:
                    me.send(result)
            tr.spawn(report)
            return tr.receive(timeout=timeout)
        def fork():
            pid = os.fork()
            if pid == 0:
                print("in the child")
            return pid
        pid = {where}(fork, timeout=60)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print("parent", code)
        """,
        "in the child", "parent 0",
    )


def test_a_child_that_runs_on_and_exits_normally() -> None:
    assert_fork_prints(
        """
        parents = Server.start()
        timer, ref = tr.send_after(parents, 1, 1000), tr.monitor(parents)
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            child_checks()
            timer.cancel(); timer.remaining()
            del timer, ref
            print("child", flush=True)
            sys.exit(0)
        print("code", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        """,
        "child", "code 0",
    )


def test_multiprocessing_by_fork() -> None:
    assert_fork_prints(
        """
        import multiprocessing
        context = multiprocessing.get_context("fork")
        parents = Server.start(name="parents")
        def work(n):
            child_checks() if n == 0 else None
            return Server.start().call(lambda: n * n, timeout=60)
        with context.Pool(3) as pool:
            print(pool.map(work, [1, 2, 3]))
        process = context.Process(target=child_checks)
        process.start(); process.join()
        print(process.exitcode, parents.call(lambda: "parent lives"))
        """,
        "[1, 4, 9]", "0 parent lives",
    )


def test_multiprocessing_by_spawn_carries_pids_as_foreign_ones(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(PRELUDE + textwrap.dedent("""
        import multiprocessing
        def use(pid):
            try:
                pid.send(1)
            except tr.EngineError as error:
                print("another program's engine" in str(error), flush=True)
        if __name__ == "__main__":
            context = multiprocessing.get_context("spawn")
            process = context.Process(target=use, args=(tr.self(),))
            process.start(); process.join()
            print(process.exitcode)
    """))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=LIMIT)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "True\n0\n"


def test_other_hooks_of_a_fork_may_use_the_engine() -> None:
    """Hooks registered earlier run later: as logging's does, they may wait for other threads."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", """
import os
os.register_at_fork(before=lambda: before(), after_in_parent=lambda: parent())
""" + PRELUDE + CHILD + """
parents = Server.start(name="parents")
def use():
    assert parents.call(lambda: tr.whereis("parents"), timeout=60) == parents
    tr.send_after(parents, 1, 100)
    tr.spawn(int)
def before():
    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
parent = before
print([in_child(child_checks) for _ in range(3)])
"""], capture_output=True, text=True, timeout=LIMIT)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "[0, 0, 0]\n")


def test_forks_of_forks() -> None:
    assert_fork_prints(
        """
        parents = Server.start(name="parents")
        def deeper():
            child_checks()
            assert in_child(child_checks) == 0
        print(in_child(deeper), in_child(deeper))
        """,
        "0 0",
    )


EXIT_DRAINS = """
import tailrace as tr

class Grouped(tr.Pipeline):
    processors = tr.Processors(concurrency=2)
    batchers = {"default": tr.Batcher(batch_size=1000, batch_timeout=1000.0)}

    def handle_message(self, message):
        return message

    def handle_batch(self, batcher, messages, info):
        print("batch", sorted(message.data for message in messages), info.trigger, flush=True)
        return messages

handle = Grouped.start_link(producer=tr.producers.Dummy())
handle.push([tr.Message(i) for i in range(5)])
"""


def test_a_pipeline_left_running_is_drained_when_the_interpreter_ends() -> None:
    done = subprocess.run(
        [sys.executable, "-c", EXIT_DRAINS], capture_output=True, text=True, timeout=100
    )
    assert done.stdout == "batch [0, 1, 2, 3, 4] flush\n", done.stderr
    assert done.stderr == ""
    assert done.returncode == 0


BATCHES_IN_THE_DRAIN = """
import threading
import tailrace as tr

stopping = threading.Event()

class Tells(tr.GenServer):
    def init(self): tr.trap_exit()
    def terminate(self, reason): stopping.set()

class Grouped(tr.Pipeline):
    processors = tr.Processors(concurrency=2, max_demand=1)
    batchers = {"default": tr.Batcher(batch_size=1000, batch_timeout=1000.0)}

    def handle_message(self, message):
        stopping.wait()
        return message

    def handle_batch(self, batcher, messages, info):
        print("batch", sorted(message.data for message in messages), info.trigger, flush=True)
        return messages

handle = Grouped.start_link(producer=tr.producers.Dummy())
handle.push([tr.Message(i) for i in range(5)])
Tells.start()
"""


def test_a_batch_that_begins_in_the_drain_at_the_end_has_its_timer() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BATCHES_IN_THE_DRAIN],
        capture_output=True, text=True, timeout=LIMIT,
    )
    assert (done.stdout, done.stderr) == ("batch [0, 1, 2, 3, 4] flush\n", "")
    assert done.returncode == 0


SIGNAL_IN_A_SHUTDOWN = """
import os
import signal
import tailrace as tr

def on_signal(number, frame):
    tr.shutdown()
    print("handled", flush=True)

def ends_with_a_signal(main):
    tr.trap_exit()
    tr.send(main, "ready")
    tr.receive()
    os.kill(os.getpid(), signal.SIGTERM)

signal.signal(signal.SIGTERM, on_signal)
tr.spawn(ends_with_a_signal, tr.self())
tr.receive()
tr.shutdown()
print("stopped", flush=True)
"""


def test_a_handler_of_a_signal_that_comes_in_a_shutdown_may_shut_down_too() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SIGNAL_IN_A_SHUTDOWN],
        capture_output=True, text=True, timeout=LIMIT,
    )
    assert (done.stdout, done.stderr) == ("handled\nstopped\n", "")


SHUTDOWN_IN_A_SHUTDOWN = """
import tailrace as tr

def shuts_down(main):
    tr.trap_exit()
    tr.send(main, "ready")
    tr.receive()
    try:
        tr.shutdown()
    except RuntimeError as error:
        print(error, flush=True)

tr.spawn(shuts_down, tr.self())
tr.receive()
tr.shutdown()
"""


def test_a_process_that_shuts_down_while_another_thread_does_is_refused() -> None:
    """And does not wait for it, which waits for the process."""
    done = subprocess.run(
        [sys.executable, "-c", SHUTDOWN_IN_A_SHUTDOWN],
        capture_output=True, text=True, timeout=LIMIT,
    )
    wanted = "shutdown() would wait for the process that calls it\n"
    assert (done.stdout, done.stderr) == (wanted, "")


def test_processes_use_the_engine_until_they_end_and_others_are_refused() -> None:
    """Whom they start meanwhile is asked to end, too, without anybody's waiting for a limit."""
    assert_prints(
        """
        class Started(Server):
            def init(self): tr.trap_exit()
            def terminate(self, reason): print("started", reason, flush=True)
        class Starts(Server):
            def init(self): tr.trap_exit()
            def terminate(self, reason):
                print(Started.start().call(str), flush=True)
                tr.send_after(tr.self(), "time", 0.0)
                print(tr.receive(tr.spawn_monitor(int)[1]).reason, tr.receive(), flush=True)
                thread = threading.Thread(target=refused)
                thread.start()
                thread.join()
        def refused():
            try:
                tr.spawn(int)
            except tr.EngineStopped:
                print("refused", flush=True)
        Starts.start()
        begun = time.monotonic()
        tr.shutdown(timeout=60)
        print(time.monotonic() - begun < 30)
        """,
        "", "normal time", "refused", "started shutdown", "True",
    )


FORKS_IN_A_HANDLER = """
import os, signal, sys, threading, time
import tailrace as tr

def fork(number, frame):
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        me.send("the parent goes on")

me = tr.self()
signal.signal(signal.SIGUSR1, fork)
threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1)).start()
try:
    print(tr.receive(timeout=60), flush=True)
except tr.EngineStopped:
    print("the child is told", flush=True)
"""


def test_a_wait_whose_signal_handler_forks_ends_in_the_child_and_goes_on_in_the_parent() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKS_IN_A_HANDLER], capture_output=True, text=True, timeout=100
    )
    assert done.stdout.splitlines() == ["the child is told", "the parent goes on"], done.stderr
