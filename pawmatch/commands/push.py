"""`pawmatch push`: publish a checkpoint on the Hugging Face Hub."""

from __future__ import annotations

import argparse

from pawmatch.commands.console import say

SUMMARY = "Upload a checkpoint folder to the Hugging Face Hub."
EPILOG = """\
FOLDER holds a checkpoint and its model card, README.md. REPO is user/repo, or
hf://user/repo/subfolder. Log in with `hf auth login` or set HF_TOKEN first.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `push`."""
    parser.add_argument("folder", metavar="FOLDER", help="the folder to upload")
    parser.add_argument("repo", metavar="REPO", help="where to")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--revision", metavar="BRANCH", help="branch to upload to (default: main)")
    parser.add_argument("--message", metavar="TEXT", help="commit message")


def run(args: argparse.Namespace) -> int:
    """Upload, and print the address."""
    from pawmatch.checkpoint import push

    address = push(
        args.folder,
        args.repo,
        private=args.private,
        revision=args.revision,
        message=args.message,
    )
    say(address)
    return 0
