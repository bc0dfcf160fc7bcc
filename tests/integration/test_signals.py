"""Signals: they end waits, find the engine usable, and do not keep it from being stopped."""

import signal
import subprocess
import textwrap
import time

import pytest
from programs import assert_prints, program
from support import LIMIT

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
        program(text), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
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


def test_a_signal_handler_may_call_while_the_program_waits_for_an_answer() -> None:
    """The answer to the handler's call, and the one to the call that it came in, find their way.

    The second is there before the handler's own; the callees end, which their callers may hear.
    """
    assert_prints(
        """
        one, two, three = Server.start(), Server.start(), Server.start()
        go_on = threading.Event()

        def wait():
            os.kill(os.getpid(), signal.SIGALRM)
            go_on.wait(60)
            return "first"

        def handle(*args):
            print(two.call(lambda: "second", timeout=60))
            go_on.set()
            two.call(lambda: one.call(lambda: "the first is answered", timeout=60), timeout=60)
            print(Server.start(timeout=60).call(lambda: "third", timeout=60))
            two.stop()

        signal.signal(signal.SIGALRM, handle)
        for _ in range(3):
            two = Server.start()
            go_on.clear()
            print(one.call(wait, timeout=60))
        for server in one, three:
            server.stop()
        print(Server.start().call(lambda: "served", timeout=60))
        """,
        *["second", "third", "first"] * 3, "served",
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
    child = subprocess.Popen(program(text, prelude=""), stdout=subprocess.PIPE, text=True)
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


def test_a_handler_of_a_signal_that_comes_in_a_shutdown_may_shut_down_too() -> None:
    assert_prints(
        """
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
        """,
        "handled", "stopped",
    )
