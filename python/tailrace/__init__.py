"""tailrace: lightweight processes, supervisors and demand-driven pipelines on a C core.

Messages are handed over by reference, not copied: what you send, leave alone.
"""

from __future__ import annotations

from . import _core, _engine, _errors, _log, _process
from ._acknowledge import Acknowledger, ack_now
from ._actions import IGNORE, NOREPLY, UNSET, Down, Exit, NoReply, Reply, Stop
from ._child_spec import ChildSpec, child_spec
from ._core import (
    From,
    Message,
    Pid,
    Ref,
    Timer,
    call,
    cast,
    demonitor,
    exit,
    link,
    monitor,
    register,
    registered,
    reply,
    self,
    send,
    send_after,
    send_many,
    sleep,
    stop,
    unlink,
    unregister,
    whereis,
)
from ._engine import Engine, shutdown
from ._errors import (
    AlreadyRegistered,
    AlreadyStarted,
    BadReturn,
    CallExit,
    CallTimeout,
    ChildError,
    DeadlockError,
    EngineError,
    EngineStopped,
    NoProcess,
    ProcessExit,
    QueueError,
    ReceiveTimeout,
    StartError,
    SystemLimit,
)
from ._process import (
    ProcessInfo,
    process_info,
    processes,
    receive,
    spawn,
    spawn_link,
    spawn_monitor,
    trap_exit,
)
from ._server import GenServer
from ._supervisor import Supervisor
from ._supervisor_server import ChildCount, ChildInfo

__version__ = "0.1.0"

__all__ = [
    "IGNORE",
    "NOREPLY",
    "Acknowledger",
    "AlreadyRegistered",
    "AlreadyStarted",
    "BadReturn",
    "CallExit",
    "CallTimeout",
    "ChildCount",
    "ChildError",
    "ChildInfo",
    "ChildSpec",
    "DeadlockError",
    "Down",
    "Engine",
    "EngineError",
    "EngineStopped",
    "Exit",
    "From",
    "GenServer",
    "Message",
    "NoProcess",
    "NoReply",
    "Pid",
    "ProcessExit",
    "ProcessInfo",
    "QueueError",
    "ReceiveTimeout",
    "Ref",
    "Reply",
    "StartError",
    "Stop",
    "Supervisor",
    "SystemLimit",
    "Timer",
    "ack_now",
    "call",
    "cast",
    "child_spec",
    "demonitor",
    "exit",
    "link",
    "monitor",
    "process_info",
    "processes",
    "receive",
    "register",
    "registered",
    "reply",
    "self",
    "send",
    "send_after",
    "send_many",
    "shutdown",
    "sleep",
    "spawn",
    "spawn_link",
    "spawn_monitor",
    "stop",
    "trap_exit",
    "unlink",
    "unregister",
    "whereis",
]

_core.configure(
    Down=Down,
    Exit=Exit,
    Reply=Reply,
    NoReply=NoReply,
    Stop=Stop,
    NOREPLY=NOREPLY,
    IGNORE=IGNORE,
    UNSET=UNSET,
    ProcessExit=ProcessExit,
    make_error=_errors.make_error,
    log_crash=_log.crash,
    start_engine=_engine.start_lazily,
    process_info=_process.process_info,
    forked_exit=_engine.forked_exit,
)
_engine.install()
