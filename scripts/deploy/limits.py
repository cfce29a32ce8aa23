"""Guards before the application: key, size of the body, and the time a client may take to send it."""

import asyncio
import hmac
import json
from typing import Any

# What an unknown caller may ask: whether the server is up
OPEN_PATHS = {"/v1/health/live", "/v1/health/ready"}


def error_body(status: int, message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """An error in OpenAI's form."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


class _TooLargeError(Exception):
    pass


class Guard:
    """ASGI middleware.

    Args:
        app: The application.
        max_bytes: Largest body; larger ones get 413 without being read to their end.
        read_seconds: Time for the whole body to arrive; slower clients get 408.
        api_key: What ``Authorization: Bearer`` must hold, or ``None`` for no check.
    """

    def __init__(self, app: Any, *, max_bytes: int, read_seconds: float, api_key: str | None) -> None:
        self.app, self.max_bytes, self.read_seconds = app, max_bytes, read_seconds
        self._expected = f"Bearer {api_key}".encode() if api_key else None

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if self._expected and scope["path"] not in OPEN_PATHS:
            given = headers.get(b"authorization", b"")
            if not hmac.compare_digest(given, self._expected):
                await _refuse(send, 401, "a valid key is needed: Authorization: Bearer KEY", "invalid_api_key")
                return
        stated = headers.get(b"content-length", b"0")
        if stated.isdigit() and int(stated) > self.max_bytes:
            await self._too_large(send)
            return
        try:
            async with asyncio.timeout(self.read_seconds):
                body = await self._read(receive)
        except TimeoutError:
            await _refuse(send, 408, f"the body did not arrive within {self.read_seconds:g} s", "request_timeout")
            return
        except _TooLargeError:
            await self._too_large(send)
            return
        if body is None:
            return
        pending = [{"type": "http.request", "body": body, "more_body": False}]

        async def whole() -> dict[str, Any]:
            return pending.pop() if pending else await receive()

        await self.app(scope, whole, send)

    async def _read(self, receive: Any) -> bytes | None:
        """The whole body; ``None`` when the client went away."""
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if len(body) > self.max_bytes:
                raise _TooLargeError
            if not message.get("more_body", False):
                return bytes(body)

    async def _too_large(self, send: Any) -> None:
        await _refuse(send, 413, f"the body is larger than {self.max_bytes} bytes; send fewer texts", "body_too_large")


async def _refuse(send: Any, status: int, message: str, code: str) -> None:
    body = json.dumps(error_body(status, message, code=code)).encode()
    # closed, because the rest of a refused body would be read as the next request
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
