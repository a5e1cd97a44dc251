"""A store that keeps image data in this process: for tests.

Scope: everything that a store can do, except staging.  Safe from several threads: one lock
guards the objects.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, NonNegativeInt

from catalog.errors import NotFound, StoreFull
from catalog.stores.base import (
    Capability,
    LeavesNothing,
    NothingToMake,
    SendsNothingEarly,
    Stat,
    Usage,
    WithoutPolicy,
)


class MemoryStoreSettings(BaseModel):
    """`[stores.NAME]` with `type = "memory"`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["memory"] = "memory"
    capacity: NonNegativeInt | None = None
    """Bytes the store takes before it is full; None for no limit."""


class MemoryStore(WithoutPolicy, NothingToMake, LeavesNothing):
    """Objects in a dictionary, gone with the process."""

    capabilities = Capability.WRITE | Capability.COPY | Capability.LISTING

    def __init__(self, name: str, settings: MemoryStoreSettings) -> None:
        self.name = name
        self._capacity = settings.capacity
        self._lock = threading.Lock()
        self._objects: dict[str, tuple[bytes, str]] = {}
        self._quarantined: dict[str, tuple[bytes, str]] = {}
        self._etags = itertools.count(1)

    def check(self) -> None:
        """Memory always answers."""

    def open(self, url: str) -> MemoryReader:
        """Open an object to read.  Raises NotFound."""
        return MemoryReader(self._get(url)[0])

    def stat(self, url: str) -> Stat:
        """Size and etag.  Raises NotFound."""
        data, etag = self._get(url)
        return Stat(len(data), etag)

    def writer(self, key: str, size: int | None = None) -> MemoryWriter:
        """Start storing an object."""
        return MemoryWriter(self, key)

    def delete(self, url: str) -> None:
        """Remove the object, if it is there."""
        with self._lock:
            self._objects.pop(self._key_of(url), None)

    def copy(self, url: str, key: str) -> str:
        """Duplicate an object.  Raises NotFound, StoreFull."""
        return self.put(key, self._get(url)[0])

    def usage(self) -> Usage:
        """Total and free bytes of `capacity`."""
        if self._capacity is None:
            return Usage(None, None)
        with self._lock:
            return Usage(self._capacity, self._capacity - self._used())

    def url_of(self, key: str) -> str:
        """`memory://STORE/KEY`."""
        return f"memory://{self.name}/{key}"

    def keys(self) -> Iterator[str]:
        """All keys there are at this moment."""
        with self._lock:
            return iter(list(self._objects))

    def staging_folder(self) -> Path | None:
        """None: there is no local folder."""
        return None

    def quarantine(self, key: str) -> str:
        """Move an object out of sight.  Raises NotFound."""
        with self._lock:
            if key not in self._objects:
                raise NotFound(self.url_of(key))
            self._quarantined[key] = self._objects.pop(key)
        return f"memory://{self.name}/.quarantine/{key}"

    def close(self) -> None:
        """Nothing to release: the objects live as long as the store."""

    def put(self, key: str, data: bytes) -> str:
        """Make `data` the object of `key` in one step; return its url.  Raises StoreFull."""
        with self._lock:
            old = self._objects.get(key, (b"", ""))[0]
            if self._capacity is not None and self._used() - len(old) + len(data) > self._capacity:
                raise StoreFull(self.name)
            self._objects[key] = data, str(next(self._etags))
        return self.url_of(key)

    def _used(self) -> int:
        return sum(len(data) for data, _ in self._objects.values())

    def _get(self, url: str) -> tuple[bytes, str]:
        with self._lock:
            try:
                return self._objects[self._key_of(url)]
            except KeyError:
                raise NotFound(url) from None

    def _key_of(self, url: str) -> str:
        return url.removeprefix(self.url_of(""))


class MemoryReader:
    """An object's bytes as they were when it was opened."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def read_at(self, offset: int, size: int) -> bytes:
        """The bytes `[offset, offset + size)`, cut at the end."""
        return self._data[offset : offset + size]

    def fileno(self) -> int | None:
        """None: there is no file."""
        return None

    def close(self) -> None:
        """The bytes go with the reader."""


class MemoryWriter(SendsNothingEarly):
    """Collects an object until `commit`."""

    def __init__(self, store: MemoryStore, key: str) -> None:
        self._store = store
        self._key = key
        self._data = bytearray()

    def write(self, data: bytes | memoryview) -> None:
        """Append `data`; a full store is noticed by `commit`."""
        self._data += data

    def take(self, staged: Path) -> None:
        """Read a staged file."""
        self._data += staged.read_bytes()

    def commit(self) -> str:
        """Put the object into the store.  Raises StoreFull."""
        return self._store.put(self._key, bytes(self._data))

    def cancel(self) -> None:
        """Drop what was written."""
        self._data.clear()
