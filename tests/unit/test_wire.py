"""Frames between a program and its operating-system workers."""

import pickle
import socket
import threading

import pytest

from tailrace import _os_worker_main, _wire


class OutOfBand:
    """Offers its buffer out of band."""

    def __init__(self, data):
        self.data = bytes(data)

    def __reduce_ex__(self, protocol):
        return OutOfBand, (pickle.PickleBuffer(self.data),)


class NoRoom(bytearray):
    """A bytearray for which there is no memory when it is large."""

    def __new__(cls, size):
        if isinstance(size, int) and size > 70_000:
            raise MemoryError
        return bytearray(size)


FRAMES = {
    "out of band": OutOfBand(b"\1" * 1_000_000),
    "two out of band": [OutOfBand(b"\0" * 100_000), b"\1" * 300_000, OutOfBand(b"\1" * 100_000)],
    "at once": [b"\1" * 60_000, b"\2" * 60_000],
}


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_without_room_for_it_is_lost_alone(monkeypatch, name):
    monkeypatch.setattr(_wire, "bytearray", NoRoom, raising=False)
    ours, theirs = socket.socketpair()

    def send():
        channel = _wire.Channel(theirs.fileno())
        channel.send(_wire.dump(FRAMES[name]))
        channel.send(_wire.dump("next"))

    with ours, theirs:
        sender = threading.Thread(target=send)
        sender.start()
        channel = _wire.Channel(ours.fileno())
        with pytest.raises(_wire.LoadError, match="MemoryError"):
            channel.receive()
        assert channel.receive() == "next"
        sender.join()


def test_a_stream_without_room_for_a_part_of_it_is_skipped_whole(monkeypatch):
    monkeypatch.setattr(_wire, "bytearray", NoRoom, raising=False)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sender = threading.Thread(target=theirs.sendall, args=(b"x" * 200_000 + b"next",))
        sender.start()
        channel = _wire.Channel(ours.fileno())
        source = _wire._Source(channel, 200_000)
        assert source.read(10) == b"x" * 10
        with pytest.raises(MemoryError):
            source.read(100_000)
        source.skip()
        assert channel.read(4) == b"next"
        sender.join()


def test_a_worker_that_cannot_tell_where_the_next_frame_begins_ends():
    class Broken:
        sent: list[object] = []

        def receive(self):
            raise OSError("in the middle")

        def send(self, frame):
            self.sent.append(frame)

    with pytest.raises(OSError, match="in the middle"):
        _os_worker_main._serve(Broken())
    assert Broken.sent == []
