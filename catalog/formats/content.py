"""The bytes of an image while it is judged: every read is checked against the file's size.

In a local file all tables are read.  An image that lies elsewhere (a URL, an object of a store) is
read by ranges, and only some of its many tables are.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from catalog.errors import InvalidImage

HEAD = 64 * 1024
"""Bytes of the beginning that are read at once; most formats have all headers there."""


class Source(Protocol):
    """A source of bytes, such as a store's DataReader."""

    size: int
    """Bytes of the whole source."""

    def read_at(self, offset: int, size: int) -> bytes | memoryview:
        """The bytes `[offset, offset + size)`, cut at the end."""


class LocalFile:
    """A file of this host as a Source.  Raises OSError."""

    def __init__(self, fd: int) -> None:
        self.size = os.fstat(fd).st_size
        self._fd = fd

    def read_at(self, offset: int, size: int) -> bytes:
        """The bytes `[offset, offset + size)`, cut at the end."""
        parts = []
        while size and (part := os.pread(self._fd, size, offset)):
            parts.append(part)
            offset, size = offset + len(part), size - len(part)
        return b"".join(parts)


@contextmanager
def opened(path: Path) -> Iterator[LocalFile]:
    """A file as a Source.  Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield LocalFile(fd)
    finally:
        os.close(fd)


class Content:
    """A Source whose reads are checked."""

    def __init__(self, source: Source, table_reads: int | None = None) -> None:
        """`table_reads` is the number of second-level tables that may be read; None for all."""
        self.size = source.size
        self.table_reads = table_reads
        self.stands_alone = False
        """Whether it is known that qemu opens no other file for this content."""
        self._source = source
        self._head = bytes(source.read_at(0, min(HEAD, source.size)))

    def at(self, offset: int, length: int) -> bytes:
        """The bytes `[offset, offset + length)`, cut at the end of the content."""
        length = min(length, self.size - offset)
        if length <= 0:
            return b""
        if offset + length <= len(self._head):
            return self._head[offset : offset + length]
        return bytes(self._source.read_at(offset, length))

    def exactly(self, offset: int, length: int, what: str) -> bytes:
        """The bytes `[offset, offset + length)`.  Raises InvalidImage if the file ends before."""
        self.check_inside(offset, length, what)
        data = self.at(offset, length)
        if len(data) != length:
            raise InvalidImage("", f"{what} cannot be read")
        return data

    def unpack(self, form: str, offset: int, what: str) -> tuple[Any, ...]:
        """Numbers at an offset, as struct.unpack.  Raises as `exactly`."""
        return struct.unpack(form, self.exactly(offset, struct.calcsize(form), what))

    def check_inside(self, offset: int, length: int, what: str) -> None:
        """Raise InvalidImage unless `[offset, offset + length)` lies in the file."""
        if offset < 0 or offset + length > self.size:
            raise cut_off(what, offset + length, self.size)


def cut_off(what: str, end: int, size: int) -> InvalidImage:
    """The error for a file that ends before something that its headers or tables name."""
    return InvalidImage(
        "",
        f"{what} ends at byte {end}, but the file has {size} bytes: it was cut off;"
        " copy it again, and compare its digest with its source's",
    )
