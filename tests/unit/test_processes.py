"""Processes, messages and receive (O1 to O15, O18 to O21, O23 to O25)."""

import asyncio
import contextvars
import logging
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest
from support import LIMIT, eventually

import tailrace as tr


@pytest.fixture(params=["core", "thread"])
def scheduler(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def reason_of(fn: Callable[..., object], *args: Any, **options: Any) -> Any:
    """Run a function as a process to its end; its exit reason."""
    pid, ref = tr.spawn_monitor(fn, *args, **options)
    down = tr.receive(ref, timeout=LIMIT)
    assert (down.ref, down.pid) == (ref, pid)
    return down.reason


def wait_for_down(pid: tr.Pid) -> Any:
    """The reason of a process's end; "noproc" if it was over."""
    return tr.receive(tr.monitor(pid), timeout=LIMIT).reason


def park() -> None:
    """Wait for ever."""
    tr.receive(tr.monitor(tr.self()))  # which never fires (O51)


# ---- spawn --------------------------------------------------------------------------------------


def test_o1_spawn_returns_a_pid_before_the_function_is_over(scheduler: str) -> None:
    go = threading.Event()
    pid = tr.spawn(go.wait, scheduler=scheduler)
    assert type(pid) is tr.Pid
    assert pid.alive
    go.set()
    assert wait_for_down(pid) in ("normal", "noproc")


def test_o1_trouble_in_the_function_shows_only_as_a_reason(scheduler: str) -> None:
    reason = reason_of(lambda: None, "one argument too many", scheduler=scheduler)
    assert type(reason) is TypeError


@pytest.mark.parametrize("value", [None, 1, "error", ("shutdown", 1), tr.NOREPLY])
def test_o2_what_a_function_returns_is_dropped(scheduler: str, value: object) -> None:
    assert reason_of(lambda: value, scheduler=scheduler) == "normal"


def test_o3_an_exception_is_the_reason_and_logged_once(
    scheduler: str, caplog: pytest.LogCaptureFixture
) -> None:
    error = KeyError("x", 1)

    def fail() -> None:
        raise error

    assert reason_of(fail, scheduler=scheduler) is error
    assert error.__traceback__ is not None
    assert error.__traceback__.tb_frame.f_code is fail.__code__
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert record.exc_info[1] is error


@pytest.mark.parametrize("reason", ["normal", "shutdown", ("shutdown", 1), "boom", 7, None])
def test_o3_a_process_exit_is_its_reason_and_not_logged(
    scheduler: str, caplog: pytest.LogCaptureFixture, reason: object
) -> None:
    def leave() -> None:
        raise tr.ProcessExit(reason)

    assert reason_of(leave, scheduler=scheduler) == reason
    assert caplog.records == []


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_o3_every_exception_ends_only_its_process(scheduler: str, error: BaseException) -> None:
    def fail() -> None:
        raise error.with_traceback(None)

    assert reason_of(fail, scheduler=scheduler) is error


def test_o4_an_own_exit_unwinds_and_may_be_swallowed(scheduler: str) -> None:
    seen = []

    def stay() -> None:
        try:
            raise tr.ProcessExit("boom")
        except tr.ProcessExit as exit:
            seen.append(exit.reason)
        finally:
            seen.append("finally")
        seen.append(tr.self().alive)

    assert reason_of(stay, scheduler=scheduler) == "normal"
    assert seen == ["boom", "finally", True]


def test_o4_kill_raised_by_oneself_is_an_ordinary_reason(scheduler: str) -> None:
    def leave() -> None:
        raise tr.ProcessExit("kill")

    assert reason_of(leave, scheduler=scheduler) == "kill"


def test_o5_a_killed_process_runs_no_code_and_is_down_at_once(scheduler: str) -> None:
    seen: list[str] = []
    ready = threading.Event()

    def wait() -> None:
        try:
            ready.set()
            tr.receive()
            seen.append("survived")
        finally:
            tr.self()
            seen.append("still a process")

    pid, ref = tr.spawn_monitor(wait, scheduler=scheduler)
    assert ready.wait(LIMIT)
    tr.exit(pid, "boom")
    assert tr.receive(ref, timeout=LIMIT).reason == "boom"
    eventually(lambda: pid not in tr.processes())
    assert seen == []


def test_o6_a_link_of_spawn_tells_the_real_reason(scheduler: str) -> None:
    tr.trap_exit()

    def leave() -> None:
        raise tr.ProcessExit("real")

    for _ in range(300):
        pid = tr.spawn_link(leave, scheduler=scheduler)
        assert tr.receive(timeout=LIMIT) == tr.Exit(pid, "real")


def test_o7_a_monitor_of_spawn_tells_the_real_reason(scheduler: str) -> None:
    go = threading.Event()

    def leave() -> None:
        go.wait()
        raise tr.ProcessExit("real")

    started = [tr.spawn_monitor(leave, scheduler=scheduler) for _ in range(3000)]
    go.set()
    downs = {tr.receive(timeout=LIMIT) for _ in started}
    assert downs == {tr.Down(ref, pid, "real") for pid, ref in started}


def test_o8_link_and_monitor_both_tell(scheduler: str) -> None:
    tr.trap_exit()

    def leave() -> None:
        tr.receive()
        raise tr.ProcessExit("real")

    pid = tr.spawn_link(leave, scheduler=scheduler)
    ref = tr.monitor(pid)
    pid.send("go")
    got = {tr.receive(timeout=LIMIT), tr.receive(timeout=LIMIT)}
    assert got == {tr.Exit(pid, "real"), tr.Down(ref, pid, "real")}


def test_o9_a_child_inherits_nothing_of_the_process(scheduler: str) -> None:
    infos: list[tr.ProcessInfo | None] = []
    tr.register("o9")
    tr.trap_exit()
    child = tr.spawn(lambda: infos.append(tr.process_info(tr.self())), scheduler=scheduler)
    wait_for_down(child)
    (info,) = infos
    assert info is not None
    assert (info.pid, info.name, info.priority, info.trap_exit) == (child, None, "normal", False)
    assert (info.links, info.monitors) == ((), ())


def test_o9_context_variables_are_inherited_and_private(scheduler: str) -> None:
    variable = contextvars.ContextVar("variable", default=0)
    variable.set(1)
    seen = []

    def child() -> None:
        seen.append(variable.get())
        variable.set(2)

    assert reason_of(child, scheduler=scheduler) == "normal"
    assert (seen, variable.get()) == ([1], 1)


def test_o10_messages_are_handed_over_by_reference(scheduler: str) -> None:
    me, box = tr.self(), [1]
    tr.spawn(lambda: me.send(tr.receive()), scheduler=scheduler).send(box)
    assert tr.receive(timeout=LIMIT) is box


def test_o11_a_pid_is_never_used_again() -> None:
    first = tr.spawn(int)
    wait_for_down(first)
    text, number = repr(first), hash(first)
    others = [tr.spawn(int) for _ in range(3000)]
    for other in others:
        wait_for_down(other)
    assert len({first, *others}) == 3001
    first.send("to nobody")
    assert not first.alive
    assert (repr(first), hash(first)) == (text, number)
    assert first == first
    assert sorted([*others, first])


def test_pids_are_values() -> None:
    me = tr.self()
    assert pickle.loads(pickle.dumps(me)) == me
    assert {me: 1}[pickle.loads(pickle.dumps(me))] == 1
    other = tr.spawn(int)
    assert me != other
    assert (me < other) != (other < me)
    assert me != "a pid"
    with pytest.raises(TypeError):
        me < 3  # type: ignore[operator]
    assert repr(me).startswith("<pid ")
    tr.register("some name")
    assert repr(me).endswith(' "some name">')
    assert me.name == "some name"


@pytest.mark.parametrize("kind", [tr.Pid, tr.Ref, tr.From, tr.Timer])
def test_only_the_engine_makes_pids_and_refs(kind: type) -> None:
    with pytest.raises(TypeError):
        kind()


def test_o12_a_killed_process_is_not_alive(scheduler: str) -> None:
    for _ in range(500):
        pid = tr.spawn(park, scheduler=scheduler)
        tr.exit(pid, "kill")
        assert not pid.alive


def test_o13_process_info_sees_what_was_sent_before(scheduler: str) -> None:
    for _ in range(100):
        pid = tr.spawn(park, scheduler=scheduler)
        pid.send(1)
        pid.send(2)
        info = tr.process_info(pid)
        assert info is not None
        assert info.message_queue_len == 2
        tr.exit(pid, "kill")


def test_o14_a_name_is_free_before_the_end_is_announced(scheduler: str) -> None:
    for _ in range(300):
        _pid, ref = tr.spawn_monitor(int, name="o14", scheduler=scheduler)
        tr.receive(ref, timeout=LIMIT)
        assert tr.whereis("o14") is None


def test_o15_processes_lists_exiting_ones_which_are_not_alive() -> None:
    ready, go = threading.Event(), threading.Event()

    def block() -> None:
        ready.set()
        go.wait()

    pid = tr.spawn(block)
    assert ready.wait(LIMIT)
    assert tr.exit(pid, "kill")
    assert pid in tr.processes()
    assert not pid.alive
    assert tr.process_info(pid) is None
    go.set()
    eventually(lambda: pid not in tr.processes())


def test_a_function_gets_all_its_arguments(scheduler: str) -> None:
    me = tr.self()
    tr.spawn(lambda *args, **kw: me.send((args, kw)), 1, 2, scheduler=scheduler, fn=3, cls=4)
    assert tr.receive(timeout=LIMIT) == ((1, 2), {"fn": 3, "cls": 4})


@pytest.mark.parametrize("priority", ["low", "normal", "high"])
def test_priority_is_set_at_start(priority: str, scheduler: str) -> None:
    pid = tr.spawn(park, scheduler=scheduler, priority=priority)
    info = pid.info()
    assert (info.priority, info.scheduler) == (priority, scheduler)


def test_every_thread_has_a_process_of_its_own_that_ends_with_it() -> None:
    me = tr.self()
    thread = threading.Thread(target=lambda: (me.send(tr.self()), tr.receive(), None))
    thread.start()
    pid = tr.receive(timeout=LIMIT)
    assert pid != me
    ref = tr.monitor(pid)
    pid.send("go")
    assert tr.receive(ref, timeout=LIMIT) == tr.Down(ref, pid, "normal")
    thread.join()


# ---- Messages -----------------------------------------------------------------------------------


def test_o18_send_returns_none_and_a_mailbox_has_no_limit() -> None:
    me = tr.self()
    assert me.send(0) is None
    for n in range(1, 100_000):
        tr.send(me, n)
    assert [tr.receive() for _ in range(100_000)] == list(range(100_000))


def test_o19_to_the_dead_a_message_is_dropped() -> None:
    dead = tr.spawn(int)
    wait_for_down(dead)
    assert dead.send("hello") is None
    assert tr.send(dead, "hello") is None
    assert dead.cast("hello") is None


def test_o19_to_an_unknown_name_raises() -> None:
    with pytest.raises(tr.NoProcess, match="nobody"):
        tr.send("nobody", "hello")


@pytest.mark.parametrize("dest", [None, 1, 1.0, b"name", object(), ("a", "b")])
def test_o19_to_something_else_is_a_type_error(dest: Any) -> None:
    with pytest.raises(TypeError, match="dest: expected a Pid"):
        tr.send(dest, "hello")


def test_o20_messages_of_one_sender_keep_their_order(scheduler: str) -> None:
    me = tr.self()

    def count(sender: int) -> None:
        for n in range(2000):
            me.send((sender, n))

    for sender in range(4):
        tr.spawn(count, sender, scheduler=scheduler)
    got: dict[int, list[int]] = {0: [], 1: [], 2: [], 3: []}
    for _ in range(8000):
        sender, n = tr.receive(timeout=LIMIT)
        got[sender].append(n)
    assert got == {sender: list(range(2000)) for sender in range(4)}


def test_o20_a_last_message_comes_before_the_down(scheduler: str) -> None:
    me = tr.self()
    for n in range(1000):
        _pid, ref = tr.spawn_monitor(me.send, n, scheduler=scheduler)
        assert tr.receive(timeout=LIMIT) == n
        assert tr.receive(timeout=LIMIT).ref == ref


def test_o21_a_timer_of_zero_seconds_fires() -> None:
    tr.send_after(tr.self(), "timer", 0)
    tr.self().send("direct")
    assert {tr.receive(timeout=LIMIT), tr.receive(timeout=LIMIT)} == {"timer", "direct"}


def test_send_many_sends_to_all_and_skips_none() -> None:
    me = tr.self()
    tr.register("many")
    assert tr.send_many([me, None, "many", me], "x") is None
    assert [tr.receive(timeout=0) for _ in range(3)] == ["x"] * 3


@pytest.mark.parametrize(
    ("bad", "error"), [(3, TypeError), ("nobody", tr.NoProcess), (object(), TypeError)]
)
def test_o272_send_many_sends_nothing_when_one_is_bad(bad: Any, error: type[Exception]) -> None:
    me = tr.self()
    with pytest.raises(error):
        tr.send_many([me, bad], "x")
    with pytest.raises(tr.ReceiveTimeout):
        tr.receive(timeout=0)


# ---- receive ------------------------------------------------------------------------------------


def test_o22_receive_of_a_ref_leaves_the_others_in_order() -> None:
    me = tr.self()
    ref, other = tr.monitor(tr.self()), tr.monitor(tr.self())
    for message in (1, ("a", ref), 2, ref, 3, (other,), 4):
        me.send(message)
    assert tr.receive(ref) == ("a", ref)
    assert tr.receive(ref) == ref
    assert tr.receive(ref, timeout=0, default=None) is None
    assert [tr.receive() for _ in range(5)] == [1, 2, 3, (other,), 4]


def test_o22_a_ref_matches_its_down() -> None:
    pid = tr.spawn(park)
    first, second = tr.monitor(pid), tr.monitor(pid)
    tr.exit(pid, "boom")
    assert tr.receive(second, timeout=LIMIT) == tr.Down(second, pid, "boom")
    assert tr.receive(first, timeout=LIMIT) == tr.Down(first, pid, "boom")


def test_o22_a_message_skipped_once_is_seen_later() -> None:
    me, ref = tr.self(), tr.monitor(tr.self())
    me.send("early")
    tr.spawn(me.send, ("late", ref))
    assert tr.receive(ref, timeout=LIMIT) == ("late", ref)
    assert tr.receive() == "early"


def test_o23_a_timeout_raises_or_gives_the_default() -> None:
    with pytest.raises(tr.ReceiveTimeout) as caught:
        tr.receive(timeout=0.001)
    assert isinstance(caught.value, TimeoutError)
    assert isinstance(caught.value, tr.EngineError)
    assert tr.receive(timeout=0, default="nothing") == "nothing"
    assert tr.receive(timeout=0, default=None) is None


def test_o23_a_message_that_is_there_wins_over_a_timeout_of_zero() -> None:
    me, ref = tr.self(), tr.monitor(tr.self())
    for n in range(1000):
        me.send(n)
    me.send(ref)
    assert tr.receive(ref, timeout=0) == ref
    assert tr.receive(timeout=0) == 0


def test_o24_other_messages_do_not_extend_the_limit() -> None:
    me, ref = tr.self(), tr.monitor(tr.self())
    stop = threading.Event()

    def disturb() -> None:
        while not stop.is_set():
            me.send("noise")
            tr.sleep(0.0001)

    tr.spawn(disturb)
    with pytest.raises(tr.ReceiveTimeout):
        tr.receive(ref, timeout=0.05)
    stop.set()


@pytest.mark.parametrize("timeout", [0, 0.0, 2**32 / 1000, 1e300, float("inf"), 10**400, None])
def test_o24_any_limit_up_to_for_ever_is_accepted(timeout: float | None) -> None:
    tr.self().send("there")
    assert tr.receive(timeout=timeout) == "there"
    if timeout is not None:
        timer = tr.send_after(tr.self(), "later", timeout)
        timer.cancel()


@pytest.mark.parametrize("seconds", [2**32 / 1000, 1e300, float("inf")])
def test_o24_a_long_sleep_is_accepted(seconds: float, scheduler: str) -> None:
    pid, ref = tr.spawn_monitor(tr.sleep, seconds, scheduler=scheduler)
    eventually(lambda: pid.info().status == "waiting")
    tr.exit(pid, "enough")
    assert tr.receive(ref, timeout=LIMIT).reason == "enough"


def test_o24_sleep_ignores_messages(scheduler: str) -> None:
    me = tr.self()

    def child() -> None:
        tr.sleep(0.02)
        me.send(tr.receive(timeout=0))

    tr.spawn(child, scheduler=scheduler).send("early")
    assert tr.receive(timeout=LIMIT) == "early"


def test_o25_a_call_leaves_a_long_backlog_alone() -> None:
    class Echo(tr.GenServer):
        def handle_call(self, request: Any, caller: tr.From) -> Any:
            return request

    me, echo = tr.self(), Echo.start()
    for n in range(100_000):
        me.send(n)
    for n in range(5000):  # would take minutes if each looked at the backlog
        assert echo.call(n) == n
    assert [tr.receive(timeout=0) for _ in range(100_000)] == list(range(100_000))


def test_a_process_that_is_no_server_can_answer_a_call() -> None:
    def answer() -> None:
        kind, caller, request = tr.receive()
        tr.reply(caller, (kind, request, tr.receive()))

    pid = tr.spawn(answer)
    results = []
    thread = threading.Thread(target=lambda: results.append(pid.call("question", timeout=LIMIT)))
    thread.start()
    eventually(lambda: pid.info().status == "waiting" and pid.info().reductions == 0)
    pid.cast("more")
    thread.join()
    assert results == [("$call", "question", ("$cast", "more"))]


@pytest.mark.parametrize("how", ["stop", "astop", "astop on the core"])
def test_a_process_that_is_no_server_answers_a_stop_by_ending_only(how: str) -> None:
    def answer() -> None:
        _, caller, _ = tr.receive()
        tr.reply(caller, "no answer")
        raise tr.ProcessExit("ended")

    async def stop() -> None:
        await tr.astop(pid, "ended")

    pid = tr.spawn(answer)
    if how == "stop":
        tr.stop(pid, "ended", timeout=LIMIT)
    elif how == "astop":
        asyncio.run(stop())
    else:
        _, ref = tr.spawn_monitor(stop, scheduler="core")
        assert tr.receive(ref, timeout=LIMIT).reason == "normal"
    assert not pid.alive


def test_a_ref_of_an_engine_that_was_shut_down_matches_nothing() -> None:
    def monitored() -> tuple[tr.Pid, tr.Ref]:
        return tr.spawn_monitor(tr.receive)

    tr.shutdown()
    with tr.Engine():
        _, old = monitored()
    tr.Engine()
    pid, new = monitored()
    pid.exit("kill")
    eventually(lambda: not pid.alive)
    assert tr.receive(old, timeout=0.01, default=None) is None
    assert tr.receive(new, timeout=LIMIT).reason == "killed"
