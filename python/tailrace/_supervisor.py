"""Supervisor: a process that starts its children in order, restarts them and stops them in reverse.

What is to be done is decided by the core (csrc/include/tailrace_supervisor.h); this module does it:
it calls start functions, sends exit signals, waits for ends, and logs. A supervisor is a GenServer
that traps exits. Its children stay linked to it until they are dead, also while they are being
stopped, so that a supervisor that is killed half-way leaves none behind.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeAlias, cast

from . import _core
from . import _validate as check
from ._actions import IGNORE, NOREPLY, Exit, Reply, Stop
from ._child_spec import ChildSpec, Restart, Shutdown, resolve, resolve_all
from ._control import ffi, lib
from ._core import From, Pid
from ._engine import address
from ._errors import (
    ChildError,
    EngineError,
    NoProcess,
    ProcessExit,
    ReceiveTimeout,
    StartError,
    make_error,
)
from ._log import logger, short
from ._process import receive, trap_exit
from ._server import GenServer

Strategy: TypeAlias = Literal["one_for_one", "one_for_all", "rest_for_one"]
AutoShutdown: TypeAlias = Literal["never", "any_significant", "all_significant"]

_STRATEGIES: Final = {
    "one_for_one": lib.TR_ONE_FOR_ONE,
    "one_for_all": lib.TR_ONE_FOR_ALL,
    "rest_for_one": lib.TR_REST_FOR_ONE,
}
_AUTO_SHUTDOWNS: Final = {
    "never": lib.TR_AUTO_NEVER,
    "any_significant": lib.TR_AUTO_ANY_SIGNIFICANT,
    "all_significant": lib.TR_AUTO_ALL_SIGNIFICANT,
}
_RESTARTS: Final = {
    "permanent": lib.TR_PERMANENT,
    "transient": lib.TR_TRANSIENT,
    "temporary": lib.TR_TEMPORARY,
}
_CODES: Final = {
    lib.TR_ENOCHILD: "not_found",
    lib.TR_ERUNNING: "running",
    lib.TR_ERESTARTING: "restarting",
}


class ChildInfo(NamedTuple):
    """A line of `which_children`; `pid` is "restarting" while a start is tried again, None if the
    child is down."""

    id: Hashable
    pid: Pid | Literal["restarting"] | None
    type: str


class ChildCount(NamedTuple):
    """The answer of `count_children`: all specs, children alive now, supervisors and workers among
    the specs."""

    specs: int
    active: int
    supervisors: int
    workers: int


@dataclass(frozen=True, slots=True)
class _Options:
    strategy: str
    max_restarts: int
    max_seconds: float
    auto_shutdown: str

    def __post_init__(self) -> None:
        check.one_of("strategy", self.strategy, _STRATEGIES)
        check.integer("max_restarts", self.max_restarts, 0, 2**63)
        check.seconds("max_seconds", self.max_seconds, zero=False)
        check.one_of("auto_shutdown", self.auto_shutdown, _AUTO_SHUTDOWNS)

    def refuse(self, path: str, spec: ChildSpec) -> None:
        """Refuse a child that is significant for nothing (O173)."""
        if spec.significant and self.auto_shutdown == "never":
            expected = "False with auto_shutdown='never'"
            raise check.wrong_value(f"{path}.significant", expected, True)


class Supervisor:
    """The handle of a supervisor; accepted wherever a Pid is.

    `Supervisor.start_link(...)` starts one; `Supervisor(pid_or_name)` is a handle of one that runs.
    Any thread or process may use it; its methods wait until the supervisor has done what they ask.

    >>> import tailrace as tr
    >>> class Disk(tr.GenServer):
    ...     def handle_cast(self, request):
    ...         raise OSError(request)
    >>> supervisor = tr.Supervisor.start_link([Disk], strategy="one_for_one")
    >>> [(child.id, child.pid.alive) for child in supervisor.which_children()]
    [(<class 'Disk'>, True)]
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
        options = _Options(strategy, max_restarts, max_seconds, auto_shutdown)
        specs = resolve_all(children)
        for at, spec in enumerate(specs):
            options.refuse(f"children[{at}]", spec)
        return cls(SupervisorServer.start_link(specs, options, name=name))

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

        >>> import tailrace as tr
        >>> tr.Supervisor.child_spec([], id="inner").type
        'supervisor'
        """
        name: Any = cls if id is None else id
        start = (cls.start_link, (children,), options)
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
        answer = _core.call(self._pid, _Request(what, args), None)
        if isinstance(answer, _Refusal):
            raise answer.error
        return answer

    def __enter__(self) -> Supervisor:
        """Leave the block, and it is stopped."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it, unless it has ended."""
        with contextlib.suppress(NoProcess):
            self.stop()

    def __eq__(self, other: object) -> bool:
        """Handles of one supervisor are equal."""
        return isinstance(other, Supervisor) and other._pid == self._pid

    def __hash__(self) -> int:
        """As its Pid."""
        return hash(self._pid)

    def __repr__(self) -> str:
        """Name the process."""
        return f"<Supervisor {self._pid!r}>"


