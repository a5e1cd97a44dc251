"""An image that came without digests gets them when all of it is read for the first time.

Scope: a link to a web server, until somebody has read it from end to end; whoever reads here
and there costs it nothing more than `_AHEAD` bytes.  Threading: a reader may be used by several
threads.
"""

from __future__ import annotations

import hashlib
import logging
import threading

from catalog.attributes import hash_algorithm
from catalog.catalog import Catalog
from catalog.errors import CatalogError, DigestMismatch
from catalog.model.digests import ChunkDigester
from catalog.model.image import Image
from catalog.stores.base import Data, DataReader

_AHEAD = 16 << 20
"""Bytes kept of what came before its turn: the kernel reads ahead by several requests."""

_log = logging.getLogger(__name__)


class Recording:
    """The digests of an image's data, which is given from its beginning to its end."""

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
        """Record them, after the last byte; return `ALGO VALUE`.

        Raises DigestMismatch if another digest was announced, or recorded by another reader
        of other bytes meanwhile; CatalogUnavailable.
        """
        name, value = self._image.name, self._whole.hexdigest()
        announced = self._catalog.image(self._image.number).expected_hash
        if announced not in (None, value):
            told = f"the {self._algo} is {value}, but {announced} was announced"
            raise DigestMismatch(name, told)
        self._catalog.record_digests(self._image.number, self._algo, value, self._chunks.value())
        image = self._catalog.image(self._image.number)
        if (image.os_hash_algo, image.os_hash_value) not in ((self._algo, value), (None, None)):
            told = f"the {self._algo} is {value}: another reader has just found other data"
            raise DigestMismatch(name, told)
        return f"{self._algo} {value}"


class FirstReader:
    """A reader of an image without digests, which records them if it comes to know them."""

    def __init__(self, reader: DataReader, catalog: Catalog, image: Image) -> None:
        self.size = reader.size
        self._reader = reader
        self._name = image.name
        self._lock = threading.Lock()
        self._recording: Recording | None = Recording(catalog, image)
        """None once it is over: all is recorded, or it is not read in order."""
        self._waiting: dict[int, Data] = {}
        """Offset -> bytes that came before their turn."""

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
            # The next one that reads it all does it.
            _log.info("%s: its digests could not be recorded: %s", self._name, error)
