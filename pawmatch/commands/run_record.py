"""The record of a run beside its results: by what settings the rows were made, so that none are mixed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pawmatch
from pawmatch.errors import BadOption

if TYPE_CHECKING:
    from pawmatch.predict import Classifier

REMEDY = "add --fresh to start over, or name another file"


def record_path(out: Path) -> Path:
    """results.csv -> results.csv.run.json."""
    return out.with_name(f"{out.name}.run.json")


def settings_of(classifier: Classifier, top_k: int) -> dict[str, Any]:
    """All that a row depends on beside the image, as JSON values."""
    from pawmatch.checkpoint.format import config_values
    from pawmatch.engines.converted import digest_of

    checkpoints = [member.checkpoint for member in classifier.members.values()]
    configs = [json.dumps(config_values([checkpoint.config]), sort_keys=True) for checkpoint in checkpoints]
    weights = [digest_of(one.model, [config]) for one, config in zip(checkpoints, configs, strict=True)]
    return {
        "pawmatch": pawmatch.__version__,
        "task": classifier.task.name,
        "source": classifier.source,
        "top_k": top_k,
        "variants": list(classifier.variants),
        "engines": classifier.engines,
        "weights": weights,
    }


def write_record(out: Path, settings: dict[str, Any]) -> None:
    """Write the record, whole or not at all."""
    path = record_path(out)
    temporary = path.with_name(f"{path.name}.part")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(settings, file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def engines_of(out: Path) -> dict[str, str] | None:
    """The engines that a run to `out` was begun with, by variant, or None where that is not known.

    "auto" judges by the clock too, and may choose another when the run goes on.
    """
    try:
        engines = json.loads(record_path(out).read_text(encoding="utf-8"))["engines"]
        return {str(variant): str(engine) for variant, engine in engines.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def check_record(out: Path, settings: dict[str, Any]) -> None:
    """Raise BadOption unless the rows in `out` were made by these settings."""
    try:
        found = json.loads(record_path(out).read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise BadOption(f"{out} is there already, and no run that could go on; {REMEDY}.") from exc
    except ValueError as exc:
        raise BadOption(f"{record_path(out)} cannot be read; {REMEDY}.") from exc
    if not isinstance(found, dict):
        raise BadOption(f"{record_path(out)} is no record of a run; {REMEDY}.")
    for key, value in settings.items():
        if found.get(key) != value:
            raise BadOption(f"{out} was begun with other settings ({change(key, found, value)}); {REMEDY}.")


def change(key: str, found: dict[str, Any], value: Any) -> str:
    """What differs, in a few words."""
    if key == "weights":
        return "the weights have changed"
    return f"{key} was {json.dumps(found.get(key))}, now {json.dumps(value)}"