# ---- The process --------------------------------------------------------------------------------


class _Request(NamedTuple):
    """From the handle: a method of SupervisorServer without its `do_`, and its arguments."""

    what: str
    args: tuple[Any, ...]


class _Retry(NamedTuple):
    """To itself, behind what is waiting already: try to start the child again (O160)."""

    child: int


class _Refusal(NamedTuple):
    """An answer that the handle raises in its caller."""

    error: Exception


@dataclass(slots=True)
class _Child:
    spec: ChildSpec
    pid: Pid | None = None
    """While it runs."""
    result: Any = None
    """What its start function returned last."""
    failure: Any = None
    """Why its last start failed, if it did."""
    raised: BaseException | None = None
    """The same, if it is an exception that nobody has logged."""


class SupervisorServer(GenServer):
    """The supervisor's process. A child is known by the core's number for it (`tr_child`)."""

    def init(self, specs: list[ChildSpec], options: _Options) -> Any:
        """Start the children; a failure stops those that were started (O145, O146)."""
        trap_exit(True)
        self.options = options
        self.children: dict[int, _Child] = {}
        self.numbers: dict[Hashable, int] = {}
        self.failed: _Child | None = None
        self.table = _new_table(options)
        for spec in specs:
            self.add(lib.tr_supervisor_add, spec)
        _ok(lib.tr_supervisor_start(self.table))
        if self.carry_out() and self.failed is not None:
            why = ("failed_to_start_child", self.failed.spec.id, self.failed.failure)
            return Stop(("shutdown", why))
        return None

    def handle_info(self, message: Any) -> Any:
        """Take note of an end; other messages are logged and dropped."""
        if isinstance(message, Exit):
            return self.exited(message.pid, message.reason)
        return super().handle_info(message)

    def handle_cast(self, request: Any) -> Any:
        """Try a start again; other requests are logged and dropped."""
        if not isinstance(request, _Retry):
            return super().handle_info(request)
        _ok(lib.tr_supervisor_retry(self.table, request.child, _now()))
        return self.go_on()

    def handle_call(self, request: Any, caller: From) -> Any:
        """Do what a handle asks for; other requests are logged, and nobody answers them."""
        if not isinstance(request, _Request):
            super().handle_info(request)
            return NOREPLY
        try:
            return Reply(getattr(self, "do_" + request.what)(*request.args))
        except (EngineError, ValueError) as error:
            return Reply(_Refusal(error))

    def terminate(self, reason: Any) -> None:
        """Stop the children in reverse order (O165)."""
        lib.tr_supervisor_shutdown(self.table)
        self.carry_out()

    # ---- Events

    def exited(self, pid: Pid, reason: Any) -> Any:
        """Work off the end of a process; one that is no child, or no more, means nothing."""
        number = ffi.new("tr_child *")
        code = lib.tr_supervisor_child_exited(
            self.table, _core.pid_number(pid), _is_clean(reason), _now(), number
        )
        if code == lib.TR_ENOCHILD:
            return None
        _ok(code)
        child = self.children[number[0]]
        child.pid = None
        if not _is_clean(reason):
            again = "not restarted" if child.spec.restart == "temporary" else "to be restarted"
            self.log(logging.WARNING, child, f"{pid!r} ended, {again}: {short(reason)}")
        return self.go_on()

    def go_on(self) -> Stop | None:
        """Carry the plan out; the supervisor ends if that is where it leads."""
        return Stop("shutdown") if self.carry_out() else None

    # ---- The plan

    def carry_out(self) -> bool:
        """Do one action after the other; whether the supervisor has come to its end."""
        action = ffi.new("tr_action *")
        while True:
            lib.tr_supervisor_next(self.table, action)
            if action.kind == lib.TR_ACT_NONE:
                return False
            if action.kind == lib.TR_ACT_END:
                return True
            self.act(action.kind, action.child)

    def act(self, kind: int, number: int) -> None:
        """Do one action."""
        child = self.children[number]
        if kind == lib.TR_ACT_START:
            self.start_process(child)
        elif kind == lib.TR_ACT_STOP:
            self.stop_process(child)
        elif kind == lib.TR_ACT_RETRY:
            what = f"did not start, to be tried again: {short(child.failure)}"
            self.log(logging.ERROR, child, what, child.raised)
            _core.cast(_core.self(), _Retry(number))
        elif kind == lib.TR_ACT_FORGET:
            self.forget(number)
        elif kind == lib.TR_ACT_GIVE_UP:
            limit = f"{self.options.max_restarts} restarts in {self.options.max_seconds:g} s"
            self.log(logging.ERROR, child, f"more than {limit}; giving up")
        else:  # TR_ACT_AUTO_SHUTDOWN
            self.log(logging.INFO, child, "was significant and has ended; shutting down")

    def start_process(self, child: _Child) -> None:
        """Run the start function and report what became of it."""
        function, args, kwargs = child.spec.start
        try:
            child.result = function(*args, **kwargs)
            pid = None if child.result is IGNORE else _pid_of(child.result)
        except (StartError, ProcessExit) as error:
            self.start_failed(child, error.reason)
        except (Exception, SystemExit) as error:
            self.start_failed(child, error, raised=error)
        else:
            if pid is None:
                self.done(lib.TR_DONE_IGNORED)
            else:
                self.start_succeeded(child, pid)

    def start_succeeded(self, child: _Child, pid: Pid) -> None:
        """Take the process over, unless it is another child's."""
        _core.link(pid)  # for a start function that forgot to
        number = _core.pid_number(pid)
        code = lib.tr_supervisor_done(self.table, lib.TR_DONE_STARTED, number)
        if code == lib.TR_EINVAL:
            text = f"the start function of {child.spec.id!r} returned another child's {pid!r}"
            self.start_failed(child, EngineError(text))
            return
        _ok(code)
        child.pid = pid

    def start_failed(self, child: _Child, reason: Any, raised: BaseException | None = None) -> None:
        """Remember why, and report it."""
        child.failure = reason
        child.raised = raised
        self.failed = child
        self.done(lib.TR_DONE_FAILED)

    def stop_process(self, child: _Child) -> None:
        """Shut a child down by its `shutdown` and wait until it is dead (O162 to O166)."""
        pid = cast(Pid, child.pid)
        reason = _shut_down(pid, child.spec.shutdown)
        _core.unlink(pid)
        expected = "killed" if child.spec.shutdown == "kill" else "shutdown"
        if reason != expected and not _is_clean(reason):
            self.log(logging.WARNING, child, f"{pid!r} was being stopped, but: {short(reason)}")
        child.pid = None
        self.done(lib.TR_DONE_STOPPED)

    def done(self, outcome: int) -> None:
        """Report the outcome of an action that made no process."""
        _ok(lib.tr_supervisor_done(self.table, outcome, 0))

    # ---- The table

    def add(self, append: Callable[[Any, Any, Any], int], spec: ChildSpec) -> _Child:
        """Append a child to the table, here and in the core."""
        number = ffi.new("tr_child *")
        options = ffi.new(
            "tr_child_options *",
            {"restart": _RESTARTS[spec.restart], "significant": spec.significant},
        )
        _ok(append(self.table, options, number))
        child = self.children[number[0]] = _Child(spec)
        self.numbers[spec.id] = number[0]
        return child

    def forget(self, number: int) -> None:
        """Drop a child that has left the core's table."""
        del self.numbers[self.children.pop(number).spec.id]

    def find(self, id: Hashable) -> int:
        """The number of a child; 0, which is none, for an unknown id."""
        return self.numbers.get(id, 0)

    def listed(self) -> list[tuple[_Child, int]]:
        """The children in start order, each with its state."""
        size = len(self.children)
        table = ffi.new("tr_child_info[]", size)
        lib.tr_supervisor_children(self.table, table, size)
        return [(self.children[entry.child], entry.state) for entry in table]

    # ---- Administration

    def do_which_children(self) -> list[ChildInfo]:
        """O177."""
        return [
            ChildInfo(
                child.spec.id,
                "restarting" if state == lib.TR_CHILD_RESTARTING else child.pid,
                child.spec.type,
            )
            for child, state in self.listed()
        ]

    def do_count_children(self) -> ChildCount:
        """O177."""
        children = self.children.values()
        supervisors = sum(child.spec.type == "supervisor" for child in children)
        return ChildCount(
            specs=len(children),
            active=sum(child.pid is not None and child.pid.alive for child in children),
            supervisors=supervisors,
            workers=len(children) - supervisors,
        )

    def do_start_child(self, spec: ChildSpec) -> Any:
        """O173, O174."""
        self.options.refuse("spec", spec)
        number = self.find(spec.id)
        if number != 0:
            info = ffi.new("tr_child_info *")
            _ok(lib.tr_supervisor_child(self.table, number, info))
            down = info.state == lib.TR_CHILD_DOWN
            raise ChildError("already_present" if down else "already_started")
        return self.started(self.add(lib.tr_supervisor_start_child, spec))

    def do_restart_child(self, id: Hashable) -> Any:
        """O176."""
        number = self.find(id)
        _ok(lib.tr_supervisor_restart_child(self.table, number))
        return self.started(self.children[number])

    def started(self, child: _Child) -> Any:
        """Start a child that was asked for; its result."""
        self.failed = None
        self.carry_out()
        if self.failed is not None:
            raise make_error("start_error", child.failure)
        return child.result

    def do_terminate_child(self, id: Hashable) -> None:
        """O175."""
        _ok(lib.tr_supervisor_terminate_child(self.table, self.find(id)))
        self.carry_out()

    def do_delete_child(self, id: Hashable) -> None:
        """O176."""
        number = self.find(id)
        _ok(lib.tr_supervisor_delete_child(self.table, number))
        self.forget(number)

    def log(
        self, level: int, child: _Child, what: str, raised: BaseException | None = None
    ) -> None:
        """Log something about a child; its own crash was logged where it happened."""
        logger.log(
            level,
            "supervisor %r, child %s: %s",
            _core.self(),
            short(child.spec.id),
            what,
            exc_info=raised,
        )


