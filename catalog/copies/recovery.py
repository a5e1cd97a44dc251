"""Cleaning up after processes that have ended, when a program of this host starts."""

from __future__ import annotations

from collections.abc import Callable

from catalog.catalog import Catalog
from catalog.copies.progress import Notice
from catalog.copies.purge import finish_deletions
from catalog.copies.unfinished import give_up, reason_of
from catalog.model.activity import UploadRecord
from catalog.model.clock import now
from catalog.model.image import Image
from catalog.model.status import HAS_DATA
from catalog.model.tree import LocationState
from catalog.rules import presence
from catalog.rules.uploads import ABANDONED_AFTER
from catalog.stores.base import Capability


def recover(catalog: Catalog) -> list[Image]:
    """Clean up after processes of this host that have ended; return the images it killed.

    Their unfinished uploads become `killed`, with the reason; their staging files are
    removed.  Their unfinished copies are dropped.  Only a copy that a later process can
    continue stays, for a day.  Committed data is never touched.
    """
    return _recover(catalog, lambda record: not _can_go_on(catalog, record))


def give_up_dead(catalog: Catalog) -> list[Image]:
    """As `recover`, but also drop the copies that a later process could continue."""
    return _recover(catalog, lambda _record: True)


def _recover(catalog: Catalog, is_lost: Callable[[UploadRecord], bool]) -> list[Image]:
    with catalog.read() as repository:
        records = repository.uploads()
        holders = repository.lease_holders()
        services = repository.services()
        has_ended = presence.ended(repository)
    killed = []
    for record in records:
        if has_ended(record.process) and is_lost(record):
            killed += give_up(catalog, record, reason_of(record))
    for process in {process for process, _ in holders} | {each.process for each in services}:
        if has_ended(process):
            presence.leave(catalog, process)
    finish_deletions(catalog)
    return killed


def _can_go_on(catalog: Catalog, record: UploadRecord) -> bool:
    """Whether another process can continue this copy; if so, note it in the image's message."""
    with catalog.read() as repository:
        image = repository.image(record.image)
        locations = repository.locations_of(record.image)
    if image.status not in HAS_DATA or now() - record.heartbeat_at > ABANDONED_AFTER:
        return False
    for location in locations:
        store = catalog.stores.get(location.store)
        is_pending = location.state is LocationState.PENDING and store is not None
        if is_pending and Capability.RESUME in catalog.store(location.store).capabilities:
            Notice(catalog, image, location.store).fail("it was cut off, and goes on if repeated")
            return True
    return False
