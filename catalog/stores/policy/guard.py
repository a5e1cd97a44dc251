"""A store whose every request passes through a guard.

Scope: which calls are requests, and what a guard learns of them; the rule itself is in the
guard.  Calls that do not ask the server (`url_of`, `staging_folder`, `fileno`) are passed on.
Threading: as the store beneath; a guard is called from many threads at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol, TypeVar

from catalog.stores.base import (
    Advising,
    Check,
    Data,
    DataReader,
    DataWriter,
    IsGood,
    Marked,
    Reaching,
    Resuming,
    Stat,
    Store,
    Streaming,
    Usage,
)
from catalog.stores.os_errors import os_errors

Result = TypeVar("Result")


class Operation(StrEnum):
    """The requests to a store: methods of `base.Store`, its readers and its writers."""

    CHECK = "check"
    OPEN = "open"
    STAT = "stat"
    READ = "read"
    WRITER = "writer"
    WRITE = "write"
    SEND = "send"
    TAKE = "take"
    COMMIT = "commit"
    DELETE = "delete"
    COPY = "copy"
    USAGE = "usage"
    QUARANTINE = "quarantine"


@dataclass(frozen=True, slots=True)
class Request:
    """One call of a store."""

    operation: Operation
    store: str
    subject: str
    """The url or key of the object; the store's name if the call is about no object."""
    size: int = 0
    """Bytes of data that go over the wire; 0 if it is not known beforehand."""


class Guard(Protocol):
    """One rule: it decides when, how often and whether a request is made."""

    def run(self, request: Request, work: Callable[[], Result]) -> Result:
        """Make the request by calling `work`.  Raises what `work` raises, or `catalog.errors`."""


class GuardedStore:
    """A store around another one, with one guard."""

    def __init__(self, store: Store, guard: Guard) -> None:
        self.name = store.name
        self.capabilities = store.capabilities
        self.weight = store.weight
        self._store = store
        self._guard = guard

    def is_down(self, url: str) -> bool:
        return self._store.is_down(url)

    def initialize(self) -> None:
        self._store.initialize()

    def mark(self) -> str:
        store = self._store
        assert isinstance(store, Marked)
        return self._run(Operation.CHECK, self.name, store.mark)

    def expect(self, mark: str) -> None:
        assert isinstance(self._store, Marked)
        self._store.expect(mark)

    def check(self) -> None:
        self._run(Operation.CHECK, self.name, self._store.check)

    def open(self, url: str) -> DataReader:
        reader = self._run(Operation.OPEN, url, lambda: self._store.open(url))
        return GuardedReader(reader, self._guard, self.name, url)

    def stat(self, url: str) -> Stat:
        return self._run(Operation.STAT, url, lambda: self._store.stat(url))

    def writer(self, key: str, size: int | None = None) -> DataWriter:
        writer = self._run(Operation.WRITER, key, lambda: self._store.writer(key, size))
        return GuardedWriter(writer, self._guard, self.name, key)

    def resume(self, key: str, size: int, step: int, is_good: IsGood) -> tuple[DataWriter, int]:
        store = self._store
        assert isinstance(store, Resuming)
        writer, have = self._run(
            Operation.WRITER, key, lambda: store.resume(key, size, step, is_good)
        )
        return GuardedWriter(writer, self._guard, self.name, key), have

    def delete(self, url: str) -> None:
        self._run(Operation.DELETE, url, lambda: self._store.delete(url))

    def copy(self, url: str, key: str) -> str:
        return self._run(Operation.COPY, url, lambda: self._store.copy(url, key))

    def reaches(self, url: str) -> bool:
        return isinstance(self._store, Reaching) and self._store.reaches(url)

    def advice(self) -> Iterator[str]:
        return self._store.advice() if isinstance(self._store, Advising) else iter(())

    def stream(self, url: str) -> tuple[int | None, Iterator[bytes]]:
        store = self._store
        assert isinstance(store, Streaming)
        return self._run(Operation.OPEN, url, lambda: store.stream(url))

    def usage(self) -> Usage:
        return self._run(Operation.USAGE, self.name, self._store.usage)

    def url_of(self, key: str) -> str:
        return self._store.url_of(key)

    def keys(self) -> Iterator[str]:
        return self._store.keys()

    def staging_folder(self) -> Path | None:
        return self._store.staging_folder()

    def quarantine(self, key: str) -> str:
        return self._run(Operation.QUARANTINE, key, lambda: self._store.quarantine(key))

    def leftovers(self, older_than: float) -> Iterator[str]:
        return self._store.leftovers(older_than)

    def drop_leftover(self, name: str) -> None:
        self._run(Operation.DELETE, name, lambda: self._store.drop_leftover(name))

    def close(self) -> None:
        self._store.close()

    def _run(self, operation: Operation, subject: str, work: Callable[[], Result]) -> Result:
        return self._guard.run(Request(operation, self.name, subject), work)


class GuardedReader:
    """An open object; each `read_at` is a request."""

    def __init__(self, reader: DataReader, guard: Guard, store: str, url: str) -> None:
        self.size = reader.size
        self._reader = reader
        self._guard = guard
        self._store = store
        self._url = url

    def read_at(self, offset: int, size: int) -> Data:
        wanted = max(0, min(size, self.size - offset))
        request = Request(Operation.READ, self._store, self._url, wanted)
        return self._guard.run(request, lambda: self._reader.read_at(offset, size))

    def fileno(self) -> int | None:
        return self._reader.fileno()

    def close(self) -> None:
        self._reader.close()


class GuardedWriter:
    """An object being stored; each call that sends data is a request."""

    def __init__(self, writer: DataWriter, guard: Guard, store: str, key: str) -> None:
        self._writer = writer
        self._guard = guard
        self._store = store
        self._key = key

    def write(self, data: bytes | memoryview) -> None:
        self._run(Operation.WRITE, len(data), lambda: self._writer.write(data))

    def send(self, staged: Path, ready: int, check: Check) -> int:
        # Only the driver knows how many bytes go now, so that `take` counts the whole file.
        return self._run(Operation.SEND, 0, lambda: self._writer.send(staged, ready, check))

    def take(self, staged: Path) -> None:
        with os_errors(str(staged)):
            size = staged.stat().st_size
        self._run(Operation.TAKE, size, lambda: self._writer.take(staged))

    def commit(self) -> str:
        return self._run(Operation.COMMIT, 0, self._writer.commit)

    def cancel(self) -> None:
        self._writer.cancel()

    def _run(self, operation: Operation, size: int, work: Callable[[], Result]) -> Result:
        return self._guard.run(Request(operation, self._store, self._key, size), work)
