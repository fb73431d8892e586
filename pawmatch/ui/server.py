"""serve: the page and the API on an address, with limits, health checks and a warm start."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from pawmatch.errors import BadOption
from pawmatch.settings import Settings, on_lent_gpu
from pawmatch.ui import html, request_log
from pawmatch.ui.handlers import EXAMPLES, is_full, sentence
from pawmatch.ui.heap import return_freed_memory
from pawmatch.ui.inference import Classifiers, from_settings
from pawmatch.ui.middleware import (
    Gate,
    RateLimit,
    direct_visitor,
    endpoint_of,
    fetch_nothing,
    visitor_behind_proxy,
)
from pawmatch.ui.page import build
from pawmatch.ui.theme import theme

log = logging.getLogger(__name__)

BUSY = "Busy, please try again in a moment."
SESSIONS = 500  # visitors whose last answer is kept, about 0.4 MB each; beyond that the oldest one goes
STYLES = [Path(__file__).with_name(name) for name in ("style.css", "compare.css")]
GPU_SECONDS = 60  # what one call may take on a lent GPU; the shorter, the better the place in the queue


def lent_gpu() -> Callable[[Any], Any] | None:
    """The decorator that borrows a GPU for one call on Hugging Face's ZeroGPU; elsewhere None."""
    if not on_lent_gpu():
        return None
    try:
        import spaces
    except ImportError:
        return None
    decorator: Callable[[Any], Any] = spaces.GPU(duration=GPU_SECONDS)
    return decorator


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
        request_log.turned_away(endpoint_of(request.url.path) or "page", "Busy")
        return JSONResponse({"detail": BUSY}, status_code=503)

    async def failed(request: Request, exc: Exception) -> Response:
        # An upload for which there is no room, say; what visitors ask of models does not come here.
        log.error("Unexpected error", exc_info=exc)
        request_log.turned_away(endpoint_of(request.url.path) or "page", type(exc).__name__)
        return JSONResponse({"detail": sentence(exc)}, status_code=507 if is_full(exc) else 500)

    return {
        "server_name": settings.host,
        "server_port": settings.port,
        "max_file_size": f"{settings.max_upload_mb}mb",
        "theme": theme(),
        "css_paths": STYLES,
        "head": html.HEAD,
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
        "state_session_capacity": SESSIONS,
        "app_kwargs": {
            "routes": [Route("/healthz", alive), Route("/readyz", ready)],
            "middleware": [
                Middleware(Gate, max_upload_mb=settings.max_upload_mb),
                *middleware(settings),
            ],
            "exception_handlers": {503: busy, OSError: failed, MemoryError: failed},
        },
    }


def middleware(settings: Settings) -> list[Middleware]:
    """What requests go through before they reach Gradio."""
    if not settings.photos_per_minute:
        return []
    identify = visitor_behind_proxy if settings.behind_proxy else direct_visitor
    return [Middleware(RateLimit, per_minute=settings.photos_per_minute, identify=identify)]


def create(settings: Settings, classifiers: Classifiers, examples: Path = EXAMPLES) -> gr.Blocks:
    """The page with its queue, ready to launch."""
    demo = build(classifiers, settings, examples=examples, on_gpu=lent_gpu())
    fetch_nothing(demo)
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
    if settings.request_log:
        request_log.start()
    return_freed_memory()  # before there are threads, which keep the heaps that they got
    classifiers = from_settings(settings)
    if on_lent_gpu():
        classifiers.warm_up()
    elif settings.warm_up:
        # While the page is being built: reading weights is waiting, for the most part.
        threading.Thread(target=classifiers.warm_up, name="warm-up", daemon=True).start()
    demo = create(settings, classifiers, examples)
    demo.launch(prevent_thread_lock=True, **launch_options(settings, classifiers, examples))
    print(f"pawmatch answers at {demo.local_url}", flush=True)
    demo.block_thread()
