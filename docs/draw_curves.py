"""Draw learning_curves.png, of the bundled weights: `PYTHONPATH=. python docs/draw_curves.py`.

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


def main() -> None:
    """Draw top-1 on the validation images over all epochs, stage after stage."""
    blue, orange, green = COLORS.values()
    with style():
        figure = Figure(figsize=(13, 4.6))
        for axes, (task, stages) in zip(figure.subplots(1, 3), STAGES.items(), strict=True):
            epochs = 0
            for index, stage in enumerate(stages):
                rows = list(csv.DictReader((HERE / "curves" / f"{stage}.csv").open()))
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
    main()
