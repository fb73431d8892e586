"""`pawmatch push`: publish a checkpoint, or the app itself, on the Hugging Face Hub."""

from __future__ import annotations

import argparse
from pathlib import Path

from pawmatch.commands.console import say
from pawmatch.errors import BadOption

SUMMARY = "Upload a checkpoint folder, or the app as a Space, to the Hugging Face Hub."
EPILOG = """\
FOLDER holds a checkpoint and its model card, README.md. REPO is user/repo, or
hf://user/repo/subfolder. Log in with `hf auth login` or set HF_TOKEN first.

  pawmatch push runs/birds you/birds
  pawmatch push --space you/app --variable PAWMATCH_SOURCES=birds=hf://you/birds

The second uploads this checkout of the project; a FOLDER is another one.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `push`."""
    parser.add_argument("folder", metavar="FOLDER", nargs="?", help="the folder to upload")
    parser.add_argument("repo", metavar="REPO", nargs="?", help="where to")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--revision", metavar="BRANCH", help="branch to upload to (default: main)")
    parser.add_argument("--message", metavar="TEXT", help="commit message")
    space = parser.add_argument_group("the app as a Space")
    space.add_argument("--space", metavar="REPO", help="upload the app to the Space user/repo")
    space.add_argument(
        "--variable", metavar="NAME=VALUE", action="append", help="set a variable of the Space"
    )
    space.add_argument("--hardware", metavar="NAME", help="ask for hardware such as cpu-basic or zero-a10g")


def run(args: argparse.Namespace) -> int:
    """Upload, and print the address."""
    if args.space is None:
        if args.repo is None or args.variable or args.hardware:
            raise BadOption("push needs FOLDER and REPO, or --space REPO with what belongs to a Space.")
        from pawmatch.checkpoint import push

        address = push(
            args.folder, args.repo, private=args.private, revision=args.revision, message=args.message
        )
    else:
        if args.repo is not None or args.revision is not None:
            raise BadOption(
                "--space names the repository, whose branch is main; leave REPO and --revision out."
            )
        variables = dict(_variable(text) for text in args.variable or ())
        from pawmatch.checkpoint import push_space

        address = push_space(
            Path(args.folder or Path(__file__).parents[2]),
            args.space,
            private=args.private,
            variables=variables,
            hardware=args.hardware,
            message=args.message,
        )
    say(address)
    return 0


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise BadOption(f"--variable is {text!r}; write NAME=VALUE.")
    return name, value
