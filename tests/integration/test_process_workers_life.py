"""Operating-system workers come and go: killed, left behind, interrupted, forked, at the end."""

import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import worker_support
from support import LIMIT, eventually, opened
from worker_support import Custom, living, spin_forever, wait_for_pid

import tailrace as tr
from tailrace import _os_worker


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The failures are wanted."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def down(ref):
    return tr.receive(ref, timeout=LIMIT).reason


def test_a_spawned_function_runs_in_an_operating_system_process(tmp_path):
    file = tmp_path / "pid"
    pid, ref = tr.spawn_monitor(spin_forever, str(file), scheduler="process")
    assert tr.process_info(pid).scheduler == "process"
    worker = wait_for_pid(file)
    assert worker != os.getpid()
    pid.exit("kill")
    assert down(ref) == "killed"


def test_a_kill_kills_the_worker_at_once_though_it_computes_in_c(tmp_path):
    file = tmp_path / "pid"
    pid, ref = tr.spawn_monitor(spin_forever, str(file), scheduler="process")
    worker = wait_for_pid(file)
    pid.exit("kill")
    assert down(ref) == "killed"
    eventually(lambda: not living(worker))


def test_a_function_that_raises_ends_its_process_with_the_exception():
    _, ref = tr.spawn_monitor(worker_support.raises, Custom("x"), scheduler="process")
    reason = down(ref)
    assert isinstance(reason, Custom) and "worker_support.py" in str(reason.__cause__)


def test_a_function_may_end_with_a_reason_of_its_own():
    wanted = tr.ProcessExit(("shutdown", 1))
    _, ref = tr.spawn_monitor(worker_support.raises, wanted, scheduler="process")
    assert down(ref) == ("shutdown", 1)


@pytest.mark.parametrize("how", ["exit", "kill", "segfault"])
def test_a_function_whose_worker_dies_ends_with_worker_died(how):
    _, ref = tr.spawn_monitor(worker_support.crash, how, scheduler="process")
    assert isinstance(down(ref), tr.WorkerDied)


def test_a_function_that_does_not_pickle_ends_its_process():
    _, ref = tr.spawn_monitor(print, threading.Lock(), scheduler="process")
    assert isinstance(down(ref), tr.Unpicklable)


def test_what_a_worker_has_started_ends_with_it(tmp_path):
    file = tmp_path / "pid"
    pid, ref = tr.spawn_monitor(worker_support.start_a_sleeper, str(file), scheduler="process")
    sleeper = wait_for_pid(file)
    pid.exit("kill")
    assert down(ref) == "killed"
    eventually(lambda: not living(sleeper))


def test_a_worker_has_no_part_in_the_engine():
    _, ref = tr.spawn_monitor(worker_support.send_to, tr.self(), scheduler="process")
    reason = down(ref)
    assert isinstance(reason, tr.EngineError) and "another program's engine" in str(reason)
    assert tr.receive(timeout=0, default="nothing") == "nothing"


def test_a_worker_inherits_no_descriptors_but_its_own(tmp_path):
    file = tmp_path / "fds"
    with open(tmp_path / "open", "w") as other:
        os.set_inheritable(other.fileno(), True)
        _, ref = tr.spawn_monitor(worker_support.list_descriptors, str(file), scheduler="process")
        assert down(ref) == "normal"
    names = file.read_text().splitlines()[3:]
    kinds = sorted(name for name in names if ".so" not in name)  # a libffi keeps its own file open
    assert [kind.split(":")[0] for kind in kinds] == ["pipe", "socket"], kinds


def run(text: str, *args: str, **keywords) -> subprocess.Popen[str]:
    """Start a program that can import worker_support."""
    path = [str(Path(worker_support.__file__).parent), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(text), *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        **keywords,
    )


