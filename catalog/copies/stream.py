"""Reads an image's data in order, each chunk from a copy that has it right.

It goes past the block cache, from which one long copy would evict everything.  A few requests are
in flight at the same time: memory is limited to `_AHEAD` runs of `_RUN` bytes, for images of any
size.  Threading: one thread iterates, and a few others fetch.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress

from catalog.cache.chunks import Chunks
from catalog.cache.sources import Copy, Sources
from catalog.catalog import Catalog
from catalog.copies.locations import copies_to_read, report_damage
from catalog.copies.reader import open_image
from catalog.copies.recording import Recording
from catalog.errors import CatalogError, DataDamaged, StoreUnavailable
from catalog.model.access import ADMIN
from catalog.model.image import CHUNK_SIZE, Image
from catalog.stores.base import Store

_RUN = 4 << 20
_AHEAD = 4

_log = logging.getLogger(__name__)


def read_intact(
    catalog: Catalog, image: Image, start: int = 0
) -> Generator[bytes | memoryview, None, None]:
    """An image's bytes from `start` on, in order; a wrong chunk is read from another copy.

    `start` is the beginning of a chunk, or the end; 0 for an image without digests.

    A copy with a wrong chunk is marked as damaged.  An image without digests is read as it is,
    and its digests are recorded at the end.  Raises DataDamaged if no copy has a chunk right,
    DigestMismatch at the end of data that is not what was announced, StoreUnavailable if no copy
    answers.
    """
    with catalog.read() as repository:
        digests = repository.chunk_digests(image.number)
    if digests is None:
        yield from _read_unverified(catalog, image)
        return
    chunks = Chunks(image.id, image.size, digests)

    def locate() -> Sequence[Copy]:
        with catalog.read() as repository:
            return copies_to_read(catalog, repository, image.number)

    def report(bad: Copy, offset: int) -> None:
        _log.info("%s: %s: the chunk at offset %d is damaged", bad.store.name, image.id, offset)
        with suppress(CatalogError):
            report_damage(catalog, image, bad)

    source = Sources(image.name, chunks, locate, report)
    try:
        yield from _fetch(source, chunks, -(-start // digests.chunk_size))
    finally:
        source.close()


def compare(
    catalog: Catalog, image: Image, store: Store, url: str, advance: Callable[[], None]
) -> None:
    """Read back a copy that a store has made itself, and compare it with the image's digests.

    A store also copies damaged data, as it does not know our digests
    (docs/adr/0022-whatever-copies-compares.md).  `advance` is called for each chunk.  If the
    image has no digests only the size is compared.  Raises DataDamaged, NotFound,
    StoreUnavailable.
    """
    found = store.stat(url).size
    if found != image.size:
        reason = f"the copy in store {store.name} has {found} bytes instead of {image.size}"
        raise DataDamaged(image.name, min(found, image.size), reason)
    with catalog.read() as repository:
        digests = repository.chunk_digests(image.number)
    if digests is None:
        return
    chunks = Chunks(image.id, image.size, digests)
    copies = Sources(image.name, chunks, lambda: [Copy(store, url)], lambda _bad, _offset: None)
    try:
        with closing(_fetch(copies, chunks, 0)) as blocks:
            for _block in blocks:
                advance()
    finally:
        copies.close()


def _fetch(source: Sources, chunks: Chunks, begin: int) -> Generator[memoryview, None, None]:
    """Every chunk from `begin` on, in order; a few requests run ahead of the one being read."""
    step = max(1, _RUN // chunks.digests.chunk_size)
    firsts = iter(range(begin, chunks.count, step))
    flying: deque[Future[list[memoryview]]] = deque()

    def run(first: int) -> list[memoryview]:
        end = min(first + step, chunks.count)
        return [data for _index, data in source.fetch(first, end)]

    with ThreadPoolExecutor(_AHEAD, "copy") as pool:
        try:
            while True:
                for first in firsts:
                    flying.append(pool.submit(run, first))
                    if len(flying) == _AHEAD:
                        break
                if not flying:
                    return
                yield from flying.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _read_unverified(catalog: Catalog, image: Image) -> Iterator[bytes]:
    reader = open_image(catalog, image.number, ADMIN, record=False)
    try:
        if reader.size != image.size:
            reason = f"its copy has {reader.size} bytes instead of {image.size}"
            raise StoreUnavailable(image.name, reason)
        recording = Recording(catalog, image)
        for offset in range(0, reader.size, CHUNK_SIZE):
            data = bytes(reader.read_at(offset, CHUNK_SIZE))
            recording.update(data)
            yield data
        # Before the copy is complete: if other bytes were announced, or recorded by another reader,
        # this raises, and the copy is not made.
        recording.record()
    finally:
        reader.close()
