"""Reads an image's chunks from its locations, one after the other, and verifies each chunk.

Copies are tried in the order of their stores' weights.  Copies that have just failed, or whose
store is known to be down, come last.  An object that has changed since it was opened is opened
again: only the digests decide whether its bytes are right.  Threading: any.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from catalog.cache.chunks import Chunks
from catalog.errors import (
    CatalogError,
    DataChanged,
    DataDamaged,
    Forbidden,
    NotFound,
    StoreUnavailable,
)
from catalog.stores.base import Data, DataReader, Store


@dataclass(frozen=True, slots=True)
class Copy:
    """One location of an image's data."""

    store: Store
    url: str
    is_damaged: bool = False
    """Whether it is known to have wrong chunks."""

    @property
    def is_down(self) -> bool:
        """Whether its store is known not to answer now."""
        return self.store.is_down(self.url)


_REST = 30.0
"""After a failure the other copies are asked first for this many seconds."""

Answer = TypeVar("Answer")

Locate = Callable[[], Sequence[Copy]]
"""Returns the copies that exist now; they may move while an image is open."""

Report = Callable[[Copy, int], None]
"""Called once for each wrong chunk of a copy, with the chunk's offset."""


class Sources:
    """The copies of one image."""

    def __init__(self, name: str, chunks: Chunks, locate: Locate, report: Report) -> None:
        """`name` is the image's, for errors."""
        self._name = name
        self._chunks = chunks
        self._locate = locate
        self._report = report
        self._lock = threading.Lock()
        self._sources: dict[tuple[str, str], _Source] = {}
        self.relocate()

    @property
    def store(self) -> str:
        """The name of the store that is read first."""
        ordered = self._ordered()
        return ordered[0].copy.store.name if ordered else ""

    def open(self) -> None:
        """Open the first copy that answers.  Raises StoreUnavailable."""
        self._first(_Source.opened)

    def read(self, offset: int, size: int) -> Data:
        """The bytes `[offset, offset + size)` of any copy, not verified.

        Raises StoreUnavailable if no copy answers.
        """
        return self._first(lambda source: source.read(offset, size))[1]

    def fetch(self, first: int, end: int) -> Iterator[tuple[int, memoryview]]:
        """The chunks `[first, end)` by one request: the index and the verified bytes of each.

        A wrong chunk is fetched once more, and then from the next copy.  Raises DataDamaged if
        no copy has it right, StoreUnavailable if no copy answers.
        """
        start, stop = self._chunks.span(first, end)
        source, data = self._first(lambda source: source.read(start, stop - start))
        view = memoryview(data)
        for index in range(first, end):
            begin, past = self._chunks.span(index, index + 1)
            part = view[begin - start : past - start]
            if not self._chunks.is_good(index, part):
                part = memoryview(self._fetch_again(index, source))
            yield index, part

    def is_suspect(self, index: int) -> bool:
        """Whether any copy is known to have this chunk wrong."""
        with self._lock:
            return any(source.has_bad(index) for source in self._sources.values())

    def relocate(self) -> bool:
        """Look up the copies again; return whether there are new ones."""
        found = {(copy.store.name, copy.url): copy for copy in self._locate()}
        with self._lock:
            before = self._sources
            self._sources = {
                key: before.get(key) or _Source(copy, self._chunks.size)
                for key, copy in found.items()
            }
            gone = [source for key, source in before.items() if key not in found]
        for source in gone:
            source.retire()
        return not found.keys() <= before.keys()

    def close(self) -> None:
        """Close the copies' readers; nobody reads any more."""
        for source in self._sources.values():
            source.close()

    def _ordered(self) -> list[_Source]:
        with self._lock:
            sources = list(self._sources.values())
        return sorted(sources, key=lambda s: (s.rests, s.is_bad, -s.copy.store.weight))

    def _first(self, ask: Callable[[_Source], Answer]) -> tuple[_Source, Answer]:
        """Ask the copies in turn; return the first that answers, and its answer."""
        failure: CatalogError | None = None
        for _attempt in range(2):
            for source in self._ordered():
                try:
                    return source, ask(source)
                except (NotFound, Forbidden, StoreUnavailable) as error:
                    source.failed_at = time.monotonic()
                    failure = error
            if not self.relocate():
                break
        raise StoreUnavailable(self._name, f"no copy can be read: {failure}") from failure

    def _fetch_again(self, index: int, suspect: _Source) -> Data:
        """A chunk for which `suspect` has just sent wrong bytes."""
        for source in [suspect, *(s for s in self._ordered() if s is not suspect)]:
            with suppress(NotFound, Forbidden, StoreUnavailable):
                # The bytes may have been damaged on the way: each copy has two attempts, the first
                # of `suspect` included.
                for _attempt in range(1 if source is suspect else 2):
                    start, end = self._chunks.span(index, index + 1)
                    data = source.read(start, end - start)
                    if self._chunks.is_good(index, data):
                        return data
                if source.note_bad(index):
                    self._report(source.copy, start)
        raise DataDamaged(self._name, self._chunks.span(index, index + 1)[0])


class _Source:
    """One copy; it is opened when it is first read."""

    def __init__(self, copy: Copy, size: int) -> None:
        self.copy = copy
        self._size = size
        self._lock = threading.Lock()
        self._reader: DataReader | None = None
        self._retired: list[DataReader] = []
        self._bad: set[int] = set()
        self.failed_at = -_REST

    @property
    def rests(self) -> bool:
        """Whether other copies are asked first: this one has just failed, or its store is down."""
        return self.copy.is_down or time.monotonic() < self.failed_at + _REST

    @property
    def is_bad(self) -> bool:
        """Whether it is known to have a wrong chunk."""
        return self.copy.is_damaged or bool(self._bad)

    def has_bad(self, index: int) -> bool:
        """Whether a chunk is known to be wrong."""
        return index in self._bad

    def note_bad(self, index: int) -> bool:
        """Note a wrong chunk; return False if it was known before."""
        with self._lock:
            is_new = index not in self._bad
            self._bad.add(index)
            return is_new

    def opened(self) -> DataReader:
        """The open copy.  Raises NotFound, StoreUnavailable, Forbidden."""
        with self._lock:
            if self._reader is None:
                reader = self.copy.store.open(self.copy.url)
                if reader.size != self._size:
                    reader.close()
                    reason = f"has {reader.size} bytes instead of {self._size}"
                    raise StoreUnavailable(self.copy.store.name, f"its copy {reason}")
                self._reader = reader
            return self._reader

    def read(self, offset: int, size: int) -> Data:
        """The bytes `[offset, offset + size)`, not verified.  Raises as `opened`."""
        reader = self.opened()
        try:
            return reader.read_at(offset, size)
        except DataChanged:
            self._forget(reader)
            return self.opened().read_at(offset, size)

    def retire(self) -> None:
        """Note that the catalog has no such copy any more.

        Its reader stays open until `close`: another thread may be reading from it.
        """
        with self._lock:
            if self._reader is not None:
                self._retired.append(self._reader)
                self._reader = None

    def close(self) -> None:
        """Close all readers."""
        self.retire()
        for reader in self._retired:
            reader.close()

    def _forget(self, reader: DataReader) -> None:
        with self._lock:
            if self._reader is reader:
                self._retired.append(reader)
                self._reader = None
