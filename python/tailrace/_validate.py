"""Checks of arguments and options: one message form for all of them.

    path.to.option: expected an int >= 1, got 0

A wrong type (and an unknown keyword) is a `TypeError`, a wrong value a `ValueError`. `bool` is
never taken for a number. Each function returns the value it checked, so that a check can stand
where the value is used. `path` names the argument as the caller wrote it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")

LONGEST = 9e9
"""Seconds, 285 years: as long as the engine's clock can count. What is longer is cut to it."""


def wrong_type(path: str, expected: str, value: object) -> TypeError:
    """Make the error for a value of the wrong type."""
    return TypeError(f"{path}: expected {expected}, got {value!r}")


def wrong_value(path: str, expected: str, value: object) -> ValueError:
    """Make the error for a value out of range."""
    return ValueError(f"{path}: expected {expected}, got {value!r}")


def integer(path: str, value: object, minimum: int, maximum: int | None = None) -> int:
    """Check an int within bounds, both included."""
    expected = f"an int >= {minimum}" if maximum is None else f"an int {minimum} .. {maximum}"
    if not isinstance(value, int) or isinstance(value, bool):
        raise wrong_type(path, expected, value)
    if value < minimum or (maximum is not None and value > maximum):
        raise wrong_value(path, expected, value)
    return value


def seconds(path: str, value: object, *, zero: bool = True, forever: bool = False) -> float:
    """Check a time in seconds: an int or float, not negative; 0 and infinity only if allowed."""
    expected = f"seconds {'>=' if zero else '>'} 0"
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise wrong_type(path, expected, value)
    if not value >= 0 or (value == 0 and not zero):  # not a number is not >= 0 either
        raise wrong_value(path, expected, value)
    number = float(value) if value <= sys.float_info.max else math.inf
    if math.isinf(number) and not forever:
        raise wrong_value(path, f"finite {expected}", value)
    return number if math.isinf(number) else min(number, LONGEST)


def optional_seconds(path: str, value: object, *, zero: bool = True) -> float | None:
    """Check a time in seconds, or None for no limit."""
    return None if value is None else seconds(path, value, zero=zero)


def boolean(path: str, value: object) -> bool:
    """Check a bool."""
    if not isinstance(value, bool):
        raise wrong_type(path, "a bool", value)
    return value


def text(path: str, value: object) -> str:
    """Check a non-empty str."""
    if not isinstance(value, str):
        raise wrong_type(path, "a non-empty str", value)
    if not value:
        raise wrong_value(path, "a non-empty str", value)
    return value


def function(path: str, value: T) -> T:
    """Check something that can be called."""
    if not callable(value):
        raise wrong_type(path, "a callable", value)
    return value


def instance(path: str, value: object, kind: type[T], expected: str) -> T:
    """Check an instance of a class; `expected` says which, with its article."""
    if not isinstance(value, kind):
        raise wrong_type(path, expected, value)
    return value


def one_of(path: str, value: object, allowed: Collection[str]) -> str:
    """Check one of a few words."""
    expected = "one of " + ", ".join(repr(word) for word in allowed)
    if not isinstance(value, str):
        raise wrong_type(path, expected, value)
    if value not in allowed:
        raise wrong_value(path, expected, value)
    return value


def keywords(path: str, given: Iterable[str], valid: Collection[str]) -> None:
    """Check that every keyword is known; the error lists the valid ones."""
    unknown = [repr(word) for word in given if word not in valid]
    if unknown:
        where = f"{path}: " if path else ""
        raise TypeError(
            f"{where}unknown keyword {', '.join(unknown)}; valid are {', '.join(valid) or 'none'}"
        )


def mapping(path: str, value: object) -> Mapping[str, Any]:
    """Check a mapping whose keys are non-empty str."""
    if not isinstance(value, Mapping):
        raise wrong_type(path, "a mapping", value)
    for key in value:
        text(f"a key of {path}", key)
    return value
