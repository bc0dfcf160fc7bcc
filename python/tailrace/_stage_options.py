"""What stages and subscriptions can be told, checked before anything happens."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from . import _core
from . import _validate as check
from ._actions import UNSET
from ._core import Pid

Stage: TypeAlias = "Pid | str | Any"
"""A stage: its Pid, its registered name, or a handle with a `pid`."""

Entry: TypeAlias = "Stage | tuple[Stage, Mapping[str, Any]]"

CANCEL_MODES: Final = ("permanent", "transient", "temporary")
_RESERVED: Final = ("to", "timeout")
_MOST: Final = 2**63 - 1  # what the core counts to


def stage(path: str, value: object) -> Any:
    """Check that this can be a stage: a Pid, a non-empty name, or a handle."""
    if isinstance(value, str):
        if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
            raise check.wrong_value(path, "a name without NUL and surrogates", value)
        return check.text(path, value)
    if isinstance(value, Pid) or isinstance(getattr(value, "pid", None), Pid):
        return value
    raise check.wrong_type(path, "a stage: a Pid, a registered name or a handle", value)


def subscription(path: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Check the options of a subscription and fill the defaults in (S37 to S40)."""
    resolved = dict(options)
    for word in _RESERVED:
        if word in resolved:
            raise TypeError(f"{path}{word}: reserved, it cannot be a subscription option")
    most = check.integer(f"{path}max_demand", resolved.get("max_demand", 1000), 1)
    if most > _MOST:
        raise check.wrong_value(f"{path}max_demand", f"an int 1 .. {_MOST}", most)
    least = resolved.get("min_demand")
    if least is None:
        least = most // 2
    resolved["max_demand"] = most
    resolved["min_demand"] = check.integer(f"{path}min_demand", least, 0, most - 1)
    cancel = resolved.get("cancel", "permanent")
    resolved["cancel"] = check.one_of(f"{path}cancel", cancel, CANCEL_MODES)
    return resolved


def _entries(value: object) -> list[tuple[Any, dict[str, Any]]]:
    """Check subscribe_to: stages, or pairs of a stage and subscription options."""
    if not isinstance(value, list | tuple):
        raise check.wrong_type(
            "subscribe_to", "a list of stages or (stage, {option: value})", value
        )
    checked = []
    for index, entry in enumerate(value):
        path = f"subscribe_to[{index}]"
        pair = isinstance(entry, tuple) and len(entry) == 2
        target, options = entry if pair else (entry, {})
        stage(path, target)
        checked.append((target, subscription(f"{path}.", check.mapping(path, options))))
    return checked


@dataclass(frozen=True)
class DemandDispatcher:
    """Each batch of events goes to the consumer with the largest demand; the default.

    Args:
        max_demand: an ask above it is logged (int >= 1); None takes the first ask seen.
        shuffle_demands_on_first_dispatch: choose the first receiver at random instead of by the
            order of subscribing.

    Raises:
        TypeError, ValueError: a bad argument.

    Any thread may make one; each stage takes a copy.

    >>> import tailrace as tr
    >>> tr.StageOptions(dispatcher=tr.DemandDispatcher(max_demand=100))
    StageOptions(dispatcher=DemandDispatcher(max_demand=100))
    """

    max_demand: int | None = None
    shuffle_demands_on_first_dispatch: bool = False

    def __post_init__(self) -> None:
        """Check the fields."""
        if self.max_demand is not None:
            check.integer("max_demand", self.max_demand, 1, _MOST)
        check.boolean("shuffle_demands_on_first_dispatch", self.shuffle_demands_on_first_dispatch)

    def __repr__(self) -> str:
        """Show what differs from the defaults."""
        shown = [] if self.max_demand is None else [f"max_demand={self.max_demand}"]
        if self.shuffle_demands_on_first_dispatch:
            shown.append("shuffle_demands_on_first_dispatch=True")
        return f"DemandDispatcher({', '.join(shown)})"

    def template(self) -> tuple[int, bool, int]:
        """What the core makes a dispatcher of: maximum, shuffle, seed."""
        shuffle = self.shuffle_demands_on_first_dispatch
        return self.max_demand or 0, shuffle, random.getrandbits(64)


