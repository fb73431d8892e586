"""`pawmatch search`: train the variations of a recipe that a study names, and compare them in one table."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Iterator
from pathlib import Path

from pawmatch.commands.console import Listing, say
from pawmatch.commands.study_table import study_page, study_table
from pawmatch.commands.train import number
from pawmatch.errors import TrainingError

SUMMARY = "Train variations of a recipe and compare them in one table."
EPILOG = """\
A study is a small TOML file: a recipe, values that all trials share, and the trials, named or drawn by
Optuna from ranges. docs/studies.md explains the bundled ones and how to write another.

A search that was cut goes on where it stopped when the same command is given again; finished trials are not
repeated. It ends with a table of validation loss, accuracy, calibration, parameters and latency, in which the
Pareto front is marked, on the screen and in --out as study.md and study.json.

example:
  pawmatch search --study chae --data paintings --out runs/chae --threads 1
"""


def studies() -> Iterator[str]:
    """A line for each bundled study."""
    from pawmatch.training.study import STUDIES, read_study

    for path in sorted(STUDIES.glob("*.toml")):
        yield f"{path.stem}: {read_study(path.stem).about}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `search`."""
    parser.add_argument(
        "--list-studies", action=Listing, lines=studies, help="list the bundled studies and exit"
    )
    parser.add_argument("--study", required=True, metavar="NAME", help="a bundled study, or a .toml file")
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help="folder of images")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for trials and table")
    parser.add_argument(
        "--trials", metavar="N", help="how many trials there shall be in all (default: the study's number)"
    )
    parser.add_argument(
        "--seeds", metavar="N", help="how often each trial is trained (default: the study's number)"
    )
    parser.add_argument("--init", metavar="SRC", help="checkpoint that every trial starts from")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="change a recipe value of every trial, such as epochs=2; may be given several times",
    )
    parser.add_argument("--retry-failed", action="store_true", help="train failed trials again")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1 (default: auto)")
    parser.add_argument("--threads", metavar="N", help="threads for arithmetic (default: torch's choice)")


def run(args: argparse.Namespace) -> int:
    """Search, print the table and write it; 1 where trials failed."""
    from pawmatch.training.study import read_study

    threads, trials, seeds = (
        None if text is None else number(flag, text, lowest=1)
        for flag, text in (("--threads", args.threads), ("--trials", args.trials), ("--seeds", args.seeds))
    )
    study = read_study(args.study)
    try:
        from pawmatch.training.search import Search, run_search
    except ModuleNotFoundError as exc:
        if (exc.name or "").partition(".")[0] != "optuna":
            raise
        raise TrainingError("`pawmatch search` needs Optuna; install it with: pip install optuna.") from exc
    import torch

    from pawmatch.engines import resolve_device
    from pawmatch.training.loop import Settings

    if threads is not None:
        torch.set_num_threads(threads)
    search = Search(
        study=study,
        data=args.data,
        out=args.out,
        overrides=tuple(args.overrides),
        init=args.init,
        limit=trials,
        seeds=seeds,
        retry_failed=args.retry_failed,
        settings=Settings(device=resolve_device(args.device)),
    )
    table = run_search(search, say)
    for line in study_table(table):
        say(line)
    command = command_line(args)
    page, figures = args.out / "study.md", args.out / "study.json"
    page.write_text(study_page(table, command), encoding="utf-8")
    values = {"command": command, **table.to_dict()}
    figures.write_text(json.dumps(values, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    say(f"wrote {page} and {figures}")
    return 1 if table.failed else 0


def command_line(args: argparse.Namespace) -> str:
    """The command as another would give it: all that the figures depend on, and names in place of paths."""
    words = ["pawmatch", "search", "--study", Path(args.study).name]
    words += ["--data", args.data.resolve().name, "--out", args.out.resolve().name]
    for flag in ("trials", "seeds", "threads"):
        if (value := getattr(args, flag)) is not None:
            words += [f"--{flag}", value]
    if args.init is not None:
        words += ["--init", Path(args.init).name]
    for override in args.overrides:
        words += ["--set", override]
    return shlex.join(words)
