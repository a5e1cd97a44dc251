"""Reading an image in Ceph.

A reader is safe from several threads: librbd is, and it has no position.
"""

from __future__ import annotations

from typing import Any

from catalog.errors import DataChanged
from catalog.stores.rbd.bindings import ceph_errors
from catalog.stores.rbd.connection import Connection
from catalog.stores.rbd.images import OBJECT_SIZE


class RbdReader:
    """An image, open at a snapshot.  Safe from several threads."""

    def __init__(self, connection: Connection, url: str, image: Any) -> None:
        """Take over `image`.  Raises StoreUnavailable."""
        self._connection = connection
        self._url = url
        self._image = image
        with ceph_errors(url):
            try:
                self.size = int(image.size())
            except BaseException:
                image.close()  # Otherwise it stays open until the garbage collector comes.
                raise

    def read_at(self, offset: int, size: int) -> bytes:
        """The bytes `[offset, offset + size)`, cut at the end.

        Raises StoreUnavailable; DataChanged if the image may have been removed.
        """
        wanted = max(0, min(size, self.size - offset))
        if not wanted:
            return b""
        with ceph_errors(self._url):
            data: bytes = self._image.read(offset, wanted)
        if len(data) != wanted:
            raise DataChanged(self._url)
        if _has_empty_object(data, offset):
            self._check_held()
        return data

    def fileno(self) -> int | None:
        """None: there is no file."""
        return None

    def close(self) -> None:
        """Close the image; from then on it can be deleted."""
        image, self._image = self._image, None
        if image is not None:
            with ceph_errors(self._url):
                image.close()

    def _check_held(self) -> None:
        """Make sure that zeros were stored, and are not the rest of a deleted image.

        A process that slept for long has lost its watch.  Then another one may have deleted
        the image: its snapshot first, then its data.
        """
        with ceph_errors(self._url, missing=DataChanged):
            watching = {int(watcher["id"]) for watcher in self._image.watchers_list()}
        if self._connection.instance not in watching:
            raise DataChanged(self._url, "may have been deleted since it was opened")


def _has_empty_object(data: bytes, offset: int) -> bool:
    """Whether `data`, read at `offset`, has only zeros for at least one RADOS object."""
    start = 0
    while start < len(data):
        end = min(len(data), start + OBJECT_SIZE - (offset + start) % OBJECT_SIZE)
        if not data[start] and not data[start:end].lstrip(b"\0"):
            return True
        start = end
    return False
