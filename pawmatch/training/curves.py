"""The learning curve for TensorBoard, an optional package."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from pawmatch.training.history import Epoch

SCALARS = {
    "loss/train": "train_loss",
    "loss/validation": "val_loss",
    "validation/top1": "top1",
    "validation/top5": "top5",
    "validation/macro_f1": "macro_f1",
    "training/learning_rate": "learning_rate",
    "training/image_size": "size",
    "training/skipped_steps": "skipped_steps",
    "training/seconds": "seconds",
}


@contextmanager
def tensorboard(
    folder: Path, *, done: int, report: Callable[[str], None]
) -> Iterator[Callable[[Epoch], None]]:
    """Give what plots an epoch into `folder`; a resumed run goes on after its `done` epochs.

    Without the package, says so once and plots nothing.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        report("no scalars are written: TensorBoard is missing; pip install tensorboard")
        yield lambda epoch: None
        return
    # Whatever a killed run had plotted after its last whole epoch is hidden.
    writer = SummaryWriter(str(folder), purge_step=done + 1 if done else None)

    def plot(epoch: Epoch) -> None:
        values = asdict(epoch)
        for name, key in SCALARS.items():
            writer.add_scalar(name, values[key], epoch.number)
        writer.flush()

    try:
        yield plot
    finally:
        writer.close()
