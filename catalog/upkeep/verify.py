"""Reading an image's data and comparing it with the digests recorded at upload.

Scope: reads only, with three exceptions.  It records digests for an image that has none yet (an
external location); it marks damaged copies, so that they are read last; it records which images
the format gate accepts.  Threading: any thread; memory is one chunk, whatever the size of the
image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from catalog.cache.chunks import Chunks
from catalog.catalog import Catalog
from catalog.copies.external import unchanged
from catalog.copies.locations import set_damaged
from catalog.copies.progress import Progress, no_progress
from catalog.copies.reader import open_image
from catalog.copies.recording import Recording
from catalog.errors import CatalogError, DataDamaged, DigestMismatch, NotFound
from catalog.model import access
from catalog.model.access import Principal
from catalog.model.image import CHUNK_SIZE, ChunkDigests, Image
from catalog.model.tree import Location, LocationState
from catalog.rules.members import check_read
from catalog.stores.base import DataReader
from catalog.upkeep import judgement


class Verdict(StrEnum):
    """The result for one copy."""

    INTACT = "intact"
    DAMAGED = "damaged"
    UNVERIFIED = "unverified"
    """It has no digests yet, and only the image's owner records them."""
    RECORDED = "recorded"
    """It had no digests (an external location); those of the present data are recorded now."""
    UNREADABLE = "unreadable"
    REFUSED = "refused"
    """It is intact, but today's format gate refuses it, or finds a wrong format recorded."""
    REPAIRED = "repaired"
    """It was damaged or missing, and was written again from good copies."""


@dataclass(frozen=True, slots=True)
class BadChunk:
    """The bytes `[offset, offset + size)` are not what their digest says."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Verified:
    """One copy of an image, read back."""

    image: Image
    store: str
    verdict: Verdict
    detail: str = ""
    """The reason for any other verdict than `INTACT`."""
    bad_chunks: tuple[BadChunk, ...] = ()

    @property
    def is_bad(self) -> bool:
        return self.verdict in (Verdict.DAMAGED, Verdict.UNREADABLE, Verdict.REFUSED)


def verify(
    catalog: Catalog, image: Image, principal: Principal, *, progress: Progress = no_progress
) -> Iterator[Verified]:
    """Read every complete copy of an image; compare every chunk and the digest of the whole.

    Raises Forbidden, Deactivated.
    """
    with catalog.read() as repository:
        check_read(repository, image, principal)
        chunks = repository.chunk_digests(image.number)
        locations = repository.locations_of(image.number)
    for location in locations:
        if location.state is LocationState.ACTIVE and location.url is not None:
            try:
                if image.os_hash_value is not None:
                    yield _judged(
                        catalog, location, verify_copy(catalog, image, location, chunks, progress)
                    )
                elif access.owns(principal, image.owner):
                    yield _record_digests(catalog, image, location, progress)
                else:
                    detail = "it has no digests: its owner's verify records them"
                    yield Verified(image, location.store, Verdict.UNVERIFIED, detail)
            except CatalogError as error:
                if isinstance(error, NotFound):
                    set_damaged(catalog, location, True)
                yield Verified(image, location.store, Verdict.UNREADABLE, str(error))


def read_verified(catalog: Catalog, image: Image, principal: Principal) -> Iterator[bytes]:
    """An image's data in order, each part verified before it is handed out.

    An image without digests is read without verification.  Raises DataDamaged,
    DigestMismatch (at the end), and as `reader.open_image`.
    """
    with catalog.read() as repository:
        chunks = repository.chunk_digests(image.number)
    reader = open_image(catalog, image.number, principal)
    try:
        whole = _Whole(image)
        for offset, data, good in _read_chunks(reader, image, chunks):
            if not good:
                raise DataDamaged(image.name, offset)
            whole.update(data)
            yield data
        if problem := whole.problem(reader.size):
            raise DigestMismatch(image.name, problem)
    finally:
        reader.close()


def verify_copy(
    catalog: Catalog,
    image: Image,
    location: Location,
    chunks: ChunkDigests | None,
    progress: Progress = no_progress,
) -> Verified:
    """Read one complete copy back, and mark it if it is damaged.

    Raises NotFound, StoreUnavailable.
    """
    verified = _read_back(catalog, image, location, chunks, progress)
    set_damaged(catalog, location, verified.is_bad)
    return verified


def _judged(catalog: Catalog, location: Location, verified: Verified) -> Verified:
    """The result after the format gate's judgement; the gate sees intact copies only."""
    if verified.verdict is not Verdict.INTACT:
        return verified
    found = judgement.objection(catalog, verified.image, location)
    return replace(verified, verdict=Verdict.REFUSED, detail=found.told) if found else verified


def _read_back(
    catalog: Catalog,
    image: Image,
    location: Location,
    chunks: ChunkDigests | None,
    progress: Progress,
) -> Verified:
    assert location.url is not None
    reader = catalog.store(location.store).open(location.url)
    try:
        whole = _Whole(image)
        bad = []
        for offset, data, good in _read_chunks(reader, image, chunks):
            if not good:
                bad.append(BadChunk(offset, len(data)))
            whole.update(data)
            progress(len(data))
        problem = whole.problem(reader.size)
    finally:
        reader.close()
    if bad or problem:
        return Verified(image, location.store, Verdict.DAMAGED, problem, tuple(bad))
    return Verified(image, location.store, Verdict.INTACT)


def _record_digests(
    catalog: Catalog, image: Image, location: Location, progress: Progress
) -> Verified:
    assert location.url is not None
    recording = Recording(catalog, image)
    reader = catalog.store(location.store).open(location.url)
    try:
        if reader.size != image.size:
            detail = f"has {reader.size} bytes instead of {image.size}"
            return Verified(image, location.store, Verdict.DAMAGED, detail)
        judged = unchanged(reader, image, None)
        for _offset, data, _good in _read_chunks(judged, image, None):
            recording.update(data)
            progress(len(data))
        recorded = recording.record()
    except DigestMismatch as error:
        return Verified(image, location.store, Verdict.DAMAGED, error.reason)
    finally:
        reader.close()
    return Verified(image, location.store, Verdict.RECORDED, recorded)


def _read_chunks(
    reader: DataReader, image: Image, digests: ChunkDigests | None
) -> Iterator[tuple[int, bytes, bool]]:
    """Each chunk's offset, its bytes, and whether they are what their digest says."""
    chunks = Chunks(image.id, image.size, digests) if digests else None
    step = digests.chunk_size if digests else CHUNK_SIZE
    for index, offset in enumerate(range(0, reader.size, step)):
        data = bytes(reader.read_at(offset, step))
        yield offset, data, chunks is None or chunks.is_good(index, data)


class _Whole:
    """Checks the size and the digest of an image as a whole."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._hash = (
            hashlib.new(image.os_hash_algo, usedforsecurity=False) if image.os_hash_algo else None
        )

    def update(self, data: bytes) -> None:
        if self._hash is not None:
            self._hash.update(data)

    def problem(self, size: int) -> str:
        """What is wrong after all bytes; empty if nothing is."""
        if size != self._image.size:
            return f"has {size} bytes instead of {self._image.size}"
        if self._hash is not None and self._hash.hexdigest() != self._image.os_hash_value:
            return f"the {self._image.os_hash_algo} of the whole image is another"
        return ""
