"""Supervisors from Python: the rules O143 to O177 as a program sees them.

What the core decides alone is tested in tests/c/test_supervisor.c; here are its consequences for
real processes.
"""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tailrace as tr

LIMIT = 30.0  # seconds that nothing here takes on any machine


@pytest.fixture(autouse=True)
def engine() -> Iterator[None]:
    """A fresh engine; the test's own process traps exits, so that it survives its supervisors."""
    tr.shutdown()
    with tr.Engine():
        tr.trap_exit()
        yield
    tr.Engine()


def eventually(condition: Callable[[], Any]) -> Any:
    """Wait until the condition holds; its value."""
    end = time.monotonic() + LIMIT
    while not (value := condition()):
        assert time.monotonic() < end, "it never came true"
        tr.sleep(0.002)
    return value


class Worker(tr.GenServer):
    """Writes its life into a list."""

    def init(self, id: Any, log: list[Any], trap: bool = False, wait: Any = None) -> Any:
        tr.trap_exit(trap)
        self.id, self.log, self.wait = id, log, wait
        log.append(("start", id))

    def handle_cast(self, reason: Any) -> Any:
        return tr.Stop(reason)

    def handle_call(self, request: Any, caller: Any) -> Any:
        if request == "unlink":
            tr.unlink(tr.process_info(tr.self()).parent)
        return self.id

    def terminate(self, reason: Any) -> None:
        self.log.append(("end", self.id, reason))
        if self.wait is not None:
            self.wait.wait(LIMIT)


def worker(id: Any, log: list[Any], *args: Any, **fields: Any) -> tr.ChildSpec:
    return tr.ChildSpec(id, (Worker.start_link, (id, log, *args)), **fields)


def pids(supervisor: tr.Supervisor) -> dict[Any, Any]:
    return {child.id: child.pid for child in supervisor.which_children()}


def ends(pid: tr.Pid, reason: Any) -> None:
    """Make a worker end with this reason."""
    ref = tr.monitor(pid)
    pid.cast(reason)
    assert tr.receive(ref, timeout=LIMIT).reason == reason


def restarted(supervisor: tr.Supervisor, id: Any, before: tr.Pid) -> tr.Pid:
    """Wait for the child's next process."""
    return eventually(
        lambda: pid if isinstance(pid := pids(supervisor)[id], tr.Pid) and pid != before else None
    )


def reason_of(supervisor: tr.Supervisor) -> Any:
    """The reason of a supervisor's end, which the test's process is linked to."""
    message = tr.receive(timeout=LIMIT)
    assert isinstance(message, tr.Exit) and message.pid == supervisor.pid
    return message.reason


# ---- Start --------------------------------------------------------------------------------------


def test_children_are_given_as_spec_class_or_class_with_argument_O143() -> None:
    class Named(tr.GenServer):
        def init(self, *args: Any) -> None:
            self.args = args

        def handle_call(self, request: Any, caller: Any) -> Any:
            return self.args

    class Other(Named):
        pass

    children = [Named, (Other, 7), tr.child_spec(Named, id="third", restart="temporary")]
    with tr.Supervisor.start_link(children) as supervisor:
        found = pids(supervisor)
        assert list(found) == [Named, Other, "third"]
        assert [pid.call("args") for pid in found.values()] == [(), (7,), ()]


