"""GenServer: a process with state that answers calls and handles messages, one at a time."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, ClassVar, TypeVar

from . import _core, _validate
from ._asynchronous import started
from ._child_spec import ChildSpec, Restart, Shutdown
from ._core import From, Pid
from ._log import logger, short
from ._os_server import stand_in

T = TypeVar("T")

_CALLBACKS = (
    "init",
    "handle_call",
    "handle_cast",
    "handle_info",
    "handle_continue",
    "handle_timeout",
    "terminate",
)


class GenServer:
    """A server: derive from it, keep the state on `self`, define the callbacks you need.

    Callbacks of one server never overlap; each may be `def` or `async def`. A callback that raises
    ends the server with that exception; links, monitors and supervisors act on it. `handle_call`'s
    plain return is the answer; anything else is said with `NOREPLY`, `Reply`, `NoReply` or `Stop`.

    >>> import tailrace as tr
    >>> class Counter(tr.GenServer):
    ...     def init(self, start=0):
    ...         self.n = start
    ...     def handle_call(self, request, caller):
    ...         return self.n
    ...     def handle_cast(self, amount):
    ...         self.n += amount
    >>> counter = Counter.start_link(10)
    >>> counter.cast(5)
    >>> counter.call("get")
    15
    >>> counter.stop()
    """

    _callbacks: ClassVar[Iterable[str]] = _CALLBACKS

    _let_go: ClassVar[Any] = None
    """None, or a method that is called when the process is gone, however it ended."""

    _asynchronous: ClassVar[bool] = False
    """Whether a callback is an async def."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Find out whether a callback is an async def."""
        super().__init_subclass__(**kwargs)
        cls._asynchronous = any(
            inspect.iscoroutinefunction(getattr(cls, name, None)) for name in cls._callbacks
        )

    @classmethod
    def _choose_scheduler(cls, scheduler: str | None) -> str | None:
        """Where it runs when nobody says so; and async def callbacks nowhere else."""
        if not cls._asynchronous:
            return scheduler
        if scheduler not in (None, "asyncio"):
            raise _validate.wrong_value(
                "scheduler", f"'asyncio', as {cls.__name__} has async def callbacks", scheduler
            )
        return "asyncio"

    @classmethod
    def start_link(
        cls,
        /,
        *args: Any,
        name: str | None = None,
        timeout: float | None = None,
        scheduler: str | None = None,
        priority: str = "normal",
        **kwargs: Any,
    ) -> Pid:
        """Start a server linked to the caller; returns when `init(*args, **kwargs)` is over.

        Args:
            name: a name to register it by, taken before `init` runs.
            timeout: seconds that `init` may take; None is no limit.
            scheduler: "core" (the default); "thread", for callbacks that block as a rule; "asyncio"
                (the default when a callback is an async def): all its callbacks run on the
                engine's event loop; or "process", for callbacks that compute: the instance lives
                in an operating-system process of its own, where all its callbacks run.
            priority: "low", "normal" or "high".

        Returns:
            The Pid; or `IGNORE` if that is what `init` returned.

        Raises:
            StartError: `init` failed; `AlreadyStarted` if the name is taken.
            TypeError, ValueError: a bad option.

        Any thread or process may call it.
        """
        settings = (name, timeout, scheduler, priority)
        pid: Pid = cls._start_server(_core.start_server, args, kwargs, True, settings)
        return pid

    @classmethod
    def start(
        cls,
        /,
        *args: Any,
        name: str | None = None,
        timeout: float | None = None,
        scheduler: str | None = None,
        priority: str = "normal",
        **kwargs: Any,
    ) -> Pid:
        """As `start_link`, without the link."""
        settings = (name, timeout, scheduler, priority)
        pid: Pid = cls._start_server(_core.start_server, args, kwargs, False, settings)
        return pid

    @classmethod
    def _start_server(
        cls,
        start: Callable[..., T],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        link: bool,
        settings: tuple[str | None, float | None, str | None, str],
    ) -> T:
        name, timeout, scheduler, priority = settings
        factory, scheduler = cls._factory(scheduler), cls._choose_scheduler(scheduler)
        return start(factory, args, kwargs or None, link, name, timeout, scheduler, priority)

    @classmethod
    def _factory(cls, scheduler: str | None) -> Any:
        """Give what makes the instance."""
        return stand_in(cls) if scheduler == "process" else cls

    @classmethod
    async def astart_link(
        cls,
        /,
        *args: Any,
        name: str | None = None,
        timeout: float | None = None,
        scheduler: str | None = None,
        priority: str = "normal",
        **kwargs: Any,
    ) -> Pid:
        """As `start_link`, awaited by a task of any event loop, which goes on meanwhile.

        When the waiting task is cancelled the server is killed.

        >>> import asyncio
        >>> import tailrace as tr
        >>> class Counter(tr.GenServer):
        ...     async def init(self, start):
        ...         self.n = start
        ...     async def handle_call(self, request, caller):
        ...         return self.n
        >>> async def main():
        ...     counter = await Counter.astart_link(3)
        ...     return await counter.acall("get")
        >>> asyncio.run(main())
        3
        """
        settings = (name, timeout, scheduler, priority)
        begun = cls._start_server(_core.begin_server, args, kwargs, True, settings)
        return await started(*begun, True)

    @classmethod
    async def astart(
        cls,
        /,
        *args: Any,
        name: str | None = None,
        timeout: float | None = None,
        scheduler: str | None = None,
        priority: str = "normal",
        **kwargs: Any,
    ) -> Pid:
        """As `astart_link`, without the link."""
        settings = (name, timeout, scheduler, priority)
        begun = cls._start_server(_core.begin_server, args, kwargs, False, settings)
        return await started(*begun, False)

    @classmethod
    def child_spec(
        cls,
        /,
        *args: Any,
        id: Hashable = None,
        restart: Restart = "permanent",
        shutdown: Shutdown = 5.0,
        **kwargs: Any,
    ) -> ChildSpec:
        """Make the spec by which a supervisor starts it: `start_link(*args, **kwargs)`.

        `id` is the class by default. Override it in a class that needs other defaults.

        >>> import tailrace as tr
        >>> tr.GenServer.child_spec(restart="transient", id="mine").restart
        'transient'
        """
        name: Any = cls if id is None else id
        return ChildSpec(name, (cls.start_link, args, kwargs), restart, shutdown)

    def init(self, *args: Any, **kwargs: Any) -> Any:
        """Set the state up. Returns None, `NoReply(...)`, `Stop(reason)` or `IGNORE`."""
        if args or kwargs:
            raise TypeError(f"{type(self).__qualname__} has no init that takes arguments")
        return None

    def handle_call(self, request: Any, caller: From) -> Any:
        """Answer a call. `caller` is for `tailrace.reply`, when the answer comes later."""
        raise MissingCallback(self, "handle_call", request)

    def handle_cast(self, request: Any) -> Any:
        """Handle a cast. Returns None, `NoReply(...)` or `Stop(reason)`."""
        raise MissingCallback(self, "handle_cast", request)

    def handle_info(self, message: Any) -> Any:
        """Handle any other message. Without this callback it is logged and dropped."""
        logger.warning(
            "process %s (%s) has no handle_info; dropped message %s",
            repr(_core.self()),
            type(self).__qualname__,
            short(message),
        )
        return None

    def handle_continue(self, token: Any) -> Any:
        """Go on with what `continue_=token` asked for, before any other message."""
        raise MissingCallback(self, "handle_continue", token)

    def handle_timeout(self) -> Any:
        """No message came within the `timeout=` of the last action."""
        logger.warning(
            "process %s (%s) has no handle_timeout; a timeout passed",
            repr(_core.self()),
            type(self).__qualname__,
        )
        return None

    def terminate(self, reason: Any) -> Any:
        """Clean up; what it returns is ignored. Not called when the server is killed."""
        return None


class MissingCallback(AttributeError):
    """A server got a request for which it has no callback."""

    def __init__(self, server: object, callback: str, message: Any) -> None:
        """Say which server, which callback and which message."""
        super().__init__(
            f"{type(server).__qualname__} has no {callback}; it was to handle {short(message)}"
        )
