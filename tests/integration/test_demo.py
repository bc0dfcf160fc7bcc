"""`tailrace demo` as a user runs it: the archiver, its object store, its queue, on real files."""

import gzip
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest

import tailrace as tr

LIMIT = 100.0  # seconds for what takes a few
MANY = 1500  # files: at the rate the store allows, several seconds

ODD_NAMES = [
    "plain.txt",
    "a b.txt",
    "100%.txt",
    "%41.txt",
    "a+b?c#d&e.txt",
    "ünïcödé-日本.txt",
    "new\nline.txt",
    os.fsdecode(b"not-utf8-\xff.txt"),
    ".hidden",
    "x.gz",
    "deep/er/than/that.txt",
    "deep/a b/é.txt",
    "-dash",
    "'quote\".txt",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "source"
    place.mkdir()
    return place


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return tmp_path / "work"


def fill(folder: Path, count: int) -> None:
    for number in range(count):
        (folder / f"{number % 20}").mkdir(exist_ok=True)
        (folder / f"{number % 20}/{number}.txt").write_bytes(b"%d\n" % number * (number % 97))


def command(folder: Path, work: Path, *options: str) -> list[str]:
    program = [sys.executable, "-m", "tailrace", "demo"]
    return [*program, *options, "--work", os.fspath(work), "--", os.fspath(folder)]


def demo(folder: Path, work: Path, *options: str) -> tuple[int, str]:
    """Run to the end; gives the exit code and all that was printed."""
    done = subprocess.run(
        command(folder, work, *options),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=LIMIT,
    )
    return done.returncode, done.stdout.decode(errors="replace")


@pytest.fixture
def start(folder: Path, work: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start the demo in the background, and return when its first objects are stored."""
    started = []

    def start(*options: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            command(folder, work, *options), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        started.append(process)
        wait_until(lambda: stored(work) > 0 or process.poll() is not None)
        assert process.poll() is None
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=LIMIT)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def stored(work: Path) -> int:
    return sum(1 for _ in (work / "objects").rglob("*.gz"))


def archived(work: Path) -> int:
    with closing(sqlite3.connect(work / "manifest.db")) as db:
        count: int = db.execute("SELECT count(*) FROM object").fetchone()[0]
        return count


def number(what: str, output: str) -> int:
    """Read a line of the table."""
    match = re.search(rf"^ *{what} +([\d,]+)$", output, re.M)
    assert match, output
    return int(match[1].replace(",", ""))


def check_complete(folder: Path, work: Path, code: int, output: str) -> None:
    """Everything is there, by our own comparison and by what the demo says."""
    assert code == 0, output
    files = [path for path in folder.rglob("*") if path.is_file()]
    for file in files:
        name = quote(os.fsencode(file.relative_to(folder)))
        assert gzip.decompress((work / f"objects/{name}.gz").read_bytes()) == file.read_bytes()
    assert number("archived, same by hash", output) == len(files)
    assert number("missing", output) == 0


def test_every_file_is_archived_whatever_its_name(folder: Path, work: Path) -> None:
    for name in ODD_NAMES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(os.fsencode(name) * 1000)
    (folder / "empty").touch()
    (folder / "broken-link").symlink_to("nowhere")
    os.mkfifo(folder / "fifo")
    for left_out in ("__pycache__", "deep/site-packages"):
        (folder / left_out).mkdir()
        (folder / left_out / "not-this").touch()
    code, output = demo(folder, work)
    assert code == 0, output
    assert number("archived, same by hash", output) == len(ODD_NAMES) + 1
    for left_out in ("__pycache__", "deep/site-packages"):
        shutil.rmtree(folder / left_out)
    os.unlink(folder / "fifo")
    check_complete(folder, work, code, output)
    assert stored(work) == len(ODD_NAMES) + 1


def test_a_second_start_says_that_everything_is_there(folder: Path, work: Path) -> None:
    fill(folder, 50)
    check_complete(folder, work, *demo(folder, work))
    code, output = demo(folder, work)
    check_complete(folder, work, code, output)
    assert "everything is there already" in output


def test_what_was_spoilt_changed_or_added_is_done_again(folder: Path, work: Path) -> None:
    fill(folder, 50)
    check_complete(folder, work, *demo(folder, work))
    (work / "objects/1/21.txt.gz").unlink()
    (work / "objects/2/22.txt.gz").write_bytes(b"spoilt")
    (folder / "3/23.txt").write_bytes(b"changed")
    (folder / "new").write_bytes(b"new")
    check_complete(folder, work, *demo(folder, work))


def test_chaos_loses_nothing(folder: Path, work: Path) -> None:
    fill(folder, MANY)
    code, output = demo(folder, work, "--chaos")
    check_complete(folder, work, code, output)
    assert number("workers killed", output) > 0


def test_ctrl_c_drains_and_a_second_start_goes_on(
    folder: Path, work: Path, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    fill(folder, MANY)
    process = start()
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=LIMIT)[0].decode()
    assert process.returncode == 130, output
    assert "Traceback" not in output
    with tr.producers.Queue(work / "queue.db") as queue:
        stats = queue.stats()
    assert stats.leased == 0, "all leases were given back or acknowledged"
    assert archived(work) == stored(work) == MANY - stats.ready - stats.delayed
    assert stored(work) < MANY, "nothing new was taken in"
    check_complete(folder, work, *demo(folder, work))


def test_after_kill_9_a_second_start_goes_on(
    folder: Path, work: Path, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    fill(folder, MANY)
    process = start()
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 1, "the object store"
    process.kill()
    process.wait(LIMIT)
    wait_until(lambda: ended(children[0]))
    assert stored(work) < MANY
    check_complete(folder, work, *demo(folder, work))


def ended(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_what_cannot_be_stored_is_missing_and_named(folder: Path, work: Path) -> None:
    fill(folder, 10)
    (folder / ("é" * 100)).write_bytes(b"its object's name has 603 bytes")
    code, output = demo(folder, work)
    assert code == 1, output
    assert number("archived, same by hash", output) == 10
    assert number("missing", output) == 1
    assert "%C3%A9%C3%A9" in output and "the store answered 507" in output


def test_an_empty_folder_is_complete(folder: Path, work: Path) -> None:
    check_complete(folder, work, *demo(folder, work))


def test_the_work_folder_is_left_out_when_it_lies_in_the_folder(folder: Path) -> None:
    fill(folder, 10)
    for _ in range(2):
        code, output = demo(folder, folder / "work")
        assert (code, number("archived, same by hash", output)) == (0, 10)


def test_one_work_folder_holds_one_archive(folder: Path, work: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    fill(folder, 3)
    check_complete(folder, work, *demo(folder, work))
    code, output = demo(other, work)
    assert code == 1
    assert "holds the archive of another folder" in output
    assert "Traceback" not in output


@pytest.mark.parametrize("spoilt", [None, "manifest.db", "queue.db"])
def test_a_work_folder_that_cannot_be_one_is_refused(
    spoilt: str | None, folder: Path, work: Path
) -> None:
    fill(folder, 3)
    if spoilt is None:
        work.write_text("a file")
    else:
        work.mkdir()
        (work / spoilt).write_text("this is neither a queue nor a manifest, but something else")
    code, output = demo(folder, work)
    assert code == 1, output
    assert "tailrace demo: " in output
    assert "Traceback" not in output
