"""serve: the page and the API on an address, with limits, health checks and a warm start."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from pawmatch.errors import BadOption
from pawmatch.settings import Settings
from pawmatch.ui import present
from pawmatch.ui.classifiers import Classifiers, from_settings
from pawmatch.ui.examples import EXAMPLES
from pawmatch.ui.layout import build
from pawmatch.ui.theme import theme

BUSY = "Busy, please try again in a moment."
STYLES = [Path(__file__).with_name(name) for name in ("style.css", "compare.css")]
GPU_SECONDS = 60  # what one call may take on a lent GPU; the shorter, the better the place in the queue


def lent_gpu() -> Callable[[Any], Any]:
    """The decorator that borrows a GPU for one call on Hugging Face's ZeroGPU; elsewhere it does nothing."""
    try:
        import spaces
    except ImportError:
        return lambda function: function
    decorator: Callable[[Any], Any] = spaces.GPU(duration=GPU_SECONDS)
    return decorator


def on_lent_gpu() -> bool:
    """Whether this is a ZeroGPU Space, where models must be loaded before the first call."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "true")


def launch_options(settings: Settings, classifiers: Classifiers, examples: Path = EXAMPLES) -> dict[str, Any]:
    """What Gradio's launch is told."""

    async def alive(request: Request) -> Response:
        return PlainTextResponse("ok")

    async def ready(request: Request) -> Response:
        waiting = [task for task in classifiers.tasks if not classifiers.is_ready(task)]
        if waiting:
            return PlainTextResponse(f"loading {', '.join(waiting)}", status_code=503)
        return PlainTextResponse("ok")

    async def busy(request: Request, exc: Exception) -> Response:
        return JSONResponse({"detail": BUSY}, status_code=503)

    return {
        "server_name": settings.host,
        "server_port": settings.port,
        "max_file_size": f"{settings.max_upload_mb}mb",
        "theme": theme(),
        "css_paths": STYLES,
        "head": present.HEAD,
        "allowed_paths": [str(examples)] if examples.is_dir() else [],
        # Our own errors are shown all the same; others would show whatever they say.
        "show_error": False,
        "footer_links": ["api"],
        "run_history": False,
        "enable_monitoring": False,
        "share": False,
        "ssr_mode": False,
        "pwa": False,
        "mcp_server": False,
        "quiet": True,
        "app_kwargs": {
            "routes": [Route("/healthz", alive), Route("/readyz", ready)],
            "exception_handlers": {503: busy},
        },
    }


def create(settings: Settings, classifiers: Classifiers, examples: Path = EXAMPLES) -> gr.Blocks:
    """The page with its queue, ready to launch."""
    demo = build(classifiers, settings, examples=examples, on_gpu=lent_gpu())
    # No way around the queue: it is what keeps many visitors from running the models all at once.
    demo.queue(max_size=settings.queue_size, default_concurrency_limit=2, api_open=False)
    return demo


def check_address(host: str, port: int) -> None:
    """Raise BadOption if nothing can listen there: at once, and not after all has been built."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as attempt:
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            attempt.bind(address)
    except OSError as exc:
        raise BadOption(
            f"Nothing can listen on {host}, port {port} ({exc.strerror}); choose others with --host and "
            "--port or PAWMATCH_HOST and PAWMATCH_PORT."
        ) from exc


def serve(settings: Settings, examples: Path = EXAMPLES) -> None:
    """Serve until interrupted. Raises BadOption if the address cannot be listened on."""
    check_address(settings.host.strip("[]"), settings.port)
    classifiers = from_settings(settings)
    demo = create(settings, classifiers, examples)
    if on_lent_gpu():
        classifiers.warm_up()
    demo.launch(prevent_thread_lock=True, **launch_options(settings, classifiers, examples))
    print(f"pawmatch answers at {demo.local_url}", flush=True)
    if settings.warm_up:
        threading.Thread(target=classifiers.warm_up, name="warm-up", daemon=True).start()
    demo.block_thread()
