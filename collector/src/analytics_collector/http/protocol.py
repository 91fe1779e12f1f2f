"""Uvicorn's HTTP protocol with what it lacks: deadlines, and a cap on headers.

Stock uvicorn waits for ever for a request that trickles in and for a client that does not read its
answer, and its parser keeps headers of any size. Here a connection has `HEADER_DEADLINE_S` from its
start (or from the first byte of a later request) until the headers are complete, then
`REQUEST_DEADLINE_S` for the body; headers and URL together may take `MAX_HEADER_BYTES`. An answer
that finds no room in the client's buffers has `RESPONSE_DEADLINE_S` until it goes on; then the
connection is reset.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from analytics_collector._limits import (
    HEADER_DEADLINE_S,
    MAX_HEADER_BYTES,
    REQUEST_DEADLINE_S,
    RESPONSE_DEADLINE_S,
)
from analytics_collector.http.problems import REQUEST_ERRORS

_IDLE, _HEADERS, _BODY = "idle", "headers", "body"


class HardenedProtocol(HttpToolsProtocol):
    """One connection."""

    header_deadline_s = HEADER_DEADLINE_S
    request_deadline_s = REQUEST_DEADLINE_S
    response_deadline_s = RESPONSE_DEADLINE_S

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock: even a connection that sends nothing is closed."""
        super().connection_made(transport)
        self._phase = _HEADERS
        self._header_bytes = self._unparsed_bytes = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._deadline_phase = _IDLE
        self._write_deadline: asyncio.TimerHandle | None = None
        self._watch_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks."""
        self._disarm()
        self._disarm_write()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse *data*, then see whether the headers are too large and whose turn it is."""
        if self._phase is _IDLE:
            self._phase = _HEADERS
            self._header_bytes = 0
        received_in = self._phase
        self._message_ended = False
        super().data_received(data)
        if self.transport.is_closing():
            self._disarm()
            return
        if received_in is _HEADERS and self._phase is _HEADERS and not self._message_ended:
            # Nothing but headers so far; the parser tells of none before it is complete.
            self._header_bytes = max(self._header_bytes, self._raw_header_bytes(len(data)))
            if self._header_bytes > MAX_HEADER_BYTES:
                self._refuse("HEADERS_TOO_LARGE")
                return
        self._watch_deadline()

    # Sending

    def pause_writing(self) -> None:
        """The client does not read what is sent: give it some time."""
        super().pause_writing()
        self._arm_write()

    def resume_writing(self) -> None:
        """It reads; the end of an answer that ends the connection has its deadline still."""
        self._disarm_write()
        super().resume_writing()
        if self.transport.is_closing():
            self._arm_write()

    def on_response_complete(self) -> None:
        """Go on with the next request; an answer that ends the connection may still be unread."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._arm_write()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, at once if the client has not even read the last answer."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def _arm_write(self) -> None:
        if self._write_deadline is None and self.transport.get_write_buffer_size():
            self._write_deadline = self.loop.call_later(
                self.response_deadline_s, self.transport.abort
            )

    def _disarm_write(self) -> None:
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None

    # Callbacks of the parser

    def on_message_begin(self) -> None:
        """A request begins."""
        self._phase = _HEADERS
        self._header_bytes = 0
        self._unparsed_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Count the URL with the headers."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count every header, also a trailer."""
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The body may come."""
        self._phase = _BODY
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request has arrived; what comes next is another one."""
        self._phase = _IDLE
        self._message_ended = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, or headers that a callback found too large."""
        too_large = self._header_bytes > MAX_HEADER_BYTES
        self._refuse("HEADERS_TOO_LARGE" if too_large else "INVALID_REQUEST")

    def _count(self, size_bytes: int) -> None:
        self._header_bytes += size_bytes
        if self._header_bytes > MAX_HEADER_BYTES:
            raise ValueError("headers too large")  # the parser stops; see send_400_response

    def _raw_header_bytes(self, received_bytes: int) -> int:
        """Return how many bytes of one unfinished header section have arrived."""
        self._unparsed_bytes += received_bytes
        return self._unparsed_bytes

    def _watch_deadline(self) -> None:
        """Arm the deadline of the phase; a request that came whole never costs a timer."""
        if self._phase is self._deadline_phase:
            return
        self._disarm()
        self._deadline_phase = self._phase
        if self._phase is not _IDLE:
            seconds = self.header_deadline_s if self._phase is _HEADERS else self.request_deadline_s
            self._deadline = self.loop.call_later(seconds, self._expire)

    def _disarm(self) -> None:
        self._deadline_phase = _IDLE
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _expire(self) -> None:
        self._deadline = None
        self._deadline_phase = _IDLE
        answering = self.cycle is not None and not self.cycle.response_complete
        if self._phase is _HEADERS and answering:
            # A pipelined request waits behind an answer of ours: its sender is not to blame.
            self._watch_deadline()
        elif self.cycle is not None and self._phase is _BODY and self.cycle.response_started:
            self.transport.close()
            self._arm_write()
        else:
            self._refuse("REQUEST_TIMEOUT")

    def _refuse(self, code: str) -> None:
        """Answer with *code* and close, outside of any application."""
        self._disarm()
        if self.transport.is_closing():
            return
        status = HTTPStatus(REQUEST_ERRORS[code]["status"])
        body = orjson.dumps({"error": REQUEST_ERRORS[code]["message"], "code": code})
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
        self._arm_write()