def test_child_spec_changes_fields_O143() -> None:
    spec = tr.child_spec((Worker, "w"), id="w", shutdown="kill", restart="transient")
    assert (spec.id, spec.shutdown, spec.restart, spec.type) == ("w", "kill", "transient", "worker")
    assert spec.start[1] == ("w",)
    assert tr.child_spec(spec, id="v").shutdown == "kill"
    assert tr.ChildSpec("s", (print,), type="supervisor").shutdown is None
    assert tr.ChildSpec("s", Worker).start == (Worker.start_link, (), {})


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: tr.child_spec(Worker, idd=1), TypeError, "unknown keyword 'idd'; valid are id, "),
        (lambda: tr.child_spec(42), TypeError, "child: expected a ChildSpec, a class with"),
        (lambda: tr.ChildSpec([], (print,)), TypeError, "id: expected something hashable"),
        (lambda: tr.ChildSpec("a", print), TypeError, "start: expected (callable, args, kwargs)"),
        (lambda: tr.ChildSpec("a", (3,)), TypeError, "start[0]: expected a callable, got 3"),
        (lambda: tr.ChildSpec("a", (print, 3)), TypeError, "start[1]: expected a tuple of arg"),
        (lambda: tr.ChildSpec("a", (print, (), 3)), TypeError, "start[2]: expected a mapping"),
        (
            lambda: tr.ChildSpec("a", (print,), restart="always"),
            ValueError,
            "restart: expected one",
        ),
        (
            lambda: tr.ChildSpec("a", (print,), shutdown=-1),
            ValueError,
            "shutdown: expected seconds",
        ),
        (
            lambda: tr.ChildSpec("a", (print,), shutdown=True),
            TypeError,
            "shutdown: expected second",
        ),
        (
            lambda: tr.ChildSpec("a", (print,), shutdown="now"),
            ValueError,
            "None or 'kill', got 'no",
        ),
        (lambda: tr.ChildSpec("a", (print,), type="boss"), ValueError, "type: expected one of"),
        (
            lambda: tr.ChildSpec("a", (print,), significant=1),
            TypeError,
            "significant: expected a b",
        ),
        (
            lambda: tr.ChildSpec("a", (print,), significant=True),
            ValueError,
            "significant: expected False with restart='permanent', got True",
        ),
        (lambda: start(strategy="some"), ValueError, "strategy: expected one of 'one_for_one'"),
        (lambda: start(max_restarts=-1), ValueError, "max_restarts: expected an int 0 .. "),
        (lambda: start(max_restarts=True), TypeError, "max_restarts: expected an int 0 .. "),
        (lambda: start(max_seconds=0), ValueError, "max_seconds: expected seconds > 0, got 0"),
        (lambda: start(auto_shutdown=None), TypeError, "auto_shutdown: expected one of 'never'"),
        (lambda: start(children=3), TypeError, "children: expected a list of children, got 3"),
        (lambda: start(children=[Worker, 3]), TypeError, "children[1]: expected a ChildSpec"),
        (lambda: start(children=[Worker, Worker]), ValueError, "children[1].id: expected an id of"),
        (lambda: start(name=""), ValueError, "name"),
        (lambda: start(surprise=1), TypeError, "surprise"),
        (lambda: tr.Supervisor.child_spec([3]), TypeError, "children[0]: expected a ChildSpec"),
        (lambda: tr.Supervisor.child_spec(strategy="some"), ValueError, "strategy: expected one"),
        (lambda: tr.Supervisor.child_spec(surprise=1), TypeError, "surprise"),
        (lambda: tr.Supervisor(3), TypeError, "supervisor: expected a Pid, a name or a handle"),
        (lambda: tr.Supervisor("nobody"), tr.NoProcess, "nobody"),
    ],
)
def test_bad_options_and_specs_are_refused_in_the_caller_O143_O144(
    make: Callable[[], Any], error: type[Exception], text: str
) -> None:
    before = tr.processes()
    with pytest.raises(error) as caught:
        make()
    assert text in str(caught.value)
    assert tr.processes() == before


def start(children: Any = (), *strategy: Any, **options: Any) -> tr.Supervisor:
    return tr.Supervisor.start_link(children, *strategy, **options)


def test_children_start_one_after_the_other_O145() -> None:
    log: list[Any] = []
    supervisor = start([worker(id, log) for id in "abc"])
    assert log == [("start", "a"), ("start", "b"), ("start", "c")]
    assert tr.process_info(supervisor.pid).trap_exit
    assert supervisor.pid in tr.process_info(pids(supervisor)["a"]).links


