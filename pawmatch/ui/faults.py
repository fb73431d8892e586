"""Faults: what the log and the visitor are told of an error that nobody foresaw.

The log gets the trace and the beginning of what the error says, quoted: that may repeat what a visitor typed,
as much as the whole request.
"""

from __future__ import annotations

import errno
import logging
import traceback

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pawmatch.ui import request_log

log = logging.getLogger(__name__)
log.addFilter(request_log.few_lines)

OUR_FAULT = "Something went wrong on our side; please try again."
NO_MEMORY = "There is not enough memory for this just now; please try again, or choose a smaller photo."
NO_ROOM = "The service has no room to keep pictures just now; please try again later."
NOT_FITTING = (
    "The request does not fit what this address takes; see the page's API description for what to send."
)
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
MAX_SAID = 200  # characters of an error's own words that are logged
MAX_FRAMES = 20  # of a trace, the last ones


def sentence(exc: BaseException) -> str:
    """What a visitor is told about an error of ours: as much as helps."""
    # torch has an exception of its own for accelerators, and for the CPU a RuntimeError that says so.
    is_memory = isinstance(exc, MemoryError) or type(exc).__name__ == "OutOfMemoryError"
    if is_memory or "allocate memory" in str(exc):
        return NO_MEMORY
    return NO_ROOM if is_full(exc) else OUR_FAULT


def is_full(exc: BaseException) -> bool:
    """Whether an error says that nothing can be written: no space left, or a folder for reading only."""
    return isinstance(exc, OSError) and exc.errno in FULL_DISK


def log_fault(exc: BaseException) -> None:
    """Log an error and those behind it, each with its trace and, quoted, the beginning of what it says."""
    parts: list[str] = []
    while len(parts) < 5:
        trace = traceback.format_list(traceback.extract_tb(exc.__traceback__)[-MAX_FRAMES:])
        parts.append(f"{type(exc).__name__}: {str(exc)[:MAX_SAID]!r}\n{''.join(trace)}")
        cause = exc.__cause__ or (None if exc.__suppress_context__ else exc.__context__)
        if cause is None:
            break
        exc = cause
    log.error("Unexpected error\n%s", "behind it ".join(parts))


class Faults:
    """ASGI middleware: an error that nobody has dealt with becomes one sentence, and a trace in the log."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, and answer it where that fails."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        has_begun = False

        async def noted(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self.app(scope, receive, noted)
        except ClientDisconnect:
            pass
        except Exception as exc:
            status, words = judged(exc, scope)
            if status >= 500:
                log_fault(exc)
            request_log.turned_away("page", type(exc).__name__)
            if not has_begun:
                await JSONResponse({"detail": words}, status)(scope, receive, send)


def judged(exc: Exception, scope: Scope) -> tuple[int, str]:
    """The status and the sentence for an error: whose fault is it?"""
    # Gradio takes the values of this route by name, and says of wrong names what Python does.
    if "/gradio_api/call/v2/" in scope["path"] and isinstance(exc, KeyError | TypeError):
        return 422, NOT_FITTING
    return (507 if is_full(exc) else 500), sentence(exc)
