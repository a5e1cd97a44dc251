"""One client's connection: collects the heads of requests without waiting, then serves them.

Threading: one thread at a time: a worker that gets the connection when there is something to read.
Between two such calls the connection is in the server's selector.  So no worker ever waits for a
handshake, for a head, or for the next request of a connection that is kept.
"""

from __future__ import annotations

import errno
import logging
import mmap
import os
import socket
import ssl
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from http import HTTPStatus

from cheroot.server import HTTPConnection

from web.exchange.body import Disconnected, FileRange, Incoming
from web.exchange.limits import Limits
from web.exchange.paths import BadRequest
from web.server import head
from web.server.pace import Pace
from web.server.request import Ending, Wire, plain_response

log = logging.getLogger(__name__)

BLOCK = 1024 * 1024
WINDOW = 64 * BLOCK
"""Bytes of a file that are mapped at once: they count as this process' memory."""
_HEAD_BLOCK = 16 * 1024
_TOO_LATE = "the request took too long"
_SHORT = "the file is shorter than the range to send"
_DISK_ERRORS = (errno.EIO, errno.ESTALE)
_RESET = struct.pack("ii", 1, 0)
_Socket = socket.socket
_NOT_YET = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


Answer = Callable[[head.Head, Wire], Ending]
"""Answers a request.  Raises Disconnected, or BadRequest if it has not sent anything yet."""


class Phase(Enum):
    """The state of a connection."""

    HANDSHAKE = "TLS is being agreed on"
    HEAD = "a request's head is expected or has begun"
    LINGER = "the last response is sent; what still arrives is thrown away"
    DONE = "none is expected"
    CUT = "the last response is not whole"