def test_a_failed_start_stops_what_was_started_in_reverse_order_O146() -> None:
    def fail() -> None:
        log.append("fail")
        raise OSError("no")

    log: list[Any] = []
    first = [worker(id, log, True) for id in "ab"]
    with pytest.raises(tr.StartError) as caught:
        start([*first, tr.ChildSpec("c", (fail,)), worker("d", log)], name="sup")
    shutdown, (what, id, reason) = caught.value.reason
    assert (shutdown, what, id) == ("shutdown", "failed_to_start_child", "c")
    assert isinstance(reason, OSError)
    expected = [("start", "a"), ("start", "b"), "fail", ("end", "b", "shutdown")]
    assert log == [*expected, ("end", "a", "shutdown")]
    assert tr.whereis("sup") is None
    assert tr.receive(timeout=0, default=None) is None  # its Exit was taken out (O107)


def test_a_child_whose_init_fails_gives_its_reason_O146() -> None:
    class Bad(tr.GenServer):
        def init(self) -> Any:
            return tr.Stop("bad day")

    with pytest.raises(tr.StartError) as caught:
        start([Bad])
    assert caught.value.reason == ("shutdown", ("failed_to_start_child", Bad, "bad day"))


@pytest.mark.parametrize("result", [None, 3, (1, 2), "pid"])
def test_a_start_function_that_returns_nonsense_has_failed_O144(result: Any) -> None:
    with pytest.raises(tr.StartError) as caught:
        start([tr.ChildSpec("a", (lambda: result,))])
    reason = caught.value.reason[1][2]
    assert isinstance(reason, TypeError) and "expected a Pid, a handle, (Pid, info)" in str(reason)


@pytest.mark.parametrize("error", [SystemExit(3), tr.ProcessExit("gone"), KeyError("k")])
def test_whatever_a_start_function_raises_is_a_failed_start(error: BaseException) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(tr.StartError) as caught:
        start([tr.ChildSpec("a", (fail,))])
    reason = caught.value.reason[1][2]
    assert reason == "gone" if isinstance(error, tr.ProcessExit) else reason is error


def test_an_ignored_child_keeps_its_spec_unless_temporary_O147() -> None:
    log: list[Any] = []
    supervisor = start(
        [
            tr.ChildSpec("a", (lambda: tr.IGNORE,)),
            tr.ChildSpec("b", (lambda: tr.IGNORE,), restart="temporary"),
            worker("c", log),
        ]
    )
    found = pids(supervisor)
    assert list(found) == ["a", "c"] and found["a"] is None and found["c"].alive


def test_the_result_of_a_start_may_be_a_pid_a_handle_or_a_pair_O143() -> None:
    log: list[Any] = []
    supervisor = start()
    assert isinstance(supervisor.start_child(worker("a", log)), tr.Pid)
    inner = supervisor.start_child(tr.Supervisor.child_spec([worker("b", log)]))
    assert isinstance(inner, tr.Supervisor) and pids(supervisor)[tr.Supervisor] == inner.pid
    pair = supervisor.start_child(tr.ChildSpec("c", (lambda: (Worker.start_link("c", log), 5),)))
    assert pids(supervisor)["c"] == pair[0] and pair[1] == 5


def test_a_start_function_that_forgot_to_link_is_linked() -> None:
    log: list[Any] = []
    supervisor = start([tr.ChildSpec("a", (Worker.start, ("a", log)))])
    before = pids(supervisor)["a"]
    tr.exit(before, "kill")
    assert restarted(supervisor, "a", before).alive


@pytest.mark.parametrize("reason", ["normal", "shutdown", "crash"])
def test_a_supervisor_ends_with_its_parent_O148(reason: str) -> None:
    log: list[Any] = []
    found: list[Any] = []
    go = threading.Event()

    def parent() -> None:
        found.append(start([worker("a", log, True), worker("b", log, True)]))
        go.wait(LIMIT)
        raise tr.ProcessExit(reason)

    tr.spawn(parent)
    supervisor = eventually(lambda: found and found[0])
    ref = tr.monitor(supervisor)
    go.set()
    assert tr.receive(ref, timeout=LIMIT).reason == reason
    assert log[2:] == [("end", "b", "shutdown"), ("end", "a", "shutdown")]


