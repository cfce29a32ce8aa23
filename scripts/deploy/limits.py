"""Guards before the application: key, size of the body, the time a client may take to send it, and the drain."""

import asyncio
import dataclasses
import hmac
import json
import math
from collections.abc import Callable
from typing import Any

EMBEDDINGS = "/v1/embeddings"
# What an unknown caller may ask: whether the server is up
OPEN_PATHS = {"/v1/health/live", "/v1/health/ready"}
# What is answered to the end
WHILE_DRAINING = {"/v1/health/live", "/v1/metrics"}


@dataclasses.dataclass
class Gate:
    """Whether new requests come in, and how many are under way."""

    draining: bool = False
    active: int = 0


def error_body(status: int, message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """An error in OpenAI's form."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """What a server takes on (section ``deploy.limits`` of the configuration; its schema has the same defaults).

    Attributes:
        body_bytes: Largest request body; larger ones get 413.
        header_seconds: Time for the headers of a request to arrive; then the connection is closed.
        body_seconds: Time for a body to arrive; then the request gets 408.
        request_seconds: Time for an answer; then the request gets 504.
        queue_tokens: Tokens that may wait; beyond that requests get 429.
    """

    body_bytes: int = 8_000_000
    header_seconds: float = 20.0
    body_seconds: float = 20.0
    request_seconds: float = 120.0
    queue_tokens: int = 400_000

    def arguments(self) -> list[str]:
        """Those that are not the server's own defaults, as arguments of its command."""
        defaults = dataclasses.asdict(DEFAULT_LIMITS)
        own = {name: value for name, value in dataclasses.asdict(self).items() if value != defaults[name]}
        return [f"--{name.replace('_', '-')}={value}" for name, value in own.items()]

    @property
    def drain_seconds(self) -> float:
        """Longest life of a request, and so the time that those under way have left after SIGTERM."""
        return self.body_seconds + self.request_seconds

    @property
    def stop_seconds(self) -> int:
        """From SIGTERM on, before the server is killed: the drain, and a little more."""
        return math.ceil(self.drain_seconds) + 5


DEFAULT_LIMITS = Limits()


class _TooLargeError(Exception):
    pass


class Guard:
    """ASGI middleware.

    Args:
        app: The application.
        max_bytes: Largest body; larger ones get 413 without being read to their end.
        read_seconds: Time for the whole body to arrive; slower clients get 408.
        api_key: What ``Authorization: Bearer`` must hold, or ``None`` for no check.
        gate: Counts requests under way; once it drains, new ones get 503.
        note: Told the status of each request for embeddings that is refused here.
    """

    def __init__(
        self,
        app: Any,
        *,
        max_bytes: int,
        read_seconds: float,
        api_key: str | None,
        gate: Gate,
        note: Callable[[int], None] = lambda _status: None,
    ) -> None:
        self.app, self.max_bytes, self.read_seconds, self.gate, self._note = app, max_bytes, read_seconds, gate, note
        self._expected = f"Bearer {api_key}".encode() if api_key else None

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if self.gate.draining and scope["path"] not in WHILE_DRAINING:
            await self._refuse(
                scope, send, 503, "the server is going down; ask another one, or again later", "draining"
            )
            return
        self.gate.active += 1
        try:
            await self._guarded(scope, receive, send)
        finally:
            self.gate.active -= 1

    async def _guarded(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        headers = dict(scope["headers"])
        if self._expected and scope["path"] not in OPEN_PATHS:
            given = headers.get(b"authorization", b"")
            if not hmac.compare_digest(given, self._expected):
                message = "a valid key is needed: Authorization: Bearer KEY"
                await self._refuse(scope, send, 401, message, "invalid_api_key")
                return
        stated = headers.get(b"content-length", b"0")
        if stated.isdigit() and int(stated) > self.max_bytes:
            await self._too_large(scope, send)
            return
        try:
            async with asyncio.timeout(self.read_seconds):
                body = await self._read(receive)
        except TimeoutError:
            message = f"the body did not arrive within {self.read_seconds:g} s"
            await self._refuse(scope, send, 408, message, "request_timeout")
            return
        except _TooLargeError:
            await self._too_large(scope, send)
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

    async def _too_large(self, scope: dict[str, Any], send: Any) -> None:
        message = f"the body is larger than {self.max_bytes} bytes; send fewer texts"
        await self._refuse(scope, send, 413, message, "body_too_large")

    async def _refuse(self, scope: dict[str, Any], send: Any, status: int, message: str, code: str) -> None:
        if scope["path"] == EMBEDDINGS:
            self._note(status)
        body = json.dumps(error_body(status, message, code=code)).encode()
        # closed, because the rest of a refused body would be read as the next request
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