SPIN = """
    import sys, time
    import tailrace as tr
    from worker_support import spin_forever
    tr.spawn(spin_forever, sys.argv[1], scheduler="process")
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_worker_survives_the_program(tmp_path, number):
    file = tmp_path / "pid"
    with run(SPIN + "    time.sleep(1000)\n", str(file)) as program:
        worker = wait_for_pid(file)
        program.send_signal(number)
        program.wait(LIMIT)
        eventually(lambda: not living(worker))


def test_no_worker_survives_the_program_though_a_forked_child_does(tmp_path):
    file, child = tmp_path / "pid", tmp_path / "child"
    text = SPIN + (
        "    import os\n"
        "    while not os.path.exists(sys.argv[1]): time.sleep(0.01)\n"
        "    if os.fork() == 0:\n"
        "        open(sys.argv[2], 'w').write(str(os.getpid()))\n"
        "        time.sleep(1000)\n"
        "    time.sleep(1000)\n"
    )
    with run(text, str(file), str(child)) as program:
        worker, forked = wait_for_pid(file), wait_for_pid(child)
        program.kill()
        try:
            eventually(lambda: not living(worker))
            assert living(forked)
        finally:
            os.kill(forked, signal.SIGKILL)


def test_a_forked_child_that_ends_does_not_touch_the_workers(tmp_path):
    file = tmp_path / "pid"
    text = SPIN + (
        "    import os\n"
        "    while not os.path.exists(sys.argv[1]): time.sleep(0.01)\n"
        "    if os.fork() == 0: sys.exit()\n"
        "    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)\n"
        "    time.sleep(1000)\n"
    )
    with run(text, str(file)) as program:
        worker = wait_for_pid(file)
        assert program.stdout is not None and program.stdout.readline() == "0\n"
        assert living(worker)
        program.kill()
        eventually(lambda: not living(worker))


def test_the_end_of_the_interpreter_ends_the_workers(tmp_path):
    file = tmp_path / "pid"
    text = SPIN + ("    import os\n    while not os.path.exists(sys.argv[1]): time.sleep(0.01)\n")
    with run(text, str(file)) as program:
        worker = wait_for_pid(file)
        _, errors = program.communicate(timeout=LIMIT)
        assert (program.returncode, errors) == (0, "")
        eventually(lambda: not living(worker))


INTERRUPTED = """
    import sys, time
    import tailrace as tr
    from worker_support import Slow
    print(Slow.run(producer=tr.producers.Iterable([sys.argv[1], sys.argv[2]])).successful)
"""


def test_ctrl_c_drains_and_the_workers_finish_what_they_have(tmp_path):
    """P: the first signal drains. The whole process group gets a Ctrl-C."""
    go, pid = tmp_path / "go", tmp_path / "pid"
    with run(INTERRUPTED, str(go), str(pid), start_new_session=True) as program:
        worker = wait_for_pid(pid)
        os.killpg(program.pid, signal.SIGINT)
        os.kill(worker, signal.SIGINT)
        os.kill(worker, signal.SIGTERM)
        go.touch()
        out, errors = program.communicate(timeout=LIMIT)
        assert (program.returncode, out) == (0, "2\n"), errors
        eventually(lambda: not living(worker))


def test_a_worker_whose_start_is_interrupted_is_buried(monkeypatch):
    started = []

    def popen(*args):
        started.append(_os_worker.subprocess.Popen(["sleep", "1000"], process_group=0))
        return started[0]

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(_os_worker, "_popen", popen)
    monkeypatch.setattr(_os_worker, "Channel", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _os_worker.Process()
    with pytest.raises(ChildProcessError):
        os.waitpid(started[0].pid, os.WNOHANG)


@pytest.mark.parametrize("name", ["_pipe", "_popen", "Channel"])
@pytest.mark.parametrize("after", [False, True])
def test_a_kill_while_a_worker_is_started_leaves_nothing(name, after, monkeypatch):
    tr.spawn_monitor(int, scheduler="core")  # the engine runs, and what it opens is open
    before, started = opened(), []
    there, killed = threading.Event(), threading.Event()
    original, popen = getattr(_os_worker, name), _os_worker.subprocess.Popen

    def stop():
        there.set()
        while not killed.is_set():
            pass

    def paused(*args):
        if after:
            result = original(*args)
            stop()
            return result
        stop()
        return original(*args)

    def noted(*args, **options):
        started.append(popen(*args, **options))
        return started[-1]

    monkeypatch.setattr(_os_worker, name, paused)
    monkeypatch.setattr(_os_worker.subprocess, "Popen", noted)
    pid, ref = tr.spawn_monitor(spin_forever, "/nowhere", scheduler="process")
    assert there.wait(LIMIT)
    pid.exit("kill")
    killed.set()
    assert down(ref) == "killed"
    eventually(lambda: opened() == before)
    eventually(lambda: started and started[0].returncode == -signal.SIGKILL)
