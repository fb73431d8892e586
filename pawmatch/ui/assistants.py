"""For assistants: the four endpoints as tools of the Model Context Protocol, where PAWMATCH_MCP asks for it.

Gradio's own server of this kind calls itself over HTTP, at the address that the first caller's Host header
names, and keeps photos: this one answers in place, and a photo is deleted with its answer.
"""

from __future__ import annotations

import base64
import binascii
import os
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from anyio.to_thread import run_sync
from starlette.routing import Route

from pawmatch.errors import BadOption, ImageTooLarge, UnsupportedFormat
from pawmatch.images import is_address
from pawmatch.ui.handlers import TOP_K, Handlers
from pawmatch.ui.html import as_jpeg

PATH = "/mcp"
HOW_TO_SEND = "A photo is the base64 text of an image file, a data: address or a public web address."
INSTRUCTIONS = (
    "Names what a photo shows, says how sure that is and whether a person should check: a guess from looks, "
    f"no proof. `models` lists the tasks and their classes. {HOW_TO_SEND}"
)


def tools(
    handlers: Handlers, max_upload_mb: int
) -> tuple[Route, Callable[[], AbstractAsyncContextManager[None]]]:
    """The route at PATH, and what has to run while it is served; raises BadOption without the extra."""
    try:
        from mcp.server.fastmcp import FastMCP, Image
        from mcp.server.transport_security import TransportSecuritySettings
    except ImportError as exc:
        raise BadOption('PAWMATCH_MCP needs an extra; install it with pip install "pawmatch[mcp]".') from exc

    # Who may ask is the business of the middleware: the address may be any that a proxy offers.
    security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    server = FastMCP(
        "pawmatch",
        instructions=INSTRUCTIONS,
        stateless_http=True,
        json_response=True,
        transport_security=security,
        streamable_http_path=PATH,
    )

    def asked(
        function: Callable[..., Any], images: list[str], *rest: Any, is_list: bool = False
    ) -> Awaitable[Any]:
        def answer() -> Any:
            with ExitStack() as stack:
                files = [stack.enter_context(kept(image, max_upload_mb)) for image in images]
                return function(files if is_list else files[0], *rest)

        return run_sync(answer)

    async def predict(
        image: str,
        task: str | None = None,
        top_k: int = TOP_K,
        facts: dict[str, str] | None = None,
        words: str | None = None,
    ) -> dict[str, Any]:
        found: dict[str, Any] = await asked(handlers.predict, [image], task, top_k, facts, words)
        return found

    async def explain(image: str, task: str | None = None, label: str | None = None) -> list[Any]:
        found, *overlays = await asked(handlers.explain, [image], task, label)
        return [found, *(Image(data=as_jpeg(one), format="jpeg") for one in overlays if one)]

    async def predict_batch(
        images: list[str], task: str | None = None, top_k: int = TOP_K
    ) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = await asked(handlers.predict_batch, images, task, top_k, is_list=True)
        return found

    async def models() -> list[dict[str, Any]]:
        return await run_sync(handlers.models)

    for tool in (predict, explain, predict_batch, models):
        told = getattr(handlers, tool.__name__).__doc__
        # Pictures are content of their own, no part of a structure.
        structured = None if tool is not explain else False
        server.add_tool(
            tool,
            structured_output=structured,
            description=f"{told} {HOW_TO_SEND if tool is not models else ''}".strip(),
        )
    (route,) = server.streamable_http_app().routes
    assert isinstance(route, Route)
    return route, server.session_manager.run


@contextmanager
def kept(image: str, max_upload_mb: int) -> Iterator[dict[str, Any]]:
    """A photo that came as base64, as a file object like an upload's, for as long as it is needed.

    A web address passes as it is. Raises UnsupportedFormat and ImageTooLarge.
    """
    if is_address(image):
        yield {"path": image}
        return
    try:
        data = base64.b64decode(
            image.rpartition(",")[2] if image.startswith("data:") else image, validate=True
        )
    except (binascii.Error, ValueError) as exc:
        raise UnsupportedFormat(HOW_TO_SEND) from exc
    if len(data) > max_upload_mb * 2**20:
        raise ImageTooLarge(f"The photo is larger than {max_upload_mb} MB; send a smaller one.")
    handle, name = tempfile.mkstemp(dir=os.environ.get("GRADIO_TEMP_DIR"))
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        yield {"path": name, "orig_name": "photo", "meta": {"_type": "gradio.FileData"}}
    finally:
        Path(name).unlink(missing_ok=True)
