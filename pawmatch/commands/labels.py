"""`pawmatch labels`: what a task's weights know."""

from __future__ import annotations

import argparse
from typing import Any

from pawmatch.commands.console import add_source_options, local_config, say, say_json
from pawmatch.labels import display_name

SUMMARY = "List the classes that a task knows."
EPILOG = """\
Prints a name per line, in the order of the model's outputs, and with --groups the groups of classes that
look alike, which are answered together where the model cannot decide. With --json, one object with the
task's words, and each class with its label, which names its folder of images, and its name for people.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `labels`."""
    add_source_options(parser)
    parser.add_argument("--groups", action="store_true", help="list the groups of look-alikes instead")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """List them."""
    task, labels, groups = read_known(args)
    if args.json:
        classes = [{"label": label, "name": display_name(label)} for label in labels]
        say_json({"task": task, "classes": classes, "groups": groups}, indent=2)
    elif args.groups:
        for group in groups:
            names = ", ".join(display_name(label) for label in group["labels"])
            say(f"{group['name']}: {names}" if group["name"] else names)
    else:
        for label in labels:
            say(display_name(label))
    return 0


def read_known(args: argparse.Namespace) -> tuple[dict[str, Any], list[str], list[dict[str, Any]]]:
    """The task's words, its labels, and its groups by name and labels."""
    config = local_config(args.task, args.source)
    if config is None or "variants" not in config:  # on the Hub, or of the first format
        from pawmatch.checkpoint import read_configs
        from pawmatch.checkpoint.config import config_values

        config = config_values(read_configs(args.source or f"weights/{args.task}", args.task))
    task, labels, variants = config["task"], list(map(str, config["labels"])), config["variants"]
    groups = variants[config["answers"]["variant"]]["calibration"].get("groups", [])
    words = {key: task[key] for key in ("name", "title", "subject", "noun", "plural")}
    return words, labels, [{**one, "labels": [labels[index] for index in one["labels"]]} for one in groups]
