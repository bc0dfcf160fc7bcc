"""Registered names (O61 to O65)."""

import threading
from collections.abc import Iterator

import pytest
from support import LIMIT

import tailrace as tr


@pytest.fixture
def parked() -> Iterator[tr.Pid]:
    pid = tr.spawn(lambda: tr.receive())
    yield pid
    pid.exit("kill")


def test_o61_a_name_reaches_its_holder(parked: tr.Pid) -> None:
    assert tr.register("o61") is True
    assert tr.whereis("o61") == tr.self()
    tr.send("o61", "hello")
    assert tr.receive(timeout=0) == "hello"
    assert tr.register("other", parked) is True
    assert tr.register("third", pid=tr.spawn(lambda: tr.receive())) is True
    assert (tr.whereis("other"), parked.name) == (parked, "other")


def test_o61_a_taken_name_raises_and_tells_the_holder(parked: tr.Pid) -> None:
    tr.register("taken", parked)
    with pytest.raises(tr.AlreadyRegistered) as caught:
        tr.register("taken")
    assert isinstance(caught.value, ValueError)
    assert caught.value.pid == parked
    with pytest.raises(tr.AlreadyRegistered) as caught:
        tr.spawn(int, name="taken")
    assert caught.value.pid == parked
    with pytest.raises(tr.AlreadyRegistered):
        tr.register("taken", parked)


def test_o61_a_process_has_one_name(parked: tr.Pid) -> None:
    tr.register("one", parked)
    with pytest.raises(ValueError, match="name: the process has a name already"):
        tr.register("two", parked)
    assert tr.whereis("two") is None


def test_o61_the_dead_get_no_name() -> None:
    dead, ref = tr.spawn_monitor(int)
    tr.receive(ref, timeout=LIMIT)
    with pytest.raises(ValueError, match="pid: expected a running process"):
        tr.register("dead", dead)
    assert tr.whereis("dead") is None


@pytest.mark.parametrize("name", ["ü", "日本", "with space", "a.b:c/d", "x" * 255, "\U0001f600"])
def test_o61_any_text_is_a_name(name: str) -> None:
    pid = tr.spawn(lambda: tr.receive(), name=name)
    assert tr.whereis(name) == pid
    assert name in tr.registered()
    assert pid.name == name
    assert pid.info().name == name
    assert repr(pid).endswith(f' "{name}">')
    pid.exit("kill")


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 256, "ü" * 128, "\ud800"])
def test_o61_what_is_no_name(name: str) -> None:
    with pytest.raises(ValueError):
        tr.register(name)
    with pytest.raises(ValueError):
        tr.spawn(int, name=name)
    with pytest.raises(ValueError):
        tr.whereis(name)


def test_o62_of_many_that_register_one_name_one_wins() -> None:
    for n in range(50):
        barrier = threading.Barrier(8)
        me = tr.self()

        def register(
            name: str, barrier: threading.Barrier = barrier, me: tr.Pid = me
        ) -> None:
            barrier.wait()
            try:
                tr.register(name)
                me.send("won")
            except tr.AlreadyRegistered as error:
                me.send(error.pid)
            tr.receive()  # holds the name until all have tried

        pids = [tr.spawn(register, f"race {n}") for _ in range(8)]
        outcomes = [tr.receive(timeout=LIMIT) for _ in pids]
        winner = tr.whereis(f"race {n}")
        assert winner in pids
        assert outcomes.count("won") == 1
        assert outcomes.count(winner) == 7
        for pid in pids:
            pid.send("go")


def test_o63_unregister_frees_the_name(parked: tr.Pid) -> None:
    tr.register("o63", parked)
    assert "o63" in tr.registered()
    assert tr.unregister("o63") is True
    assert tr.whereis("o63") is None
    assert "o63" not in tr.registered()
    assert parked.name is None
    tr.register("o63 again", parked)


def test_o63_unknown_names() -> None:
    assert tr.whereis("nobody") is None
    with pytest.raises(ValueError, match="name: expected a registered name, got 'nobody'"):
        tr.unregister("nobody")


def test_o63_registered_lists_all_names() -> None:
    names = [f"name {n}" for n in range(500)]
    before = set(tr.registered())
    pids = [tr.spawn(lambda: tr.receive(), name=name, scheduler="thread") for name in names[:50]]
    assert set(tr.registered()) - before == set(names[:50])
    for pid in pids:
        pid.exit("kill")
    assert set(tr.registered()) == before


def test_o64_a_name_can_be_taken_again_when_its_end_is_told() -> None:
    for _ in range(500):
        _pid, ref = tr.spawn_monitor(int, name="o64")
        tr.receive(ref, timeout=LIMIT)


def test_o65_a_looked_up_pid_drops_and_a_name_raises() -> None:
    pid, ref = tr.spawn_monitor(lambda: tr.receive(), name="o65")
    found = tr.whereis("o65")
    assert found == pid
    pid.exit("kill")
    tr.receive(ref, timeout=LIMIT)
    assert tr.send(found, "lost") is None
    with pytest.raises(tr.NoProcess):
        tr.send("o65", "lost")
