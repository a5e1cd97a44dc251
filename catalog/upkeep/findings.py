"""What fsck tells.

Frozen; safe to share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from catalog.errors import CatalogError, CatalogUnavailable


class FindingKind(StrEnum):
    """What is wrong."""

    DATABASE_DAMAGED = "database-damaged"
    """The catalog's own file: nothing it says can be compared with anything."""
    STORE_UNAVAILABLE = "store-unavailable"
    """A store, or one image in it, could not be examined."""
    NOT_EXAMINED = "not-examined"
    """Something that a server cannot tell: nothing is known to be wrong."""
    DEAD_UPLOAD = "dead-upload"
    """An upload or a copy whose process is gone."""
    NO_UPLOADER = "no-uploader"
    """An image being saved that nobody is saving."""
    LEFTOVER = "leftover"
    """A location that is to be removed and is still there."""
    GARBAGE = "garbage"
    """Data of an image that is deleted or killed."""
    UNKNOWN_DATA = "unknown-data"
    """Data of no image, or of one that should have none."""
    LOST_LOCATION = "lost-location"
    """Data of an image whose location in this store is gone."""
    MISSING_DATA = "missing-data"
    """A location without its data."""
    WRONG_SIZE = "wrong-size"
    """Data that is not as long as its image."""
    UNSAFE_CONTENT = "unsafe-content"
    """An earlier gate accepted it; qemu may open another file of its host for it."""
    BAD_CONTENT = "bad-content"
    """An earlier gate accepted it; it is cut off, damaged or of no use, and does no harm."""
    WRONG_FORMAT = "wrong-format"
    """The format or the size of the disk that is recorded is not that of the data."""
    NO_LOCATION = "no-location"
    """An image that should have data and has it nowhere."""
    UNFINISHED = "unfinished"
    """Parts of an old upload in a store that no key shows."""
    STRAY_STAGING = "stray-staging"
    """An old staging file of no upload."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, and what has been done about it."""

    kind: FindingKind
    subject: str
    """A store, or an image or file in one: `STORE/ID`."""
    detail: str
    repaired: str = ""
    """Empty if nothing was done."""


def mend(finding: Finding, repair: bool, action: Callable[[], str]) -> Finding:
    """The finding, repaired by `action`, which returns what it did, if that is wanted."""
    if not repair:
        return finding
    try:
        return replace(finding, repaired=action())
    except CatalogUnavailable:
        raise
    except CatalogError as error:
        return replace(finding, detail=f"{finding.detail}; not repaired: {error}")
