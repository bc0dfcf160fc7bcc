"""What the tests of pipelines share: a pipeline whose messages are pushed, and acknowledgements."""

import threading

from support import LIMIT, eventually

import tailrace as tr


class Pushed(tr.Pipeline):
    """Messages come only from outside. One processor with small chunks, unless a test says more."""

    producer = tr.producers.Dummy
    processors = tr.Processors(concurrency=1, max_demand=10)

    def handle_message(self, message):
        return message

    def handle_batch(self, batcher, messages, info):
        return messages


def next_ack(ref):
    """The data of the next acknowledgement for a test message: (successful, failed)."""
    _, _, successful, failed = tr.receive(ref, timeout=LIMIT)
    return [m.data for m in successful], [m.data for m in failed]


def acks(ref, count):
    """All acknowledgements for a test batch of `count` messages."""
    found = []
    while sum(len(good) + len(bad) for good, bad in found) < count:
        found.append(next_ack(ref))
    return found


class Log:
    """An acknowledger that writes down what it is told, and lets a test wait for it."""

    def __init__(self):
        self.calls = []
        self.changed = threading.Condition()

    def ack(self, ref, successful, failed):
        with self.changed:
            self.calls.append((ref, [m.data for m in successful], [m.data for m in failed]))
            self.changed.notify_all()

    def wait(self, messages):
        """Wait until so many messages were acknowledged; all calls so far."""
        with self.changed:
            done = self.changed.wait_for(lambda: self.count() >= messages, LIMIT)
            assert done, f"only {self.count()} of {messages} were acknowledged: {self.calls}"
            return list(self.calls)

    def count(self):
        return sum(len(good) + len(bad) for _, good, bad in self.calls)


def messages(log, data, ref="r"):
    """Messages that tell `log` how they end."""
    return [tr.Message(each, None, (log, ref, None)) for each in data]


def settled(grows):
    """Wait until a list that has begun to grow does so no more: a hundred looks without a
    change.
    """
    looks = [0, 0]  # without a change; length at the last one

    def quiet():
        looks[0] = looks[0] + 1 if looks[1] == len(grows) > 0 else 0
        looks[1] = len(grows)
        return looks[0] >= 100

    eventually(quiet)
