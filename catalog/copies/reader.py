"""Opens an image's data to read, from the best copy that answers.

A copy in a folder of this host is read as it is.  Other copies are read through the block cache,
which verifies each chunk.  An image that has no digests yet is read as it is, and gets them from
whoever reads the whole of it first.  Threading: a reader may be used by several threads.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence, Set
from contextlib import suppress
from dataclasses import dataclass

from catalog.cache.boot_profile import BootProfile
from catalog.cache.chunks import Chunks
from catalog.cache.sources import Copy
from catalog.catalog import Catalog
from catalog.copies.external import unchanged
from catalog.copies.locations import copies_to_read, report_damage
from catalog.copies.recording import FirstReader
from catalog.errors import CatalogError, Conflict, ImageKilled, NotFound, StoreUnavailable
from catalog.model.access import Principal
from catalog.model.image import ChunkDigests, Image
from catalog.model.status import IN_PROGRESS, Status
from catalog.repository.database import Repository
from catalog.rules.members import check_read
from catalog.stores.base import Capability, DataReader

BOOT_PROFILE = "boot_profile"
"""The property with the image's boot profile (`cache.profile`)."""

_log = logging.getLogger(__name__)


def open_image(
    catalog: Catalog, number: int, principal: Principal, *, record: bool = True
) -> DataReader:
    """Open an image's data to read.  Raises as `opened`."""
    return opened(catalog, number, principal, record=record)[1]


def opened(
    catalog: Catalog, number: int, principal: Principal, *, record: bool = True
) -> tuple[Image, DataReader]:
    """An image, and a reader of its data.

    Without `record`, the caller records the digests of an image without digests itself.
    Raises NotFound, Forbidden, Deactivated, ImageKilled, Conflict (not saved yet),
    StoreUnavailable when no copy can be opened.
    """
    with catalog.read() as repository:
        found = readable(catalog, repository, number)
    return found.image, open_readable(catalog, found, principal, record=record)


@dataclass(frozen=True, slots=True)
class Readable:
    """Everything that is needed to read an image's data."""

    image: Image
    members: Set[str]
    copies: Sequence[Copy]
    chunks: ChunkDigests | None
    profile: str

    def members_of(self, _image: Image) -> Set[str]:
        """The image's members (`members.Members`)."""
        return self.members


def readable(catalog: Catalog, repository: Repository, number: int) -> Readable:
    """Read everything that is needed to read an image's data.  Raises NotFound."""
    image = repository.image(number)
    return Readable(
        image,
        repository.members_of(image),
        copies_to_read(catalog, repository, number),
        repository.chunk_digests(number),
        repository.properties(number).get(BOOT_PROFILE, ""),
    )


def open_readable(
    catalog: Catalog, found: Readable, principal: Principal, *, record: bool = True
) -> DataReader:
    """Open the data that `readable` has found.  Raises as `opened`, without NotFound."""
    image, chunks = found.image, found.chunks
    check_read(found, image, principal)
    _check_has_data(image)
    reader = _open_copy(catalog, image, found.copies, chunks, found.profile)
    records = chunks is None and record and not catalog.reads_only
    return FirstReader(reader, catalog, image) if records else reader


def _open_copy(
    catalog: Catalog,
    image: Image,
    found: Sequence[Copy],
    chunks: ChunkDigests | None,
    profile: str,
) -> DataReader:
    """Open the best copy that answers.  Raises StoreUnavailable."""
    copies = sorted(found, key=lambda copy: (copy.is_damaged, -copy.store.weight))
    failure: Exception = NotFound(image.name, "no configured store has all of it")
    for copy in copies:
        if chunks is not None and (
            copy.is_damaged or Capability.STAGING not in copy.store.capabilities
        ):
            return _open_cached(catalog, image, chunks, profile)
        try:
            reader = copy.store.open(copy.url)
        except (NotFound, StoreUnavailable) as error:
            failure = error
            continue
        if reader.size != image.size:
            reader.close()
            reason = f"has {reader.size} bytes instead of {image.size}"
            failure = StoreUnavailable(copy.store.name, reason)
            continue
        if chunks is None:
            try:
                return unchanged(reader, image)
            except CatalogError:
                reader.close()
                raise
        if reader.fileno() is not None:
            return reader
        reader.close()
        return _open_cached(catalog, image, chunks, profile)
    raise StoreUnavailable(image.name, f"no copy can be read: {failure}") from failure


def _open_cached(catalog: Catalog, image: Image, chunks: ChunkDigests, profile: str) -> DataReader:
    """Open the block cache over all copies of an image, each chunk verified."""

    def locate() -> Sequence[Copy]:
        with catalog.read() as repository:
            return copies_to_read(catalog, repository, image.number)

    def report(bad: Copy, offset: int) -> None:
        # Not its url: the url of an adopted copy may contain a credential.
        place = f"{bad.store.name}: {image.name} ({image.id})"
        _log.warning("%s: the chunk at offset %d is damaged", place, offset)
        with suppress(CatalogError):
            report_damage(catalog, image, bad)

    def save(text: str) -> None:
        if catalog.reads_only:
            return
        with suppress(CatalogError), catalog.write() as repository:
            repository.set_properties(image.number, {BOOT_PROFILE: text})

    return catalog.cache.open(
        image.name,
        Chunks(image.id, image.size, chunks),
        locate,
        report,
        BootProfile(profile, save),
    )


def _check_has_data(image: Image) -> None:
    status = image.status
    if status is Status.PENDING_DELETE and image.status_before_delete is not None:
        status = image.status_before_delete
    if status is Status.KILLED:
        raise ImageKilled(image.name, image.message)
    if status in IN_PROGRESS:
        raise Conflict(image.name, "is still being uploaded")
    if status is Status.QUEUED:
        raise Conflict(image.name, "has no data yet")
