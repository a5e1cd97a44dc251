"""One request and the framing of its response (RFC 9110, 9112).

Threading: one thread.
"""

from __future__ import annotations

import email.utils
import logging
import time
from enum import Enum, auto
from http import HTTPStatus
from typing import Any, Protocol
from uuid import uuid4

from cheroot.server import HTTPRequest, HTTPServer

from catalog import cause
from catalog.errors import IncompleteUpload
from web.exchange import metrics
from web.exchange.body import Body, Disconnected, FileRange, Incoming
from web.exchange.limits import Limits
from web.server.head import Head

log = logging.getLogger(__name__)
access_log = logging.getLogger("dav.access")

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_SMALL_BLOCK = 64 * 1024


def plain_response(
    status: HTTPStatus, reason: str, client: str, *, with_body: bool = True
) -> bytes:
    """Make and log a complete response by the server itself; the connection ends after it.

    `client` is the client's address.
    """
    request_id = uuid4().hex[:12]
    cause.begin("dav", request_id)
    access_log.info("%s %s - REQUEST - %d %s", request_id, client, status, reason)
    text = f"{reason} (request {request_id})\n".encode()
    retry = "Retry-After: 1\r\n" if status is HTTPStatus.SERVICE_UNAVAILABLE else ""
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n"
        f"Date: {email.utils.formatdate(usegmt=True)}\r\n"
        f"X-Request-Id: {request_id}\r\n"
        f"{retry}"
        "Content-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(text)}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + (text if with_body else b"")


class Wire(Protocol):
    """The part of a connection that a request needs."""

    incoming: Incoming
    remote_addr: Any
    remote_port: Any
    ssl_env: Any
    """This and `remote_port` are for the WSGI environment that cheroot makes."""

    def send(self, data: bytes | memoryview) -> None: ...

    def send_file(self, file: FileRange, lead: bytes) -> None: ...


class Ending(Enum):
    """What to do with a connection after a response."""

    KEEP = auto()
    """Another request may follow: all of this one has been read."""
    CLOSE = auto()
    LINGER = auto()
    """The client may still be sending; wait for it, so that it can read the response."""


class Request(HTTPRequest):
    """A request with a valid head.  The gateway sets `status` and `outheaders`, then writes."""

    conn: Wire
    rfile: Body
    status: bytes  # type: ignore[assignment]  # cheroot's stub says str
    outheaders: list[tuple[bytes, bytes]]

    def __init__(self, server: HTTPServer, wire: Wire, head: Head, limits: Limits) -> None:
        """cheroot's gateway asks `server` for the application and for the server's address."""
        super().__init__(server, wire)
        self.head = head
        self._limits = limits
        self.method, self.uri, self.path, self.qs = head.method, head.target, head.path, head.query
        self.inheaders = head.headers
        self.request_protocol = b"HTTP/1.1" if head.http11 else b"HTTP/1.0"
        self.close_connection = not head.keep_alive
        self.chunked_read = head.length is None
        invite = self._invite if head.expects_continue else None
        self.rfile = Body(wire.incoming, head.length, limits.read_body, invite)
        self._unsent_head = b""
        self._left: int | None = None
        self._sent = 0
        self.status = b""

    def answer(self) -> Ending:
        """Have the application answer; raises Disconnected."""
        begun = time.perf_counter()
        try:
            self._have_answered()
        finally:
            seconds = time.perf_counter() - begun
            metrics.count(
                self.method, self.status, seconds, received=self.rfile.received, sent=self._sent
            )
        if self.close_connection:
            return Ending.CLOSE if self.rfile.finished else Ending.LINGER
        try:
            self.rfile.discard()
        except IncompleteUpload as error:
            log.debug("%s: %s", self.conn.remote_addr, error.reason)
            return Ending.CLOSE
        return Ending.KEEP

    def _have_answered(self) -> None:
        try:
            self.server.gateway(self).respond()
        except Disconnected:
            raise
        except Exception as error:
            log.exception("%s %s failed", self.method.decode(), self.path.decode())
            self.close_connection = True
            self.status = self.status or b"500 Internal Server Error"
            if self.sent_headers and not self._unsent_head:
                # Cut the connection: half a response must not look like a whole one.
                raise Disconnected("the response cannot be completed") from error
            self.conn.send(
                plain_response(
                    HTTPStatus.INTERNAL_SERVER_ERROR,
                    "The server failed to answer; its log says why.",
                    self.conn.remote_addr,
                    with_body=self.method != b"HEAD",
                )
            )

    def write(self, chunk: bytes) -> None:
        """Send a block of the body, after the head if that was not sent yet."""
        self.ensure_headers_sent()
        self._count(len(chunk))
        if self._bodiless:
            return
        if self.chunked_write:
            chunk = b"%x\r\n%b\r\n" % (len(chunk), chunk)
        if len(chunk) <= _SMALL_BLOCK:
            self._send_head(chunk)
        else:
            self._send_head()
            self.conn.send(chunk)

    def write_file(self, file: FileRange) -> None:
        """Send the file as the body."""
        self.ensure_headers_sent()
        self._count(file.size)
        if not self._bodiless:
            head, self._unsent_head = self._unsent_head, b""
            self.conn.send_file(file, head)

    def end(self) -> None:
        """Complete the response; raises ValueError if its body is shorter than announced."""
        self.ensure_headers_sent()
        if self._left and not self._bodiless:
            raise ValueError("the response is shorter than its Content-Length")
        self._send_head(b"0\r\n\r\n" if self.chunked_write else b"")

    def send_headers(self) -> None:
        """Choose the framing and build the head, which is sent with the first block."""
        given = {name.lower(): value for name, value in self.outheaders}
        if b"content-length" in given:
            self._left = int(given[b"content-length"])
        elif not self._bodiless and self.head.http11:
            self.chunked_write = True
            self.outheaders.append((b"Transfer-Encoding", b"chunked"))
        elif not self._bodiless:
            self.close_connection = True
        self.outheaders += self._connection_headers(given)
        if b"date" not in given:
            self.outheaders.append((b"Date", email.utils.formatdate(usegmt=True).encode()))
        lines = [b"%b: %b\r\n" % header for header in self.outheaders]
        self._unsent_head = b"HTTP/1.1 %b\r\n%b\r\n" % (self.status, b"".join(lines))

    def _connection_headers(self, given: dict[bytes, bytes]) -> list[tuple[bytes, bytes]]:
        """Keep the connection only if its next byte surely begins a request."""
        if (
            given.get(b"connection", b"").lower() == b"close"
            or not self.rfile.can_discard(self._limits.discarded_body)
            or not self.server.ready
        ):
            self.close_connection = True
        if b"connection" in given:
            return []
        if self.close_connection:
            return [(b"Connection", b"close")]
        return [] if self.head.http11 else [(b"Connection", b"keep-alive")]

    @property
    def _bodiless(self) -> bool:
        """Whether the response cannot have a body (RFC 9110 §6.4.1)."""
        return (
            self.method == b"HEAD" or self.status[:1] == b"1" or self.status[:3] in (b"204", b"304")
        )

    def _count(self, size: int) -> None:
        if not self._bodiless:
            self._sent += size
        if self._left is not None:
            self._left -= size
            if self._left < 0 and not self._bodiless:
                raise ValueError("the response is longer than its Content-Length")

    def _send_head(self, block: bytes = b"") -> None:
        head, self._unsent_head = self._unsent_head, b""
        if head or block:
            self.conn.send(head + block)

    def _invite(self) -> None:
        self.conn.send(_CONTINUE)
