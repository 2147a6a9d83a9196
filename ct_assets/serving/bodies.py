"""Limits on request bodies and on how long they may take, kept before anything is parsed.

uvicorn has neither: a body of any size would be collected and parsed, and headers or bodies that stall would keep their
connections for ever.
"""

import asyncio
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn import Config
from uvicorn.protocols.http.auto import AutoHTTPProtocol

MAX_BYTES = 8 * 2**20
SECONDS = 30.0
"""For the headers of a request, and again for its body."""
DRAIN_SECONDS, DRAIN_BYTES = 2.0, 64 * 2**20
"""How much of a refused body is read and dropped, so that its sender gets to read the answer."""


class BodyLimits:
    """Reads the whole body of a request before it goes on, within limits of size and time.

    Args:
        app: What answers.
        max_bytes: Largest body.
        seconds: Longest time that a body may take.
    """

    def __init__(self, app: ASGIApp, max_bytes: int = MAX_BYTES, seconds: float = SECONDS) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse its body."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body, problem = bytearray(), None
        try:
            async with asyncio.timeout(self.seconds):
                more = True
                while more:
                    message = await receive()
                    if message["type"] != "http.request":
                        return  # The sender is gone.
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if max(len(body), _declared(scope)) > self.max_bytes:
                        problem = 413, f"the body is longer than {self.max_bytes:,} bytes; expected several requests"
                        break
        except TimeoutError:
            problem = 408, f"the body did not arrive within {self.seconds:g} s; expected it at once: send it again"
        if problem is None:
            await self.app(scope, _once(bytes(body), receive), send)
            return
        body.clear()
        if problem[0] == 413 and more:
            await _drain(receive)
        answer = JSONResponse({"detail": problem[1]}, problem[0], headers={"Connection": "close"})
        await answer(scope, receive, send)


def _declared(scope: Scope) -> int:
    """The length that the headers announce; 0 when they do not."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0


def _once(body: bytes, receive: Receive) -> Receive:
    """What gives the body, and afterwards what the connection says."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def _drain(receive: Receive) -> None:
    dropped = 0
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            while dropped < DRAIN_BYTES:
                message = await receive()
                dropped += len(message.get("body", b""))
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return


def server_config(app: ASGIApp, seconds: float = SECONDS, **settings: Any) -> Config:
    """uvicorn's settings for an app: connections on which no request begins in time are closed.

    Args:
        app: What answers.
        seconds: From a connection, or the first byte of its next request, to the end of the headers.
        settings: Others of uvicorn's.
    """

    class Protocol(_HeaderDeadline):
        header_seconds = seconds

    return Config(app, http=Protocol, **settings)


class _HeaderDeadline(AutoHTTPProtocol):  # type: ignore[misc,valid-type]
    """Closes a connection whose headers do not arrive in time; uvicorn itself limits the pause between requests."""

    header_seconds: float
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._await_headers()

    def data_received(self, data: bytes) -> None:
        if self._deadline is None and self._idle():
            self._await_headers()
        super().data_received(data)
        if not self._idle():
            self._settle()

    def connection_lost(self, exc: Exception | None) -> None:
        self._settle()
        super().connection_lost(exc)

    def _idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or bool(self.cycle.response_complete)

    def _await_headers(self) -> None:
        self._deadline = self.loop.call_later(self.header_seconds, self._give_up)

    def _settle(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        if self._idle() and not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            self.transport.close()
