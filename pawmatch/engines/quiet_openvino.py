"""openvino as a module that tells nobody: a plain import of it reports to its maker from a forked process."""

from __future__ import annotations

import sys
import threading
from importlib import import_module
from types import ModuleType

TELEMETRY = "openvino_telemetry"

_importing = threading.Lock()


def import_openvino() -> ModuleType:
    """The openvino package; raises ImportError where it is not installed.

    The first import looks for the package that reports, and is told that there is none: nothing is sent, no
    number for this user is left in the home folder, and no process with a copy of this one's memory is
    forked. What has that package already, or asks for it later, is not kept from it.
    """
    with _importing:
        before = sys.modules.get(TELEMETRY)
        # This is how Python marks what is not to be found.
        sys.modules[TELEMETRY] = None  # type: ignore[assignment]
        try:
            return import_module("openvino")
        finally:
            del sys.modules[TELEMETRY]
            if before is not None:
                sys.modules[TELEMETRY] = before
