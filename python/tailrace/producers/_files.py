"""Files: a producer that hands out the files of a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from tailrace.producers._iterable import Iterable


class Files(Iterable):
    """Hands out every regular file below `folder`, as a `pathlib.Path`, in the order of their
    names.

    Links to folders are not followed. Raises ValueError, with the path, if there is no such
    folder; a folder that cannot be read ends the intake with its OSError.

    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = pathlib.Path(folder, "note.txt").write_text("hello")
    ...     [path.name for path in Files(folder)]
    ['note.txt']
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        if not isinstance(folder, str | os.PathLike):
            raise TypeError(f"folder: expected a str or PathLike, got {folder!r}")
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise ValueError(f"folder: expected an existing folder, got {str(self.folder)!r}")
        super().__init__(self)

    def __repr__(self) -> str:
        return f"Files({str(self.folder)!r})"

    def __iter__(self) -> Iterator[Path]:
        return walk(self.folder)


def walk(folder: Path) -> Iterator[Path]:
    """Give the regular files below a folder: those of each folder in the order of their names."""
    pending = [os.fspath(folder)]
    while pending:
        with os.scandir(pending.pop()) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        for entry in entries:
            if entry.is_file():
                yield Path(entry.path)
        pending += [e.path for e in reversed(entries) if e.is_dir(follow_symlinks=False)]
