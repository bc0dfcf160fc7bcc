"""What runs in operating-system workers in tests: here, because workers can import this module."""

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import tailrace as tr

SEGFAULT = (1, None) if "asan" in os.environ.get("LD_PRELOAD", "") else (-11, "SIGSEGV")
"""How a worker ends that reads where nothing is: exit status, signal."""


def living(pid: int) -> bool:
    """Whether an operating-system process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def crash(how: str) -> None:
    """End this operating-system process, or nearly."""
    match how:
        case "exit":
            os._exit(3)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "segfault":
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            ctypes.string_at(0)
        case "memory":
            resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
            bytearray(1 << 40)


class Custom(Exception):
    """Pickles."""


class Awkward(Exception):
    """Pickles, but cannot be made again."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} {two}")


class Handlers(tr.Pipeline):
    """Does to each message what its data says; tells `tell` (a Pid) what failed and why."""

    processors = tr.Processors(concurrency=1, max_demand=4, min_demand=0, scheduler="process")

    def handle_message(self, message: tr.Message) -> Any:
        match message.data:
            case ("crash", how):
                crash(how)
            case ("raise", error):
                raise error
            case "awkward":
                raise Awkward(1, 2)
            case "lock":
                message.data = threading.Lock()
            case "pid":
                message.data = os.getpid()
            case "fail":
                return message.fail("said so")
            case "nothing":
                return None
            case "ack_now":
                message.ack_now()
            case "configure_ack":
                message.configure_ack(on="x")
            case "new":
                return tr.Message("made anew", {"by": "worker"})
            case "meta":
                message.metadata["seen"] = True
            case bytearray() | list():
                message.data[0] = 42
            case ("once", file):
                if not Path(file).exists():
                    Path(file).touch()
                    os._exit(1)
                message.data = "again"
        return message


class Told(Handlers):
    """The context is a Pid, which is told about failed messages."""

    def handle_failed(self, messages: list[tr.Message]) -> list[tr.Message]:
        self.context.send(("failed", [(m.data, m.reason) for m in messages]))
        return messages


class Batched(Told):
    """Handles batches in a worker."""

    processors = tr.Processors(concurrency=1)
    batchers = {"default": tr.Batcher(batch_size=3, batch_timeout=0.05, scheduler="process")}

    def handle_message(self, message: tr.Message) -> tr.Message:
        return message

    def handle_batch(
        self, batcher: str, messages: list[tr.Message], info: tr.BatchInfo
    ) -> list[tr.Message]:
        for message in messages:
            match message.data:
                case ("crash", how):
                    crash(how)
                case ("raise", error):
                    raise error
                case "fail":
                    message.fail("said so")
                case "info":
                    message.data = (batcher, info, os.getpid())
        return messages[::-1]


class Prepared(Told):
    """Sorts the chunk before it is handled."""

    def prepare_messages(self, messages: list[tr.Message]) -> list[tr.Message]:
        if any(message.data == "bad" for message in messages):
            raise Custom("bad chunk")
        for message in messages:
            message.metadata["prepared"] = os.getpid()
        return messages[::-1]


def spin_forever(file: str) -> None:
    """Compute in C without ever giving the interpreter lock back; say first who does."""
    with open(file, "w") as out:
        out.write(str(os.getpid()))
    sum(range(10**18))


