"""The Archiver, `tailrace demo`: every file of a folder, compressed, in an object store.

    queue.db ──> 8 processors ──────> batcher ──────> batch processor ──> manifest.db
    one item     read, compress,      groups of 100   one transaction
    per file     upload over HTTP     or half a s     per group

Nothing is lost, whatever happens: an item leaves the queue only when its file is in the manifest,
so what was under way when something died is done again. Done twice is as good as done once.
"""

import gzip
import os
import random
import signal
import sqlite3
import sys
import time
import zlib
from contextlib import closing, suppress
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_to_bytes

import tailrace as tr
from tailrace._cli import run_demo
from tailrace._examples import object_store

WORKERS = 8
LEFT_OUT = ("__pycache__", "site-packages")


class Archive(tr.Pipeline):
    """The pipeline: what happens to one file, and to a group of finished ones."""

    processors = tr.Processors(concurrency=WORKERS, max_demand=2)
    batchers = {"manifest": tr.Batcher(batch_size=100, batch_timeout=0.5)}
    opens = 0.0  # no upload begins before this time: one gate for all processors

    def handle_message(self, message: tr.Message) -> tr.Message:
        """Archive one file. When this raises, the queue delivers the item again a little later."""
        content = self.context.source(message.data).read_bytes()
        packed = gzip.compress(content, compresslevel=1, mtime=0)
        self.upload(f"{message.data}.gz", packed)
        message.data = (message.data, sha256(content).hexdigest(), len(content), len(packed))
        return message.to("manifest")

    def upload(self, name: str, body: bytes, attempts: int = 10) -> None:
        """Store an object. After "too fast" all processors wait; after a hang-up, try again."""
        for attempt in range(attempts):
            while (closed := self.opens - time.monotonic()) > 0:
                tr.sleep(closed)
            try:
                self.context.store.put(name, body)
                return
            except object_store.TooFast as limit:
                self.opens = time.monotonic() + limit.seconds
            except ConnectionError:
                tr.sleep(0.01 * 2**attempt)
        raise OSError(f"{name}: not stored in {attempts} attempts")

    def handle_batch(self, batcher: str, messages: list[Any], info: tr.BatchInfo) -> list[Any]:
        """Write a group into the manifest; once this has returned, its items leave the queue."""
        rows = [message.data for message in messages]
        self.context.sql("INSERT OR REPLACE INTO object VALUES (?, ?, ?, ?)", rows)
        return messages


class Job:
    """The pipeline's context: the folder to archive, the manifest, the store."""

    def __init__(self, folder: Path, work: Path) -> None:
        work.mkdir(parents=True, exist_ok=True)
        self.folder, self.work, self.killed = folder, work, list[str]()
        self.sql("CREATE TABLE IF NOT EXISTS archive (id INTEGER PRIMARY KEY, folder BLOB)")
        self.sql("CREATE TABLE IF NOT EXISTS object (name TEXT PRIMARY KEY, sha256, size, packed)")
        self.sql("INSERT OR IGNORE INTO archive VALUES (1, ?)", [(os.fsencode(folder),)])
        if self.sql("SELECT folder FROM archive") != [(os.fsencode(folder),)]:
            raise OSError(f"{str(work)!r} holds the archive of another folder")
        self.store = object_store.Client(work / "objects")

    def sql(self, statement: str, rows: list[tuple[Any, ...]] | None = None) -> list[Any]:
        """Run a statement on the manifest, for all `rows` in one transaction."""
        with closing(sqlite3.connect(self.work / "manifest.db", timeout=60)) as db, db:
            return (db.executemany(statement, rows) if rows else db.execute(statement)).fetchall()

    def source(self, name: str) -> Path:
        """Find a file by its name, which is the relative path, URL-quoted."""
        return self.folder / os.fsdecode(unquote_to_bytes(name))

    def scan(self) -> list[str]:
        """Name every file below the folder; a folder that cannot be listed is one that fails."""
        found: list[str] = []
        walk = os.walk(self.folder, onerror=lambda error: found.append(error.filename))
        for top, folders, files in walk:
            folders[:] = [f for f in folders if f not in LEFT_OUT and Path(top, f) != self.work]
            found += filter(os.path.isfile, (os.path.join(top, file) for file in files))
        return [quote(os.fsencode(os.path.relpath(path, self.folder))) for path in found]

    def missing(self, names: list[str]) -> list[str]:
        """Pick the names for which file, manifest and object do not agree by hash."""
        rows = dict(self.sql("SELECT name, sha256 FROM object"))
        return [n for n in names if n not in rows or self.digests(n) != {rows[n]}]

    def digests(self, name: str) -> set[str]:
        """Hash a file, and what its object holds; nothing when one of them cannot be read."""
        packed = self.work / "objects" / f"{name}.gz"
        try:
            with self.source(name).open("rb") as file, gzip.open(packed) as stored:
                return {file_digest(f, "sha256").hexdigest() for f in (file, stored)}
        except (OSError, EOFError, zlib.error):
            return set()


