"""The command `tailrace`: what it is given, and which function does it."""

import argparse
import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path

from . import __version__

DEMO = """Compress every file below FOLDER and upload it to an object store on this machine, which
limits the rate and hangs up at times; then compare all of them with their files by hash. Ctrl-C
stops in good order; the same command goes on where it stopped, after any end. Exit code: 0
complete, 1 something is missing, 130 stopped by Ctrl-C."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the program's) and return its exit code.

    Wrong usage is explained on standard error and ends with `SystemExit(2)`, as argparse does it.
    The demo handles signals, so it needs the main thread.
    """
    parser = argparse.ArgumentParser(
        prog="tailrace", description="Processes, supervisors and demand-driven pipelines."
    )
    parser.add_argument("--version", action="version", version=f"tailrace {__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", required=True)
    summary = "archive a folder of files into an object store, through everything that can go wrong"
    _add_demo_arguments(commands.add_parser("demo", help=summary, description=DEMO))
    options = parser.parse_args(argv)

    from tailrace._examples import archiver  # only the demo needs the examples

    code: int = archiver.main(options.folder, options.work, options.chaos)
    return code


def run_demo(archive: Callable[[Path, Path, bool], int]) -> int:
    """Call `archive` with what the program was given: the demo as a program of its own."""
    parser = argparse.ArgumentParser(description=DEMO)
    _add_demo_arguments(parser)
    options = parser.parse_args()
    return archive(options.folder, options.work, options.chaos)


def _add_demo_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        nargs="?",
        type=_folder,
        default=Path(sysconfig.get_path("stdlib")),
        help="the files to archive (default: the standard library of this interpreter)",
    )
    parser.add_argument(
        "--chaos", action="store_true", help="kill processors and batchers at random meanwhile"
    )
    parser.add_argument(
        "--work",
        metavar="DIR",
        type=Path,
        default=Path("tailrace-demo"),
        help="where everything is kept (default: ./tailrace-demo)",
    )


def _folder(text: str) -> Path:
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is no folder")
    return path
