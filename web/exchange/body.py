"""Request bodies as `wsgi.input`, and files that are sent without copying.

Threading: one thread at a time works on a connection's objects.  No body is held in memory, except
by `Body.read`, which is bounded.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass

from catalog.errors import ImageTooLarge, IncompleteUpload

# Chunk extensions and trailers cost the client little and cost us work: limit their length.
CHUNK_LINE_LIMIT = 256
TRAILER_LIMIT = 8 * 1024
_BLOCK = 16 * 1024
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")


class Disconnected(Exception):
    """The client closed the connection, or made no progress for too long."""


@dataclass(frozen=True, slots=True)
class FileRange:
    """A file's bytes [offset, offset+size) as a response body (`environ.SEND`).

    The server closes it: `release` is called if there is one, else `fd` is closed.
    """

    fd: int
    offset: int
    size: int
    release: Callable[[], object] | None = None

    def close(self) -> None:
        """Release or close the file; to be called once."""
        if self.release is not None:
            self.release()
        else:
            os.close(self.fd)


class Incoming:
    """The bytes that arrive on a connection; `buffer` has those that nobody has used yet."""

    def __init__(
        self, receive: Callable[[memoryview], int], abort: Callable[[], object] | None = None
    ) -> None:
        """`receive` waits for bytes, puts them into the view, returns their number: 0 at the end.

        `abort` makes `receive` return at once; any thread may call it.
        """
        self._receive = receive
        self.abort = abort or (lambda: None)
        self.buffer = bytearray()

    def fill(self) -> None:
        """Wait for more bytes and add them to the buffer; raises Disconnected."""
        block = memoryview(bytearray(_BLOCK))
        count = self._receive(block)
        if not count:
            raise Disconnected("closed by the client")
        self.buffer += block[:count]

    def take(self, count: int) -> bytes:
        """Remove the first `count` bytes from the buffer."""
        taken = bytes(self.buffer[:count])
        del self.buffer[:count]
        return taken

    def readinto(self, view: memoryview) -> int:
        """Put the next bytes into the view, straight from the socket; raises Disconnected."""
        if self.buffer:
            taken = self.take(len(view))
            view[: len(taken)] = taken
            return len(taken)
        count = self._receive(view)
        if not count:
            raise Disconnected("closed by the client")
        return count

    def line(self, limit: int) -> bytes:
        """Read the next line, without its CR LF; raises IncompleteUpload, Disconnected."""
        while (end := self.buffer.find(b"\n", 0, limit + 2)) < 0:
            if len(self.buffer) >= limit + 2:
                raise _broken("a line of the chunked body is too long")
            self.fill()
        line = self.take(end + 1)
        if not line.endswith(b"\r\n"):
            raise _broken("a line of the chunked body does not end with CR LF")
        return line[:-2]


class Body:
    """A request's body.  `length` in bytes; None when it is chunked."""

    def __init__(
        self,
        incoming: Incoming,
        length: int | None,
        read_limit: int,
        invite: Callable[[], None] | None = None,
    ) -> None:
        """`invite` asks the client to send (100 Continue); called before the first read."""
        self.length = length
        self.finished = length == 0
        self.received = 0
        self.aborted = False
        self._incoming = incoming
        self._read_limit = read_limit
        self._invite = None if self.finished else invite
        self._in_chunk = 0
        self._first_chunk = True
        self._broken = ""

    def readinto(self, view: memoryview) -> int:
        """Put the next bytes into the view, at least one; 0 only at the end of the body.

        Raises IncompleteUpload when the client goes away, stalls, or breaks the framing.
        """
        if self.finished or not len(view):
            return 0
        if self._broken:
            raise _broken(self._broken)
        try:
            self._ask_client()
            count = self._read_known(view) if self.length is not None else self._read_chunked(view)
        except Disconnected as error:
            of_all = "" if self.length is None else f" of {self.length}"
            self._broken = f"{error} after {self.received}{of_all} bytes"
            raise _broken(self._broken) from error
        except IncompleteUpload as error:
            self._broken = error.reason
            raise
        self.received += count
        return count

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes, by default all; for small bodies.

        Raises ImageTooLarge when the body is larger than the limit, else as `readinto`.
        """
        room = self._read_limit - self.received
        if self.length is not None and self.length > self._read_limit:
            raise self._too_large()
        wanted = room + 1 if size < 0 else min(size, room + 1)
        data = bytearray()
        block = memoryview(bytearray(min(wanted, _BLOCK)))
        while len(data) < wanted:
            count = self.readinto(block[: wanted - len(data)])
            if not count:
                break
            data += block[:count]
        if len(data) > room:
            raise self._too_large()
        return bytes(data)

    def can_discard(self, limit: int) -> bool:
        """Whether the client is sending the rest already, and it is at most `limit` bytes."""
        if self.finished:
            return True
        left = None if self.length is None else self.length - self.received
        return left is not None and left <= limit and not self._broken and self._invite is None

    def discard(self) -> None:
        """Read and drop the rest, so that the next request can be read; raises IncompleteUpload."""
        block = memoryview(bytearray(_BLOCK))
        while self.readinto(block):
            pass

    def abort(self) -> None:
        """Cut the connection: a reader gets IncompleteUpload at once.  From any thread."""
        self.aborted = True
        self._incoming.abort()

    def _ask_client(self) -> None:
        if self._invite is not None:
            invite, self._invite = self._invite, None
            invite()

    def _read_known(self, view: memoryview) -> int:
        assert self.length is not None
        left = self.length - self.received
        count = self._incoming.readinto(view[:left])
        self.finished = count == left
        return count

    def _read_chunked(self, view: memoryview) -> int:
        """Fill the view from as many chunks as have arrived, so that tiny ones cost little."""
        done = 0
        while done < len(view) and not self.finished:
            # Stop rather than wait when at most the CR LF of the last chunk has arrived.
            if done and len(self._incoming.buffer) <= 2:
                break
            if not self._in_chunk:
                self._next_chunk()
                continue
            count = self._incoming.readinto(view[done : done + self._in_chunk])
            self._in_chunk -= count
            done += count
        return done

    def _next_chunk(self) -> None:
        """Read the next chunk's line (RFC 9112 §7.1).  Extensions and trailers are ignored."""
        if not self._first_chunk and self._incoming.line(0):
            raise _broken("a chunk is longer than its size")
        self._first_chunk = False
        match = _CHUNK_LINE.fullmatch(self._incoming.line(CHUNK_LINE_LIMIT))
        if not match:
            raise _broken("a chunk's size is malformed")
        self._in_chunk = int(match[1], 16)
        if self._in_chunk == 0:
            self._skip_trailers()
            self.finished = True

    def _skip_trailers(self) -> None:
        room = TRAILER_LIMIT
        while line := self._incoming.line(max(room, 0)):
            room -= len(line) + 2

    def _too_large(self) -> ImageTooLarge:
        return ImageTooLarge("", f"the request's body is larger than {self._read_limit} bytes")


def _broken(reason: str) -> IncompleteUpload:
    return IncompleteUpload("", reason)
