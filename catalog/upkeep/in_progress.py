"""Uploads and copies in progress in the whole catalog, on every host, and how to abort them.

Whoever works on an image has a row with its process.  It learns from the image's status within
seconds that it was aborted.  Threading: any.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from catalog.catalog import Catalog
from catalog.copies.unfinished import recover_if_dead
from catalog.copies.uses import LEASE_TIME
from catalog.errors import Conflict, NotFound
from catalog.model import access
from catalog.model.access import Principal
from catalog.model.activity import UploadRecord
from catalog.model.clock import now
from catalog.model.image import Image
from catalog.model.status import IN_PROGRESS
from catalog.model.tree import LocationState
from catalog.process import boot_id
from catalog.rules import presence, uploads


class Life(StrEnum):
    """Whether the process that works on an image is alive, as far as that is known."""

    RUNNING = "running"
    GONE = "gone"
    SILENT = "silent"
    """It is on another host, and has sent no heartbeat for long."""


@dataclass(frozen=True, slots=True)
class Going:
    """One upload or copy in progress."""

    image: Image
    record: UploadRecord
    staged: int | None
    """Bytes so far, if that is known here."""
    life: Life

    @property
    def is_copy(self) -> bool:
        """Whether a complete image is copied to another store; its message has the progress."""
        return self.image.status not in IN_PROGRESS


def in_progress(catalog: Catalog) -> list[Going]:
    """Every upload and copy in progress, oldest first."""
    with catalog.read() as repository:
        records = sorted(repository.uploads(), key=lambda record: record.started_at)
        pairs = [(record, repository.image(record.image)) for record in records]
        has_ended = presence.ended(repository)
    return [
        Going(image, record, _staged(record), _life(record, has_ended(record.process)))
        for record, image in pairs
    ]


def _life(record: UploadRecord, has_ended: bool) -> Life:
    if has_ended:
        return Life.GONE
    return Life.SILENT if now() - record.heartbeat_at > LEASE_TIME else Life.RUNNING


def _staged(record: UploadRecord) -> int | None:
    if not record.staged or not _is_here(record):
        return None
    try:
        return os.stat(record.staged).st_size
    except OSError:
        return None


def _is_here(record: UploadRecord) -> bool:
    """Whether its paths are on this host."""
    return record.process.boot.partition("/")[0] == boot_id().partition("/")[0]


def abort(catalog: Catalog, image: Image, principal: Principal) -> None:
    """Abort the upload or copy in progress on an image.

    An upload's image is killed, with a message that names the principal.  A copy to another store
    leaves the image itself as it is.  The process that works on it learns of it, and cannot
    commit any more.  Raises NotFound if nothing is in progress, Forbidden, and Conflict for a
    copy that is being repaired.
    """
    access.check_change(principal, image)
    with catalog.read() as repository:
        record = repository.upload(image.number)
        image = repository.image(image.number)
        is_dead = record is not None and presence.ended(repository)(record.process)
    if record is None and image.status not in IN_PROGRESS:
        raise NotFound(image.name, "nothing is in progress on this image")
    if is_dead:
        recover_if_dead(catalog, image)
        return
    if image.status not in IN_PROGRESS:
        _abort_copy(catalog, image)
        return
    if not uploads.fail_upload(catalog, image.number, f"aborted by {principal.name}"):
        raise NotFound(image.name, "nothing is in progress on this image any more")
    if record is not None and record.staged and _is_here(record):
        # The process still has the file open, and frees the room when it learns of the abort.  It
        # may hang for long, so the name is removed here.
        with suppress(OSError):
            Path(record.staged).unlink()


def _abort_copy(catalog: Catalog, image: Image) -> None:
    """Let the process that copies an image to another store give up and clean up."""
    with catalog.write() as repository:
        states = {location.state for location in repository.locations_of(image.number)}
        if LocationState.PENDING not in states:
            raise Conflict(image.name, "is being repaired: let it end")
        repository.drop_upload(image.number)
