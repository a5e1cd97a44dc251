"""Copying an image's data to another store, verified on the way (`ln`, `mv`).

Users: `vfs` and through it every frontend.  The copy is an entry only once it is
complete; until then a crash leaves a note that `deletion.recover` cleans up after.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from catalog.access import ADMIN, Principal
from catalog.catalog import Catalog
from catalog.deletion import delete_data
from catalog.errors import DataDamaged
from catalog.image import CHUNK_SIZE, ChunkDigests, Image, Place
from catalog.process import this_process
from catalog.reader import open_image
from catalog.stores.base import DataReader, DataWriter, Store

Progress = Callable[[int], None]
"""Called with the number of bytes just dealt with."""


def no_progress(_size: int) -> None:
    """For callers that show none."""


def replicate(
    catalog: Catalog,
    image: Image,
    store: str,
    place: Place,
    principal: Principal,
    *,
    progress: Progress = no_progress,
    replace: bool = False,
    instead_of: Place | None = None,
) -> None:
    """Copy an image to `store` and make the copy the entry `place`.

    `instead_of` is the entry of the copy to drop in the same step (a move).  Raises
    DataDamaged, AlreadyExists, Conflict, Forbidden, StoreFull, StoreUnavailable.
    """
    with catalog.read() as repository:
        chunks = repository.chunk_digests(image.number)
    location = catalog.start_copy(image.number, store, this_process())
    url = None
    try:
        url = transfer(catalog, image, catalog.store(store), image.id, chunks, progress)
        old = catalog.finish_copy(
            location, url, place, principal, replace=replace, instead_of=instead_of
        )
    except BaseException:
        if url is not None:
            catalog.store(store).delete(url)
        catalog.drop_copy(location)
        raise
    if old is not None:
        delete_data(catalog, old)


def transfer(
    catalog: Catalog,
    image: Image,
    target: Store,
    key: str,
    chunks: ChunkDigests | None,
    progress: Progress = no_progress,
) -> str:
    """Copy an image's data to a store under a key, verified; return its url there."""
    reader = open_image(catalog, image.number, ADMIN)
    try:
        writer = target.writer(key, reader.size)
        try:
            _transfer(image, reader, writer, chunks, progress)
            return writer.commit()
        finally:
            writer.cancel()
    finally:
        reader.close()


def _transfer(
    image: Image,
    reader: DataReader,
    writer: DataWriter,
    chunks: ChunkDigests | None,
    progress: Progress,
) -> None:
    step = chunks.chunk_size if chunks else CHUNK_SIZE
    for index, offset in enumerate(range(0, reader.size, step)):
        data = reader.read_at(offset, step)
        if chunks and hashlib.new(chunks.algo, data).digest() != chunks.digests[index]:
            raise DataDamaged(image.name, offset)
        writer.write(data)
        progress(len(data))
