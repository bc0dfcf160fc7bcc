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

DOCTOR = """Look at the interpreter, the machine and the package, run the engine for a second, and
say what could be better. Exit code: 0 the engine works here, 1 it does not."""


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
    summary = "say whether this interpreter and machine are good for the engine"
    doctor = commands.add_parser("doctor", help=summary, description=DOCTOR)
    doctor.add_argument("--json", action="store_true", help="the report for a program to read")
    options = parser.parse_args(argv)
    return _doctor(options) if options.command == "doctor" else _demo(options)


def _demo(options: argparse.Namespace) -> int:
    from tailrace._examples import archiver  # only the demo needs the examples

    code: int = archiver.main(options.folder, options.work, options.chaos)
    return code


def _doctor(options: argparse.Namespace) -> int:
    from . import _doctor  # and only the doctor its knowledge of the machine

    return _doctor.run(options.json)


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
