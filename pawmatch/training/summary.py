"""What a run did, in the end: a file for programs and a few lines for people."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pawmatch.training.data import LabelledImages
from pawmatch.training.history import CURVE_FILE, Epoch, best_epoch, stopped_early
from pawmatch.training.recipe import Recipe

SUMMARY_FILE = "summary.json"
NAMED = 5  # skipped images that are named on the terminal; the file names all


@dataclass(frozen=True)
class Summary:
    """What was trained on what, how it went, and which weights were kept.

    `smallest_class` and `largest_class` count training images; `seconds` covers all epochs, those before
    a cut too.
    """

    recipe: dict[str, Any]
    variants: tuple[str, ...]
    init: str
    teacher: str | None
    commit: str
    processes: int
    precision: str
    device: str
    classes: int
    train_images: int
    val_images: int
    smallest_class: int
    largest_class: int
    skipped_images: tuple[str, ...]
    epochs: int
    epochs_planned: int
    stopped_early: bool
    best_epoch: int
    kept: str
    skipped_steps: int
    seconds: float
    history: tuple[Epoch, ...]

    def lines(self) -> list[str]:
        """The summary as the lines that a run ends with."""
        best = self.history[self.best_epoch - 1]
        early = ", stopped early" if self.stopped_early else ""
        epochs = f"{self.epochs} of {self.epochs_planned} epochs{early}"
        text = [
            f"{self.recipe['name']}: {', '.join(self.variants)}; {epochs}, {duration(self.seconds)}",
            f"kept {self.kept}; lowest validation loss {best.val_loss:.3f}, top-1 {best.top1:.1%}, "
            f"in epoch {best.number}",
        ]
        if self.skipped_images:
            more = len(self.skipped_images) - NAMED
            named = "; ".join(line.rstrip(".") for line in self.skipped_images[:NAMED])
            text.append(
                f"{len(self.skipped_images)} images skipped: {named}" + (f"; {more} more" if more > 0 else "")
            )
        if self.skipped_steps:
            text.append(f"{self.skipped_steps} steps skipped: their gradients were no finite numbers")
        text.append(f"learning curve in {CURVE_FILE}, all of this in {SUMMARY_FILE}")
        return text

    def write(self, folder: Path) -> None:
        """Write the summary as JSON into `folder`."""
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False)
        (folder / SUMMARY_FILE).write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def kept_weights(history: Sequence[Epoch], recipe: Recipe) -> str:
    """Which weights the run kept, in words."""
    number = best_epoch(history).number if recipe.keep_best else len(history)
    return f"the moving average at epoch {number}" if recipe.ema else f"epoch {number}"


def summarise(
    recipe: Recipe,
    history: Sequence[Epoch],
    train_data: LabelledImages,
    val_data: LabelledImages,
    *,
    variants: tuple[str, ...],
    init: str,
    teacher: str | None,
    commit: str,
    processes: int,
    precision: str,
    device: str,
    skipped_images: Sequence[str],
) -> Summary:
    """The summary of a run that has ended."""
    counts = Counter(train_data.targets)
    sizes = [counts[index] for index in range(len(train_data.labels))]
    return Summary(
        recipe=recipe.to_dict(),
        variants=variants,
        init=init,
        teacher=teacher,
        commit=commit,
        processes=processes,
        precision=precision or "float32",
        device=device,
        classes=len(train_data.labels),
        train_images=len(train_data.images),
        val_images=len(val_data.images),
        smallest_class=min(sizes),
        largest_class=max(sizes),
        skipped_images=tuple(skipped_images),
        epochs=len(history),
        epochs_planned=recipe.epochs,
        stopped_early=stopped_early(history, recipe),
        best_epoch=best_epoch(history).number,
        kept=kept_weights(history, recipe),
        skipped_steps=sum(epoch.skipped_steps for epoch in history),
        seconds=round(sum(epoch.seconds for epoch in history), 1),
        history=tuple(history),
    )


def duration(seconds: float) -> str:
    """Seconds as a person says them: 42 s, 12 min, 3 h 5 min."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
