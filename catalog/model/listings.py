"""What a listing can be asked for, and what it shows.  Threading: frozen, safe to share."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from catalog.model.status import Status
from catalog.model.tree import Entry


class Sort(StrEnum):
    """What a folder can be sorted by: a field, or the operating system's properties."""

    NAME = "name"
    OS = "os"
    DISK_FORMAT = "disk_format"
    SIZE = "size"
    VIRTUAL_SIZE = "virtual_size"
    STATUS = "status"
    VISIBILITY = "visibility"
    UPDATED_AT = "updated_at"
    DELETED_AT = "deleted_at"


@dataclass(frozen=True, slots=True)
class ListedEntry:
    """An entry with the properties a table shows beside it."""

    entry: Entry
    os_distro: str | None
    os_version: str | None


@dataclass(frozen=True, slots=True)
class FolderPage:
    """Some of a folder's entries, and the number of all entries that match the filter."""

    listed: tuple[ListedEntry, ...]
    total: int


@dataclass(frozen=True, slots=True)
class StoreTotals:
    """What one store holds."""

    images: int
    """Entries outside the trash."""
    size: int
    """Bytes of their data."""
    in_progress: int
    trashed: int


@dataclass(frozen=True, slots=True)
class ImageFilter:
    """Which images a listing wants: those that match every field given."""

    statuses: frozenset[Status] | None = None
    properties: tuple[tuple[str, str], ...] = ()
    tags: tuple[str, ...] = ()
    store: str | None = None
    before: datetime | None = None
    """Only images deleted before this time (for the scrubber)."""
    not_accepted_by: int | None = None
    """Only images whose data was not accepted by this format gate or a later one."""

    @property
    def is_everything(self) -> bool:
        """Whether every image matches."""
        return self == ImageFilter()
