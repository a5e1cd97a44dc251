"""Judging again, with today's format gate, images that an earlier gate accepted.

Each image records the number of the gate that accepted its data (`image.GATE`).  If it is not
today's number, fsck and verify judge the data again.  Scope: an image without digests is also
judged at each opening; `reader` does that.  Threading: any thread.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from catalog.catalog import Catalog
from catalog.copies.external import TABLES
from catalog.errors import CatalogUnavailable
from catalog.formats import gate
from catalog.formats.gate import Declared, Detected, Refused
from catalog.model.image import GATE, Image
from catalog.model.status import Status
from catalog.model.tree import Location
from catalog.repository.database import Repository
from catalog.upkeep.findings import FindingKind


@dataclass(frozen=True, slots=True)
class Objection:
    """What is wrong with an image's data, or with what is recorded of it."""

    kind: FindingKind
    told: str
    """What is recorded, what the data is, and what to do."""
    detected: Detected | None = None
    """What the data is, if it is only recorded as something else."""


def objection(catalog: Catalog, image: Image, location: Location) -> Objection | None:
    """Have the gate judge a complete copy; if it accepts the data, record that.

    Returns None also when the gate refuses the data of a deactivated image: only an
    administrator can read it, so nothing is left to do.  Raises NotFound, StoreUnavailable.
    """
    if image.is_accepted or not image.has_data:
        return None
    found = _judged(catalog, image, location)
    if isinstance(found, Refused):
        return None if _is_deactivated(image) else _refused(image, found)
    if (found.disk_format, found.virtual_size) != (image.disk_format, image.virtual_size):
        return _misrecorded(image, found)
    if catalog.reads_only:
        return None
    # A caller that cannot write to the database loses nothing: it asks the gate again.
    with suppress(CatalogUnavailable), catalog.write() as repository:
        if _is_undecided(repository, image.number):
            repository.accept(image.number, GATE)
    return None


def settle(catalog: Catalog, image: Image, found: Objection) -> str:
    """Correct what is recorded, or deactivate the image; no data is removed.

    Returns what was done; empty if another process has decided about the image meanwhile.
    """
    number = image.number
    with catalog.write() as repository:
        fresh = repository.image(number)
        if not _is_undecided(repository, number):
            return ""
        if found.detected is not None:
            to = found.detected
            repository.set_image(
                number, disk_format=to.disk_format, virtual_size=to.virtual_size, gate=GATE
            )
            return f"recorded as {to.disk_format} of {to.virtual_size} bytes"
        if fresh.message != found.told:
            repository.set_image(number, message=found.told)
        if found.kind is not FindingKind.UNSAFE_CONTENT:
            return "noted in the image's message"
        if fresh.status is Status.PENDING_DELETE:
            repository.set_image(number, status_before_delete=Status.DEACTIVATED)
        elif fresh.status is Status.ACTIVE:
            repository.change_status(number, Status.DEACTIVATED)
    return f"deactivated ('imagefs reactivate {image.id}' undoes it)"


def _judged(catalog: Catalog, image: Image, location: Location) -> Detected | Refused:
    """The gate's verdict for the recorded format; if it refuses, for whatever format it finds."""
    assert location.url is not None
    reader = catalog.store(location.store).open(location.url)
    try:
        limit = TABLES if reader.fileno() is None else None
        declared = Declared(image.disk_format, image.container_format)
        found = gate.judge(reader, declared, limit)
        if isinstance(found, Refused):
            found = gate.judge(reader, Declared(None, image.container_format), limit)
        return found
    finally:
        reader.close()


def _refused(image: Image, found: Refused) -> Objection:
    told = f"{image.name}, recorded as {image.disk_format}: {found.reason}"
    if found.stands_alone:
        advice = "it does no harm; delete it, or 'imagefs add' what 'qemu-img convert' makes of it"
        return Objection(FindingKind.BAD_CONTENT, f"{told}; {advice}")
    advice = (
        "not on this host, though: qemu and qemu-img may read another of its files for it;"
        f" 'imagefs fsck --repair' deactivates it, 'imagefs delete {image.id}' deletes it"
    )
    return Objection(FindingKind.UNSAFE_CONTENT, f"{told}; {advice}")


def _misrecorded(image: Image, found: Detected) -> Objection:
    told = (
        f"{image.name}, recorded as {image.disk_format} of {image.virtual_size} bytes:"
        f" it is {found.disk_format} of {found.virtual_size} bytes; 'imagefs fsck --repair'"
        " records that"
    )
    return Objection(FindingKind.WRONG_FORMAT, told, found)


def _is_deactivated(image: Image) -> bool:
    return Status.DEACTIVATED in (image.status, image.status_before_delete)


def _is_undecided(repository: Repository, number: int) -> bool:
    """Whether the gate has not decided about this image yet."""
    fresh = repository.image(number)
    return fresh.has_data and not fresh.is_accepted
