"""Child specifications: how a supervisor starts, restarts and stops one child.

Plain values, made and checked before any process exists. Any thread may use them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Literal, TypeAlias, cast

from . import _validate as check

Restart: TypeAlias = Literal["permanent", "transient", "temporary"]
Shutdown: TypeAlias = float | Literal["kill"] | None
Start: TypeAlias = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]

RESTARTS: Final = ("permanent", "transient", "temporary")
TYPES: Final = ("worker", "supervisor")

_DEFAULT: Final[Any] = object()
_START = "(callable, args, kwargs) or a class with child_spec"


def _start(path: str, value: object) -> Start:
    """Check a start function and bring it into its long form."""
    if isinstance(value, type) and hasattr(value, "child_spec"):
        return cast(Start, resolve(path, value).start)
    if not isinstance(value, tuple) or not 1 <= len(value) <= 3:
        raise check.wrong_type(path, _START, value)
    function, args, kwargs = value + ((), {})[len(value) - 1 :]
    check.function(f"{path}[0]", function)
    if not isinstance(args, tuple | list):
        raise check.wrong_type(f"{path}[1]", "a tuple of arguments", args)
    return function, tuple(args), dict(check.mapping(f"{path}[2]", kwargs))


def _shutdown(path: str, value: object) -> Shutdown:
    if value is None:
        return None
    if isinstance(value, str):
        if value == "kill":
            return "kill"
        raise check.wrong_value(path, "seconds >= 0, None or 'kill'", value)
    return check.seconds(path, value)


@dataclass(frozen=True)
class ChildSpec:
    """What a supervisor has to know of a child.

    id: anything hashable, unique in the supervisor.
    start: `(callable, args, kwargs)`, of which kwargs, or both, may be left out, or a class with
        `child_spec`. It is called in the supervisor's process and returns a Pid or a handle,
        linked to it, `(Pid, info)`, or `tr.IGNORE`; it fails by raising.
    restart: after which ends the child is started again: "permanent" any, "transient" any but a
        clean one ("normal", "shutdown", ("shutdown", x)), "temporary" none.
    shutdown: how it is stopped: asked to, then killed after so many seconds (>= 0); None waits for
        ever; "kill" kills at once. Default 5.0, and None when type is "supervisor".
    type: "worker" or "supervisor".
    significant: its end, when it is not restarted, may end the supervisor (`auto_shutdown`). Not
        together with "permanent".

    Raises TypeError or ValueError, naming the field.

    >>> spec = ChildSpec("disk", (print, ("checking",)), restart="transient")
    >>> spec.shutdown, spec.type
    (5.0, 'worker')
    """

    id: Hashable
    start: Any
    restart: Restart = "permanent"
    shutdown: Shutdown = field(default=_DEFAULT)
    type: Literal["worker", "supervisor"] = "worker"
    significant: bool = False

    def __post_init__(self) -> None:
        self.check("")

    def check(self, path: str) -> None:
        """Check all fields, naming them with `path` in front, and fill the defaults in."""
        try:
            hash(self.id)
        except TypeError:
            raise check.wrong_type(f"{path}id", "something hashable", self.id) from None
        put = object.__setattr__  # the dataclass is frozen
        put(self, "start", _start(f"{path}start", self.start))
        check.one_of(f"{path}restart", self.restart, RESTARTS)
        check.one_of(f"{path}type", self.type, TYPES)
        if self.shutdown is _DEFAULT:
            put(self, "shutdown", 5.0 if self.type == "worker" else None)
        put(self, "shutdown", _shutdown(f"{path}shutdown", self.shutdown))
        check.boolean(f"{path}significant", self.significant)
        if self.significant and self.restart == "permanent":
            raise check.wrong_value(f"{path}significant", "False with restart='permanent'", True)


FIELDS: Final = tuple(option.name for option in fields(ChildSpec))


def child_spec(child: object, /, **overrides: Any) -> ChildSpec:
    """Make the spec of a child, with some of its fields changed.

    child: a ChildSpec; a class (or object) with a method `child_spec`, such as a GenServer class;
        or `(class, argument)`.
    overrides: fields of ChildSpec.

    Returns a new spec. Raises TypeError for something that has no child spec and for an unknown
    field, TypeError or ValueError for a bad one. Any thread.

    >>> once = child_spec(ChildSpec("disk", (print,)), restart="temporary")
    >>> once.id, once.restart
    ('disk', 'temporary')
    """
    return resolve("child", child, overrides)


def resolve(path: str, child: object, overrides: dict[str, Any] | None = None) -> ChildSpec:
    """The same; `path` names the child in errors."""
    if overrides:
        check.keywords(path, overrides, FIELDS)
    arguments: tuple[Any, ...] = ()
    spec = child
    if isinstance(spec, tuple) and len(spec) == 2:
        spec, *rest = spec
        arguments = tuple(rest)
    if not isinstance(spec, ChildSpec):
        make = getattr(spec, "child_spec", None)
        if not callable(make):
            expected = "a ChildSpec, a class with child_spec, or (class, argument)"
            raise check.wrong_type(path, expected, child)
        spec = check.instance(f"{path}.child_spec()", make(*arguments), ChildSpec, "a ChildSpec")
    elif arguments:
        raise check.wrong_type(path, "a ChildSpec without argument, or (class, argument)", child)
    return replace(spec, **overrides) if overrides else spec


def resolve_all(children: object) -> list[ChildSpec]:
    """Make the specs of a list of children and check that their ids differ."""
    if isinstance(children, str | bytes) or not isinstance(children, Iterable):
        raise check.wrong_type("children", "a list of children", children)
    specs = [resolve(f"children[{at}]", child) for at, child in enumerate(children)]
    seen: set[Hashable] = set()
    for at, spec in enumerate(specs):
        if spec.id in seen:
            raise check.wrong_value(f"children[{at}].id", "an id of its own", spec.id)
        seen.add(spec.id)
    return specs
