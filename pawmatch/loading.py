"""load: from a task and a source to a classifier that is ready to answer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pawmatch.checkpoint import load_task
from pawmatch.engines import limit_torch_threads, resolve_device
from pawmatch.explain import ExplainingClassifier
from pawmatch.tasks import find_task


def load(
    task: str,
    source: str | Path | None = None,
    device: str = "auto",
    engine: str | Mapping[str, str] = "auto",
    *,
    strict: bool = True,
) -> ExplainingClassifier:
    """Load every variant that `source` has for `task`.

    `source` is None for the bundled starter weights, a folder, or `hf://user/repo[/subfolder][@revision]`.
    `engine` is one name for all variants, or has one for each. With `strict` off, a Hub repository that
    cannot be had is replaced by the bundled weights, and the classifier's `notice` says so. Torch's threads
    are lowered to the cores that a container grants. Raises UnknownTask, BadOption, CheckpointError and
    HubError.
    """
    if source is None:
        find_task(task)
    place = resolve_device(device, engine if isinstance(engine, str) else "auto")
    limit_torch_threads()
    checkpoints = load_task(source, task, place, strict=strict)
    return ExplainingClassifier(task, checkpoints, engine=engine, device=place)