def wait_for_pid(file: Path, limit: float = 60.0) -> int:
    """Wait until `spin_forever` has said who it is."""
    deadline = time.monotonic() + limit
    while not (file.exists() and file.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return int(file.read_text())


def raises(error: BaseException) -> None:
    """Raise it."""
    raise error


def send_to(pid: tr.Pid) -> None:
    """Try what a worker cannot do."""
    pid.send("hello")


def start_a_sleeper(file: str) -> None:
    """Start another program and wait for it."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"]) as sleeper:
        Path(file).write_text(str(sleeper.pid))
        sleeper.wait()


def list_descriptors(file: str) -> None:
    """Write down what is open, standard streams first."""
    names = sorted(int(name) for name in os.listdir("/proc/self/fd"))
    links = []
    for number in names:
        with contextlib.suppress(FileNotFoundError):  # of the listing itself
            links.append(os.readlink(f"/proc/self/fd/{number}"))
    Path(file).write_text("\n".join(links))


class Slow(tr.Pipeline):
    """The second message says who runs, in the file that it names, and waits for the first's."""

    processors = tr.Processors(concurrency=1, max_demand=4, min_demand=0, scheduler="process")

    def prepare_messages(self, messages: list[tr.Message]) -> list[tr.Message]:
        go, pid = (Path(message.data) for message in messages)
        pid.write_text(str(os.getpid()))
        while not go.exists():
            time.sleep(0.005)
        return messages

    def handle_message(self, message: tr.Message) -> tr.Message:
        return message


class Counter(tr.GenServer):
    """A server that does what it is asked, and tells `owner` how it ended, in a file."""

    def init(self, n: Any = 0, file: str | None = None) -> Any:
        self.n, self.file = n, file
        if isinstance(n, BaseException):
            raise n
        return n if isinstance(n, tr.Stop) or n is tr.IGNORE else None

    def handle_call(self, request: Any, caller: tr.From) -> Any:
        match request:
            case "pid":
                return os.getpid()
            case "stop":
                return tr.Stop("shutdown", reply="bye")
            case "continue":
                return tr.Reply("went on", continue_="token")
            case "timeout":
                return tr.Reply("soon", timeout=0.01)
            case "later":
                return tr.NOREPLY
            case "reply":
                tr.reply(caller, "not from here")
            case "lock":
                return threading.Lock()
            case ("crash", how):
                crash(how)
            case ("raise", error):
                raise error
            case ("spin", file):
                spin_forever(file)
        return self.n

    def handle_cast(self, amount: int) -> None:
        self.n += amount

    def handle_info(self, message: Any) -> None:
        self.n = message

    def handle_continue(self, token: Any) -> None:
        self.n = token

    def handle_timeout(self) -> None:
        self.n = "timed out"

    def terminate(self, reason: Any) -> None:
        if self.file is not None:
            Path(self.file).write_text(f"{reason!r} in {os.getpid()}")


class SlowStart(tr.GenServer):
    """Says who it is, and is never ready."""

    def init(self, file: str) -> None:
        spin_forever(file)


class Bare(tr.GenServer):
    """Has no callbacks."""


class Numbers(tr.Producer):
    """Counts, with the number of its operating-system process beside each number."""

    def init(self) -> None:
        self.next = 0

    def handle_demand(self, demand: int) -> list[tuple[int, int]]:
        first, self.next = self.next, self.next + demand
        return [(n, os.getpid()) for n in range(first, self.next)]


class Squares(tr.ProducerConsumer):
    """Squares numbers; tells what it does in its own process."""

    def init(self) -> tr.StageOptions:
        self.subscriptions: list[str] = []
        return tr.StageOptions(buffer_size=7)

    def handle_subscribe(self, role: str, options: dict[str, Any], sender: Any) -> str:
        self.subscriptions.append(role)
        return "automatic"

    def handle_events(self, events: list[Any], sender: Any) -> list[Any]:
        if any(n == "die" for n, _ in events):
            os._exit(9)
        return [(n * n, pid, os.getpid(), tuple(self.subscriptions)) for n, pid in events]


class Sink(tr.Consumer):
    """Writes what it gets into a file, a line each."""

    def init(self, file: str) -> None:
        self.file = file

    def handle_events(self, events: list[Any], sender: Any) -> None:
        with open(self.file, "a") as out:
            out.writelines(f"{event} {os.getpid()}\n" for event in events)


class Breaks:
    """Pickles, but raises in the worker when it is loaded."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __reduce__(self) -> Any:
        return _broken, (b"x" * self.size, os.getpid())


def _broken(data: bytes, pid: int) -> bytes:
    if os.getpid() != pid:
        raise Custom("cannot be loaded here")
    return data
