"""Makes a new image with the data of another one, in the same store (WebDAV's COPY).

If the store can copy the data itself, the copy is read back and compared: no image becomes active
whose bytes do not match its digests.  The new image has the properties of the old one and its own
id, and appears under its name in one step.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from secrets import token_hex

from catalog.catalog import Catalog
from catalog.copies.removal import clear_failed, let_go
from catalog.copies.replicate import transfer
from catalog.copies.stream import compare
from catalog.errors import CatalogError, Conflict, DataDamaged, NotSupported, ReadOnlyStore
from catalog.model import access
from catalog.model.access import Principal
from catalog.model.image import Image, Saved
from catalog.model.status import HAS_DATA
from catalog.model.tree import Entry, Location, LocationState, Place
from catalog.process import this_process
from catalog.rules import entries, uploads
from catalog.rules.entries import Rename
from catalog.rules.members import check_read
from catalog.stores.base import Capability

_log = logging.getLogger(__name__)

_COPIED = ("disk_format", "container_format", "visibility", "min_disk", "min_ram", "os_hidden")


def duplicate(
    catalog: Catalog, source: Entry, target: Place, principal: Principal, *, replace: bool
) -> None:
    """Make a new image at `target` with the data of an image in the same store.

    Raises as `check_copy`, and as `Catalog.rename` for the target.
    """
    _check_source(catalog, source)
    image = source.image
    location = source.location
    place = Place(target.folder, f".{token_hex(8)}.copy")
    made = entries.create(catalog, place, principal, target=target, replace=replace)
    number = made.image.number
    uploads.start_upload(catalog, number, this_process(), "")
    try:
        _copy_properties(catalog, image, number, principal)
        saved = _saved(catalog, image)
        url = _copy_data(catalog, image, location, made.image.id)
        rename = Rename(place, target, principal, replace)
        gave_way = uploads.finish_upload(catalog, number, url, saved, rename)
    except BaseException as error:
        if uploads.fail_upload(catalog, number, f"the copy failed: {error}"):
            clear_failed(catalog.store(location.store), made.image.id)
        with suppress(CatalogError):
            entries.remove(catalog, place, principal)
        raise
    assert gave_way is not None
    let_go(catalog, gave_way)


def check_copy(catalog: Catalog, source: Entry, store: str, principal: Principal) -> None:
    """Raise the error with which a copy of the image to any place in a store would fail.

    Raises Forbidden, Deactivated, Conflict, NotSupported, ReadOnlyStore.
    """
    image = source.image
    check_read(catalog, image, principal)
    if store == source.store:
        _check_source(catalog, source)
        return
    access.check_change(principal, image)
    if image.status not in HAS_DATA:
        raise Conflict(image.name, f"is {image.status}: only an active image is copied")
    if Capability.WRITE not in catalog.store(store).capabilities:
        raise ReadOnlyStore(store)
    check_no_copy(catalog, image, store)


def check_no_copy(catalog: Catalog, image: Image, store: str) -> None:
    """Raise NotSupported when the store has a copy of the image already."""
    with catalog.read() as repository:
        entries = repository.entries_of(image.number)
    if any(entry.store == store for entry in entries):
        raise NotSupported(image.name, f"store {store} has this image already")


def _check_source(catalog: Catalog, source: Entry) -> None:
    image, location = source.image, source.location
    if image.status not in HAS_DATA or location.state is not LocationState.ACTIVE:
        raise Conflict(image.name, f"is {image.status}: only an active image is copied")
    if Capability.EXTERNAL in catalog.store(location.store).capabilities:
        raise NotSupported(image.name, "is only a link to other data")
    if image.os_hash_value is None:
        raise Conflict(image.name, "has no digests yet: 'imagefs verify' records them")


def _copy_data(catalog: Catalog, image: Image, location: Location, key: str) -> str:
    store = catalog.store(location.store)
    assert location.url is not None
    with catalog.read() as repository:
        is_damaged = location.number in repository.damaged(image.number)
    # A store would duplicate damaged data; another copy may have it right.
    if Capability.COPY in store.capabilities and not is_damaged:
        url = store.copy(location.url, key)
        try:
            compare(catalog, image, store, url, lambda: None)
        except DataDamaged as error:
            _log.info("%s: what store %s copies is damaged: %s", image.id, store.name, error)
        else:
            return url
    # The writer of `transfer` replaces what the store has copied.
    return transfer(catalog, image, store, key)


def _saved(catalog: Catalog, image: Image) -> Saved:
    with catalog.read() as repository:
        chunks = repository.chunk_digests(image.number)
    if chunks is None or image.os_hash_value is None or image.os_hash_algo is None:
        raise Conflict(image.name, "has no digests yet: 'imagefs verify' records them")
    return Saved(
        size=image.size,
        disk_format=image.disk_format or "raw",
        virtual_size=image.virtual_size or image.size,
        os_hash_algo=image.os_hash_algo,
        os_hash_value=image.os_hash_value,
        checksum=image.checksum,
        chunks=chunks,
        mtime=image.mtime,
        gate=image.gate,
    )


def _copy_properties(catalog: Catalog, image: Image, number: int, principal: Principal) -> None:
    with catalog.write() as repository:
        repository.set_image(number, **{name: getattr(image, name) for name in _COPIED})
        repository.set_properties(number, {**repository.properties(image.number)})
        repository.set_tags(number, repository.tags(image.number))
