"""HTTP/1.1 connections that give nobody more time, room or connections than is declared."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any, Final, cast

from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from lockstep.serving.exchange import RESPOND, Header, Scope
from lockstep.serving.settings import MAX_BODY, MAX_HEADERS, ServingSettings

_LAST_WORDS: Final = (
    b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
    b"connection: close\r\n%s\r\n%s"
)
_TOO_MANY: Final = (503, b"Service Unavailable", b"retry-after: 1\r\n", b"TooManyConnections")
_TOO_SLOW: Final = (408, b"Request Timeout", b"", b"RequestTimeout")
_TOO_MUCH: Final = (413, b"Content Too Large", b"", b"BodyTooLong")
_TOO_LONG: Final = (431, b"Request Header Fields Too Large", b"", b"HeadersTooLong")
_LINGER: Final = 0.5
_MAX_RECEIVED: Final = 4 * MAX_BODY
"""Bytes of one message after its headers: a body with the framing of its chunks, and trailers."""
_MAX_PIPELINED: Final = 64
"""Requests of one connection that wait for the answer to an earlier one."""


class GuardedProtocol(HttpToolsProtocol):
    """One connection.

    Headers and body must arrive, and an answer be taken, within `read_seconds` each; `sweep` closes
    what takes longer. What is sent meanwhile buys no time to who does not take an answer. While the
    service stops, an idle connection gets one more answer, marked as the last, if it asks at once.
    """

    settings: ServingSettings
    draining = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._since: float | None = None
        self._header_bytes: int | None = None
        self._received: int | None = None
        self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Greet, or refuse what would be one too many."""
        super().connection_made(transport)
        self._expect_headers()
        if len(self.connections) > self.settings.max_connections:
            self._end(*_TOO_MANY)

    def data_received(self, data: bytes) -> None:
        """Parse, within the limits for headers and for what follows them."""
        if self._refused:
            return
        if self._header_bytes is not None:
            self._header_bytes += len(data)
        elif self._received is not None:
            self._received += len(data)
        super().data_received(data)
        if self._received is not None and self._received > _MAX_RECEIVED:
            self._end(*_TOO_MUCH)
        if self._header_bytes is not None and self._header_bytes > MAX_HEADERS:
            self._end(*_TOO_LONG)

    def on_message_begin(self) -> None:
        """Begin to wait for headers."""
        if self._header_bytes is None:
            self._expect_headers()
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; what follows a chunked body is read by nobody, so it is not kept."""
        if self._header_bytes is not None:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin to wait for the body."""
        self._header_bytes = None
        if self._refused:
            return
        if len(self.pipeline) >= _MAX_PIPELINED:
            self._refused = True
            self.transport.abort()
            return
        self._wait()
        if len(self.url) + sum([len(n) + len(v) for n, v in self.headers]) > MAX_HEADERS:
            self._end(*_TOO_LONG)
            return
        self._received = 0
        super().on_headers_complete()
        if self.draining:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Keep the body, if it is still wanted."""
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Wait for nothing more, unless an answer is not taken."""
        self._received = None
        if not self.flow.write_paused:
            self._since = None
        if not self._refused:
            super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        cast("Scope", cycle.scope)[RESPOND] = partial(self._respond, cycle)
        super()._start_asgi_task(cycle, app)

    async def _respond(
        self, cycle: RequestResponseCycle, status: int, headers: Sequence[Header], body: bytes
    ) -> None:
        """Do what the cycle's `send` does for a whole answer, in one write."""
        if self.flow.write_paused and not cycle.disconnected:
            await self.flow.drain()
        if self._refused:
            cycle.disconnected = True  # else an error would be written in place of the answer
        if cycle.disconnected:
            return
        cycle.response_started = cycle.response_complete = True
        lines = [STATUS_LINE[status]]
        for name, value in (*cycle.default_headers, *headers):
            lines += (name, b": ", value, b"\r\n")
            if name == b"connection":
                cycle.keep_alive = False
        if not cycle.keep_alive and (b"connection", b"close") not in headers:
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        if cycle.scope["method"] != "HEAD":
            lines.append(body)
        self.transport.write(b"".join(lines))
        cycle.message_event.set()
        if cycle.more_body and not cycle.keep_alive:
            self._leave()
        elif not cycle.keep_alive:
            self.transport.close()
        cycle.on_response()

    def pause_writing(self) -> None:
        """Begin to wait for the caller to take the answer."""
        self._since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """Wait for nothing more, unless a message has been begun."""
        begun = self._header_bytes is not None or self._received is not None
        self._since = self.loop.time() if begun else None
        super().resume_writing()

    def shutdown(self) -> None:
        """Make the next answer the last; close when there is none to be given soon."""
        self.draining = True
        if self._idle:
            self.loop.call_later(_LINGER, self._close_if_idle)
        else:
            self.cycle.keep_alive = False

    def sweep(self, now: float) -> None:
        """Close the connection if something has been waited for too long."""
        closing = self.transport.is_closing()
        if self._since is None:
            self._since = now if closing else None  # it closes when the last answer is taken
            return
        if now - self._since <= self.settings.read_seconds:
            return
        if closing or self.flow.write_paused:
            self.transport.abort()
        else:
            self._end(*_TOO_SLOW)

    def _wait(self) -> None:
        if not self.flow.write_paused:
            self._since = self.loop.time()

    def _expect_headers(self) -> None:
        self._wait()
        self._header_bytes = 0

    @property
    def _idle(self) -> bool:
        cycle: Any = self.cycle  # None before the first request
        return cycle is None or bool(cycle.response_complete)

    @property
    def _nobody_waits(self) -> bool:
        """Whether what is said now answers the message that is being received, not an earlier."""
        if self._received is None:
            return self._idle
        return not self.pipeline and not self.cycle.response_started

    def _close_if_idle(self) -> None:
        if self._idle:
            self.transport.close()

    def _end(self, status: int, phrase: bytes, header: bytes, kind: bytes) -> None:
        if self._nobody_waits:
            body = b'{"error":{"type":"%s","message":"%s."}}' % (kind, phrase)
            self.transport.write(_LAST_WORDS % (status, phrase, len(body), header, body))
        self._leave()

    def _leave(self) -> None:
        """Close without losing the last words: what still comes in is dropped for a moment."""
        self._refused = True
        self._since = None
        self.flow.resume_reading()
        self.transport.write_eof()
        self.loop.call_later(_LINGER, self.transport.close)
