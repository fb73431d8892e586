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

import pawmatch.ui  # noqa: F401 - sets what gradio reads when it is imported, as `spaces` does

with contextlib.suppress(ImportError):
    # On Hugging Face's ZeroGPU it has to come before torch.
    import spaces  # noqa: F401

from pawmatch.errors import PawMatchError
from pawmatch.labels import ENGLISH
from pawmatch.settings import Settings


def __getattr__(name: str) -> Any:
    if name != "demo":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pawmatch.ui.inference import from_settings
    from pawmatch.ui.server import create
    from pawmatch.ui.speech import speaking

    settings = Settings.from_environ(os.environ)
    with speaking(ENGLISH):
        globals()["demo"] = create(settings, from_settings(settings))
    return globals()["demo"]


def main() -> int:
    """Serve until stopped; a wrong setting is one line on the console."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # the requests to the Hub, one by one
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
