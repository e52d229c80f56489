"""Keeps the server to what the demo needs: Gradio brings more endpoints than these, and takes requests of any length.

As ASGI middleware, it sees a request before Gradio does.
"""

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from anomalib_defect_plugins.demo.services.uploads import MOST_BYTES, MOST_FILES

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

UNUSED = re.compile(
    r"^(/gradio_api)?/(proxy=|vibe-|undo-vibe-edit|process_recording|deep_link|custom_component|component_server|mcp"
    r"|runs|run-history|monitoring|openapi\.json|dev/|file/|file=[a-z][a-z0-9+.-]+:)",
    re.IGNORECASE,
)
"""Endpoints that are refused: those that fetch what is on other hosts, edit the program, or show what others do."""

UPLOAD = "/gradio_api/upload"

LONGEST = 8 * 2**20
"""Bytes of a request at most; an upload may have ``MOST_FILES`` times ``MOST_BYTES``."""

HEADERS = {
    # Whatever a results folder holds, the page asks no other host for anything. Gradio makes functions of templates.
    "content-security-policy": "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'self'; form-action 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class Guard:
    """Refuses endpoints that the demo does not use and requests that are too long, and has browsers load nothing else.

    Args:
        app: What answers all other requests.
    """

    def __init__(self, app: Application) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request."""
        refusal = refuse(scope) if scope["type"] == "http" else None
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif refusal is None:
            await self.app(scope, receive, _with_headers(send))
        else:
            status, reason = refusal
            await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": reason.encode()})


def refuse(scope: Message) -> tuple[int, str] | None:
    """Give the status and the reason by which a request is refused; nothing if it is not.

    Args:
        scope: Of the request, as ASGI describes it.
    """
    path = re.sub("/+", "/", scope["path"])
    if UNUSED.match(path):
        return 403, "the demo does not offer this"
    if scope["method"] != "POST":
        return None
    length = dict(scope["headers"]).get(b"content-length", b"")
    if not length.isdigit():
        return 411, "say how long this is"
    most = MOST_FILES * MOST_BYTES if path == UPLOAD else LONGEST
    return (413, f"this is longer than {most} bytes") if int(length) > most else None


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
            message = {**message, "headers": [*message.get("headers", []), *added]}
        await send(message)

    return sending
