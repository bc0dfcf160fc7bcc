"""Supervisor: a process that starts its children in order, restarts them and stops them in reverse.

This is the handle, for any thread or process; the process itself is in _supervisor_server.
"""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterable
from typing import Any, Literal, TypeAlias, cast

from . import _asynchronous, _core
from . import _validate as check
from ._child_spec import ChildSpec, Restart, Shutdown, resolve, resolve_all
from ._core import Pid
from ._errors import NoProcess, make_error
from ._supervisor_server import (
    ChildCount,
    ChildInfo,
    Options,
    Refusal,
    Request,
    SupervisorServer,
)

Strategy: TypeAlias = Literal["one_for_one", "one_for_all", "rest_for_one"]
AutoShutdown: TypeAlias = Literal["never", "any_significant", "all_significant"]


class Supervisor:
    """The handle of a supervisor; accepted wherever a Pid is.

    `Supervisor.start_link(...)` starts one; `Supervisor(pid_or_name)` is a handle of one that runs.
    Any thread or process may use it; its methods wait until the supervisor has done what they ask.

    >>> import tailrace as tr
    >>> class Disk(tr.GenServer):
    ...     def handle_cast(self, request):
    ...         raise OSError(request)
    >>> supervisor = tr.Supervisor.start_link([Disk.child_spec(id="disk")], "one_for_one")
    >>> [(child.id, child.pid.alive) for child in supervisor.which_children()]
    [('disk', True)]
    >>> supervisor.count_children().active
    1
    >>> supervisor.stop()
    """

    __slots__ = ("_pid",)

    def __init__(self, supervisor: Any) -> None:
        """Make a handle for a Pid, a registered name (else NoProcess) or another handle."""
        pid = supervisor if isinstance(supervisor, Pid) else getattr(supervisor, "pid", None)
        if isinstance(supervisor, str) and supervisor:
            pid = _core.whereis(supervisor)
            if pid is None:
                raise make_error("noname", supervisor)
        if not isinstance(pid, Pid):
            raise check.wrong_type("supervisor", "a Pid, a name or a handle", supervisor)
        self._pid: Pid = pid

    @classmethod
    def start_link(
        cls,
        children: Iterable[Any] = (),
        strategy: Strategy = "one_for_one",
        *,
        max_restarts: int = 3,
        max_seconds: float = 5.0,
        auto_shutdown: AutoShutdown = "never",
        name: str | None = None,
    ) -> Supervisor:
        """Start a supervisor linked to the caller, and its children one after the other.

        Args:
            children: each a `ChildSpec`, a class with `child_spec`, or `(class, argument)`.
            strategy: whom a child that is restarted takes with it: "one_for_one" nobody,
                "one_for_all" all others, "rest_for_one" those after it.
            max_restarts: more restarts (int >= 0) than this ...
            max_seconds: ... within so many seconds (> 0) end the supervisor with "shutdown".
            auto_shutdown: "any_significant" and "all_significant" end it when a significant child,
                or the last one, ends without being restarted.
            name: a name to register it by.

        Returns:
            The handle, after the last child has started.

        Raises:
            StartError: a child did not start; those before it were stopped again. The reason is
                `("shutdown", ("failed_to_start_child", id, reason))`.
            AlreadyStarted: the name is taken.
            TypeError, ValueError: a bad option or spec; nothing was started.

        The supervisor ends when the calling process does.
        """
        options = Options(strategy, max_restarts, max_seconds, auto_shutdown)
        specs = options.check_children(resolve_all(children))
        return cls(SupervisorServer.start_link(specs, options, name=name))

    @classmethod
    async def astart_link(
        cls,
        children: Iterable[Any] = (),
        strategy: Strategy = "one_for_one",
        *,
        max_restarts: int = 3,
        max_seconds: float = 5.0,
        auto_shutdown: AutoShutdown = "never",
        name: str | None = None,
    ) -> Supervisor:
        """As `start_link`, awaited by a task of any event loop, which goes on meanwhile."""
        options = Options(strategy, max_restarts, max_seconds, auto_shutdown)
        specs = options.check_children(resolve_all(children))
        return cls(await SupervisorServer.astart_link(specs, options, name=name))

    @classmethod
    def child_spec(
        cls,
        children: Iterable[Any] = (),
        *,
        id: Hashable = None,
        restart: Restart = "permanent",
        shutdown: Shutdown = None,
        **options: Any,
    ) -> ChildSpec:
        """Make the spec of a supervisor as a child of another one; `options` are `start_link`'s.

        Raises TypeError or ValueError for what `start_link` would refuse.

        >>> import tailrace as tr
        >>> tr.Supervisor.child_spec([], id="inner").type
        'supervisor'
        """
        checked = Options(**{key: options[key] for key in options if key != "name"})
        specs = checked.check_children(resolve_all(children))
        name: Any = cls if id is None else id
        start = (cls.start_link, (specs,), options)
        return ChildSpec(name, start, restart, shutdown, type="supervisor")

    @property
    def pid(self) -> Pid:
        """The supervisor's process."""
        return self._pid

    def which_children(self) -> list[ChildInfo]:
        """List the children in start order: `(id, pid or "restarting" or None, type)`."""
        return cast(list[ChildInfo], self._ask("which_children"))

    def count_children(self) -> ChildCount:
        """Count the children: `specs`, `active`, `supervisors`, `workers`."""
        return cast(ChildCount, self._ask("count_children"))

    def start_child(self, spec: Any) -> Any:
        """Add a child after the others and start it.

        Returns what its start function returned. Raises `ChildError` "already_started" or
        "already_present" if the id is in use, `StartError` if the start failed (the spec is then
        forgotten), TypeError or ValueError for a bad spec.
        """
        return self._ask("start_child", resolve("spec", spec))

    def terminate_child(self, id: Hashable) -> None:
        """Stop a child by its `shutdown`, without restart; its spec stays unless it is temporary.

        Raises `ChildError` "not_found". A child that does not run is no error.
        """
        self._ask("terminate_child", _hashable(id))

    def restart_child(self, id: Hashable) -> Any:
        """Start a child that is down; returns what its start function returned.

        Raises `ChildError` "running", "restarting" or "not_found", and `StartError`.
        """
        return self._ask("restart_child", _hashable(id))

    def delete_child(self, id: Hashable) -> None:
        """Forget the spec of a child that is down.

        Raises `ChildError` "running", "restarting" or "not_found".
        """
        self._ask("delete_child", _hashable(id))

    def stop(self, reason: Any = "normal", timeout: float | None = None) -> None:
        """Stop the children in reverse order, then the supervisor, with `reason`.

        Returns when it has ended. Raises `CallTimeout` after `timeout` seconds (it goes on
        stopping), `CallExit` if it ended for another reason, `NoProcess` if it had ended before.
        """
        _core.stop(self._pid, reason, timeout)

    def _ask(self, what: str, *args: Any) -> Any:
        answer = _core.call(self._pid, Request(what, args), None)
        if isinstance(answer, Refusal):
            raise answer.error
        return answer

    def __enter__(self) -> Supervisor:
        """Leave the block, and it is stopped."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it, unless it has ended."""
        with contextlib.suppress(NoProcess):
            self.stop()

    async def astop(self, reason: Any = "normal", timeout: float | None = None) -> None:
        """As `stop`, awaited by a task of any event loop."""
        await _asynchronous.astop(self._pid, reason, timeout)

    async def __aenter__(self) -> Supervisor:
        """Leave the block, and it is stopped."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop it, unless it has ended."""
        with contextlib.suppress(NoProcess):
            await self.astop()

    def __eq__(self, other: object) -> bool:
        """Handles of one supervisor are equal."""
        return isinstance(other, Supervisor) and other._pid == self._pid

    def __hash__(self) -> int:
        """As its Pid."""
        return hash(self._pid)

    def __repr__(self) -> str:
        """Name the process."""
        return f"<Supervisor {self._pid!r}>"


def _hashable(id: Hashable) -> Hashable:
    try:
        hash(id)
    except TypeError:
        raise check.wrong_type("id", "something hashable", id) from None
    return id
