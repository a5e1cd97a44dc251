"""The catalog's values: images, their places, folders, locks.  Frozen; safe to share."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from catalog.model.status import HAS_DATA, Status

CHUNK_SIZE = 4 * 1024 * 1024
"""Bytes of data under one chunk digest (docs/adr/0017-chunk-digests-are-blake3.md)."""

DISK_FORMATS = frozenset("ami ari aki vhd vhdx vmdk raw qcow2 vdi iso ploop gpt luks qed".split())
CONTAINER_FORMATS = frozenset("ami ari aki bare ovf ova docker compressed".split())

GATE = 1
"""The format gate (`formats`) that judges.  One more whenever it refuses what it used to accept:
what an older one accepted is then judged again (`judgement`)."""


class Visibility(StrEnum):
    """Who sees an image (Glance's words)."""

    PUBLIC = "public"
    COMMUNITY = "community"
    SHARED = "shared"
    PRIVATE = "private"


@dataclass(frozen=True, slots=True)
class Image:
    """One image's metadata."""

    number: int
    """Small, unique, never used again: the inode's base."""
    id: str
    name: str
    status: Status
    owner: str
    visibility: Visibility
    disk_format: str | None
    container_format: str
    size: int
    """Bytes of the data; 0 until the image has been saved."""
    virtual_size: int | None
    min_disk: int
    """GiB, as in Glance."""
    min_ram: int
    """MiB, as in Glance."""
    protected: bool
    os_hidden: bool
    os_hash_algo: str | None
    os_hash_value: str | None
    checksum: str | None
    expected_size: int | None
    """Bytes; what the uploader said beforehand, verified at commit."""
    expected_hash: str | None
    """Hex; its length tells the algorithm."""
    message: str
    """Why the image is as it is: the reason of its last failure, or empty."""
    mtime: int
    """The data's modification time, in nanoseconds since 1970, as tools set it."""
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None
    status_before_delete: Status | None
    deleted_by: str | None
    """Who moved it to the trash: a principal's name."""
    gate: int | None
    """Which `GATE` has accepted the data; None if it was one that did not count."""

    @property
    def is_accepted(self) -> bool:
        """Whether the format gate as it is now has accepted the data."""
        return self.gate is not None and self.gate >= GATE

    @property
    def has_data(self) -> bool:
        """Whether its data is complete, also while it is in the trash."""
        return (self.status_before_delete or self.status) in HAS_DATA

    @property
    def verified(self) -> bool | None:
        """Whether there are digests to compare its data with; None while it has none."""
        return self.os_hash_value is not None if self.has_data else None


@dataclass(frozen=True, slots=True)
class External:
    """Data that lies elsewhere and is only referred to."""

    url: str
    size: int
    disk_format: str
    virtual_size: int
    expected_hash: str | None
    """What the user says its digest is; `verify` checks it."""


@dataclass(frozen=True, slots=True)
class ChunkDigests:
    """The digest of every chunk of an image's data, in order."""

    algo: str
    chunk_size: int
    """Bytes; the last chunk may be shorter."""
    digests: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Saved:
    """What a finished upload found out about the data."""

    size: int
    disk_format: str
    virtual_size: int
    os_hash_algo: str
    os_hash_value: str
    checksum: str | None
    chunks: ChunkDigests
    mtime: int | None = None
    """Nanoseconds since 1970; None leaves the time of saving."""
    gate: int | None = GATE
    """As of an image."""


def now() -> datetime:
    """The present, aware and in UTC."""
    return datetime.now(UTC)
