"""A small object store over HTTP, server and client: the far end that `archiver.py` uploads to.

    python object_store.py FOLDER [--rate 250] [--resets 0.01]

The server listens on 127.0.0.1 on a free port, prints the port on a line of its own, and ends when
its standard input ends: whoever started it holds that pipe, so it dies with its parent, also when
the parent was killed with SIGKILL. `Client(folder)` starts one and talks to it. The standard
library is all that is needed.

    PUT /objects/<URL-quoted path>   201 stored, 200 stored again, 429 too fast: see Retry-After
    GET /stats                       the counters as JSON

Like the real thing it is not always friendly. More than `rate` uploads a second are refused, and a
share `resets` of the others ends with a reset connection, half of them before the object is stored
and half after, so that the client cannot know and has to upload again. An object is written beside
its place and renamed into it: a torn upload is never seen.
"""

import argparse
import http.client
import json
import math
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

NAME = re.compile(r"/objects/((?!\.{1,2}/)[\w.~%-]+/)*(?!\.{1,2}$)[\w.~%-]+", re.ASCII)
PIECE = 1 << 16  # bytes read from the connection at a time
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 s: close() sends RST


class TokenBucket:
    """Lets `rate` uploads a second pass; begins with one, and keeps at most a second's worth.

    A client that waits the whole seconds it is told, and then goes on as fast as it can, comes out
    at `rate` on average. Safe to use from any thread.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate, self.size = rate, max(rate, 1.0)
        self._clock, self._lock = clock, threading.Lock()
        self._tokens, self._filled = 1.0, clock()

    def take(self) -> float:
        """Take one token: 0.0, or the seconds until there is one and nothing was taken."""
        with self._lock:
            now = self._clock()
            self._tokens = min(self.size, self._tokens + (now - self._filled) * self.rate)
            self._filled = now
            if self._tokens < 1.0:
                return (1.0 - self._tokens) / self.rate
            self._tokens -= 1.0
            return 0.0


class ObjectStore(ThreadingHTTPServer):
    """The server: a folder, a token bucket, and counters; a thread for each connection."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, folder: Path, rate: float, resets: float) -> None:
        self.folder, self.bucket, self.resets = folder, TokenBucket(rate), resets
        self.chance: Callable[[], float] = random.Random().random
        self._counts = {"accepted": 0, "duplicate": 0, "refused": 0, "reset": 0, "bytes": 0}
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        for torn in folder.rglob("+*"):  # of a server that was killed; no object is named so
            torn.unlink(missing_ok=True)
        super().__init__(("127.0.0.1", 0), Handler)

    def count(self, what: str) -> None:
        """Add one to the counter `what`."""
        with self._lock:
            self._counts[what] += 1

    def commit(self, part: Path, place: Path) -> bool:
        """Move a complete object to its place; True when it was there already."""
        with self._lock:
            known = place.exists()
            part.replace(place)
            self._counts["accepted"] += 1
            self._counts["duplicate"] += known
            self._counts["bytes"] += place.stat().st_size
            return known

    def stats(self) -> dict[str, int]:
        """Give the counters, and the `rate` that is allowed."""
        with self._lock:
            return {**self._counts, "rate": round(self.bucket.rate)}

    def moment_of_reset(self) -> str | None:
        """Decide whether this upload ends with a reset: "before" or "after" storing, or not."""
        draw = self.chance()
        if draw >= self.resets:
            return None
        return "before" if draw < self.resets / 2 else "after"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing when a client went away in the middle; report everything else."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class Handler(BaseHTTPRequestHandler):
    """One connection, kept alive over any number of uploads."""

    server: ObjectStore
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 300

    def do_GET(self) -> None:
        """Answer with the counters."""
        if self.path != "/stats":
            self.answer(404)
            return
        self.answer(200, text=json.dumps(self.server.stats()).encode())

    def do_PUT(self) -> None:
        """Store an object, or refuse, or hang up: see the top of this file."""
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            self.close_connection = True  # where the next request begins is unknown
            self.answer(411)
            return
        body = self.body(int(length))
        if not NAME.fullmatch(self.path):
            self.answer(400, body)
        elif wait := self.server.bucket.take():
            self.server.count("refused")
            self.answer(429, body, retry_after=wait)
        elif (moment := self.server.moment_of_reset()) == "before":
            self.reset()
        else:
            self.store(body, int(length), moment)

    def store(self, body: Iterator[bytes], length: int, moment: str | None) -> None:
        """Write the object and answer, or hang up when the `moment` for that is "after"."""
        place = self.server.folder / self.path.removeprefix("/objects/")
        part = place.parent / f"+{os.getpid()}-{threading.get_ident()}"
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                with part.open("wb") as file:
                    received = sum(map(file.write, body))
                if received < length:  # the client left in the middle
                    self.close_connection = True
                    return
                known = self.server.commit(part, place)
            finally:
                part.unlink(missing_ok=True)
        except OSError as error:  # a disk that is full, a name too long, a folder in the way
            self.answer(507, body, str(error).encode(errors="replace"))
            return
        if moment == "after":
            self.reset()
        else:
            self.answer(200 if known else 201)

    def body(self, length: int) -> Iterator[bytes]:
        """Yield the body in pieces, fewer bytes than `length` when the client went away."""
        while length and (piece := self.rfile.read(min(length, PIECE))):
            length -= len(piece)
            yield piece

    def answer(
        self, status: int, unread: Iterable[bytes] = (), text: bytes = b"", retry_after: float = 0.0
    ) -> None:
        """Send a complete response, after what is left of the request has been read."""
        for _ in unread:
            pass
        self.send_response(status)
        if retry_after:
            self.send_header("Retry-After", str(math.ceil(retry_after)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def reset(self) -> None:
        """Hang up the hard way: the client gets "connection reset by peer"."""
        self.server.count("reset")
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.rfile.close()
        self.connection.close()

    def log_message(self, format: str, *args: object) -> None:
        """Keep the terminal to the one who started the server."""


class TooFast(OSError):
    """The store takes nothing for some `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the store takes nothing for {seconds:g} s")
        self.seconds = seconds


class Client:
    """Starts a server that keeps its objects in `folder`, and makes requests; for any thread."""

    def __init__(self, folder: Path, *options: str) -> None:
        command = [sys.executable, __file__, str(folder), *options]
        self._server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._server.stdout is not None
        self.port = int(self._server.stdout.readline())
        self._idle: deque[http.client.HTTPConnection] = deque()

    def put(self, name: str, body: bytes) -> None:
        """Store an object. Raises TooFast, ConnectionError (stored or not) or another OSError."""
        status, headers, text = self._request("PUT", f"/objects/{name}", body)
        if status == 429:
            raise TooFast(float(headers["Retry-After"]))
        if status not in (200, 201):
            raise OSError(f"{name}: the store answered {status} {text.decode()}".rstrip())

    def stats(self) -> dict[str, int]:
        """Give the server's counters, accepted, duplicate, refused, reset, bytes; and its rate."""
        stats: dict[str, int] = json.loads(self._request("GET", "/stats")[2])
        return stats

    def close(self) -> None:
        """End the server."""
        for pipe in (self._server.stdin, self._server.stdout):
            if pipe is not None:
                pipe.close()
        self._server.wait()

    def _request(self, method: str, path: str, body: bytes = b"") -> tuple[int, Message, bytes]:
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            answer = response.status, response.headers, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise ConnectionError(f"object store, {path}: {error!r}") from error
        self._idle.append(connection)  # only one that works is used again
        return answer


def end_with_parent() -> None:
    """Wait for the end of standard input, then end at once."""
    while os.read(0, PIECE):
        pass
    os._exit(0)


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(description="an object store that limits and resets")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rate", type=float, default=250.0, help="uploads a second")
    parser.add_argument("--resets", type=float, default=0.01, help="share of uploads, 0 to 1")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, who still uploads
    threading.Thread(target=end_with_parent, daemon=True).start()
    server = ObjectStore(options.folder, options.rate, options.resets)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
