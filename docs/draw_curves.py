"""Draw the learning curves of the bundled weights and of CHAE's published recipe.

`PYTHONPATH=. python docs/draw_curves.py` writes learning_curves.png and chae_paper.png.

The points are the `history.csv` of each stage, copied to docs/curves; `pawmatch train` writes that file.
"""

import csv
from pathlib import Path

from matplotlib.figure import Figure

from pawmatch.evaluation.figures import COLORS, MUTED, headline, percent_axis, style

HERE = Path(__file__).parent
STAGES = {
    "breed": ("breed",),
    "paintings": ("artist",),
    "chae": ("artist-stage1", "artist-stage2", "artist-stage3", "artist-stage4", "artist-starter"),
}
TITLES = {
    "breed": "Dog breeds, heads on a frozen backbone",
    "paintings": "Paintings, two stages tuned",
    "chae": "CHAE from scratch on 2,932 paintings",
}
TARGETS = {"breed": 0.88, "paintings": 0.86, "chae": 0.80}


def rows_of(run: str) -> list[dict[str, str]]:
    """The epochs of a run."""
    with (HERE / "curves" / f"{run}.csv").open() as file:
        return list(csv.DictReader(file))


def draw_paper() -> None:
    """Draw loss and accuracy of CHAE's published recipe over its 90 epochs."""
    blue, orange, _ = COLORS.values()
    rows = rows_of("chae-paper")
    epochs = [int(row["number"]) for row in rows]
    best = min(rows, key=lambda row: float(row["val_loss"]))
    with style():
        figure = Figure(figsize=(9, 4.2))
        loss, accuracy = figure.subplots(1, 2)
        for axes, lines in (
            (loss, {"train_loss": "training", "val_loss": "held out"}),
            (accuracy, {"top1": "top-1", "top5": "top-5"}),
        ):
            for (key, label), color in zip(lines.items(), (blue, orange), strict=True):
                axes.plot(epochs, [float(row[key]) for row in rows], color=color, label=label)
            axes.axvline(int(best["number"]), color=MUTED, linewidth=1, linestyle=(0, (2, 2)))
            axes.set(xlabel="epoch")
            axes.legend(loc="best", frameon=False)
        loss.set(title="Loss", ylabel="cross-entropy", ylim=(0, None))
        accuracy.set(title="Accuracy on the 135 held-out paintings", ylim=(0, 1))
        percent_axis(accuracy, y=True)
        kept = f"dashed: epoch {best['number']}, whose weights are kept"
        headline(figure, "CHAE as its paper trains it", kept)
        figure.savefig(HERE / "chae_paper.png", dpi=120)


def draw_stages() -> None:
    """Draw top-1 on the validation images over all epochs, stage after stage."""
    blue, orange, green = COLORS.values()
    with style():
        figure = Figure(figsize=(13, 4.6))
        for axes, (task, stages) in zip(figure.subplots(1, 3), STAGES.items(), strict=True):
            epochs = 0
            for index, stage in enumerate(stages):
                rows = rows_of(stage)
                numbers = [epochs + int(row["number"]) for row in rows]
                values = [float(row["top1"]) for row in rows]
                color = (blue, orange, green)[index % 3]
                axes.plot(numbers, values, color=color, marker="o", markersize=3, label=stage)
                epochs += len(rows)
            axes.axhline(TARGETS[task], color=MUTED, linewidth=1, linestyle=(0, (2, 2)))
            axes.set(title=TITLES[task], xlabel="epoch", ylabel="top-1, one view", ylim=(0, 1))
            axes.legend(loc="lower right", frameon=False)
            percent_axis(axes, y=True)
        where = "validation images, one view each, mean of the variants; dashed: what was aimed at"
        headline(figure, "How the bundled weights learned", where)
        figure.savefig(HERE / "learning_curves.png", dpi=120)


if __name__ == "__main__":
    draw_stages()
    draw_paper()
