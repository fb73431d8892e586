"""`pawmatch import`: convert weights of the original system, once and on request."""

from __future__ import annotations

import argparse
from pathlib import Path

from pawmatch.commands.console import say
from pawmatch.errors import BadOption
from pawmatch.labels import known_tasks

SUMMARY = "Convert a .pth file of the original system to a checkpoint folder."
EPILOG = """\
FILE is a path, hf://user/repo/file.pth or hf://spaces/user/repo/file.pth. It is read with torch's
restricted unpickler: nothing in it is executed.

example:
  pawmatch import hf://spaces/DawnC/PawMatchAI/ConvNextV2Base_best_model.pth --out weights/original
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `import`."""
    parser.add_argument("file", metavar="FILE", help="the file to convert")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the checkpoint")
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="class names, one per line, in the order of the outputs (default: the original's 124)",
    )
    parser.add_argument(
        "--backbone", default="convnextv2_base", metavar="NAME", help="timm's name (default: convnextv2_base)"
    )
    parser.add_argument("--task", default=known_tasks()[0], help="what the labels are (default: %(default)s)")
    parser.add_argument(
        "--license", default="other", metavar="TEXT", help="terms of the weights (default: other)"
    )
    parser.add_argument(
        "--full", action="store_true", help="store float32; the default, float16, is half as large"
    )


def run(args: argparse.Namespace) -> int:
    """Convert, and say what came out."""
    labels = None if args.labels is None else read_lines(args.labels)
    from pawmatch.checkpoint.importing import import_checkpoint

    checkpoint = import_checkpoint(
        args.file,
        args.out,
        labels=labels,
        backbone=args.backbone,
        task=args.task,
        license=args.license,
        half=not args.full,
    )
    config = checkpoint.config
    say(f"wrote {args.out}: {config.task.name}, {config.variant}, {len(config.labels)} classes")
    return 0


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not blank."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as exc:
        raise BadOption(f"--labels {path} is no UTF-8 text; save it as one.") from exc
    return [line.strip() for line in text.splitlines() if line.strip()]
