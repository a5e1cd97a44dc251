"""Cleaning up one unfinished upload or copy whose process has ended."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from catalog.catalog import Catalog
from catalog.copies.progress import Notice
from catalog.copies.removal import delete_data
from catalog.errors import CatalogError
from catalog.model.activity import UploadRecord
from catalog.model.image import Image
from catalog.model.status import IN_PROGRESS
from catalog.model.tree import LocationState
from catalog.process import is_gone
from catalog.rules import presence, uploads
from catalog.stores.base import Store


def recover_if_dead(catalog: Catalog, image: Image) -> None:
    """Clean up an image's upload or copy if the process that its record names has ended."""
    with catalog.read() as repository:
        record = repository.upload(image.number)
        is_dead = record is not None and presence.ended(repository)(record.process)
    if record is not None and is_dead:
        give_up(catalog, record, reason_of(record))


def reason_of(record: UploadRecord) -> str:
    """The message of an image whose upload ended with its process."""
    process = record.process
    who = f"pid {process.pid} on {process.host}"
    if not is_gone(process):
        minutes = presence.SILENCE // timedelta(minutes=1)
        return f"the host that uploaded it ({who}) was not heard of for {minutes} minutes"
    return f"the process that uploaded it ({who}) is gone"


def give_up(catalog: Catalog, record: UploadRecord, reason: str) -> list[Image]:
    """Clean up after one upload or copy; return the image if that killed it."""
    with catalog.read() as repository:
        image = repository.image(record.image)
        locations = repository.locations_of(record.image)
    pending = [place for place in locations if place.state is LocationState.PENDING]
    killed = image.status in IN_PROGRESS
    try:
        if record.staged:
            Path(record.staged).unlink(missing_ok=True)
        for location in locations:
            # All locations: a repair, too, has a staging file, and its location is not pending.
            if location.store in catalog.stores:
                _clear_staging(catalog.stores[location.store], image.id)
        for location in pending:
            store = catalog.store(location.store)
            if killed:
                store.delete(store.url_of(image.id))
            else:
                delete_data(catalog, location)
    except (CatalogError, OSError):
        return []  # its record stays, for the next time
    for location in [] if killed else pending:
        Notice(catalog, image, location.store).fail("it was cut off")
    # The record goes last: a crash in between leaves it to be found again.
    uploads.fail_upload(catalog, image.number, reason)
    return [image] if killed else []


def _clear_staging(store: Store, image_id: str) -> None:
    """Remove an image's staging files in a store: it has no other upload that could own them."""
    folder = store.staging_folder()
    for file in folder.glob(f"{image_id}.*") if folder is not None else ():
        file.unlink(missing_ok=True)
