"""`pawmatch serve`: the page and its API on this computer."""

from __future__ import annotations

import argparse
import os
from typing import Any

from pawmatch.settings import OPTIONS, Settings, source_options

SUMMARY = "Start the web page and its API."
EPILOG = """\
Each flag has a variable of the same name, such as PAWMATCH_PORT for --port; a flag wins over its
variable, and the variable over the default.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `serve`: the rows of the table of settings."""
    for option in (*OPTIONS, *source_options()):
        parser.add_argument(
            option.flag,
            dest=option.name,
            metavar="{" + ",".join(option.choices) + "}" if option.choices else "VALUE",
            # Values are read by the table's own rules, so that a flag and its variable are judged alike.
            help=f"{option.help} (default: {shown(option.default)})".replace("%", "%%"),
        )


def shown(default: Any) -> str:
    """A default as a user would type it."""
    if isinstance(default, bool):
        return "yes" if default else "no"
    return "empty" if default in (None, ()) else str(default)


def run(args: argparse.Namespace) -> int:
    """Serve until stopped."""
    flags = {option.name: getattr(args, option.name) for option in (*OPTIONS, *source_options())}
    settings = Settings.from_environ(os.environ, flags)
    from pawmatch.ui.server import serve

    serve(settings)
    return 0
