"""A new image with the data of another, in the same store (WebDAV's COPY).

Users: `vfs`.  Where the store can, no byte passes through this host.  The new image has
the old one's properties and an id of its own, and appears under its name in one step.
"""

from __future__ import annotations

from secrets import token_hex

from catalog.access import Principal
from catalog.catalog import Catalog, Rename
from catalog.errors import Conflict, NotSupported
from catalog.image import Entry, Image, Location, LocationState, Place, Saved
from catalog.process import this_process
from catalog.replicate import transfer
from catalog.status import HAS_DATA
from catalog.stores.base import Capability

_COPIED = ("disk_format", "container_format", "visibility", "min_disk", "min_ram", "os_hidden")


def duplicate(
    catalog: Catalog, source: Entry, target: Place, principal: Principal, *, replace: bool
) -> None:
    """Make a new image called `target` of an image in the same store.

    Raises Conflict for an image without data, NotSupported for an external one, and as
    `Catalog.rename` for the target.
    """
    image = source.image
    location = source.location
    if image.status not in HAS_DATA or location.state is not LocationState.ACTIVE:
        raise Conflict(image.name, f"is {image.status}: only an active image is copied")
    if Capability.EXTERNAL in catalog.store(location.store).capabilities:
        raise NotSupported(image.name, "is only a link to other data")
    place = Place(target.folder, f".{token_hex(8)}.copy")
    made = catalog.create(place, principal)
    number = made.image.number
    catalog.start_upload(number, this_process(), "")
    try:
        catalog.check_rename(place, target, principal, replace=replace)
        _copy_properties(catalog, image, number, principal)
        saved = _saved(catalog, image)
        url = _copy_data(catalog, image, location, made.image.id)
        rename = Rename(place, target, principal, replace)
        catalog.finish_upload(number, url, saved, rename)
    except BaseException as error:
        if catalog.fail_upload(number, f"the copy failed: {error}"):
            store = catalog.store(location.store)
            store.delete(store.url_of(made.image.id))
        catalog.to_trash(place, principal)
        raise


def _copy_data(catalog: Catalog, image: Image, location: Location, key: str) -> str:
    store = catalog.store(location.store)
    assert location.url is not None
    if Capability.COPY in store.capabilities:
        return store.copy(location.url, key)
    with catalog.read() as repository:
        chunks = repository.chunk_digests(image.number)
    return transfer(catalog, image, store, key, chunks)


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
    )


def _copy_properties(catalog: Catalog, image: Image, number: int, principal: Principal) -> None:
    with catalog.write() as repository:
        repository.set_image(number, **{name: getattr(image, name) for name in _COPIED})
        repository.set_properties(number, {**repository.properties(image.number)})
        repository.set_tags(number, repository.tags(image.number))
