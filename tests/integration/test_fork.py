"""Forks from wherever, in the middle of load, too: the child is usable, the parent goes on.

In the child the engine is gone with its threads; the first use starts a fresh one, and a Pid of the
parent's raises an error that says so.
"""

from functools import partial

import programs
import pytest
from support import GIL, LIMIT

PRELUDE = programs.PRELUDE + """
import contextvars

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
    server = Server.start(name="parents")
    assert server.call(lambda: "served", timeout=60) == "served"
    pid, ref = tr.spawn_monitor(spin)
    tr.exit(pid, "kill")
    assert tr.receive(ref, timeout=60).reason == "killed"
    timer = tr.send_after(tr.self(), "timer", 0.001)
    assert tr.receive(timeout=60) == "timer"
    tr.exit(tr.spawn(spin), "kill")  # nobody waits for its end

def in_child(check=child_checks):
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
    return code_of(pid)

def code_of(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

class Sink(Server):
    def handle_info(self, message):
        pass

stop = threading.Event()

def load():
    "Callbacks, timers, calls, kills, blockers and spinners, in the engine and beside it."
    other = Sink.start()
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
"""

assert_prints = partial(programs.assert_prints, prelude=PRELUDE, limit=LIMIT * 1.5)


# ---- The child and its parent -------------------------------------------------------------------


def test_a_child_has_a_fresh_engine_and_an_error_for_its_parents_pids() -> None:
    assert_prints(
        """
        parents = Server.start(name="parents")
        tr.self().send("the parent's")
        print(in_child())
        print(tr.receive(timeout=60), parents.call(lambda: "parent lives", timeout=60))
        """,
        "0", "the parent's parent lives",
    )


def test_fork_before_the_engine_was_used() -> None:
    assert_prints(
        """
        def check():
            assert Server.start().call(lambda: 1) == 1
        print(in_child(check))
        print(Server.start().call(lambda: "parent"))
        """,
        "0", "parent",
    )


def test_fork_after_shutdown_and_a_child_that_ends_normally() -> None:
    assert_prints(
        """
        Server.start(); tr.shutdown()
        def check():
            assert Server.start().call(lambda: 1) == 1
            tr.shutdown()
        print(in_child(check))
        """,
        "0",
    )


def test_fork_in_another_thread() -> None:
    assert_prints(
        """
        parents, codes = Server.start(), []
        tr.self()
        t = threading.Thread(target=lambda: (tr.self(), codes.append(in_child())))
        t.start(); t.join()
        print(codes, parents.call(lambda: "parent lives"))
        """,
        "[0] parent lives",
    )


def test_fork_in_a_callback() -> None:
    assert_prints(
        """
        parents, server = Server.start(), Server.start()
        print(server.call(in_child, timeout=60))
        print(server.call(lambda: "parent lives"))
        """,
        "0", "parent lives",
    )


@pytest.mark.parametrize("how", ["async def", "def"])
def test_fork_on_the_event_loop(how: str) -> None:
    """In the child it is no event loop's thread any more: what blocks may be used there."""
    assert_prints(
        f"""
        parents, me = Server.start(), tr.self()
        {how} fork():
            me.send(in_child())
        tr.spawn(fork, scheduler="asyncio")
        print(tr.receive(timeout=60))
        print(parents.call(lambda: "parent lives"))
        """,
        "0", "parent lives",
    )


@pytest.mark.parametrize("end", ["return", "await asyncio.sleep(0)"])
def test_a_step_on_the_event_loop_that_ends_in_the_child_ends_the_child(end: str) -> None:
    assert_prints(
        f"""
        import asyncio
        me = tr.self()
        async def fork():
            await tr.asleep(0)
            child = os.fork()
            if child == 0:
                {end}
            else:
                me.send(child)
        tr.spawn(fork)
        print(code_of(tr.receive(timeout=60)))
        """,
        "0",
    )


@pytest.mark.parametrize("where", ["Server.start().call", "run"])
def test_a_callback_that_returns_in_the_child_ends_the_child(where: str) -> None:
    assert_prints(
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
        print("parent", code_of(pid))
        """,
        "in the child", "parent 0",
    )


def test_a_child_that_runs_on_and_exits_normally() -> None:
    assert_prints(
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
        print("code", code_of(pid))
        """,
        "child", "code 0",
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


def test_multiprocessing_by_fork() -> None:
    assert_prints(
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


def test_other_hooks_of_a_fork_may_use_the_engine() -> None:
    """Hooks registered earlier run later: as logging's does, they may wait for other threads."""
    assert_prints(
        """
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
        print([in_child() for _ in range(3)])
        """,
        "[0, 0, 0]",
        prelude="""
import os
os.register_at_fork(before=lambda: before(), after_in_parent=lambda: parent())
""" + PRELUDE,
    )


def test_forks_of_forks() -> None:
    assert_prints(
        """
        parents = Server.start(name="parents")
        def deeper():
            child_checks()
            assert in_child() == 0
        print(in_child(deeper), in_child(deeper))
        """,
        "0 0",
    )


def test_a_wait_whose_signal_handler_forks_ends_in_the_child_and_goes_on_in_the_parent() -> None:
    assert_prints(
        """
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
        """,
        "the child is told", "the parent goes on",
    )


# ---- Under load ---------------------------------------------------------------------------------


def test_fork_under_load() -> None:
    assert_prints(
        """
        parents = Sink.start(name="parents")
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
        print({in_child() for _ in range(25)})
        stop.set()
        thread.join()
        print(parents.call(lambda: "parent lives", timeout=60))
        """,
        "{0}", "parent lives",
    )


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