# ---- Restart ------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["normal", "shutdown", ("shutdown", 1), "crash", "killed"])
@pytest.mark.parametrize("restart", ["permanent", "transient", "temporary"])
def test_the_restart_matrix_O149_O150_O151(restart: Any, reason: Any) -> None:
    log: list[Any] = []
    supervisor = start([worker("a", log, restart=restart), worker("b", log)])
    before = pids(supervisor)
    ends(before["a"], reason)
    if restart == "permanent" or (restart == "transient" and reason in ("crash", "killed")):
        assert restarted(supervisor, "a", before["a"]).alive
    elif restart == "transient":
        assert pids(supervisor)["a"] is None
    else:
        assert "a" not in pids(supervisor)
    assert pids(supervisor)["b"] == before["b"]


def test_a_child_that_raises_is_restarted_with_its_arguments_O149() -> None:
    log: list[Any] = []
    supervisor = start([worker("a", log)])
    before = pids(supervisor)["a"]
    with pytest.raises(tr.CallExit):
        tr.call(before, "x", timeout=LIMIT) and before.stop(ValueError("boom"))
        before.call("gone")
    assert restarted(supervisor, "a", before).call("id") == "a"


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("one_for_one", ["+b"]),
        ("rest_for_one", ["-d", "-c", "+b", "+c", "+d"]),
        ("one_for_all", ["-d", "-c", "-a", "+a", "+b", "+c", "+d"]),
    ],
)
def test_strategies_stop_in_reverse_order_and_start_in_order_O153(
    strategy: Any, expected: list[str]
) -> None:
    log: list[Any] = []
    supervisor = start([worker(id, log, True) for id in "abcd"], strategy)
    before = pids(supervisor)
    del log[:]
    before["b"].exit("kill")
    restarted(supervisor, "b", before["b"])
    assert [("+" if entry[0] == "start" else "-") + entry[1] for entry in log] == expected
    kept = {id for id, pid in pids(supervisor).items() if pid == before[id]}
    assert kept == set("abcd") - {sign[1] for sign in expected}


def test_a_group_restart_removes_temporary_children_and_starts_those_down_O154_O155() -> None:
    log: list[Any] = []
    supervisor = start(
        [
            worker("a", log),
            worker("b", log, restart="transient"),
            worker("t", log, restart="temporary"),
            worker("c", log),
        ],
        "one_for_all",
    )
    before = pids(supervisor)
    ends(before["b"], "normal")
    supervisor.terminate_child("a")
    before["c"].exit("kill")
    restarted(supervisor, "c", before["c"])
    after = pids(supervisor)
    assert list(after) == ["a", "b", "c"] and all(pid.alive for pid in after.values())


def test_the_fourth_end_in_time_is_fatal_O156_O159(caplog: pytest.LogCaptureFixture) -> None:
    log: list[Any] = []
    supervisor = start([worker("a", log, True), worker("b", log)], max_seconds=1e6)
    for _ in range(3):
        before = pids(supervisor)["b"]
        ends(before, "crash")
        restarted(supervisor, "b", before)
    del log[:]
    ends(pids(supervisor)["b"], "crash")
    assert reason_of(supervisor) == "shutdown"
    assert log == [("end", "b", "crash"), ("end", "a", "shutdown")]
    giving_up = [r for r in caplog.records if "giving up" in r.getMessage()]
    assert [r.levelno for r in giving_up] == [logging.ERROR]


