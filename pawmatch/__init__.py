"""What a picture shows: three architectures side by side, with calibrated confidence and heatmaps.

Names are resolved when first used, so `import pawmatch` loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pawmatch.classifier import Classifier, load
    from pawmatch.errors import PawMatchError
    from pawmatch.results import Candidate, Explanation, Heatmap, Prediction, Review, Verdict

__version__ = "0.1.0"

_HOMES = {
    "Candidate": "results",
    "Classifier": "classifier",
    "Explanation": "results",
    "Heatmap": "results",
    "PawMatchError": "errors",
    "Prediction": "results",
    "Review": "results",
    "Verdict": "results",
    "load": "classifier",
}

__all__ = [
    "Candidate",
    "Classifier",
    "Explanation",
    "Heatmap",
    "PawMatchError",
    "Prediction",
    "Review",
    "Verdict",
    "__version__",
    "load",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pawmatch' has no attribute {name!r}")
    return getattr(import_module(f"pawmatch.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
