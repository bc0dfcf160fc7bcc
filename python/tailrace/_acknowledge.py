"""Telling the origin of messages how they ended.

An acknowledger is an object with `ack(ack_ref, successful, failed)`. The messages that a worker has
finished together are grouped by acknowledger and ack_ref, one call per group; messages without an
acknowledger are nobody's. All of this runs in the worker that finished the messages.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, overload, runtime_checkable

from ._core import Message
from ._log import logger


@runtime_checkable
class Acknowledger(Protocol):
    """Who is told how messages ended.

    `ack` is called in the pipeline's worker with the messages of one ack_ref that were finished
    together, each list in the order of processing. It should not raise: the error is logged, and
    the messages are not acknowledged again. An acknowledger whose messages can be configured also
    has `configure(ack_ref, ack_data, options) -> ack_data`.
    """

    def ack(self, ack_ref: Any, successful: list[Message], failed: list[Message]) -> object:
        """Take note of how these messages ended."""
        ...


class Group:
    """The messages of one acknowledger and ack_ref."""

    __slots__ = ("acknowledger", "failed", "ref", "successful")

    def __init__(self, acknowledger: Any, ref: Any) -> None:
        self.acknowledger = acknowledger
        self.ref = ref
        self.successful: list[Message] = []
        self.failed: list[Message] = []

    def tell(self) -> None:
        """Call the acknowledger."""
        self.acknowledger.ack(self.ref, self.successful, self.failed)


def group(successful: Iterable[Message], failed: Iterable[Message]) -> list[Group]:
    """Group messages by acknowledger (the object) and ack_ref (its value, if it can be hashed)."""
    groups: dict[Any, Group] = {}
    for messages, side in ((successful, "successful"), (failed, "failed")):
        for message in messages:
            triple = message.acknowledger
            if triple is None:
                continue
            acknowledger, ref, _ = triple
            key: Any = (id(acknowledger), ref)
            try:
                found = groups.get(key)
            except TypeError:
                key = (id(acknowledger), "unhashable", id(ref))
                found = groups.get(key)
            if found is None:
                found = groups[key] = Group(acknowledger, ref)
            getattr(found, side).append(message)
    return list(groups.values())


def acknowledge(successful: list[Message], failed: list[Message]) -> None:
    """Tell everybody; what an acknowledger raises is logged and keeps nobody else from being
    told.
    """
    for each in group(successful, failed):
        try:
            each.tell()
        except Exception:
            logger.exception(
                "acknowledger %r failed; %d successful and %d failed messages of %r are not "
                "acknowledged",
                each.acknowledger,
                len(each.successful),
                len(each.failed),
                each.ref,
            )


@overload
def ack_now(messages: Message) -> Message: ...
@overload
def ack_now(messages: list[Message]) -> list[Message]: ...
def ack_now(messages: Message | list[Message]) -> Message | list[Message]:
    """Acknowledge messages now, each by its present status, and not again later.

    Takes one message or a non-empty list and returns it. One call per acknowledger and ack_ref;
    what an acknowledger raises reaches the caller. Neither the status nor the way of the messages
    changes. To be called by whoever holds the messages, in any thread.

    >>> ack_now([Message(1), Message(2)])
    [<Message 1>, <Message 2>]
    """
    if isinstance(messages, Message):
        return messages.ack_now()
    if not isinstance(messages, list) or not all(isinstance(m, Message) for m in messages):
        raise TypeError(f"messages: expected a Message or a list of them, got {messages!r}")
    if not messages:
        raise ValueError("messages: expected at least one message, got []")
    successful = [message for message in messages if message.status == "ok"]
    failed = [message for message in messages if message.status != "ok"]
    for each in group(successful, failed):
        each.tell()
        for message in (*each.successful, *each.failed):
            message.acknowledger = None
    return messages