def test_a_supervisor_that_gave_up_is_restarted_if_permanent_only_O159() -> None:
    log: list[Any] = []
    for restart in ("permanent", "transient"):
        inner = tr.Supervisor.child_spec(
            [worker("a", log)], id="inner", restart=restart, max_restarts=0
        )
        outer = start([inner])
        before = pids(outer)["inner"]
        pids(tr.Supervisor(before))["a"].exit("kill")
        if restart == "permanent":
            after = tr.Supervisor(restarted(outer, "inner", before))
            assert pids(after)["a"].alive
        else:
            assert eventually(lambda outer=outer: pids(outer)["inner"] is None)


def test_a_start_that_always_fails_runs_four_times_O160() -> None:
    runs: list[int] = []
    log: list[Any] = []

    def start_it() -> tr.Pid:
        runs.append(len(runs))
        if len(runs) > 1:
            raise OSError("no more")
        return Worker.start_link("a", log)

    supervisor = start([tr.ChildSpec("a", (start_it,))])
    ends(pids(supervisor)["a"], "crash")
    assert reason_of(supervisor) == "shutdown"
    assert len(runs) == 4


def test_requests_are_served_between_the_tries_O160_O176() -> None:
    """The child is shown as restarting, and what waits already is done before the next try."""
    log: list[Any] = []
    asked = threading.Event()
    runs: list[int] = []

    def start_it() -> tr.Pid:
        runs.append(len(runs))
        if len(runs) == 2:  # the first restart: fail, but not before somebody has asked
            asked.wait(LIMIT)
            raise OSError("not yet")
        return Worker.start_link("a", log)

    supervisor = start([tr.ChildSpec("a", (start_it,)), worker("b", log)])
    ends(pids(supervisor)["a"], "crash")
    eventually(lambda: len(runs) == 2)
    answers: dict[str, Any] = {}

    def ask() -> None:
        for what in ("restart_child", "delete_child"):
            try:
                getattr(supervisor, what)("a")
            except tr.ChildError as error:
                answers[what] = error.code
            break

    asking = [threading.Thread(target=ask)]
    asking += [threading.Thread(target=lambda: answers.update(pids(supervisor)))]
    for thread in asking:
        thread.start()
    eventually(lambda: tr.process_info(supervisor.pid).message_queue_len >= 2)
    asked.set()
    for thread in asking:
        thread.join(LIMIT)
    assert answers["restart_child"] == "restarting"
    assert answers["a"] == "restarting"
    assert eventually(lambda: isinstance(pids(supervisor)["a"], tr.Pid))


def test_a_group_restart_that_fails_goes_on_from_that_child_O161() -> None:
    log: list[Any] = []
    failures = [OSError("once")]
    pending: list[Exception] = []

    def start_it() -> tr.Pid:
        if pending:
            raise pending.pop()
        return Worker.start_link("b", log)

    supervisor = start(
        [worker("a", log), tr.ChildSpec("b", (start_it,)), worker("c", log)], "rest_for_one"
    )
    before = pids(supervisor)
    pending += failures
    before["a"].exit("kill")
    after = restarted(supervisor, "c", before["c"])
    assert after.alive and not pending
    assert [entry[1] for entry in log if entry[0] == "start"] == ["a", "b", "c", "a", "b", "c"]


def test_what_is_logged_O151(caplog: pytest.LogCaptureFixture) -> None:
    log: list[Any] = []
    supervisor = start([worker("a", log, restart="temporary"), worker("b", log)])
    found = pids(supervisor)
    caplog.clear()
    ends(found["b"], "normal")
    restarted(supervisor, "b", found["b"])
    assert caplog.records == []  # a clean end is never logged
    ends(found["a"], "odd")
    eventually(lambda: "a" not in pids(supervisor))
    mine = [r for r in caplog.records if "supervisor" in r.getMessage()]
    assert [(r.levelno, r.name) for r in mine] == [(logging.WARNING, "tailrace")]
    assert all(text in mine[0].getMessage() for text in ("'a'", "'odd'", "not restarted"))


# ---- Shutdown -----------------------------------------------------------------------------------