def kill_workers(pipeline: str, killed: list[str], pause: float = 0.5) -> None:
    """Chaos: kill a processor, the batcher or its batch processor, again and again."""
    workers = ["Processor_default_{}", "Batcher_manifest", "BatchProcessor_manifest_0"]
    while True:
        tr.sleep(pause)
        worker = random.choice(workers).format(random.randrange(WORKERS))
        if pid := tr.whereis(f"{pipeline}.{worker}"):
            killed.append(worker)
            tr.exit(pid, "kill")
        pause = random.expovariate(0.5)


def run(job: Job, queue: tr.producers.Queue, chaos: bool) -> None:
    """Run the pipeline until the queue is empty, and show how it goes."""
    tr.trap_exit()  # should the pipeline fail, this thread goes on
    pipeline = Archive.start_link(producer=queue, context=job, max_restarts=1_000_000)
    if chaos:
        tr.spawn(kill_workers, pipeline.name, job.killed)
    period, form = (0.5, "\x1b[?7l{}\x1b[K\x1b[?7h\r") if sys.stderr.isatty() else (3.0, "{}\n")
    ended, begin = tr.monitor(pipeline.pid), time.monotonic()
    try:
        while tr.receive(ended, timeout=period, default=None) is None:
            with suppress(tr.NoProcess):  # it has just ended
                here, there, items = pipeline.stats(), job.store.stats(), queue.stats()
                seconds, megabytes = time.monotonic() - begin, there["bytes"] / 1e6
                line = (
                    f"{here.successful} done {here.failed} failed "
                    f"{there['refused'] + there['reset']} retried | "
                    f"{here.successful / seconds:.0f} files/s ({there['rate']} allowed) "
                    f"{megabytes / seconds:.1f} MB/s | queue {items.ready + items.delayed} "
                    f"leased {items.leased} wanted {sum(here.demand.values())} | processors "
                    f"{sum(n for worker, n in here.queued.items() if '.Processor' in worker)} "
                    f"batcher {sum(n for worker, n in here.queued.items() if '.Batch' in worker)}"
                )
                print(form.format(line), end="", file=sys.stderr, flush=True)
    except (KeyboardInterrupt, OSError):  # Ctrl-C; or the store is gone
        print("\ndraining: what is under way is finished first", file=sys.stderr)
        pipeline.stop()
        raise


def archive(folder: Path, work: Path, chaos: bool) -> int:
    """Archive what is not archived yet; gives the number of files missing at the end."""
    job = Job(folder, work)
    names = job.scan()
    with tr.producers.Queue(
        work / "queue.db", lease=5.0, max_attempts=20, retry_delay=0.2, until_empty=True
    ) as queue:
        queue.purge()  # what failed for good last time gets a new chance
        todo, waiting = job.missing(names), {item.data for item in queue.items()}
        queue.put_many([name for name in todo if name not in waiting])
        news = f"{len(todo)} to archive" if todo else "everything is there already"
        print(f"{len(names)} files in {str(folder)!r}: {news}")
        if todo or waiting:
            run(job, queue, chaos)
            todo = job.missing(names)
        reasons = {letter.data: letter.reason for letter in queue.dead_letters()}
    store = job.store.stats()
    print(f"""
    archived, same by hash  {len(names) - len(todo):>10,}
    missing                 {len(todo):>10,}
    megabytes uploaded      {store["bytes"] / 1e6:>10,.1f}
    uploads refused: 429    {store["refused"]:>10,}
    connections reset       {store["reset"]:>10,}
    objects stored twice    {store["duplicate"]:>10,}
    workers killed          {len(job.killed):>10,}""")
    for name in todo[:20]:
        print(f"    missing: {name}: {reasons.get(name, 'differs from its file')}")
    return len(todo)


def main(folder: Path, work: Path, chaos: bool) -> int:
    """Archive the folder; gives the exit code: 0 complete, 1 not, 130 drained by Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return min(1, archive(folder.resolve(), work.resolve(), chaos))
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here")
        return 130
    except (OSError, sqlite3.Error, tr.EngineError) as error:
        print(f"tailrace demo: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(run_demo(main))
