"""What `python app.py` and a Hugging Face Space run: the page, with settings from PAWMATCH_* variables.

Importing this file starts nothing and loads no models. `demo`, which tools such as `gradio app.py` look
for, is built when somebody first asks for it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from typing import Any

# Before the first import of gradio, which `spaces` brings along.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
# Xet downloads over connections of its own, to which the limits in pawmatch.checkpoint.hub do not reach.
os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
with contextlib.suppress(ImportError):
    # On Hugging Face's ZeroGPU it has to come before torch.
    import spaces  # noqa: F401

from pawmatch.errors import PawMatchError
from pawmatch.settings import Settings


def __getattr__(name: str) -> Any:
    if name != "demo":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pawmatch.ui.inference import from_settings
    from pawmatch.ui.server import create

    settings = Settings.from_environ(os.environ)
    globals()["demo"] = create(settings, from_settings(settings))
    return globals()["demo"]


def main() -> int:
    """Serve until stopped; a wrong setting is one line on the console."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # Gradio's requests to itself
    try:
        from pawmatch.ui.server import serve

        serve(Settings.from_environ(os.environ))
    except PawMatchError as exc:
        print(f"pawmatch: {exc}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