def _new_table(options: _Options) -> Any:
    given = ffi.new(
        "tr_supervisor_options *",
        {
            "strategy": _STRATEGIES[options.strategy],
            "auto_shutdown": _AUTO_SHUTDOWNS[options.auto_shutdown],
            "max_restarts": options.max_restarts,
            "max_time": min(max(int(options.max_seconds * 1e9), 1), 2**64 - 1),
        },
    )
    table = ffi.new("tr_supervisor **")
    _ok(lib.tr_supervisor_new(given, table))
    return ffi.gc(table[0], lib.tr_supervisor_free)


def _ok(code: int) -> None:
    """Raise the error for one of the core's codes."""
    if code in _CODES:
        raise ChildError(_CODES[code])
    if code == lib.TR_ENOMEM:
        raise MemoryError("supervisor")
    if code != lib.TR_OK:
        raise EngineError(f"the supervisor's table refused, code {code}")


def _hashable(id: Hashable) -> Hashable:
    try:
        hash(id)
    except TypeError:
        raise check.wrong_type("id", "something hashable", id) from None
    return id


def _now() -> int:
    return cast(int, lib.tr_now(address()))


def _is_clean(reason: object) -> bool:
    if isinstance(reason, tuple):
        return len(reason) == 2 and isinstance(reason[0], str) and reason[0] == "shutdown"
    return isinstance(reason, str) and reason in ("normal", "shutdown")


def _pid_of(result: object) -> Pid:
    """The Pid in what a start function returned: a Pid, a handle, or one of them and more."""
    if isinstance(result, tuple) and len(result) == 2:
        result = result[0]
    pid = result if isinstance(result, Pid) else getattr(result, "pid", None)
    if not isinstance(pid, Pid):
        expected = "a Pid, a handle, (Pid, info) or IGNORE"
        raise check.wrong_type("the result of a child's start function", expected, result)
    return pid


def _shut_down(pid: Pid, limit: Shutdown) -> Any:
    """Stop a process, by force if need be; its exit reason."""
    ref = _core.monitor(pid)
    if limit == "kill":
        _core.exit(pid, "kill")
    else:
        _core.exit(pid, "shutdown")
        try:
            return receive(ref, timeout=limit).reason
        except ReceiveTimeout:
            _core.exit(pid, "kill")
    return receive(ref).reason
