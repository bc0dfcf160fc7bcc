"""The archiver's object store: a real HTTP server, here in a thread or in its own process."""

import http.client
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PROGRAM = Path(__file__).parents[2] / "examples" / "object_store.py"
LIMIT = 30.0  # seconds, for things that take milliseconds


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("object_store", PROGRAM)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


object_store = load()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Start stores in threads of this process, and stop them at the end."""
    servers = []

    def start(rate: float = 1e6, resets: float = 0.0) -> Any:
        server = object_store.ObjectStore(tmp_path / "objects", rate, resets)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        servers.append((server, thread))
        return server

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join(LIMIT)
        server.server_close()


def connect(port: int) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)


def put(connection: http.client.HTTPConnection, name: str, body: bytes) -> int:
    connection.request("PUT", f"/objects/{name}", body)
    response = connection.getresponse()
    response.read()
    return response.status


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_objects_land_below_the_folder_under_their_quoted_name(
    start: Callable[..., Any], tmp_path: Path
) -> None:
    server = start()
    connection = connect(server.server_port)
    assert put(connection, "a%20b/%C3%A9.py.gz", b"one") == 201
    assert put(connection, "plain.gz", b"") == 201
    assert (tmp_path / "objects/a%20b/%C3%A9.py.gz").read_bytes() == b"one"
    assert (tmp_path / "objects/plain.gz").read_bytes() == b""


def test_a_second_upload_replaces_the_object_and_is_counted(
    start: Callable[..., Any], tmp_path: Path
) -> None:
    server = start(rate=1e6)
    connection = connect(server.server_port)
    assert [put(connection, "x.gz", body) for body in (b"long body", b"short")] == [201, 200]
    assert (tmp_path / "objects/x.gz").read_bytes() == b"short"
    connection.request("GET", "/stats")
    stats = json.loads(connection.getresponse().read())
    assert stats == {
        "accepted": 2,
        "duplicate": 1,
        "refused": 0,
        "reset": 0,
        "bytes": 14,
        "rate": 10**6,
    }


@pytest.mark.parametrize(
    "name", ["", "../x.gz", "a/../x.gz", "./x.gz", "a//x.gz", "/etc/x.gz", "a/..", "a+b.gz", "a?b"]
)
def test_a_name_that_could_leave_the_folder_or_is_not_quoted_is_refused(
    name: str, start: Callable[..., Any], tmp_path: Path
) -> None:
    server = start()
    connection = connect(server.server_port)
    assert put(connection, name, b"body") == 400
    assert put(connection, "good.gz", b"body") == 201, "the connection goes on"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["good.gz"]


def test_too_many_uploads_are_refused_with_the_seconds_to_wait(start: Callable[..., Any]) -> None:
    server = start(rate=0.001)
    connection = connect(server.server_port)
    assert put(connection, "a.gz", b"1") == 201
    connection.request("PUT", "/objects/b.gz", b"2" * 1_000_000)
    response = connection.getresponse()
    response.read()
    assert response.status == 429
    assert 900 < int(response.headers["Retry-After"]) <= 1000
    assert server.stats()["refused"] == 1
    assert not (server.folder / "b.gz").exists()


def test_the_bucket_gives_the_rate_to_one_who_waits_whole_seconds() -> None:
    now = 0.0
    bucket = object_store.TokenBucket(10, lambda: now)
    taken = 0
    for now in range(100):  # noqa: B007  the bucket reads it
        while not bucket.take():
            taken += 1
    assert taken == 1 + 99 * 10
    assert bucket.take() == pytest.approx(0.1)
    now += 3600
    assert [bucket.take() for _ in range(11)].count(0.0) == 10, "at most a second's worth is kept"


@pytest.mark.parametrize(("draw", "stored"), [(0.0, False), (0.2, True)])
def test_a_reset_comes_before_or_after_storing(
    draw: float, stored: bool, start: Callable[..., Any]
) -> None:
    server = start(resets=0.25)
    draws = iter([draw, 0.9, 0.9])
    server.chance = lambda: next(draws)
    connection = connect(server.server_port)
    with pytest.raises(ConnectionResetError):
        put(connection, "x.gz", b"body")
    assert (server.folder / "x.gz").exists() is stored
    connection.close()
    assert put(connection, "x.gz", b"body") == (200 if stored else 201)
    assert server.stats()["reset"] == 1


def test_a_torn_upload_is_no_object(start: Callable[..., Any]) -> None:
    server = start()
    connection = connect(server.server_port)
    connection.putrequest("PUT", "/objects/x.gz")
    connection.putheader("Content-Length", "100")
    connection.endheaders(b"only a part")
    wait_until(lambda: any(server.folder.glob("+*")))
    connection.close()
    wait_until(lambda: not any(server.folder.iterdir()))
    assert server.stats()["accepted"] == 0


def test_what_a_killed_server_left_half_written_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "objects" / "deep"
    folder.mkdir(parents=True)
    (folder / "+123-456").write_bytes(b"torn")
    (folder / "kept.gz").write_bytes(b"whole")
    object_store.ObjectStore(tmp_path / "objects", 1, 0).server_close()
    assert [path.name for path in folder.iterdir()] == ["kept.gz"]


def test_what_cannot_be_stored_is_an_error_and_not_the_end(start: Callable[..., Any]) -> None:
    server = start()
    connection = connect(server.server_port)
    assert put(connection, "n" * 300 + ".gz", b"body") == 507
    assert put(connection, "a.gz", b"body") == 201
    assert put(connection, "a.gz/b.gz", b"body") == 507
    assert put(connection, "b.gz", b"body") == 201


def test_a_body_without_length_and_other_paths_are_refused(start: Callable[..., Any]) -> None:
    connection = connect(start().server_port)
    connection.putrequest("PUT", "/objects/x.gz")
    connection.endheaders()
    response = connection.getresponse()
    response.read()
    assert response.status == 411
    assert response.headers["Connection"] == "close", "where the next request begins is unknown"
    connection.request("GET", "/objects/x.gz")
    assert connection.getresponse().status == 404


def test_the_client_starts_a_server_and_says_what_it_answered(tmp_path: Path) -> None:
    client = object_store.Client(tmp_path / "objects", "--rate", "0.001", "--resets", "0")
    try:
        client.put("a.gz", b"body")
        with pytest.raises(object_store.TooFast) as limit:
            client.put("b.gz", b"body")
        assert 900 < limit.value.seconds <= 1000
        with pytest.raises(OSError, match="answered 400"):
            client.put("../c.gz", b"body")
        assert client.stats() == {
            "accepted": 1,
            "duplicate": 0,
            "refused": 1,
            "reset": 0,
            "bytes": 4,
            "rate": 0,
        }
    finally:
        client.close()
    with pytest.raises(ConnectionError):
        client.put("d.gz", b"body")


def test_the_client_reports_a_reset_and_goes_on(tmp_path: Path) -> None:
    client = object_store.Client(tmp_path / "objects", "--rate", "1e6", "--resets", "0.5")
    outcomes = set()
    try:
        for number in range(200):
            try:
                client.put(f"{number}.gz", b"body")
                outcomes.add("stored")
            except ConnectionError:
                outcomes.add("reset")
    finally:
        client.close()
    assert outcomes == {"stored", "reset"}


PARENT = """
import subprocess, sys, time
store = subprocess.Popen([sys.executable, *sys.argv[1:]], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE)
print(store.pid, int(store.stdout.readline()), flush=True)
time.sleep(600)
"""


def test_the_process_dies_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            PARENT,
            str(PROGRAM),
            str(tmp_path),
            "--rate",
            "1e6",
            "--resets",
            "0",
        ],
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    pid, port = map(int, parent.stdout.readline().split())
    connection = connect(port)
    assert put(connection, "x.gz", b"body") in (201, 200)
    os.kill(pid, signal.SIGINT)  # Ctrl-C in a terminal reaches the whole group
    assert put(connection, "y.gz", b"body") in (201, 200)
    parent.kill()
    parent.wait(LIMIT)
    parent.stdout.close()

    def gone() -> bool:
        try:
            connect(port).connect()
        except ConnectionRefusedError:
            return True
        except ConnectionResetError:  # the listening socket was just being closed
            return False
        return False

    wait_until(gone)
