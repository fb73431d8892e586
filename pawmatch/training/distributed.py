"""One run in several processes, as torchrun starts them, and one folder for one run."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from filelock import FileLock, Timeout
from timm.utils.distributed import distribute_bn
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pawmatch.errors import TrainingError
from pawmatch.models.morphology import MorphologicalExtractor

Item = TypeVar("Item")
LOCK_FILE = ".lock"
PATIENCE = timedelta(hours=2)  # the first process alone calibrates and writes; the others wait for it


@contextmanager
def joined(device: str) -> Iterator[str]:
    """Join the other processes of the run, if there are any, and give the device of this one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device
        return
    on_gpu = device.startswith("cuda")
    if on_gpu:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=PATIENCE)
    try:
        yield device
    finally:
        dist.destroy_process_group()


def world() -> int:
    """How many processes share the run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0; 0 prints and writes."""
    return dist.get_rank() if world() > 1 else 0


def silent(line: str) -> None:
    """What all processes but the first report."""


def in_parallel(model: nn.Module) -> nn.Module:
    """The model such that its backward pass averages the gradients over all processes."""
    if world() == 1:
        return model
    device = next(model.parameters()).device
    return DistributedDataParallel(
        model,
        device_ids=[device] if device.type == "cuda" else None,
        # The morphology module holds parameters that its published form never uses. Looking for such
        # parameters costs a pass over the graph each step, and a warning where there are none.
        find_unused_parameters=any(isinstance(part, MorphologicalExtractor) for part in model.modules()),
    )


def average_statistics(model: nn.Module) -> None:
    """Give all processes the mean of their BatchNorm statistics.

    The parallel model starts each step from those of the first process, so they differ by the last step.
    """
    if world() > 1:
        distribute_bn(model, world(), reduce=True)  # type: ignore[no-untyped-call]


def share(items: Sequence[Item]) -> Iterator[Item]:
    """What this process does of a sequence: every item whose turn it is, counted round the processes."""
    return (items[index] for index in range(rank(), len(items), world()))


def gathered(mine: list[Item]) -> list[Item]:
    """All items of a sequence in its order, from what each process made of its share."""
    if world() == 1:
        return mine
    parts: list[list[Item]] = [[] for _ in range(world())]
    dist.all_gather_object(parts, mine)
    longest = max(len(part) for part in parts)
    return [part[index] for index in range(longest) for part in parts if index < len(part)]


@contextmanager
def sole_writer(out: Path) -> Iterator[None]:
    """Keep other runs out of a folder; what the file system refuses comes out as TrainingError."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        if rank() != 0:
            yield
            return
        with FileLock(out / LOCK_FILE, timeout=0):
            try:
                yield
            finally:
                with suppress(OSError):  # Windows deletes no open file; its lock does so itself
                    (out / LOCK_FILE).unlink()
    except Timeout as exc:
        raise TrainingError(f"Another training runs in {out}; wait for it, or name another --out.") from exc
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise TrainingError(
                f"The disk of {out} is full; free some space and give the same command again: "
                "whole epochs are kept."
            ) from exc
        if not os.access(out, os.W_OK):
            raise TrainingError(f"Folder {out} cannot be written; name another --out.") from exc
        raise
