"""One client's connection: collects requests' heads without waiting, then serves them.

Used by server; one thread at a time, a worker that the connection was given to because it has
something to read.  Between two such calls it waits in the server's selector: no worker ever
waits for a handshake, for a head, or for the next request of a connection that is kept.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import ssl
import struct
import time
from contextlib import suppress
from enum import Enum
from http import HTTPStatus
from typing import TYPE_CHECKING

from cheroot.server import HTTPConnection

from catalog.errors import IncompleteUpload
from dav import head
from dav.body import Disconnected, FileRange, Incoming
from dav.request import Request, plain_response

if TYPE_CHECKING:
    from dav.server import Server

log = logging.getLogger(__name__)

BLOCK = 1024 * 1024
_HEAD_BLOCK = 16 * 1024
_TOO_LATE = "the request took too long"
_DISK_ERRORS = (errno.EIO, errno.ESTALE)
_Socket = socket.socket
_NOT_YET = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Phase(Enum):
    """What the next bytes of the client are for."""

    HANDSHAKE = "TLS is being agreed on"
    HEAD = "a request's head is expected or has begun"
    LINGER = "the last response is sent; what still arrives is thrown away"
    DONE = "none is expected"


class Connection(HTTPConnection):
    """A TCP connection, over TLS or not.  `deadline` is when the selector shall give it up."""

    server: Server
    socket: _Socket

    def __init__(self, server: Server, sock: _Socket, address: tuple[str, int]) -> None:
        # Not cheroot's __init__: it would make the buffered files that this class replaces.
        self.server = server
        self.socket = sock
        self.remote_addr, self.remote_port = address
        self.incoming = Incoming(self._receive)
        self.phase = Phase.HANDSHAKE if isinstance(sock, ssl.SSLSocket) else Phase.HEAD
        self.deadline = time.monotonic() + server.limits.header_seconds
        self._begun = True
        self._scanned = 0
        # The kernel's time-outs count only while nothing moves, and cost no poll(2) per call.
        progress = struct.pack("ll", server.limits.transfer_seconds, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, progress)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, progress)

    def communicate(self) -> bool:
        """Do what can be done without waiting for the client; True to be called again."""
        try:
            self._advance()
        except _NOT_YET:
            return True
        except (Disconnected, OSError) as error:
            log.debug("%s: %s", self.remote_addr, error)
        return False

    def send(self, data: bytes | memoryview) -> None:
        """Send all of the data; raises Disconnected when the client does not take it."""
        try:
            self.socket.sendall(data)
        except OSError as error:
            raise _disconnected(error) from error

    def send_file(self, file: FileRange, lead: bytes) -> None:
        """Send `lead`, then all of the file's bytes; raises Disconnected, EOFError."""
        if isinstance(self.socket, ssl.SSLSocket):
            self.send(lead)
            self._send_blocks(file)
        else:
            self._sendfile(file, lead)

    def expire(self) -> None:
        """End the connection, as its deadline has passed; never blocks."""
        if self.phase is Phase.HEAD and self.incoming.buffer:
            with suppress(OSError):
                self.socket.send(plain_response(HTTPStatus.REQUEST_TIMEOUT, _TOO_LATE))
        self.close()

    def abort(self) -> None:
        """Make every call that waits for this client fail; from any thread."""
        with suppress(OSError):
            # Not SSLSocket.shutdown, which takes the TLS state away from its user.
            _Socket.shutdown(self.socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket; over TLS say so, that the client knows nothing is missing."""
        self.server.open_connections.discard(self)
        self._say_goodbye()
        self.socket.close()

    def _advance(self) -> None:
        self.socket.setblocking(False)
        if self.phase is Phase.HANDSHAKE:
            self._handshake()
        while self.phase is Phase.HEAD:
            try:
                end = self._receive_head()
                self.socket.setblocking(True)
                self._serve(end)
            except head.BadRequest as error:
                self.socket.setblocking(True)
                self._refuse(error)
            self.socket.setblocking(False)
        if self.phase is Phase.LINGER:
            self._throw_away()

    def _handshake(self) -> None:
        assert isinstance(self.socket, ssl.SSLSocket)
        if time.monotonic() > self.deadline:
            raise Disconnected("the handshake took too long")
        try:
            self.socket.do_handshake()
        except ssl.SSLError as error:
            if error.reason == "HTTP_REQUEST":
                answer = plain_response(HTTPStatus.BAD_REQUEST, "only HTTPS is spoken here")
                _Socket.send(self.socket, answer)
            raise
        self.phase = Phase.HEAD

    def _receive_head(self) -> int:
        """Where the next request's head ends; raises BlockingIOError until all has arrived."""
        buffer = self.incoming.buffer
        while not (end := self._find_head(buffer)):
            block = self.socket.recv(_HEAD_BLOCK)
            if not block:
                raise Disconnected("closed by the client")
            buffer += block
            # Not only the selector looks at deadlines: it never meets who always sends a bit.
            if self._begun and time.monotonic() > self.deadline:
                raise head.BadRequest(_TOO_LATE, HTTPStatus.REQUEST_TIMEOUT)
            if not self._begun:
                self._begun = True
                self.deadline = time.monotonic() + self.server.limits.header_seconds
        return end

    def _find_head(self, buffer: bytearray) -> int:
        if buffer.startswith(b"\r\n"):  # RFC 9112 §2.2
            del buffer[:2]
            self._scanned = 0
        end = head.find_end(buffer, self._scanned, self.server.limits)
        self._scanned = 0 if end else len(buffer)
        return end

    def _serve(self, end: int) -> None:
        """Answer the request whose head ends there; raises BadRequest, Disconnected."""
        parsed = head.parse(bytes(self.incoming.buffer[:end]), self.server.limits)
        self.incoming.take(end)
        request = Request(self.server, self, parsed)
        request.respond()
        if not request.close_connection:
            self._keep(request)
        elif request.rfile.finished:
            self.phase = Phase.DONE
        else:
            self._linger()

    def _keep(self, request: Request) -> None:
        try:
            request.rfile.discard()
        except IncompleteUpload as error:
            raise Disconnected(error.reason) from error
        self._begun = bool(self.incoming.buffer)
        limits = self.server.limits
        seconds = limits.header_seconds if self._begun else limits.idle_seconds
        self.deadline = time.monotonic() + seconds

    def _refuse(self, error: head.BadRequest) -> None:
        with_body = not self.incoming.buffer.startswith(b"HEAD ")
        self.send(plain_response(error.status, error.reason, with_body=with_body))
        self._linger()

    def _linger(self) -> None:
        """Say that nothing more follows, but let the client finish (RFC 9112 §9.6).

        Closing at once would send a reset, and the client lose the response that says why.
        """
        self._say_goodbye()
        _Socket.shutdown(self.socket, socket.SHUT_WR)
        self.phase = Phase.LINGER
        self.deadline = time.monotonic() + self.server.limits.linger_seconds

    def _throw_away(self) -> None:
        scratch = bytearray(_HEAD_BLOCK)
        while time.monotonic() < self.deadline:
            if not _Socket.recv_into(self.socket, scratch):
                return

    def _say_goodbye(self) -> None:
        if isinstance(self.socket, ssl.SSLSocket):
            with suppress(OSError, ValueError):
                self.socket.setblocking(False)
                self.socket.unwrap()

    def _receive(self, view: memoryview) -> int:
        try:
            return self.socket.recv_into(view)
        except OSError as error:
            raise _disconnected(error) from error

    def _sendfile(self, file: FileRange, lead: bytes) -> None:
        offset, end = file.offset, file.offset + file.size
        try:
            self.socket.sendall(lead, socket.MSG_MORE if file.size else 0)
            while offset < end:
                count = os.sendfile(self.socket.fileno(), file.fd, offset, end - offset)
                if not count:
                    raise EOFError("the file is shorter than the range to send")
                offset += count
        except OSError as error:
            if error.errno in _DISK_ERRORS:
                raise
            raise _disconnected(error) from error

    def _send_blocks(self, file: FileRange) -> None:
        offset, end = file.offset, file.offset + file.size
        block = memoryview(bytearray(min(BLOCK, file.size)))
        while offset < end:
            count = os.preadv(file.fd, [block[: end - offset]], offset)
            if not count:
                raise EOFError("the file is shorter than the range to send")
            self.send(block[:count])
            offset += count


def _disconnected(error: OSError) -> Disconnected:
    return Disconnected("no progress for too long" if isinstance(error, _NOT_YET) else str(error))