class Connection(HTTPConnection):
    """A TCP connection, with or without TLS.  At `deadline` the selector ends it."""

    socket: _Socket

    def __init__(
        self,
        sock: _Socket,
        address: tuple[str, int],
        limits: Limits,
        answer: Answer,
        closed: Callable[[Connection], object],
    ) -> None:
        """`answer` is called with each request, `closed` when the connection is being closed."""
        # Without cheroot's __init__, which would make the buffered files that this class
        # replaces.
        self.socket = sock
        self.remote_addr, self.remote_port = address
        self._limits = limits
        self._answer = answer
        self._closed = closed
        self.incoming = Incoming(self._receive, self.abort)
        self.phase = Phase.HANDSHAKE if isinstance(sock, ssl.SSLSocket) else Phase.HEAD
        self.deadline = time.monotonic() + limits.header_seconds
        self._pace = Pace(limits)
        self._begun = True
        self._scanned = 0
        # Time-outs of the kernel: they count only while nothing moves, and need no poll(2) for
        # each call.
        progress = struct.pack("ll", limits.transfer_seconds, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, progress)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, progress)

    def communicate(self) -> bool:
        """Do what is possible without waiting for the client; True if there is more to come."""
        try:
            self._advance()
        except _NOT_YET:
            return True
        except (Disconnected, OSError) as error:
            log.debug("%s: %s", self.remote_addr, error)
        return False

    def send(self, data: bytes | memoryview) -> None:
        """Send all of the data; raises Disconnected if the client does not receive it."""
        try:
            self._push(data)
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
                self.socket.send(
                    plain_response(HTTPStatus.REQUEST_TIMEOUT, _TOO_LATE, self.remote_addr)
                )
        self.close()

    def abort(self) -> None:
        """Make every call that waits for this client fail; from any thread."""
        with suppress(OSError):
            # Not SSLSocket.shutdown: that would drop the TLS state, which another thread may be
            # using.
            _Socket.shutdown(self.socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket; over TLS, say so first, as a proof that nothing is missing."""
        self._closed(self)
        if self.phase is Phase.CUT:
            # End with a reset: an HTTP/1.0 client takes an orderly end for the end of the data,
            # and would believe that it has everything.
            with suppress(OSError):
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        else:
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
            except BadRequest as error:
                # Look at the bytes themselves: the head could not be parsed.
                is_head = self.incoming.buffer.startswith(b"HEAD ")
                self._refuse(error, with_body=not is_head)
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
                reason = "only HTTPS is spoken here"
                answer = plain_response(HTTPStatus.BAD_REQUEST, reason, self.remote_addr)
                _Socket.send(self.socket, answer)
            raise
        self.phase = Phase.HEAD

    def _receive_head(self) -> int:
        """Where the next request's head ends; raises BlockingIOError while it is incomplete."""
        buffer = self.incoming.buffer
        while not (end := self._find_head(buffer)):
            block = self.socket.recv(_HEAD_BLOCK)
            if not block:
                raise Disconnected("closed by the client")
            buffer += block
            # Check the deadline here as well: a client that keeps sending single bytes is hardly
            # ever in the selector, which checks it otherwise.
            if self._begun and time.monotonic() > self.deadline:
                raise BadRequest(_TOO_LATE, HTTPStatus.REQUEST_TIMEOUT)
            if not self._begun:
                self._begun = True
                self.deadline = time.monotonic() + self._limits.header_seconds
        return end

    def _find_head(self, buffer: bytearray) -> int:
        if buffer.startswith(b"\r\n"):  # RFC 9112 §2.2
            del buffer[:2]
            self._scanned = 0
        end = head.find_end(buffer, self._scanned, self._limits)
        self._scanned = 0 if end else len(buffer)
        return end

    def _serve(self, end: int) -> None:
        """Answer the request whose head ends there; raises BadRequest, Disconnected."""
        parsed = head.parse(bytes(self.incoming.buffer[:end]), self._limits)
        self.incoming.take(end)
        self._pace = Pace(self._limits)
        try:
            ending = self._answer(parsed, self)
        except BadRequest as error:
            self._refuse(error, with_body=parsed.method != b"HEAD")
            return
        except Disconnected:
            self.phase = Phase.CUT
            raise
        match ending:
            case Ending.KEEP:
                self._keep()
            case Ending.CLOSE:
                self.phase = Phase.DONE
            case Ending.LINGER:
                self._linger()

    def _keep(self) -> None:
        self._begun = bool(self.incoming.buffer)
        limits = self._limits
        seconds = limits.header_seconds if self._begun else limits.idle_seconds
        self.deadline = time.monotonic() + seconds

    def _refuse(self, error: BadRequest, *, with_body: bool) -> None:
        # Without blocking, so that it holds no worker: the answer is short, and a client that
        # does not even receive that gets none.
        self.socket.setblocking(False)
        self.send(plain_response(error.status, error.reason, self.remote_addr, with_body=with_body))
        self._linger()

    def _linger(self) -> None:
        """End our side of the connection, but let the client finish sending (RFC 9112 §9.6).

        Closing at once would send a reset, by which the client can lose the response that it
        has not read yet.
        """
        self._say_goodbye()
        _Socket.shutdown(self.socket, socket.SHUT_WR)
        self.phase = Phase.LINGER
        self.deadline = time.monotonic() + self._limits.linger_seconds

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
        started = time.monotonic()
        try:
            count = self.socket.recv_into(view)
        except OSError as error:
            raise _disconnected(error) from error
        self._pace.count(count, time.monotonic() - started)
        return count

    def _push(self, data: bytes | memoryview, flags: int = 0) -> None:
        """Send everything and measure the pace; `sendall` would accept any progress."""
        with memoryview(data) as view:
            done = 0
            while done < len(view):
                started = time.monotonic()
                count = self.socket.send(view[done:], flags)
                self._pace.count(count, time.monotonic() - started)
                done += count

    def _sendfile(self, file: FileRange, lead: bytes) -> None:
        offset, end = file.offset, file.offset + file.size
        try:
            self._push(lead, socket.MSG_MORE if file.size else 0)
            while offset < end:
                window = min(WINDOW - offset % WINDOW, end - offset)
                if window >= BLOCK and _is_cached(file.fd, offset, window):
                    self._send_mapped(file.fd, offset, window)
                else:
                    self._send_spliced(file.fd, offset, window)
                offset += window
        except OSError as error:
            if error.errno == errno.EFAULT:
                raise EOFError(_SHORT) from error
            if error.errno in _DISK_ERRORS:
                raise
            raise _disconnected(error) from error

    def _send_mapped(self, fd: int, offset: int, size: int) -> None:
        """Send from the page cache: the kernel copies twice as fast as its sendfile does.

        Only the kernel reads the mapping.  If the file is cut off meanwhile, it returns EFAULT,
        where a read of ours would be killed by SIGBUS.
        """
        start = offset - offset % mmap.ALLOCATIONGRANULARITY
        if os.fstat(fd).st_size < offset + size:
            raise EOFError(_SHORT)
        lead = offset - start
        with (
            mmap.mmap(fd, lead + size, prot=mmap.PROT_READ, offset=start) as mapping,
            memoryview(mapping) as view,
        ):
            for at in range(lead, lead + size, BLOCK):
                # Released before the mapping is closed, also after a failure: mmap refuses to
                # close while a view of it exists.
                with view[at : min(at + BLOCK, lead + size)] as block:
                    self._push(block)

    def _send_spliced(self, fd: int, offset: int, size: int) -> None:
        """Send from the disk with sendfile, which reads ahead best."""
        end = offset + size
        while offset < end:
            started = time.monotonic()
            count = os.sendfile(self.socket.fileno(), fd, offset, end - offset)
            self._pace.count(count, time.monotonic() - started)
            if not count:
                raise EOFError(_SHORT)
            offset += count

    def _send_blocks(self, file: FileRange) -> None:
        offset, end = file.offset, file.offset + file.size
        block = memoryview(bytearray(min(BLOCK, file.size)))
        while offset < end:
            count = os.preadv(file.fd, [block[: end - offset]], offset)
            if not count:
                raise EOFError(_SHORT)
            self.send(block[:count])
            offset += count


def _is_cached(fd: int, offset: int, size: int) -> bool:
    """Whether a range of a file is probably in memory: its first and its last byte are."""
    try:
        return all(
            os.preadv(fd, [bytearray(1)], at, os.RWF_NOWAIT) for at in (offset, offset + size - 1)
        )
    except OSError:  # EAGAIN, or a file system without RWF_NOWAIT
        return False


def _disconnected(error: OSError) -> Disconnected:
    return Disconnected("no progress for too long" if isinstance(error, _NOT_YET) else str(error))
