"""The supervisor's process.

What is to be done is decided by the core (csrc/include/tailrace_supervisor.h); this module does it:
it calls start functions, sends exit signals, waits for ends, and logs. The process is a GenServer
that traps exits, and nothing but itself touches its state. Children stay linked to it until they
are dead, also while they are being stopped, so that a supervisor that is killed half-way leaves
none behind (O169).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, cast

from . import _core
from . import _validate as check
from ._actions import IGNORE, NOREPLY, Exit, Reply, Stop
from ._child_spec import ChildSpec, Shutdown
from ._control import ffi, lib
from ._core import From, Pid
from ._engine import address, is_stopping
from ._errors import (
    ChildError,
    EngineError,
    ProcessExit,
    ReceiveTimeout,
    StartError,
    make_error,
)
from ._log import logger, short
from ._process import receive, trap_exit
from ._server import GenServer

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
class Options:
    """What a supervisor is started with; checks itself."""

    strategy: str = "one_for_one"
    max_restarts: int = 3
    max_seconds: float = 5.0
    auto_shutdown: str = "never"

    def __post_init__(self) -> None:
        """Check the fields."""
        check.one_of("strategy", self.strategy, _STRATEGIES)
        check.integer("max_restarts", self.max_restarts, 0, 2**63)
        check.seconds("max_seconds", self.max_seconds, zero=False)
        check.one_of("auto_shutdown", self.auto_shutdown, _AUTO_SHUTDOWNS)

    def check_child(self, path: str, spec: ChildSpec) -> ChildSpec:
        """Refuse a child that is significant for nothing (O173)."""
        if spec.significant and self.auto_shutdown == "never":
            expected = "False with auto_shutdown='never'"
            raise check.wrong_value(f"{path}.significant", expected, True)
        return spec

    def check_children(self, specs: list[ChildSpec]) -> list[ChildSpec]:
        """Refuse them if one of them is refused."""
        return [self.check_child(f"children[{at}]", spec) for at, spec in enumerate(specs)]


class Request(NamedTuple):
    """From the handle: a method of SupervisorServer without its `do_`, and its arguments."""

    what: str
    args: tuple[Any, ...]


class _Retry(NamedTuple):
    """To itself, behind what is waiting already: try to start the child again (O160)."""

    child: int


class Refusal(NamedTuple):
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

    def init(self, specs: list[ChildSpec], options: Options) -> Any:
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
        if not isinstance(request, Request):
            super().handle_info(request)
            return NOREPLY
        try:
            return Reply(getattr(self, "do_" + request.what)(*request.args))
        except (EngineError, ValueError) as error:
            return Reply(Refusal(error))

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
        killed = isinstance(reason, str) and reason == "killed"
        if not _is_clean(reason) and not (killed and child.spec.shutdown == "kill"):
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
        self.options.check_child("spec", spec)
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
        """Log something about a child; its own crash was logged where it happened. What happens
        because the engine ends all processes is no news."""
        if is_stopping():
            return
        logger.log(
            level,
            "supervisor %r, child %s: %s",
            _core.self(),
            short(child.spec.id),
            what,
            exc_info=raised,
        )


def _new_table(options: Options) -> Any:
    given = ffi.new(
        "tr_supervisor_options *",
        {
            "strategy": _STRATEGIES[options.strategy],
            "auto_shutdown": _AUTO_SHUTDOWNS[options.auto_shutdown],
            "max_restarts": options.max_restarts,
            "max_time": max(int(min(options.max_seconds, check.LONGEST) * 1e9), 1),
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
