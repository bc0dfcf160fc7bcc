"""What goes between a program and its operating-system workers, and how: pickle, and frames.

A frame is one pickled value: a header, the lengths of its buffers, the buffers, the stream.

    u64 bytes of the stream, u32 number of buffers, u32 flags | u64 each | bytes each | stream

Buffers that an object offers out of band (protocol 5: NumPy arrays and the like) are sent from
where they lie and received into where they will lie. The same goes for large `bytes` and
`bytearray`s inside the stream: the pickler hands them out uncopied, the unpickler reads them
straight from the socket.

Plain pickle is tried first, because it is faster; what it cannot do (lambdas, nested functions),
and what it would only name although the other side does not have it (everything in `__main__`: a
worker never runs the program's own module), is left to cloudpickle, if that is installed.

A channel belongs to one thread at a time, on either side.
"""

from __future__ import annotations

import pickle
import struct
import traceback
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple, TypeAlias

from . import _core
from ._errors import RemoteError, RemoteTraceback

Buffer: TypeAlias = bytes | bytearray | memoryview

try:
    import cloudpickle
except ImportError:
    cloudpickle = None

_HEADER: Final = struct.Struct("<QII")
_HIDDEN: Final = 1  # a flag: something was hidden
_LENGTH: Final = struct.Struct("<Q")
_SMALL: Final = 64 * 1024  # a frame up to this size is received with one system call
_STREAMED: Final = 256 * 1024  # a stream from this size on is unpickled while it is received
_PROTOCOL: Final = 5

NEEDS_CLOUDPICKLE: Final = (
    "lambdas, nested functions and what __main__ defines need cloudpickle to go to a worker: "
    "pip install 'tailrace[process]', or define them in a module"
)


class Gone(Exception):
    """The other side has ended."""


class LoadError(Exception):
    """A value has arrived that cannot be had here; the text says why and what to do."""


class Unpicklable(pickle.PicklingError):
    """Something that was to go to a worker, or to come back from one, does not pickle."""


class Hide:
    """What shall not be pickled though it is reachable: it is None on the other side."""

    def __init__(self, hidden: Iterable[object] = ()) -> None:
        self._ids = {id(each) for each in hidden if each is not None}

    def __call__(self, value: object) -> str | None:
        """As a pickler's persistent_id."""
        return "hidden" if id(value) in self._ids else None


class Frame(NamedTuple):
    """A frame that is ready to be sent; the last `streams` of its parts are the stream."""

    parts: list[Buffer]
    streams: int

    def snapshot(self) -> Frame:
        """Give a copy that shares nothing with the objects it was made of."""
        return Frame([b"".join(self.parts)], 1)


def _pickled(
    kind: Any, value: object, hide: Hide | None
) -> tuple[list[Buffer], list[pickle.PickleBuffer]]:
    stream: list[Buffer] = []
    buffers: list[pickle.PickleBuffer] = []
    if hide is not None:
        kind = type("Hiding", (kind,), {"persistent_id": lambda _, value: hide(value)})
    kind(_Sink(stream.append), _PROTOCOL, buffer_callback=buffers.append).dump(value)
    return stream, buffers


class _Sink:
    """A file to write to, for a pickler: keeps the parts as they are."""

    __slots__ = ("write",)

    def __init__(self, write: Callable[[Buffer], object]) -> None:
        self.write = write


def dump(value: object, hide: Hide | None = None) -> Frame:
    """Make a frame of a value. Raises Unpicklable, which says what to do."""
    cause: Exception | None = None
    try:
        stream, buffers = _pickled(pickle.Pickler, value, hide)
        again = cloudpickle is not None and any(b"__main__" in part for part in stream)
    except Exception as error:
        again, cause = True, error
    if again:
        if cloudpickle is None:
            raise Unpicklable(f"{cause}; {NEEDS_CLOUDPICKLE}") from cause
        try:
            stream, buffers = _pickled(cloudpickle.Pickler, value, hide)
        except Exception as error:
            raise Unpicklable(str(error)) from error
    raws = [buffer.raw() for buffer in buffers]
    head = _HEADER.pack(sum(map(len, stream)), len(raws), _HIDDEN if hide is not None else 0)
    lengths = b"".join(_LENGTH.pack(raw.nbytes) for raw in raws)
    return Frame([head + lengths, *raws, *stream], len(stream))


def check_reachable(thing: Any) -> None:
    """Raise Unpicklable for a class or a function that a worker could not find by its name."""
    if cloudpickle is None and getattr(thing, "__module__", None) == "__main__":
        raise Unpicklable(f"{thing!r} is defined in __main__; {NEEDS_CLOUDPICKLE}")


def check(value: object) -> None:
    """Raise Unpicklable unless the value can be sent."""
    dump(value)


