"""Records the digests of an image without digests when it is read as a whole for the first time.

Such an image is a link to a web server that nobody has read from end to end yet.  For a reader
that reads here and there this costs no more than `_AHEAD` bytes of memory.  Threading: a reader
may be used by several threads.
"""

from __future__ import annotations

import hashlib
import logging
import threading

from catalog.catalog import Catalog
from catalog.errors import CatalogError, DigestMismatch
from catalog.model.digests import ChunkDigester, hash_algorithm
from catalog.model.image import Image
from catalog.rules import fields
from catalog.stores.base import Data, DataReader

_AHEAD = 16 << 20
"""Bytes that are kept because they came out of order: the kernel's read-ahead sends several
requests at once."""

_log = logging.getLogger(__name__)


class Recording:
    """Computes the digests of an image's data, which is given in order."""

    def __init__(self, catalog: Catalog, image: Image) -> None:
        self._catalog = catalog
        self._image = image
        announced = image.expected_hash
        self._algo = hash_algorithm(announced) if announced else catalog.settings.os_hash_algo
        self._whole = hashlib.new(self._algo)
        self._chunks = ChunkDigester()
        self.size = 0
        """Bytes given so far."""

    def update(self, data: bytes | memoryview) -> None:
        """Give the next bytes."""
        self._whole.update(data)
        self._chunks.update(memoryview(data))
        self.size += len(data)

    def record(self) -> str:
        """Record the digests after the last byte; return `ALGO VALUE`.

        Raises DigestMismatch if another digest was announced, or if another reader has meanwhile
        recorded the digest of other bytes; CatalogUnavailable.
        """
        name, value = self._image.name, self._whole.hexdigest()
        announced = self._catalog.image(self._image.number).expected_hash
        if announced not in (None, value):
            told = f"the {self._algo} is {value}, but {announced} was announced"
            raise DigestMismatch(name, told)
        fields.record_digests(
            self._catalog, self._image.number, self._algo, value, self._chunks.value()
        )
        image = self._catalog.image(self._image.number)
        if (image.os_hash_algo, image.os_hash_value) not in ((self._algo, value), (None, None)):
            told = f"the {self._algo} is {value}: another reader has just found other data"
            raise DigestMismatch(name, told)
        return f"{self._algo} {value}"


class FirstReader:
    """A reader of an image without digests, which records them if the whole image is read."""

    def __init__(self, reader: DataReader, catalog: Catalog, image: Image) -> None:
        self.size = reader.size
        self._reader = reader
        self._name = image.name
        self._lock = threading.Lock()
        self._recording: Recording | None = Recording(catalog, image)
        """None when it is over: the digests are recorded, or the reads are not in order."""
        self._waiting: dict[int, Data] = {}
        """Offset -> bytes that came out of order."""

    def read_at(self, offset: int, size: int) -> Data:
        data = self._reader.read_at(offset, size)
        if data and self._recording is not None:
            with self._lock:
                self._follow(offset, data)
        return data

    def fileno(self) -> int | None:
        return self._reader.fileno()

    def close(self) -> None:
        self._reader.close()

    def _follow(self, offset: int, data: Data) -> None:
        recording = self._recording
        if recording is None or offset + len(data) <= recording.size:
            return
        if len(data) > len(self._waiting.get(offset, b"")):
            self._waiting[offset] = data
        while self._waiting and (first := min(self._waiting)) <= recording.size:
            recording.update(memoryview(self._waiting.pop(first))[recording.size - first :])
        if recording.size == self.size:
            self._record(recording)
        if recording.size == self.size or sum(map(len, self._waiting.values())) > _AHEAD:
            self._recording = None
            self._waiting.clear()

    def _record(self, recording: Recording) -> None:
        try:
            recording.record()
        except DigestMismatch as error:
            _log.warning("%s", error)
        except CatalogError as error:
            # The next reader that reads the whole image will try again.
            _log.info("%s: its digests could not be recorded: %s", self._name, error)
