"""Writes an image to Ceph under a temporary name and renames it to its key at commit.

A writer is used by one thread at a time.

A few requests are in flight at the same time, and zeros are not written.  If the process dies,
the image stays under its temporary name, so that nobody takes it for an object; its watch in
Ceph ends after half a minute, and then it can be removed.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from catalog.errors import CatalogError, InvalidImage, StoreUnavailable
from catalog.stores.base import Check
from catalog.stores.os_errors import os_errors
from catalog.stores.rbd.bindings import ceph_error, ceph_errors
from catalog.stores.rbd.connection import Connection
from catalog.stores.rbd.images import (
    OBJECT_SIZE,
    RbdKind,
    create,
    open_image,
    own_name,
    publish,
    remove,
    seal,
)
from catalog.stores.sparse import data_ranges

_IN_FLIGHT = 4
"""Requests of up to OBJECT_SIZE bytes each.  They are the memory of a writer, and write three
times as fast as one at a time."""

_GROWTH = 1 << 30
"""Bytes by which an image of unknown size grows; `commit` cuts off the rest."""

_GRAIN = 1 << 16
"""Bytes.  Aligned blocks of this size that are all zeros are not written.  An OSD on a hard disk
allocates that much in any case, so that smaller blocks would save nothing."""

_ZEROS = bytes(_GRAIN)

_MAGIC = {
    0: {
        b"QFI\xfb": "qcow2",
        b"QED\0": "qed",
        b"KDMV": "vmdk",
        b"COWD": "vmdk",
        b"# Disk DescriptorFile": "vmdk",
        b"vhdxfile": "vhdx",
        b"conectix": "vpc",
        b"WithoutFreeSpace": "parallels",
        b"WithouFreSpacExt": "parallels",
    },
    64: {b"\x7f\x10\xda\xbe": "vdi"},
}
"""Offset -> magic number at that offset -> format."""


def format_of(head: bytes) -> str:
    """The disk format by the first bytes of an image; `raw` if they match no format."""
    for offset, formats in _MAGIC.items():
        for magic, name in formats.items():
            if head.startswith(magic, offset):
                return name
    return "raw"


def nonzero_ranges(data: bytes) -> Iterator[tuple[int, int]]:
    """The half-open ranges of `data` to write: whole grains, joined where they meet."""
    start = None
    for at in range(0, len(data), _GRAIN):
        grain = data[at : at + _GRAIN]
        if grain == _ZEROS[: len(grain)]:
            if start is not None:
                yield start, at
            start = None
        elif start is None:
            start = at
    if start is not None:
        yield start, len(data)


class RbdWriter:
    """An image under a name of our own that `commit` renames to its key."""

    def __init__(
        self, connection: Connection, key: str, url: str, size: int | None, *, raw_only: bool
    ) -> None:
        """Make the image; `size` in bytes if it is known.  Raises StoreFull, StoreUnavailable."""
        self._connection = connection
        self._key = key
        self._url = url
        self._raw_only = raw_only
        self._length = size or 0
        """Bytes that the image has now."""
        self._end = 0
        """Bytes that were written to it."""
        self._block = bytearray()
        """The bytes behind `_end`, until they fill an object."""
        self._pending: deque[Any] = deque()
        self._image: Any = None
        self._name = self._make()
        """The image's name; empty when it is not ours any more."""
        try:
            self._image = open_image(connection, self._name)
        except BaseException:
            self.cancel()
            raise

    def write(self, data: bytes | memoryview) -> None:
        """Append `data`.

        Raises StoreFull, StoreUnavailable; InvalidImage for a format that is refused.
        """
        rest = memoryview(data).cast("B")
        while rest:
            room = OBJECT_SIZE - len(self._block)
            self._block += rest[:room]
            rest = rest[room:]
            if len(self._block) == OBJECT_SIZE:
                self._put_block()

    def send(self, staged: Path, ready: int, check: Check) -> int:
        """Begin to write the next RADOS object of a file that still grows."""
        check()
        if ready - self._end >= OBJECT_SIZE:
            with _opened(staged) as fd:
                self._append(_read(str(staged), fd, self._end, OBJECT_SIZE))
        return self._end

    def take(self, staged: Path) -> None:
        """Copy the rest of a staged file, without its holes.  Raises as `write`."""
        with _opened(staged) as fd:
            with os_errors(str(staged)):
                size = os.fstat(fd).st_size
            self._grow(size)
            for offset, length in _data_blocks(str(staged), fd, range(self._end, size)):
                self._put(offset, _read(str(staged), fd, offset, length))
        self._end = size

    def commit(self) -> str:
        """Wait for all requests, make the snapshot, rename the image; return the url.

        Raises StoreFull, StoreUnavailable, InvalidImage.
        """
        try:
            if self._block:
                self._put_block()
            self._wait(0)
            self._finish()
            self._publish()
            # Only now: until it is published `cancel` has to remove the image.
            self._name = ""
        finally:
            self.cancel()
        return self._url

    def cancel(self) -> None:
        """Remove the image.  If the cluster does not answer, `delete` or fsck removes it later."""
        self._block.clear()
        self._pending.clear()
        if self._image is not None:
            with suppress(CatalogError), ceph_errors(self._url):
                self._image.close()
            self._image = None
        if self._name:
            with suppress(CatalogError):
                self._remove()
            self._name = ""

    def _make(self) -> str:
        """Make the image, of `_length` bytes; return its name."""
        name = own_name(self._key, RbdKind.NEW)
        create(self._connection, name, self._length)
        return name

    def _publish(self) -> None:
        """Make the written image an object.  It is closed by now."""
        seal(self._connection, self._name)
        publish(self._connection, self._name, self._key)

    def _remove(self) -> None:
        """Remove the image, which is closed."""
        remove(self._connection, self._name)

    def _put_block(self) -> None:
        block = bytes(self._block)
        self._block.clear()
        self._append(block)

    def _append(self, block: bytes) -> None:
        if self._end + len(block) > self._length:
            self._grow(self._end + max(_GROWTH, len(block)))
        self._put(self._end, block)
        self._end += len(block)

    def _put(self, offset: int, data: bytes) -> None:
        """Begin to write the parts of `data` that are not zeros; it is at most one object."""
        if offset == 0 and self._raw_only and (found := format_of(data)) != "raw":
            raise InvalidImage(
                self._key,
                f"is {found}, and the store {self._connection.name} takes raw images, which can be"
                " cloned: convert it with 'qemu-img convert -O raw', or set raw_only = false",
            )
        for start, end in nonzero_ranges(data):
            self._wait(_IN_FLIGHT - 1)
            with ceph_errors(self._url):
                done = self._opened().aio_write(data[start:end], offset + start, _ignore)
            self._pending.append(done)

    def _wait(self, allowed: int) -> None:
        """Wait until at most `allowed` requests are in flight.  Raises the error of one of them."""
        while len(self._pending) > allowed:
            done = self._pending.popleft()
            done.wait_for_complete_and_cb()
            if (status := done.get_return_value()) < 0:
                raise ceph_error(self._url, -status, os.strerror(-status))

    def _grow(self, length: int) -> None:
        """Make the image at least `length` bytes long."""
        if length > self._length:
            self._resize(length)

    def _resize(self, length: int) -> None:
        with ceph_errors(self._url):
            self._opened().resize(length)
        self._length = length

    def _finish(self) -> None:
        if self._length != self._end:
            self._resize(self._end)
        image, self._image = self._opened(), None
        with ceph_errors(self._url):
            image.flush()
            image.close()

    def _opened(self) -> Any:
        if self._image is None:
            raise StoreUnavailable(self._url, "the upload to the store has ended")
        return self._image


@contextmanager
def _opened(staged: Path) -> Iterator[int]:
    with os_errors(str(staged)):
        fd = os.open(staged, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        yield fd
    finally:
        os.close(fd)


def _data_blocks(subject: str, fd: int, part: range) -> Iterator[tuple[int, int]]:
    """Offset and length of the data in a part of a file, without holes.

    Each lies inside one RADOS object.
    """
    with os_errors(subject):
        for begin, end in data_ranges(fd, part.stop):
            start = max(begin, part.start)
            while start < end:
                length = min(end, start - start % OBJECT_SIZE + OBJECT_SIZE) - start
                yield start, length
                start += length


def _read(subject: str, fd: int, offset: int, length: int) -> bytes:
    with os_errors(subject):
        data = os.pread(fd, length, offset)
    if len(data) != length:
        raise StoreUnavailable(subject, "the file was cut off while it was copied")
    return data


def _ignore(_completion: object) -> None:
    """The callback of a request: `_wait` waits for it instead."""
