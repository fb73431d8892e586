"""Do without torch's compiler where nothing is compiled: 117 MB, and a fifth of the time of an import.

timm and torchvision import it to say what it shall leave alone, and torch itself to count operations and to
work out shapes. As long as it is not there, there is nothing to tell it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

PACKAGE = "torch._dynamo"

_standing_in = threading.RLock()


def _make_way(stand_ins: Iterable[ModuleType]) -> None:
    for stand_in in stand_ins:
        if sys.modules.get(stand_in.__name__) is stand_in:
            del sys.modules[stand_in.__name__]


class _StandIn(ModuleType):
    """Answers for a module as long as nothing else of it is asked for, and then makes way for it."""

    def __init__(self, name: str, **answers: Any) -> None:
        super().__init__(name)
        vars(self).update(answers)

    def __getattr__(self, name: str) -> Any:
        # The import system looks for such names. Of a package, it asks for the path to import what is within.
        if name.startswith("__") and (self.__name__, name) != (PACKAGE, "__path__"):
            raise AttributeError(name)
        _make_way(STAND_INS)
        return getattr(import_module(self.__name__), name)


def _left_alone(function: Callable[..., Any] | None = None, *_: object, **__: object) -> Any:
    """What torch._dynamo.disable gives, called or as a decorator: the function itself."""
    return (lambda found: found) if function is None else function


STAND_INS = (
    _StandIn(PACKAGE, disable=_left_alone),
    _StandIn(f"{PACKAGE}.utils", is_compile_supported=lambda _: False),
)


@contextmanager
def without_compiler() -> Iterator[None]:
    """Keep torch's compiler from being imported meanwhile, unless it was before or something uses it.

    Safe in several threads, one of which waits for the other.
    """
    with _standing_in:
        added = [one for one in STAND_INS if one.__name__ not in sys.modules]
        sys.modules.update({one.__name__: one for one in added})
        try:
            yield
        finally:
            _make_way(added)