_NOT_GIVEN: Final[Any] = UNSET  # None is a buffer size
_VALID: Final = ("dispatcher", "buffer_size", "buffer_keep", "demand", "subscribe_to")

OPTIONS_OF: Final = {
    "Producer": ("dispatcher", "buffer_size", "buffer_keep", "demand"),
    "ProducerConsumer": ("dispatcher", "buffer_size", "buffer_keep", "subscribe_to"),
    "Consumer": ("subscribe_to",),
}
"""Which options which kind of stage has."""


class StageOptions:
    """How a stage is set up. A stage has the options of its class attribute `options`, of what its
    `init` returns, and of `start_link(..., options=...)`; the later wins, option by option.

    Args:
        dispatcher: what decides which consumer gets which events, by default a `DemandDispatcher`
            (Producer, ProducerConsumer).
        buffer_size: how many events that nobody asked for are kept, an int >= 0 or None for no
            limit; by default 10,000, and None for a ProducerConsumer.
        buffer_keep: which are kept when there are more: "last" (the default) or "first".
        demand: "forward" (the default), or "accumulate" to hold demand and events back until
            `tailrace.demand(stage, "forward")` (Producer).
        subscribe_to: stages, or pairs (stage, {option: value}), to subscribe to before the start
            returns, in this order (ProducerConsumer, Consumer).

    Raises:
        TypeError, ValueError: a bad option.

    Any thread may make one. An option that was not given is None, `buffer_size` UNSET.

    >>> import tailrace as tr
    >>> tr.StageOptions(buffer_size=100, buffer_keep="first")
    StageOptions(buffer_size=100, buffer_keep='first')
    """

    __slots__ = _VALID

    def __init__(
        self,
        *,
        dispatcher: DemandDispatcher | _core.DispatcherTemplate | None = None,
        buffer_size: int | None = _NOT_GIVEN,
        buffer_keep: Literal["first", "last"] | None = None,
        demand: Literal["forward", "accumulate"] | None = None,
        subscribe_to: Sequence[Entry] | None = None,
        **unknown: Any,
    ) -> None:
        """Check the options."""
        check.keywords("StageOptions", unknown, _VALID)
        if dispatcher is not None and not isinstance(
            dispatcher, DemandDispatcher | _core.DispatcherTemplate
        ):
            raise check.wrong_type("dispatcher", "a dispatcher", dispatcher)
        if buffer_size is not _NOT_GIVEN and buffer_size is not None:
            buffer_size = check.integer("buffer_size", buffer_size, 0, _MOST)
        if buffer_keep is not None:
            check.one_of("buffer_keep", buffer_keep, ("first", "last"))
        if demand is not None:
            check.one_of("demand", demand, ("forward", "accumulate"))
        self.dispatcher = dispatcher
        self.buffer_size = buffer_size
        self.buffer_keep = buffer_keep
        self.demand = demand
        self.subscribe_to = None if subscribe_to is None else _entries(subscribe_to)

    def given(self) -> dict[str, Any]:
        """The options that were given."""
        values = ((name, getattr(self, name)) for name in _VALID)
        return {
            name: value for name, value in values if value is not None and value is not _NOT_GIVEN
        } | ({"buffer_size": None} if self.buffer_size is None else {})

    def __repr__(self) -> str:
        """Show what was given."""
        given = self.given()
        shown = (f"{name}={given[name]!r}" for name in _VALID if name in given)
        return f"StageOptions({', '.join(shown)})"


def merge(kind: str, *sources: StageOptions | None) -> dict[str, Any]:
    """Lay options over each other, the later winning; refuse what this kind of stage lacks (S9)."""
    merged: dict[str, Any] = {}
    for source in sources:
        merged |= source.given() if source is not None else {}
    for name in merged:
        if name not in OPTIONS_OF[kind]:
            raise TypeError(
                f"options.{name}: a {kind} does not have this option; "
                f"it has {', '.join(OPTIONS_OF[kind])}"
            )
    return merged
