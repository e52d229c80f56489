"""ASGI middleware that refuses Gradio's endpoints that the demo does not use, and requests that are too long.

As middleware, it sees a request before Gradio does.
"""

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from anomalib_defect_plugins.core.image_limits import MAX_BYTES

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

FORBIDDEN_PATH = re.compile(
    r"^(/gradio_api)?/(proxy=|vibe-|undo-vibe-edit|process_recording|deep_link|custom_component|component_server|mcp"
    r"|runs|run-history|monitoring|openapi\.json|dev/|file/|file=[a-z][a-z0-9+.-]+:)",
    re.IGNORECASE,
)
"""Endpoints that are refused: they fetch from other hosts, edit the program or show the activity of other users."""

UPLOAD_PATH = "/gradio_api/upload"

MAX_REQUEST_BYTES = 8 * 2**20
"""Maximum length of a request other than an upload."""

MAX_UPLOAD_BYTES = 24 * MAX_BYTES
"""Maximum length of an upload."""

HEADERS = {
    # The page loads nothing from other hosts, whatever a results folder holds. Gradio compiles templates with eval.
    "content-security-policy": "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'self'; form-action 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class RequestGuard:
    """Middleware that refuses forbidden or overlong requests and adds security headers to all other responses.

    Args:
        app: The wrapped application.
    """

    def __init__(self, app: Application) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request."""
        refusal = check_request(scope) if scope["type"] == "http" else None
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif refusal is None:
            await self.app(scope, receive, _with_headers(send))
        else:
            status, reason = refusal
            await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": reason.encode()})


def check_request(scope: Message) -> tuple[int, str] | None:
    """Return status and reason of a refusal; ``None`` if the request is allowed.

    Args:
        scope: ASGI scope of the request.
    """
    path = re.sub("/+", "/", scope["path"])
    if FORBIDDEN_PATH.match(path):
        return 403, "this endpoint is disabled in the demo"
    if scope["method"] != "POST":
        return None
    length = dict(scope["headers"]).get(b"content-length", b"")
    if not length.isdigit():
        return 411, "content-length is missing or invalid"
    limit = MAX_UPLOAD_BYTES if path == UPLOAD_PATH else MAX_REQUEST_BYTES
    return (413, f"the request is longer than {limit} bytes") if int(length) > limit else None


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
            message = {**message, "headers": [*message.get("headers", []), *added]}
        await send(message)

    return send_with_headers
