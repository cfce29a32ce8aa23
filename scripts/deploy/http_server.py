"""uvicorn with two things it lacks: connections that send no request are closed, and a drain that others can see."""

import asyncio
import signal
import time
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from scripts.deploy.limits import Gate

# How often the drain looks whether the last answer is out
PAUSE = 0.05


class Protocol(HttpToolsProtocol):
    """Closes connections whose request line and headers do not arrive in time; the body is the guard's to time."""

    header_seconds = 20.0
    _header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client came: its headers are awaited."""
        super().connection_made(transport)
        self._await_headers()

    def on_message_begin(self) -> None:
        """The first byte of another request on a kept connection."""
        super().on_message_begin()
        if self._header_timer is None:
            self._await_headers()

    def on_headers_complete(self) -> None:
        """All headers are there."""
        self._stop_timer()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client left."""
        self._stop_timer()
        super().connection_lost(exc)

    def _await_headers(self) -> None:
        self._header_timer = self.loop.call_later(self.header_seconds, self._give_up)

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()

    def _stop_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None


class Server(uvicorn.Server):
    """On SIGTERM the gate closes (new requests get 503), what was accepted is answered, then the process ends.

    Args:
        app: The application, with its :class:`Gate` as ``app.state.gate``.
        header_seconds: Time for the headers of a request to arrive.
        drain_seconds: Longest wait for requests under way.
    """

    def __init__(self, app: Any, *, header_seconds: float, drain_seconds: float) -> None:
        protocol = type("Protocol", (Protocol,), {"header_seconds": header_seconds})
        super().__init__(
            uvicorn.Config(
                app,
                http=protocol,
                log_config=None,
                access_log=False,
                lifespan="off",
                timeout_graceful_shutdown=max(1, round(drain_seconds)),
            )
        )
        self._gate: Gate = app.state.gate
        self._drain_until: float | None = None
        self._drain_seconds = drain_seconds

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """First signal: drain. Second one: end now."""
        if self._drain_until is not None or sig != signal.SIGTERM:
            super().handle_exit(sig, frame)
            return
        self._gate.draining = True
        self._drain_until = time.monotonic() + self._drain_seconds
        self._captured_signals.append(sig)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: is the drain over?"""
        if self._drain_until is not None and not self.should_exit:
            while self._gate.active and time.monotonic() < self._drain_until and not self.should_exit:
                await asyncio.sleep(PAUSE)
            self.should_exit = True
        return await super().on_tick(counter)