def test_shutdown_by_kill_runs_no_terminate_O162() -> None:
    log: list[Any] = []
    supervisor = start([worker("a", log, True, shutdown="kill")])
    ref = tr.monitor(pids(supervisor)["a"])
    supervisor.stop()
    assert tr.receive(ref, timeout=LIMIT).reason == "killed"
    assert log == [("start", "a")]


def test_shutdown_within_the_limit_O163() -> None:
    log: list[Any] = []
    supervisor = start([worker("plain", log), worker("trapping", log, True)])
    refs = [tr.monitor(pid) for pid in pids(supervisor).values()]
    supervisor.stop()
    assert [tr.receive(ref, timeout=LIMIT).reason for ref in refs] == ["shutdown", "shutdown"]
    assert log[2:] == [("end", "trapping", "shutdown")]


def test_a_child_that_is_too_slow_is_killed_O163(caplog: pytest.LogCaptureFixture) -> None:
    log: list[Any] = []
    never = threading.Event()
    supervisor = start([worker("a", log), worker("b", log, True, never, shutdown=0.05)])
    ref = tr.monitor(pids(supervisor)["b"])
    try:
        supervisor.stop(timeout=LIMIT)
        assert tr.receive(ref, timeout=LIMIT).reason == "killed"
    finally:
        never.set()
    assert any("'killed'" in record.getMessage() for record in caplog.records)


def test_no_limit_waits_O164() -> None:
    log: list[Any] = []
    go = threading.Event()
    supervisor = start([worker("a", log, True, go, shutdown=None)])
    ref = tr.monitor(pids(supervisor)["a"])
    with pytest.raises(tr.CallTimeout):
        supervisor.stop(timeout=0.2)
    assert supervisor.pid.alive
    go.set()
    assert tr.receive(ref, timeout=LIMIT).reason == "shutdown"
    assert reason_of(supervisor) == "normal"


def test_children_are_stopped_strictly_one_after_the_other_O165() -> None:
    log: list[Any] = []
    gates = {id: threading.Event() for id in "abc"}
    supervisor = start([worker(id, log, True, gates[id], shutdown=None) for id in "abc"])
    del log[:]
    tr.exit(supervisor.pid, "shutdown")  # from its parent
    for at, id in enumerate("cba"):
        eventually(lambda at=at: len(log) == at + 1)
        assert log[at] == ("end", id, "shutdown")
        gates[id].set()
    assert reason_of(supervisor) == "shutdown"


def test_a_child_that_unlinked_itself_cannot_hang_it_O166() -> None:
    log: list[Any] = []
    supervisor = start([worker("a", log)])
    child = pids(supervisor)["a"]
    child.call("unlink")
    assert supervisor.pid not in tr.process_info(child).links
    supervisor.stop(timeout=LIMIT)
    assert not child.alive


def test_a_child_already_dead_is_no_error_at_shutdown_O166() -> None:
    log: list[Any] = []
    supervisor = start([worker("a", log), worker("b", log)])
    child = pids(supervisor)["a"]
    child.call("unlink")
    child.exit("kill")
    supervisor.stop(timeout=LIMIT)
    assert reason_of(supervisor) == "normal"


def test_stop_ends_with_the_reason_O167() -> None:
    log: list[Any] = []
    supervisor = start([worker("a", log, True)])
    supervisor.stop("because")
    assert reason_of(supervisor) == "because"
    assert log[-1] == ("end", "a", "shutdown")
    with pytest.raises(tr.NoProcess):
        supervisor.stop()
    with pytest.raises(tr.NoProcess):
        supervisor.which_children()


def test_the_block_of_with_stops_it_O167() -> None:
    log: list[Any] = []
    with start([worker("a", log)]) as supervisor:
        child = pids(supervisor)["a"]
    assert not child.alive and not supervisor.pid.alive
    with start() as supervisor:
        supervisor.stop()


def test_a_killed_supervisor_takes_its_children_with_it_O168() -> None:
    log: list[Any] = []
    supervisor = start([worker("plain", log), worker("trapping", log, True)])
    refs = {id: tr.monitor(pid) for id, pid in pids(supervisor).items()}
    supervisor.pid.exit("kill")
    assert [tr.receive(ref, timeout=LIMIT).reason for ref in refs.values()] == ["killed"] * 2
    assert log[2:] == [("end", "trapping", "killed")]
    assert reason_of(supervisor) == "killed"


