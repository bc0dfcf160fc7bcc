"""Programs with processes on the engine's event loop: how they end, fork, and use libraries."""

import importlib.util
from functools import partial

import programs
import pytest

PRELUDE = """
import asyncio, os, signal, sys, threading, time
import tailrace as tr

def started(function):
    ready = threading.Event()
    async def process():
        ready.set()
        await function()
    pid = tr.spawn(process)
    assert ready.wait(60)
    return pid
"""

assert_prints = partial(programs.assert_prints, prelude=PRELUDE)

PENDING = {
    "asleep": "tr.asleep(1000)",
    "receiving": "tr.areceive()",
    "asyncio": "asyncio.sleep(1000)",
    "stubborn": "stubborn()",
    "spinning": "spin()",
    "in a thread": "asyncio.to_thread(threading.Event().wait, 1)",
    "children": "asyncio.gather(*(asyncio.sleep(1000) for _ in range(100)))",
}


@pytest.mark.parametrize("pending", PENDING.values(), ids=PENDING)
def test_the_interpreter_ends_with_async_processes_pending(pending: str) -> None:
    assert_prints(
        f"""
        async def stubborn():
            while True:
                try:
                    await asyncio.sleep(1000)
                except asyncio.CancelledError:
                    pass
        async def spin():
            while True:
                pass
        async def pending():
            await {pending}
        started(pending)
        print("end")
        """,
        "end",
    )


def test_the_interpreter_ends_with_calls_of_an_own_loop_pending() -> None:
    assert_prints(
        """
        class Server(tr.GenServer):
            async def handle_call(self, request, caller):
                await asyncio.sleep(1000)
        async def main():
            server = Server.start()
            tasks = [asyncio.create_task(server.acall(n, None)) for n in range(100)]
            await asyncio.sleep(0.01)
            print(len(tasks))
        asyncio.run(main())
        """,
        "100",
    )


def test_an_engine_whose_loop_is_idle_starts_and_ends_again() -> None:
    assert_prints(
        """
        async def process(to):
            to.send(threading.get_native_id() == os.getpid())
        for _ in range(3):
            with tr.Engine():
                tr.spawn(process, tr.self())
                print(tr.receive(timeout=60))
        while len(os.listdir("/proc/self/task")) > 1:
            time.sleep(0.001)
        print("one thread")
        """,
        "False", "False", "False", "one thread",
    )


def test_a_fork_leaves_a_child_that_has_an_event_loop_of_its_own() -> None:
    assert_prints(
        """
        async def process(to):
            await asyncio.sleep(0)
            to.send("done")
        async def forever():
            await tr.areceive()
        started(forever)
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            tr.spawn(process, tr.self())
            print("child", tr.receive(timeout=60), flush=True)
            tr.shutdown()
            os._exit(0)
        print(os.waitpid(child, 0)[1])
        tr.spawn(process, tr.self())
        print("parent", tr.receive(timeout=60))
        """,
        "child done", "0", "parent done",
    )


def test_signals_reach_the_main_thread_only() -> None:
    assert_prints(
        """
        async def process():
            for n in range(5):
                os.kill(os.getpid(), signal.SIGUSR1)
                await asyncio.sleep(0.001)
        signal.signal(signal.SIGUSR1, lambda *_: None)
        pid, ref = tr.spawn_monitor(process)
        print(tr.receive(ref, timeout=60).reason)
        """,
        "normal",
    )


@pytest.mark.skipif(importlib.util.find_spec("httpx") is None, reason="needs httpx")
def test_httpx_and_anyio_work_in_processes() -> None:
    assert_prints(
        """
        import anyio, httpx

        class Web(tr.GenServer):
            async def init(self):
                self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
                self.port = self.server.sockets[0].getsockname()[1]
            async def serve(self, reader, writer):
                while (await reader.readline()).strip():
                    pass
                text = str(tr.self() == self.me).encode()
                writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n"
                             b"Connection: close\\r\\n\\r\\n%s" % (len(text), text))
                await writer.drain()
                writer.close()
            async def handle_call(self, request, caller):
                self.me = tr.self()
                return self.port

        class Client(tr.GenServer):
            async def init(self):
                self.client = httpx.AsyncClient(trust_env=False)
            async def handle_call(self, url, caller):
                found = []
                async def get():
                    found.append((await self.client.get(url)).text)
                async with anyio.create_task_group() as group:
                    for _ in range(5):
                        group.start_soon(get)
                with anyio.move_on_after(0.001) as scope:
                    await anyio.sleep(1000)
                return found, scope.cancelled_caught
            async def terminate(self, reason):
                await self.client.aclose()

        web, client = Web.start_link(), Client.start_link()
        print(client.call(f"http://127.0.0.1:{web.call('port')}/", 60))
        client.stop()
        web.stop()
        """,
        "(['True', 'True', 'True', 'True', 'True'], True)",
    )


@pytest.mark.skipif(importlib.util.find_spec("uvloop") is None, reason="needs uvloop")
@pytest.mark.parametrize(("setting", "module"), [("1", "uvloop"), ("0", "asyncio")])
def test_uvloop_is_used_when_it_is_installed_and_not_refused(setting: str, module: str) -> None:
    assert_prints(
        f"""
        os.environ["TAILRACE_UVLOOP"] = "{setting}"
        async def process(to):
            to.send(type(asyncio.get_running_loop()).__module__.split(".")[0])
        tr.spawn(process, tr.self())
        print(tr.receive(timeout=60))
        """,
        module,
    )
