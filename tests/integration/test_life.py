"""The engine's life: lazy start, shutdown, interpreter exit; a pid of another program's engine."""

import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from programs import PRELUDE, assert_prints, program, run
from support import LIMIT

import tailrace as tr

SOON = 25.0
"""Seconds in which a program must end whatever its processes do: the engine gives them ten."""


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


def test_a_process_that_shuts_down_while_another_thread_does_is_refused() -> None:
    """And does not wait for it, which waits for the process."""
    assert_prints(
        """
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
        """,
        "shutdown() would wait for the process that calls it",
    )


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


def test_a_pipeline_left_running_is_drained_when_the_interpreter_ends() -> None:
    assert_prints(
        """
        import tailrace as tr

        class Grouped(tr.Pipeline):
            processors = tr.Processors(concurrency=2)
            batchers = {"default": tr.Batcher(batch_size=1000, batch_timeout=1000.0)}

            def handle_message(self, message):
                return message

            def handle_batch(self, batcher, messages, info):
                print("batch", sorted(m.data for m in messages), info.trigger, flush=True)
                return messages

        handle = Grouped.start_link(producer=tr.producers.Dummy())
        handle.push([tr.Message(i) for i in range(5)])
        """,
        "batch [0, 1, 2, 3, 4] flush",
        prelude="",  # PRELUDE hides warnings
    )


def test_a_batch_that_begins_in_the_drain_at_the_end_has_its_timer() -> None:
    assert_prints(
        """
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
                print("batch", sorted(m.data for m in messages), info.trigger, flush=True)
                return messages

        handle = Grouped.start_link(producer=tr.producers.Dummy())
        handle.push([tr.Message(i) for i in range(5)])
        Tells.start()
        """,
        "batch [0, 1, 2, 3, 4] flush",
        prelude="",  # PRELUDE hides warnings
    )


# ---- Another program's engine -------------------------------------------------------------------


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
