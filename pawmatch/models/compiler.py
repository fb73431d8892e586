"""Do without torch's compiler where nothing is compiled: it takes 145 MB, and half the time of an import.

timm and torchvision import it to say what it shall leave alone, and torch itself to count operations and to
work out shapes. As long as it is not there, there is nothing to tell it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

PACKAGE = "torch._dynamo"

_standing_in = threading.RLock()


class _StandIn(ModuleType):
    """Answers for a module as long as nothing else of it is asked for, and then makes way for it."""

    def __init__(self, name: str, **answers: Any) -> None:
        super().__init__(name)
        vars(self).update(answers)

    def __getattr__(self, name: str) -> Any:
        # The import system looks for such names. Of a package, it asks for the path to import what is within.
        if name.startswith("__") and (self.__name__, name) != (PACKAGE, "__path__"):
            raise AttributeError(name)
        for stand_in in STAND_INS:  # a package makes way with what is in it
            place = stand_in.__name__
            if f"{place}.".startswith(f"{self.__name__}.") and sys.modules.get(place) is stand_in:
                del sys.modules[place]
        return getattr(import_module(self.__name__), name)


def _left_alone(function: Callable[..., Any] | None = None, *_: object, **__: object) -> Any:
    """What torch._dynamo.disable gives, called or as a decorator: the function itself."""
    return (lambda found: found) if function is None else function


STAND_INS = (
    _StandIn(PACKAGE, disable=_left_alone),
    _StandIn(f"{PACKAGE}.utils", is_compile_supported=lambda _: False),
    _StandIn("torch.fx.experimental.symbolic_shapes", expect_true=bool, sym_and=lambda *all_of: all(all_of)),
)


@contextmanager
def without_compiler() -> Iterator[None]:
    """Keep torch's compiler from being imported meanwhile, unless it was before or something uses it."""
    with _standing_in:
        added = {one.__name__: one for one in STAND_INS if one.__name__ not in sys.modules}
        sys.modules.update(added)
        try:
            yield
        finally:
            for name, stand_in in added.items():
                if sys.modules.get(name) is stand_in:
                    del sys.modules[name]
