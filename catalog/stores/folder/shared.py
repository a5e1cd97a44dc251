"""A folder on a server (NFS) that may hang: nobody waits for it longer than is set.

This goes around a filesystem store that has `io_timeout`.  Threading: as any store.

A system call on a file whose server is gone waits in the kernel.  On a hard mount it waits for
ever, and only a signal that ends the whole process interrupts it.  So each call is made with
`TimeLimits`: after the time-out the caller gets StoreUnavailable, and the thread ends when the
server is back.  The number of such threads is limited.  For the same reason readers show no
descriptor, because others would read from it without a limit, and uploads are not staged in the
folder.

An abandoned call may still do its work later.  A commit syncs the data first and makes the
rename a call of its own: if that call is late, the object that appears is whole, and fsck finds
it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from catalog.errors import StoreUnavailable
from catalog.stores.base import (
    Capability,
    IsGood,
    LeavesNothing,
    SendsNothingEarly,
    Stat,
    Store,
    Usage,
    WithoutPolicy,
)
from catalog.stores.folder.reader import FilesystemReader
from catalog.stores.folder.store import FilesystemStore, FilesystemStoreSettings
from catalog.stores.folder.time_limits import Result, TimeLimits
from catalog.stores.folder.writer import FilesystemWriter
from catalog.stores.os_errors import os_errors

_KEYS = 1000
"""Keys that are listed by one call."""


def open_folder(name: str, settings: FilesystemStoreSettings) -> Store:
    """The store of a folder: a local one as it is, one on a server with time limits."""
    store = FilesystemStore(name, settings)
    if settings.io_timeout is None:
        return store
    return SharedStore(store, TimeLimits(name, settings.io_timeout))


class SharedStore(WithoutPolicy, LeavesNothing):
    """A folder of a server."""

    capabilities = FilesystemStore.capabilities & ~Capability.STAGING

    def __init__(self, store: FilesystemStore, limits: TimeLimits) -> None:
        self.name = store.name
        self._store = store
        self._limits = limits

    def initialize(self) -> None:
        """Make the folder, and mark it."""
        self._limits.run(self._store.initialize)

    def mark(self) -> str:
        return self._limits.run(self._store.mark)

    def expect(self, mark: str) -> None:
        self._store.expect(mark)

    def check(self) -> None:
        self._limits.run(self._store.check)

    def open(self, url: str) -> SharedReader:
        reader = self._limits.run(lambda: self._store.open(url), on_late_result=_close)
        return SharedReader(reader, self._limits)

    def stat(self, url: str) -> Stat:
        return self._limits.run(lambda: self._store.stat(url))

    def writer(self, key: str, size: int | None = None) -> SharedWriter:
        writer = self._limits.run(lambda: self._store.writer(key, size), on_late_result=_cancel)
        return SharedWriter(writer, self._limits, key)

    def resume(self, key: str, size: int, step: int, is_good: IsGood) -> tuple[SharedWriter, int]:
        writer, have = self._limits.run(
            lambda: self._store.resume(key, size, step, is_good),
            size,
            on_late_result=lambda made: _cancel(made[0] if made else None),
        )
        return SharedWriter(writer, self._limits, key), have

    def delete(self, url: str) -> None:
        self._limits.run(lambda: self._store.delete(url))

    def copy(self, url: str, key: str) -> str:
        size = self.stat(url).size
        return self._limits.run(lambda: self._store.copy(url, key), size)

    def usage(self) -> Usage:
        return self._limits.run(self._store.usage)

    def url_of(self, key: str) -> str:
        return self._store.url_of(key)

    def keys(self) -> Iterator[str]:
        keys = self._store.keys()
        while some := self._limits.run(lambda: list(islice(keys, _KEYS))):
            yield from some

    def staging_folder(self) -> Path | None:
        """None: calls on a staged file have no time limit, and would hang with the server."""
        return None

    def quarantine(self, key: str) -> str:
        return self._limits.run(lambda: self._store.quarantine(key))

    def close(self) -> None:
        self._limits.close()


class SharedReader:
    """An open file of such a folder."""

    def __init__(self, reader: FilesystemReader, limits: TimeLimits) -> None:
        self.size = reader.size
        self._reader = reader
        self._limits = limits
        self._lock = threading.Lock()
        self._hanging = 0
        """Abandoned reads that have not ended yet."""
        self._is_closed = False

    def read_at(self, offset: int, size: int) -> bytes:
        wanted = max(0, min(size, self.size - offset))
        return self._limits.run(
            lambda: self._reader.read_at(offset, size),
            wanted,
            self._on_abandon,
            self._on_late_result,
        )

    def fileno(self) -> int | None:
        """None: whoever read from a descriptor would wait without a limit."""
        return None

    def close(self) -> None:
        """Close the file as soon as no read hangs in it.

        If the descriptor was closed earlier, its number could go to another file, and the
        hanging read would read from that.
        """
        with self._lock:
            self._is_closed = True
            is_idle = not self._hanging
        if is_idle:
            self._limits.later(self._reader.close)

    def _on_abandon(self) -> None:
        with self._lock:
            self._hanging += 1

    def _on_late_result(self, _data: bytes | None) -> None:
        with self._lock:
            self._hanging -= 1
            is_last = self._is_closed and not self._hanging
        if is_last:
            self._reader.close()


class SharedWriter(SendsNothingEarly):
    """An object being stored in such a folder.  After one call hung, every later one fails."""

    def __init__(self, writer: FilesystemWriter, limits: TimeLimits, key: str) -> None:
        self._writer = writer
        self._key = key
        self._limits = limits
        self._size = 0
        """Bytes that may still have to be flushed."""
        self._hangs = False

    def write(self, data: bytes | memoryview) -> None:
        # A copy: if the call is abandoned, the caller uses its buffer again while the call still
        # reads from it.
        block = bytes(data)
        self._run(lambda: self._writer.write(block), len(block))
        self._size += len(block)

    def take(self, staged: Path) -> None:
        with os_errors(str(staged)):
            size = staged.stat().st_size
        self._run(lambda: self._writer.take(staged), size)
        self._size += size

    def commit(self) -> str:
        # The slow part first, in a call of its own: only the rename may then come late.
        self._run(self._writer.sync, self._size)
        return self._run(self._writer.commit, 0)

    def cancel(self) -> None:
        """Drop what was written; if a call hangs, its thread does so when the call ends."""
        if not self._hangs:
            with suppress(StoreUnavailable):
                self._limits.run(self._writer.cancel, on_abandon=self._on_abandon)

    def _run(self, work: Callable[[], Result], size: int) -> Result:
        if self._hangs:
            raise StoreUnavailable(self._key, "its upload hangs in the store's folder")
        return self._limits.run(work, size, self._on_abandon, lambda _result: self._writer.cancel())

    def _on_abandon(self) -> None:
        self._hangs = True


def _close(reader: FilesystemReader | None) -> None:
    if reader is not None:
        reader.close()


def _cancel(writer: FilesystemWriter | None) -> None:
    if writer is not None:
        writer.cancel()
