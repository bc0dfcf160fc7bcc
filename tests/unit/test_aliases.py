"""Aliases: addresses that their owner can switch off (O57 to O60)."""

from __future__ import annotations

import pytest

import tailrace as tr


def nothing_more() -> bool:
    return tr.receive(timeout=0, default=None) is None


def test_o57_a_message_to_an_active_alias_reaches_its_owner_and_to_another_nobody() -> None:
    ref = tr.alias()
    tr.send(ref, "before")
    assert tr.unalias(ref)
    tr.send(ref, "after")
    assert tr.receive(timeout=0) == "before"  # delivered before it was switched off: stays
    assert nothing_more()


def test_o57_an_alias_works_from_any_process() -> None:
    ref = tr.alias()
    tr.spawn(tr.send, ref, "hello")
    assert tr.receive(timeout=60) == "hello"
    tr.unalias(ref)


def test_o58_unalias_is_true_once_and_only_for_the_owner() -> None:
    ref = tr.alias()
    me = tr.self()
    tr.spawn(lambda: me.send(tr.unalias(ref)))
    assert tr.receive(timeout=60) is False
    assert tr.unalias(ref) is True
    assert tr.unalias(ref) is False


def test_o59_a_reply_alias_switches_itself_off_after_one_message() -> None:
    ref = tr.alias(mode="reply")
    tr.send(ref, 1)
    tr.send(ref, 2)
    assert tr.receive(timeout=0) == 1
    assert nothing_more()
    assert tr.unalias(ref) is False


def test_o60_explicit_survives_demonitor_and_down() -> None:
    pid = tr.spawn(tr.receive)
    ref = tr.monitor(pid, alias="explicit")
    pid.send("end")
    assert tr.receive(ref, timeout=60).reason == "normal"
    tr.demonitor(ref)
    tr.send(ref, "still there")
    assert tr.receive(timeout=0) == "still there"
    assert tr.unalias(ref)


def test_o60_demonitor_switches_the_alias_off() -> None:
    pid = tr.spawn(tr.receive)
    ref = tr.monitor(pid, alias="demonitor")
    tr.send(ref, "on")
    tr.demonitor(ref)
    tr.send(ref, "off")
    assert tr.receive(timeout=0) == "on"
    assert nothing_more()
    pid.send("end")


def test_o60_so_does_down() -> None:
    pid = tr.spawn(tr.receive)
    ref = tr.monitor(pid, alias="demonitor")
    pid.send("end")
    assert tr.receive(ref, timeout=60).reason == "normal"
    tr.send(ref, "off")
    assert nothing_more()
    assert tr.unalias(ref) is False


def test_o60_down_of_a_process_that_had_ended_already() -> None:
    pid, gone = tr.spawn_monitor(int)
    tr.receive(gone, timeout=60)
    ref = tr.monitor(pid, alias="reply_demonitor")
    tr.send(ref, "off")
    assert tr.receive(timeout=0).reason == "noproc"
    assert nothing_more()


def test_o60_the_first_message_removes_the_monitor_too() -> None:
    pid, ended = tr.spawn_monitor(tr.receive)
    ref = tr.monitor(pid, alias="reply_demonitor")
    tr.send(ref, "answer")
    tr.send(ref, "late")
    pid.send("end")
    assert tr.receive(ended, timeout=60).reason == "normal"
    assert tr.receive(timeout=0) == "answer"
    assert nothing_more()  # no Down of the second monitor
    assert tr.demonitor(ref, info=True) is False


def test_an_alias_ends_with_its_owner() -> None:
    me = tr.self()
    _, ended = tr.spawn_monitor(lambda: me.send(tr.alias()))
    assert tr.receive(ended, timeout=60).reason == "normal"
    tr.send(tr.receive(timeout=0), "nobody")
    assert nothing_more()


def test_ten_thousand_aliases_and_monitors_leave_nothing_behind() -> None:
    pid = tr.spawn(tr.receive)
    for mode in ("explicit", "demonitor", "reply_demonitor"):
        refs = [tr.monitor(pid, alias=mode) for _ in range(3000)]
        for ref in refs:
            tr.demonitor(ref)
            assert tr.unalias(ref) is (mode == "explicit")
    assert nothing_more()
    pid.send("end")


@pytest.mark.parametrize(("mode", "error"), [("always", ValueError), (1, TypeError)])
def test_bad_modes_are_refused_by_name(mode: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="mode: expected one of 'explicit', 'reply'"):
        tr.alias(mode)  # type: ignore[arg-type]
    with pytest.raises(error, match="alias: expected one of 'explicit', 'demonitor'"):
        tr.monitor(tr.self(), alias=mode)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="ref"):
        tr.unalias(5)  # type: ignore[arg-type]
