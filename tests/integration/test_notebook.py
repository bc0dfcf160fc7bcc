"""Ctrl-C at a prompt: it interrupts what waits there, and the engine and its servers go on.

In a notebook's kernel (the button "interrupt"), in IPython, and in Python's own prompt.
"""

import os
import pty
import select
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support import LIMIT

import tailrace as tr

EXTRA = "needs the extra `test-notebook`"

SETUP = """
import logging, time, threading
import tailrace as tr

logging.getLogger("tailrace").setLevel(logging.ERROR)  # callbacks are slow here on purpose

class Server(tr.GenServer):
    def init(self):
        self.n = 0
    def handle_call(self, request, caller):
        self.n += 1
        return request() if callable(request) else self.n

class Endless(tr.Pipeline):
    processors = tr.Processors(concurrency=2)
    def handle_message(self, message):
        return message

def numbers():
    n = 0
    while True:
        time.sleep(0.001)
        yield (n := n + 1)

server, slow = Server.start_link(), Server.start()
me = tr.self()
"""

WAITS = {
    "receive": "tr.receive()",
    "sleep": "tr.sleep(10000)",
    "call": "slow.call(lambda: time.sleep(10000), timeout=None)",
    "start": "Server.start(timeout=10000) and tr.receive()",
}

RUN = """
summary = Endless.run(producer=tr.producers.Iterable(numbers()))
print("drained" if summary.successful > 0 == summary.failed else summary)
"""

AFTER = """
assert tr.self() == me, "the caller's process is another one"
assert server.alive
before = server.call("count")
assert server.call("count") == before + 1
tr.self().send("to myself")
while tr.receive(timeout=60) != "to myself": pass
print("served")
"""


def environment() -> dict[str, str]:
    """One in which the package that is tested here is imported."""
    return {**os.environ, "PYTHONPATH": str(Path(tr.__file__).parent.parent)}


# ---- A notebook's kernel ------------------------------------------------------------------------


class Kernel:
    """A Jupyter kernel, and what its cells print and raise."""

    def __init__(self, client: Any, manager: Any) -> None:
        self.client = client
        self.manager = manager

    def start(self, text: str) -> str:
        """Start a cell; the id of its request. It runs when this returns."""
        request = str(self.client.execute(textwrap.dedent(text)))
        while True:
            message = self.client.get_iopub_msg(timeout=LIMIT)
            if message["parent_header"].get("msg_id") != request:
                continue
            if message["msg_type"] == "stream" and "running" in message["content"]["text"]:
                return request

    def finish(self, request: str) -> tuple[str, str | None]:
        """What a cell printed, and the name of what it raised."""
        printed, raised = "", None
        while True:
            message = self.client.get_iopub_msg(timeout=LIMIT)
            if message["parent_header"].get("msg_id") != request:
                continue
            content = message["content"]
            if message["msg_type"] == "stream":
                printed += content["text"]
            elif message["msg_type"] == "error":
                raised = content["ename"]
            elif message["msg_type"] == "status" and content["execution_state"] == "idle":
                return printed, raised

    def run(self, text: str) -> tuple[str, str | None]:
        """Run a cell to its end."""
        return self.finish(str(self.client.execute(textwrap.dedent(text))))

    def interrupt(self, text: str) -> tuple[str, str | None]:
        """Run a cell that waits, and interrupt it."""
        request = self.start(f"print('running', flush=True)\n{textwrap.dedent(text)}")
        time.sleep(0.2)  # so that it most likely waits; right if it does not, too
        self.manager.interrupt_kernel()
        return self.finish(request)


@contextmanager
def kernel() -> Iterator[Kernel]:
    pytest.importorskip("ipykernel", reason=EXTRA)
    manager = pytest.importorskip("jupyter_client.manager", reason=EXTRA).KernelManager()
    # The interpreter of this suite, whatever kernels are installed for its user.
    manager.kernel_spec.argv = [
        sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"
    ]
    manager.start_kernel(env=environment(), stderr=subprocess.DEVNULL)
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=LIMIT)
        one = Kernel(client, manager)
        assert one.run(SETUP) == ("", None)
        yield one
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_interrupt_in_a_notebook_ends_the_cell_and_leaves_the_engine() -> None:
    with kernel() as notebook:
        for wait in WAITS.values():
            for _ in range(2):
                assert notebook.interrupt(wait) == ("", "KeyboardInterrupt"), wait
                assert notebook.run(AFTER) == ("served\n", None), wait


