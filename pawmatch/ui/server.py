"""serve: the pages and the API on an address, with limits, health checks and a warm start."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import gradio as gr
import uvicorn
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from pawmatch.images.fetch import fetch
from pawmatch.settings import Settings, on_lent_gpu
from pawmatch.ui import assistants, compare, html, known, request_log
from pawmatch.ui.api import add_endpoints
from pawmatch.ui.bounds import MAX_SESSIONS, cancel, keep_few_heaps, keeping
from pawmatch.ui.compare import ComparePage
from pawmatch.ui.connections import MAX_HEAD_BYTES, limited
from pawmatch.ui.faults import Faults
from pawmatch.ui.gradio_patches import app_of, fetch_nothing, pad_calls, remember_signatures
from pawmatch.ui.handlers import EXAMPLES, HOW_TO_SEND, Handlers, read_examples
from pawmatch.ui.inference import Classifiers, from_settings, lent_gpu
from pawmatch.ui.known import KnownPage
from pawmatch.ui.listening import BACKLOG, Listener, listen
from pawmatch.ui.middleware import Door, endpoint_of, route
from pawmatch.ui.page import PhotoPage
from pawmatch.ui.presence import Presence, UploadRoom, Visitors
from pawmatch.ui.remote import There, remote_classifiers
from pawmatch.ui.speech import Translate, static
from pawmatch.ui.theme import theme
from pawmatch.ui.uploads import MAX_SHARE, Uploads, own_folder

BUSY = "Busy, please try again in a moment."
FAREWELL_SECONDS = 3  # what answers that are being given may take when the service is stopped
STYLES = [Path(__file__).with_name(name) for name in ("style.css", "compare.css")]


def handlers_of(
    settings: Settings, classifiers: Classifiers, on_gpu: Callable[[Any], Any] | None = None
) -> Handlers:
    """What answers requests, as the settings have it."""
    there = There(settings.model_url, classifiers) if settings.model_url else None
    return Handlers(classifiers, on_gpu or lent_gpu(), fetch if settings.fetch_urls else None, there)


def create(
    settings: Settings,
    classifiers: Classifiers,
    examples: Path = EXAMPLES,
    on_gpu: Callable[[Any], Any] | None = None,
) -> gr.Blocks:
    """Both pages and the endpoints, with their queue, not yet served."""
    handlers = handlers_of(settings, classifiers, on_gpu)
    drawings = read_examples(examples)
    title = static(lambda: f"{html.TITLE}: {html.tagline(classifiers.tasks.values())}")
    with gr.Blocks(title=title, analytics_enabled=False) as blocks:
        photo = add_endpoints(handlers)
        PhotoPage(handlers, settings, drawings)
    demo: gr.Blocks = blocks  # its type says Any
    with demo.route(static("compare.title"), compare.PATH):
        ComparePage(handlers, settings, drawings).connect()
    with demo.route(static("known.title"), known.PATH):
        KnownPage(handlers).connect(demo)
    remember_signatures(demo)
    pad_calls(demo, "predict", 3)
    fetch_nothing(demo, HOW_TO_SEND, passing=photo if settings.fetch_urls else None)
    # No way around the queue: it is what keeps many visitors from running the models all at once.
    demo.queue(max_size=settings.queue_size, default_concurrency_limit=2, api_open=False)
    return demo


def app(settings: Settings, classifiers: Classifiers, examples: Path = EXAMPLES) -> ASGIApp:
    """The whole service as an ASGI app."""

    async def alive(request: Request) -> Response:
        return PlainTextResponse("ok")

    async def ready(request: Request) -> Response:
        waiting = [task for task in classifiers.tasks if not classifiers.is_ready(task)]
        if waiting:
            return PlainTextResponse(f"loading {', '.join(waiting)}", status_code=503)
        return PlainTextResponse("ok")

    async def busy(request: Request, exc: Exception) -> Response:
        request_log.turned_away(endpoint_of(route(request.scope)) or "page", "Busy")
        return JSONResponse({"detail": BUSY}, status_code=503)

    seconds, share = settings.keep_seconds, MAX_SHARE if settings.photos_per_minute else None
    uploads = Uploads(own_folder(seconds), seconds, settings.disk_mb * 2**20, share)
    visitors = Visitors(uploads)
    demo: Any = create(settings, classifiers, examples)
    demo.keeper = visitors
    routes: list[BaseRoute] = [
        Route("/healthz", alive),
        Route("/readyz", ready),
        Route("/gradio_api/cancel", cancel, methods=["POST"]),
    ]
    meanwhile: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
    if settings.mcp:
        tools, meanwhile = assistants.tools(handlers_of(settings, classifiers), settings.max_upload_mb)
        routes.append(tools)

    @asynccontextmanager
    async def beside(made: Any) -> AsyncIterator[None]:
        async with keeping(made, uploads, visitors), meanwhile():
            yield

    served = app_of(
        demo,
        beside=beside,
        app_kwargs={
            "routes": routes,
            "middleware": [Middleware(Faults), Middleware(Translate)],
            "exception_handlers": {503: busy},
        },
        max_file_size=f"{settings.max_upload_mb}mb",
        theme=theme(),
        css_paths=STYLES,
        head=static(lambda: html.head(classifiers.tasks.values())),
        allowed_paths=[str(examples)] if examples.is_dir() else [],
        # Our own errors are shown all the same; others would show whatever they say.
        show_error=False,
        footer_links=["api"],
        run_history=False,
        enable_monitoring=False,
        share=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        state_session_capacity=MAX_SESSIONS,
    )
    served = UploadRoom(Presence(served, visitors), uploads)
    return Door(served, settings, os.environ.get("GRADIO_ROOT_PATH", ""))


def server_of(served: ASGIApp, listener: Listener) -> uvicorn.Server:
    """The server for an app, whose connections are limited; headers tell it nothing of who a visitor is."""
    config = uvicorn.Config(
        served,
        http=limited(listener),
        loop="asyncio",  # another would not call the listener
        ws="none",
        proxy_headers=False,
        backlog=BACKLOG,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        log_level="warning",
        lifespan="on",
        timeout_graceful_shutdown=FAREWELL_SECONDS,
    )
    for name in ("uvicorn.error", "asyncio"):
        logging.getLogger(name).addFilter(request_log.few_lines)
    return uvicorn.Server(config)


def serve(settings: Settings, examples: Path = EXAMPLES) -> None:
    """Serve until interrupted. Raises BadOption if the address cannot be listened on."""
    host = settings.host.strip("[]")
    listener = listen(host, settings.port)
    keep_few_heaps()
    if settings.request_log:
        request_log.start()
    classifiers = remote_classifiers(settings) if settings.model_url else from_settings(settings)
    if on_lent_gpu():
        classifiers.warm_up()
    elif settings.warm_up:
        # While the page is being built: reading weights is waiting, for the most part.
        threading.Thread(target=classifiers.warm_up, name="warm-up", daemon=True).start()
    server = server_of(app(settings, classifiers, examples), listener)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # as uvicorn hands it on in the end
    named = {"0.0.0.0": "localhost", "::": "localhost"}.get(host, f"[{host}]" if ":" in host else host)
    print(f"pawmatch answers at http://{named}:{settings.port}/", flush=True)
    server.run(sockets=[listener])
