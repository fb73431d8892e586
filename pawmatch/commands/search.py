"""`pawmatch search`: train the variations of a recipe that a study names, and compare them in one table."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator
from pathlib import Path

from pawmatch.commands.console import Listing, add_training_options, number, say

SUMMARY = "Train variations of a recipe and compare them in one table."
EPILOG = """\
A study is a small TOML file: a recipe, values that all trials share, and the trials, named or drawn by
Optuna from ranges. docs/studies.md explains the bundled ones and how to write another.

A search that was cut goes on where it stopped when the same command is given again; finished trials are not
repeated. It ends with a table of validation loss, accuracy, calibration, parameters and latency, in which the
Pareto front is marked, on the screen and in --out as study.md; trials.csv has every figure, and
optuna-dashboard shows plots of journal.log.

example:
  pawmatch search --study chae --data photos --out runs/chae --threads 1
"""


def studies() -> Iterator[str]:
    """A line for each bundled study."""
    from pawmatch.training.search import STUDIES, read_study

    for path in sorted(STUDIES.glob("*.toml"), key=lambda path: path.stem):
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
    parser.add_argument("--retry-failed", action="store_true", help="train failed trials again")
    add_training_options(parser)


def run(args: argparse.Namespace) -> int:
    """Search, print the table and write it; 1 where trials failed."""
    threads, trials, seeds = (
        number(f"--{flag}", getattr(args, flag)) for flag in ("threads", "trials", "seeds")
    )
    import torch

    from pawmatch.engines import resolve_device
    from pawmatch.training.search import Search, failures, read_study, run_search, study_table

    if threads is not None:
        torch.set_num_threads(threads)
    search = Search(
        study=read_study(args.study),
        data=args.data,
        out=args.out,
        overrides=tuple(args.overrides),
        init=args.init,
        limit=trials,
        seeds=seeds,
        retry_failed=args.retry_failed,
        device=resolve_device(args.device),
    )
    journal = run_search(search, say)
    table = study_table(search, journal)
    for line in table:
        say(line)
    page = args.out / "study.md"
    notes = NOTES.format(device=search.device, threads=torch.get_num_threads(), torch=torch.__version__)
    if search.runs_each > 1:
        notes += f"\nFigures are means of {search.runs_each} seeds, ± half of highest minus lowest."
    made = f"Made by `{command_line(args)}`."
    page.write_text("\n".join([made, "", *table, "", notes, ""]), encoding="utf-8")
    say(f"wrote {page}")
    return 1 if failures(search, journal) else 0


NOTES = """\
Validation loss is the negative log-likelihood after calibration, where each validation image is
judged by fits on random halves that it is not in; ECE likewise.
Latency is the median for one image, of calls in turns with the first trial
({device}, threads: {threads}, torch {torch}); relative is to that trial.
A trial is on the Pareto front if no other is as good in validation loss, parameters and latency and
better in one of them."""


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
