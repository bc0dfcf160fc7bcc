"""Dummy: a producer that never produces."""

from __future__ import annotations

from tailrace._stages import Producer


class Dummy(Producer):
    """Never emits anything: for tests of a pipeline, whose messages are pushed.

    >>> import tailrace as tr
    >>> class Double(tr.Pipeline):
    ...     producer = tr.producers.Dummy
    ...     def handle_message(self, message):
    ...         message.data *= 2
    ...         return message
    >>> pipeline = Double.start_link()
    >>> ref = pipeline.test_message(21)
    >>> tr.receive(ref, timeout=5)[2]
    [<Message 42>]
    >>> pipeline.stop()
    """

    def handle_demand(self, demand: int) -> None:
        """Ignore demand."""
