"""Emptying the trash after `scrub_time`, and deleting old rows that nobody needs any more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from catalog.catalog import Catalog
from catalog.copies.purge import finish_deletions, purge
from catalog.copies.removal import LeftBehind
from catalog.copies.unfinished import give_up
from catalog.copies.uses import check_unneeded, check_unused
from catalog.errors import CatalogError, Conflict
from catalog.model import names
from catalog.model.access import ADMIN
from catalog.model.clock import now
from catalog.model.image import Image
from catalog.model.listings import ImageFilter
from catalog.model.status import Status
from catalog.model.tree import Place
from catalog.rules import entries, presence, replacing
from catalog.rules.uploads import ABANDONED_AFTER

KEEP_ROWS = timedelta(days=1)
"""How long the rows of deleted images, and old changes, stay."""


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """One image the scrubber has dealt with, or would."""

    image: Image
    problem: CatalogError | None = None
    """Why it stays for now."""
    left: tuple[LeftBehind, ...] = ()
    """Copies that their stores have not removed, although the image is deleted (`force`)."""


def scrub(catalog: Catalog, *, dry_run: bool = False, force: bool = False) -> Iterator[Scrubbed]:
    """Purge what has been in the trash for `scrub_time`, and forget old rows.

    An image that is in use, or was used lately, stays, and is reported with the reason.  A
    failure with one image does not stop the others.  With `force`, an image is deleted even
    if a store does not remove its copy.
    """
    before = now() - timedelta(seconds=catalog.settings.scrub_time)
    wanted = ImageFilter(statuses=frozenset({Status.PENDING_DELETE}), before=before)
    for image in catalog.all_images(wanted):
        left: list[LeftBehind] = []
        try:
            check_unused(catalog, image)
            check_unneeded(catalog, image)
            _check_not_needed(catalog, image)
            if not dry_run:
                left = purge(catalog, image, force=force)
        except CatalogError as error:
            yield Scrubbed(image, error)
        else:
            yield Scrubbed(image, left=tuple(left))
    if not dry_run:
        give_up_abandoned(catalog)
        finish_deletions(catalog)
        presence.trim(catalog, now() - KEEP_ROWS)


def _check_not_needed(catalog: Catalog, image: Image) -> None:
    """Raise Conflict for a replaced image that comes back if its replacement is not completed."""
    with catalog.read() as repository:
        if repository.is_needed(image.number):
            raise Conflict(image.name, "is kept until the image in its place is complete")


def give_up_abandoned(catalog: Catalog) -> None:
    """Kill uploads that nobody has worked on for a day, and remove entries they leave.

    Only entries with a temporary name are removed: an entry with an image's own name stays,
    as the killed image says why it failed.  An image that took the name of a deleted one
    and was never written gives the name back.
    """
    with catalog.read() as repository:
        records = repository.uploads()
    for record in records:
        if now() - record.heartbeat_at > ABANDONED_AFTER:
            give_up(catalog, record, "the upload was abandoned")
    with catalog.write() as repository:
        for number in repository.never_written(now() - ABANDONED_AFTER):
            replacing.give_back(repository, number, "it was never written")
    left = ImageFilter(statuses=frozenset({Status.KILLED, Status.QUEUED}))
    for image in catalog.all_images(left):
        if now() - image.updated_at <= ABANDONED_AFTER:
            continue
        with catalog.read() as repository:
            found = repository.entries_of(image.number)
        for entry in found:  # none, if its store is no longer configured
            if names.is_temporary(entry.name):
                entries.remove(catalog, Place(entry.folder, entry.name), ADMIN)
