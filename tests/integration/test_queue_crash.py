"""kill -9 at any moment: nothing put is lost, nothing done comes back, nothing else is forgotten.

Workers say on a pipe what they are about to do and what has returned; a line that was written
before the kill is read after it. Each is killed after a random number of lines, hence in any part
of its work.
"""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from tailrace.producers import Queue

ROUNDS = 12

# Puts single items and groups, from two threads. Lines: "? name" before and "! name" after a put.
# The data are (name, index in the group, size of the group).
PUTTER = """
import itertools, os, sys, threading
from tailrace.producers import Queue
def say(text):
    os.write(1, (text + "\\n").encode())
def put(thread):
    for i in itertools.count():
        name, size = f"{sys.argv[2]}-{thread}-{i}", (i % 3) * 7 + 1
        say(f"? {name}")
        if size == 1:
            queue.put((name, 0, 1))
        else:
            queue.put_many([(name, k, size) for k in range(size)])
        say(f"! {name}")
queue = Queue(sys.argv[1])
threading.Thread(target=put, args=("a",)).start()
put("b")
"""

# Leases and completes, from two threads. Lines: "? id id ..." before and "! id id ..." after an
# acknowledgement, "+ id id ..." for what was leased.
TAKER = """
import os, sys, threading
from tailrace.producers import Queue
def say(mark, items):
    os.write(1, " ".join([mark, *(str(item.id) for item in items)]).encode() + b"\\n")
def take():
    while items := queue._lease(5):
        say("+", items)
        done = items[::2]
        say("?", done)
        queue._acknowledge(done, [])
        say("!", done)
        queue._release(items[1:3])
queue = Queue(sys.argv[1], max_attempts=None)
threading.Thread(target=take).start()
take()
"""


def killed_after(lines: int, code: str, *arguments: object) -> list[str]:
    """Run a worker, kill it after so many lines, and return all whole lines it wrote."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        seen = [process.stdout.readline() for _ in range(lines)]
        process.kill()
        seen += process.stdout.readlines()
    return [line.decode().strip() for line in seen if line.endswith(b"\n")]


def marked(lines: Iterable[str], mark: str) -> list[str]:
    return [word for line in lines if line[0] == mark for word in line[2:].split()]


@pytest.mark.parametrize("seed", range(2))
def test_nothing_put_is_lost(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    path = tmp_path / "queue.db"
    asked: set[str] = set()
    confirmed: set[str] = set()
    for number in range(ROUNDS):
        lines = killed_after(chance.randint(1, 60), PUTTER, path, number)
        asked.update(marked(lines, "?"))
        confirmed.update(marked(lines, "!"))
        with Queue(path) as queue:
            items = queue.items()
        groups: dict[str, list[int]] = {}
        sizes: dict[str, int] = {}
        for item in items:
            name, index, size = item.data
            groups.setdefault(name, []).append(index)
            sizes[name] = size
        assert confirmed <= groups.keys() <= asked
        for name, indexes in groups.items():  # all of a put_many or nothing, in order, once
            assert indexes == list(range(sizes[name]))


@pytest.mark.parametrize("seed", range(2))
def test_nothing_done_comes_back_and_nothing_else_is_forgotten(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    path = tmp_path / "queue.db"
    with Queue(path, max_attempts=None) as queue:
        left = {str(id) for id in queue.put_many(range(3000))}
    for _ in range(ROUNDS):
        lines = killed_after(chance.randint(1, 80), TAKER, path)
        asked = set(marked(lines, "?"))
        confirmed = set(marked(lines, "!"))
        assert not confirmed - left, "done twice"
        with Queue(path, max_attempts=None) as queue:
            found = {str(item.id) for item in queue.items()}
            assert queue.stats() == (len(found), 0, 0, 0)  # the dead process's leases are ended
        assert not confirmed & found, "came back"
        assert left - asked <= found <= left, "forgotten"
        left = found


def test_an_item_that_kills_its_process_ends_as_a_dead_letter(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    code = (
        "import os, signal, sys; from tailrace.producers import Queue\n"
        "Queue(sys.argv[1], max_attempts=3)._lease(1); os.kill(os.getpid(), signal.SIGKILL)"
    )
    with Queue(path, max_attempts=3) as queue:
        queue.put("poison")
        for _ in range(3):
            subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    with Queue(path, max_attempts=3) as queue:
        assert queue.stats() == (0, 0, 0, 1)
        (letter,) = queue.dead_letters()
    assert (letter.data, letter.attempts) == ("poison", 3)
    assert "without an acknowledgement" in letter.reason


def test_a_kill_while_the_file_is_made_leaves_no_half_made_queue(tmp_path: Path) -> None:
    """A file under the queue's name is a queue, or there is none."""
    code = """
import os, signal, sys
from tailrace.producers import Queue, _schema
steps = int(sys.argv[2])
def count(frame, event, argument):
    global steps
    steps -= 1
    if steps < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return count
sys.settrace(count)
_schema.ensure(sys.argv[1])
"""
    for steps in range(0, 40, 3):
        path = tmp_path / f"{steps}.db"
        subprocess.run([sys.executable, "-c", code, str(path), str(steps)], check=False)
        with Queue(path) as queue:
            assert queue.put(1) == 1
