"""What fsck reports.

Threading: frozen, safe to share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from catalog.errors import CatalogError, CatalogUnavailable


class FindingKind(StrEnum):
    """What is wrong."""

    DATABASE_DAMAGED = "database-damaged"
    """The catalog's own file is damaged: its rows cannot be compared with the stores."""
    STORE_UNAVAILABLE = "store-unavailable"
    """A store, or one image in it, could not be examined."""
    NOT_EXAMINED = "not-examined"
    """Something that a server does not support asking for; nothing is known to be wrong."""
    DEAD_UPLOAD = "dead-upload"
    """An upload or a copy whose process is gone."""
    NO_UPLOADER = "no-uploader"
    """An image with the status of an upload, while no process uploads it."""
    LEFTOVER = "leftover"
    """A location that is to be removed and is still there."""
    GARBAGE = "garbage"
    """Data of an image that is deleted or killed."""
    UNKNOWN_DATA = "unknown-data"
    """Data that belongs to no image, or to an image that should have none."""
    LOST_LOCATION = "lost-location"
    """Data of an image whose location in this store is gone."""
    MISSING_DATA = "missing-data"
    """A location without its data."""
    WRONG_SIZE = "wrong-size"
    """Data whose size differs from the image's."""
    UNSAFE_CONTENT = "unsafe-content"
    """An earlier gate accepted it, but its data can make qemu open another file of the host."""
    BAD_CONTENT = "bad-content"
    """An earlier gate accepted it, but it is cut off, damaged or useless; it does no harm."""
    WRONG_FORMAT = "wrong-format"
    """The data has another format, or another size of the disk, than is recorded."""
    NO_LOCATION = "no-location"
    """An image that should have data, while no store has it."""
    MISCOUNTED = "miscounted"
    """Totals of images that are other than what the rows add up to."""
    UNFINISHED = "unfinished"
    """Parts of an old upload, which a store keeps without listing them as an object."""
    STRAY_STAGING = "stray-staging"
    """An old staging file that belongs to no upload."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem, and what has been done about it."""

    kind: FindingKind
    subject: str
    """A store, or an image or file in one: `STORE/ID`."""
    detail: str
    repaired: str = ""
    """Empty if nothing was done."""


def mend(finding: Finding, repair: bool, action: Callable[[], str]) -> Finding:
    """The finding; with `repair`, after `action` has repaired it and returned what it did."""
    if not repair:
        return finding
    try:
        return replace(finding, repaired=action())
    except CatalogUnavailable:
        raise
    except CatalogError as error:
        return replace(finding, detail=f"{finding.detail}; not repaired: {error}")
