"""The command line: reads the arguments, runs a command, turns every error into one line.

Exit codes: 0 all is well, 1 some inputs failed and the others were answered, 2 the command could not
run, 130 interrupted. Nothing heavy is imported before a command runs, so that `--help` is immediate.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import traceback
from collections.abc import Sequence

from pawmatch import __version__
from pawmatch.commands import (
    calibrate,
    classify,
    compare,
    evaluate,
    explain,
    import_checkpoint,
    labels,
    pretrain,
    push,
    search,
    serve,
    train,
)
from pawmatch.commands.console import complain, printable
from pawmatch.errors import PawMatchError
from pawmatch.labels import find_task

OK = 0
SOME_FAILED = 1
COULD_NOT_RUN = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells count
PIPE_CLOSED = 141  # 128 + SIGPIPE

COMMANDS = {
    "serve": serve,
    "classify": classify,
    "explain": explain,
    "compare": compare,
    "train": train,
    "pretrain": pretrain,
    "calibrate": calibrate,
    "evaluate": evaluate,
    "search": search,
    "labels": labels,
    "import": import_checkpoint,
    "push": push,
}


class LineFormatter(logging.Formatter):
    """Log lines without control characters: a file name must not steer the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(printable(line) for line in super().format(record).split("\n"))


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--debug",
        action="store_true",
        default=argparse.SUPPRESS,  # or the command's default would undo a --debug before the command
        help="show the full traceback of an error",
    )
    parser = argparse.ArgumentParser(
        prog="pawmatch",
        description="What a picture shows, by three architectures side by side.",
        epilog="Exit codes: 0 ok, 1 some inputs failed, 2 the command could not run.",
        parents=[shared],
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"pawmatch {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, module in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=module.SUMMARY[0].lower() + module.SUMMARY[1:].rstrip("."),
            description=module.SUMMARY,
            epilog=module.EPILOG,
            parents=[shared],
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and give its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    prepare_streams()
    try:
        return run(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader, such as `head`, has left. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED


def run(arguments: Sequence[str]) -> int:
    """Parse and run; every error ends here, in one line."""
    debug = "--debug" in arguments
    try:
        args = build_parser().parse_args(arguments)
        if vars(args).get("source", "") is None:
            find_task(args.task)  # before anything heavy is imported
        code: int = args.run(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        raise
    except Exception as exc:  # the one place that catches everything: see the module's docstring
        if debug:
            traceback.print_exc()
        complain(sentence(exc, debug=debug))
        return COULD_NOT_RUN


def sentence(exc: Exception, *, debug: bool) -> str:
    """What to tell the user about an error."""
    if isinstance(exc, PawMatchError):
        return str(exc)
    if isinstance(exc, OSError):
        reason = exc.strerror or str(exc)
        return f"{exc.filename}: {reason}." if exc.filename else f"{reason}."
    remedy = "" if debug else " Run the command again with --debug for the details."
    return f"Something went wrong inside pawmatch ({type(exc).__name__}).{remedy}"


def prepare_streams() -> None:
    """Let no name stop the output: what the terminal's encoding lacks is written as an escape."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter("pawmatch: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