class Channel:
    """One end of the socket between a program and a worker.

    The program's end knows the worker: `pidfd` tells its end, `group` is killed when the process
    that waits here is killed. Raises Gone when the other side is.
    """

    def __init__(self, socket: int, pidfd: int = -1, group: int = 0) -> None:
        self._where = (socket, pidfd, group)
        self._buffer = bytearray(_SMALL)
        self._view = memoryview(self._buffer)
        self._begin = self._end = 0  # what was received of a frame and not yet used

    def send(self, frame: Frame) -> None:
        """Send a frame."""
        if not _core.worker_send(*self._where, frame.parts):
            raise Gone

    def receive(self) -> Any:
        """Wait for a frame and give its value; raises LoadError if it has none here.

        After that the next frame can be received, after any other exception none.
        """
        self._begin = self._end = 0
        self._fill(_HEADER.size)
        length, count, flags = _HEADER.unpack_from(self._buffer)
        self._begin = _HEADER.size
        sizes = [_LENGTH.unpack(self.read(_LENGTH.size))[0] for _ in range(count)]
        total = sum(sizes, length)
        buffers = [self._room(size, total) for size in sizes]
        for buffer in buffers:
            self._read_into(memoryview(buffer))
        if length >= _STREAMED or flags:
            return self._load_streamed(length, buffers)
        if self._begin + length > _SMALL:
            stream = self._room(length, length)
            self._read_into(memoryview(stream))
            return _loaded(pickle.loads, stream, buffers)
        self._fill(self._begin + length)
        return _loaded(pickle.loads, self._view[self._begin : self._begin + length], buffers)

    def _fill(self, end: int) -> None:
        if self._end < end:
            room = self._view[self._end :]
            got = _core.worker_receive(*self._where, room, end - self._end)
            self._end += got
            if self._end < end:
                raise Gone

    def read(self, size: int) -> bytearray:
        """Take so many bytes."""
        data = bytearray(size)
        self._read_into(memoryview(data))
        return data

    def _room(self, size: int, left: int) -> bytearray:
        """Make room for a part of a frame; without memory for it what is left of that is lost."""
        try:
            return bytearray(size)
        except MemoryError as error:
            self.skip(left)
            raise LoadError(f"MemoryError: no room for {size} bytes") from error

    def skip(self, size: int) -> None:
        """Take so many bytes, and drop them; needs no memory."""
        while size:
            part = min(size, _SMALL)
            self._read_into(self._view[:part])
            size -= part

    def _read_into(self, view: memoryview) -> None:
        """Fill a view: first with what was received already."""
        if not view.nbytes:
            return
        view = view.cast("B")
        have = min(self._end - self._begin, view.nbytes)
        view[:have] = self._view[self._begin : self._begin + have]
        self._begin += have
        missing = view.nbytes - have
        if missing and _core.worker_receive(*self._where, view[have:], missing) < missing:
            raise Gone

    def _load_streamed(self, length: int, buffers: list[bytearray]) -> Any:
        source = _Source(self, length)
        try:
            return _loaded(_load_file, source, buffers)
        except LoadError:
            source.skip()  # the rest: the next frame comes behind it
            raise


class _Source:
    """A file to read from, for an unpickler: one frame's stream, straight from the socket."""

    def __init__(self, channel: Channel, length: int) -> None:
        self._channel = channel
        self._left = length

    def read(self, size: int) -> bytes:
        """Read so many bytes, or what is left."""
        size = min(size, self._left)
        data = bytearray(size)  # first: what there is no memory for is still to be skipped
        self._left -= size
        self._channel._read_into(memoryview(data))
        return bytes(data)

    def readline(self) -> bytes:
        """Read a line; protocol 5 has none but in a persistent id."""
        line = bytearray()
        while self._left and not line.endswith(b"\n"):
            line += self.read(1)
        return bytes(line)

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer."""
        view = memoryview(buffer).cast("B")[: self._left]
        self._left -= view.nbytes
        self._channel._read_into(view)
        return view.nbytes

    def skip(self) -> None:
        """Read what is left, into nowhere."""
        left, self._left = self._left, 0
        self._channel.skip(left)


class _Unpickler(pickle.Unpickler):
    def persistent_load(self, pid: Any) -> None:
        """What was hidden is None."""


def _load_file(source: Any, *, buffers: list[bytearray]) -> Any:
    return _Unpickler(source, buffers=buffers).load()


def _loaded(load: Callable[..., Any], source: Any, buffers: list[bytearray]) -> Any:
    try:
        return load(source, buffers=buffers)
    except Gone:
        raise
    except Exception as error:
        text = "".join(traceback.format_exception_only(error)).strip()
        if cloudpickle is None and "__main__" in text:
            text = f"{text}; {NEEDS_CLOUDPICKLE}"
        raise LoadError(text) from error


# Exceptions


class Raised(NamedTuple):
    """An exception on its way to the other side, with its traceback as text."""

    error: BaseException
    text: str

    def restore(self) -> BaseException:
        """Give the exception; its cause shows where it was raised."""
        self.error.__cause__ = RemoteTraceback(self.text)
        return self.error


def raised(error: BaseException) -> Raised:
    """Prepare an exception; one that does not survive the way is represented by a RemoteError."""
    text = "".join(traceback.format_exception(error))
    return Raised(error if _survives(error) else RemoteError(error), text)


def _survives(error: BaseException) -> bool:
    try:
        frame = dump(error)
        _, *buffers = frame.parts[: -frame.streams]
        again = pickle.loads(b"".join(frame.parts[-frame.streams :]), buffers=buffers)
        return type(again) is type(error)
    except Exception:
        return False