def test_a_supervisor_killed_half_way_leaves_no_orphan_O169() -> None:
    """The inner supervisor's time is up while its last child is slow to end: none survives."""
    log: list[Any] = []
    slow = threading.Event()
    children = [worker("a", log), worker("b", log, True), worker("c", log, True, slow)]
    inner = tr.Supervisor.child_spec(children, id="inner", shutdown=0.05)
    outer = start([inner])
    found = pids(tr.Supervisor(pids(outer)["inner"]))
    refs = [tr.monitor(pid) for pid in found.values()]
    outer.stop(timeout=LIMIT)
    slow.set()
    for ref in refs:
        assert tr.receive(ref, timeout=LIMIT).reason in ("killed", "shutdown")


def test_a_program_ends_quietly_with_its_supervisors_alive() -> None:
    """The engine ends children before their supervisors: that is no reason to restart them."""
    program = """
import tailrace as tr
class Worker(tr.GenServer):
    pass
inner = tr.Supervisor.child_spec([Worker.child_spec(id=i) for i in range(20)], id="inner")
tr.Supervisor.start_link([inner, Worker])
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=LIMIT
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_the_document_runs_as_it_stands() -> None:
    document = Path(__file__).parents[2] / "docs" / "supervisors.md"
    blocks = re.findall(r"^```python\n(.*?)^```", document.read_text(), re.M | re.S)
    ended = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)], capture_output=True, text=True, timeout=LIMIT
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines() == [
        "['cache', <class '__main__.Refresher'>]",
        "ChildCount(specs=1, active=1, supervisors=0, workers=1)",
    ]


# ---- Automatic shutdown -------------------------------------------------------------------------


def test_any_significant_end_shuts_it_down_O170() -> None:
    log: list[Any] = []
    children = [
        worker("a", log, True),
        worker("b", log, restart="transient", significant=True),
    ]
    supervisor = start(children, auto_shutdown="any_significant")
    before = pids(supervisor)["b"]
    ends(before, "crash")
    after = restarted(supervisor, "b", before)
    ends(after, "normal")
    assert reason_of(supervisor) == "shutdown"
    assert log[-1] == ("end", "a", "shutdown")


def test_the_last_significant_end_shuts_it_down_O171_O172() -> None:
    log: list[Any] = []
    children = [worker(id, log, restart="temporary", significant=True) for id in "abc"]
    supervisor = start([*children, worker("d", log)], auto_shutdown="all_significant")
    supervisor.terminate_child("a")
    found = pids(supervisor)
    ends(found["b"], "crash")
    assert list(pids(supervisor)) == ["c", "d"]
    ends(found["c"], "normal")
    assert reason_of(supervisor) == "shutdown"


def test_significant_for_nothing_is_refused_O173() -> None:
    spec = worker("a", [], restart="transient", significant=True)
    with pytest.raises(ValueError, match=r"children\[0\].significant: expected False with auto"):
        start([spec])
    supervisor = start()
    with pytest.raises(ValueError, match=r"spec.significant: expected False with auto_shutdown"):
        supervisor.start_child(spec)
    assert supervisor.which_children() == []


# ---- Administration -----------------------------------------------------------------------------


def code(call: Callable[..., Any], *args: Any) -> str:
    with pytest.raises(tr.ChildError) as caught:
        call(*args)
    return caught.value.code


def test_start_child_O174() -> None:
    log: list[Any] = []
    supervisor = start([worker("a", log)])
    child = supervisor.start_child(worker("b", log))
    assert pids(supervisor)["b"] == child
    assert code(supervisor.start_child, worker("b", log)) == "already_started"
    supervisor.terminate_child("b")
    assert code(supervisor.start_child, worker("b", log)) == "already_present"
    with pytest.raises(TypeError, match="spec: expected a ChildSpec"):
        supervisor.start_child(7)
    ignored = tr.ChildSpec("i", (lambda: tr.IGNORE,))
    assert supervisor.start_child(ignored) is tr.IGNORE
    assert pids(supervisor)["i"] is None
    assert supervisor.start_child(tr.child_spec(ignored, id="j", restart="temporary")) is tr.IGNORE
    assert "j" not in pids(supervisor)


def test_a_child_that_fails_to_start_is_forgotten_O174() -> None:
    def fail() -> None:
        raise error

    error = OSError("no")
    supervisor = start()
    with pytest.raises(tr.StartError) as caught:
        supervisor.start_child(tr.ChildSpec("a", (fail,)))
    assert caught.value.reason is error and caught.value.__cause__ is error
    assert supervisor.which_children() == []


def test_one_process_cannot_be_two_children() -> None:
    log: list[Any] = []
    supervisor = start([worker("a", log)])
    child = pids(supervisor)["a"]
    with pytest.raises(tr.StartError, match="another child's"):
        supervisor.start_child(tr.ChildSpec("b", (lambda: child,)))
    assert child.alive and list(pids(supervisor)) == ["a"]


def test_terminate_child_O175() -> None:
    log: list[Any] = []
    supervisor = start([worker("a", log, True), worker("b", log, restart="temporary")])
    supervisor.terminate_child("a")
    assert log[-1] == ("end", "a", "shutdown")
    supervisor.terminate_child("a")
    supervisor.terminate_child("b")
    assert pids(supervisor) == {"a": None}
    assert code(supervisor.terminate_child, "b") == "not_found"
    with pytest.raises(TypeError, match="id: expected something hashable"):
        supervisor.terminate_child([])


def test_restart_and_delete_child_O176() -> None:
    log: list[Any] = []
    supervisor = start([worker("a", log)])
    assert code(supervisor.restart_child, "a") == "running"
    assert code(supervisor.delete_child, "a") == "running"
    assert code(supervisor.restart_child, "x") == "not_found"
    assert code(supervisor.delete_child, "x") == "not_found"
    supervisor.terminate_child("a")
    assert supervisor.restart_child("a") == pids(supervisor)["a"]
    supervisor.terminate_child("a")
    supervisor.delete_child("a")
    assert supervisor.which_children() == []
    assert supervisor.start_child(worker("a", log)).alive


def test_which_and_count_children_O177() -> None:
    log: list[Any] = []
    inner = tr.Supervisor.child_spec([], id="s")
    supervisor = start([worker("a", log), inner, worker("b", log)])
    supervisor.terminate_child("b")
    lines = supervisor.which_children()
    assert [(line.id, line.type) for line in lines] == [
        ("a", "worker"),
        ("s", "supervisor"),
        ("b", "worker"),
    ]
    assert lines[2] == ("b", None, "worker")
    assert supervisor.count_children() == (3, 2, 1, 2)
    assert supervisor.count_children().active == 2


def test_a_handle_is_taken_where_a_pid_is() -> None:
    supervisor = start(name="top")
    assert tr.Supervisor("top") == supervisor == tr.Supervisor(supervisor.pid)
    assert hash(tr.Supervisor(supervisor)) == hash(supervisor)
    assert "top" in repr(supervisor)
    tr.send(supervisor, "hello")  # logged and dropped
    assert tr.Supervisor("top").count_children().specs == 0
    with pytest.raises(tr.AlreadyStarted):
        start(name="top")


def test_stray_messages_do_not_end_it(caplog: pytest.LogCaptureFixture) -> None:
    supervisor = start()
    supervisor.pid.send("info")
    supervisor.pid.cast("cast")
    with pytest.raises(tr.CallTimeout):
        supervisor.pid.call("call", timeout=0.05)
    assert supervisor.which_children() == []
    assert len([r for r in caplog.records if r.levelno == logging.WARNING]) == 3
