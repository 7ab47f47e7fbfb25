"""`post`: a request to an engine's own server application, in memory.

What a request means is the business of the engine's own server code. It is called here as a web
server would call it (ASGI 3.0), without one: no port, no network.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, NamedTuple

Message = MutableMapping[str, Any]
App = Callable[
    [
        MutableMapping[str, Any],
        Callable[[], Awaitable[Message]],
        Callable[[Message], Awaitable[None]],
    ],
    Awaitable[None],
]
_VERSIONS = {"version": "3.0", "spec_version": "2.4"}


class Response(NamedTuple):
    """What the application answered."""

    status: int
    content_type: bytes
    body: bytes


async def post(app: App, path: str, body: bytes, headers: dict[str, str]) -> Response:
    """POST a JSON body.

    Args:
        app: the application.
        path: without host and query.
        body: JSON.
        headers: further headers.

    Raises:
        Exception: what the application raises and does not answer.
    """
    named = {"content-type": "application/json", "content-length": str(len(body)), **headers}
    scope = {
        "type": "http",
        "asgi": _VERSIONS,
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in named.items()],
        "client": ("127.0.0.1", 0),
        "server": ("127.0.0.1", 80),
        "state": {},
    }
    unread = [{"type": "http.request", "body": body, "more_body": False}]
    # A server says that its client is gone when it is; this one stays to the end.
    gone: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
    sent: list[Message] = []

    async def receive() -> Message:
        return unread.pop() if unread else await asyncio.shield(gone)

    async def send(message: Message) -> None:
        sent.append(message)

    try:
        await app(scope, receive, send)
    finally:
        gone.cancel()
    headers_back = {name.lower(): value for name, value in sent[0].get("headers", [])}
    return Response(
        int(sent[0]["status"]),
        headers_back.get(b"content-type", b""),
        b"".join(part.get("body", b"") for part in sent[1:]),
    )