def test_interrupt_of_a_pipeline_in_a_notebook_drains_it() -> None:
    with kernel() as notebook:
        for _ in range(2):
            assert notebook.interrupt(RUN) == ("drained\n", None)
            assert notebook.run(AFTER) == ("served\n", None)
            assert notebook.run("print(*[p for p in tr.registered() if 'Endless' in p])") == (
                "\n", None)
        assert notebook.interrupt("tr.receive()") == ("", "KeyboardInterrupt")  # as before it


def test_a_notebook_goes_on_with_the_engine_when_a_cell_is_interrupted_beside_it() -> None:
    """What is interrupted is the cell: callbacks that block or spin meanwhile are left alone."""
    with kernel() as notebook:
        assert notebook.run(
            """
            def spin():
                while not done.is_set():
                    pass
                return "spun"
            done, blocked = threading.Event(), Server.start()
            answers = []
            def ask(pid, request):
                answers.append(pid.call(request, timeout=None))
            threads = [threading.Thread(target=ask, args=pair) for pair in
                       [(slow, spin), (blocked, lambda: done.wait(60) and "waited")]]
            [thread.start() for thread in threads]
            """
        ) == ("", None)
        assert notebook.interrupt("tr.receive()") == ("", "KeyboardInterrupt")
        assert notebook.run(AFTER) == ("served\n", None)
        assert notebook.run("done.set(); [t.join() for t in threads]; print(sorted(answers))") == (
            "['spun', 'waited']\n", None)


def test_a_cell_awaits_on_the_loop_that_the_kernel_runs() -> None:
    """Calls, a stage's events, a supervisor, messages."""
    with kernel() as notebook:
        assert notebook.run(
            """
            import asyncio

            class Numbers(tr.Producer):
                def init(self):
                    self.n = 0
                def handle_demand(self, demand):
                    first, self.n = self.n, self.n + demand
                    return list(range(first, self.n))

            async def first(count):
                found = []
                async for event in tr.astream([numbers]):
                    found.append(event)
                    if len(found) == count:
                        return found

            async with asyncio.timeout(60):
                print(await asyncio.gather(*(server.acall("count") for _ in range(3))))
                async with await tr.Supervisor.astart_link(
                    [Numbers.child_spec()]
                ) as supervisor:
                    [child] = supervisor.which_children()
                    numbers = child.pid
                    print(await first(3))
                print(numbers.alive)
                tr.self().send("to myself")
                print(await tr.areceive())
            """
        ) == ("[1, 2, 3]\n[0, 1, 2]\nFalse\nto myself\n", None)
        assert notebook.run(AFTER) == ("served\n", None)


# ---- A terminal ---------------------------------------------------------------------------------


TAKE_TERMINAL = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGINT, signal.SIG_DFL)  # which a background job has ignored
os.execv(sys.argv[1], sys.argv[1:])
"""


class Terminal:
    """A program in a terminal of its own, in which Ctrl-C is a key."""

    def __init__(self, argv: list[str]) -> None:
        self.fd, other = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", TAKE_TERMINAL, *argv],
            stdin=other, stdout=other, stderr=other, start_new_session=True,
            env={**environment(), "TERM": "dumb"},
        )
        os.close(other)
        self.text = ""

    def expect(self, text: str) -> None:
        """Read until it has printed this."""
        deadline = time.monotonic() + LIMIT
        while text not in self.text:
            ready, _, _ = select.select([self.fd], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"{text!r} did not come: {self.text!r}"
            self.text += os.read(self.fd, 4096).decode(errors="replace").replace("\r", "")
        self.text = self.text.partition(text)[2]

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.fd)


@pytest.mark.parametrize("prompt", ["python", "ipython"])
def test_ctrl_c_at_a_prompt(prompt: str, tmp_path: Path) -> None:
    if prompt == "ipython":
        pytest.importorskip("IPython", reason=EXTRA)
        argv = [sys.executable, "-m", "IPython", "--simple-prompt", "--no-banner"]
    else:
        argv = [sys.executable, "-q", "-i"]
    (tmp_path / "setup_cell.py").write_text(SETUP)
    (tmp_path / "after_cell.py").write_text(AFTER)
    terminal = Terminal(argv)
    try:
        terminal.type(f"exec(open({str(tmp_path / 'setup_cell.py')!r}).read())\n")
        for wait in WAITS.values():
            terminal.type(f"print('run' + 'ning', flush=True); {wait}\n")
            terminal.expect("running")
            time.sleep(0.2)
            terminal.type("\x03")
            terminal.expect("KeyboardInterrupt")
            terminal.type(f"exec(open({str(tmp_path / 'after_cell.py')!r}).read())\n")
            terminal.expect("served")
    finally:
        terminal.close()
