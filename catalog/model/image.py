"""Images, and what is known about their data.  Threading: frozen, safe to share."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from catalog.model.status import HAS_DATA, Status

CHUNK_SIZE = 4 * 1024 * 1024
"""Bytes of data under one chunk digest (docs/adr/0017-chunk-digests-are-blake3.md)."""

DISK_FORMATS = frozenset("ami ari aki vhd vhdx vmdk raw qcow2 vdi iso ploop gpt luks qed".split())
CONTAINER_FORMATS = frozenset("ami ari aki bare ovf ova docker compressed".split())

GATE = 1
"""The number of today's format gate (`formats`).  Add one whenever the gate begins to refuse
something that it accepted before: `judgement` then judges older images again."""


Announced = tuple[int | None, str | None, str | None, str]
"""What an uploader can announce: the size, the digest, the formats of disk and container."""


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
    """Small, unique, never used again; the inode is made from it."""
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
    """Bytes, as the uploader said beforehand; checked at commit."""
    expected_hash: str | None
    """Hexadecimal; its length shows the algorithm."""
    message: str
    """Why the image is as it is: the reason of its last failure, or empty."""
    mtime: int
    """The data's modification time, in nanoseconds since 1970, as tools set it."""
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None
    status_before_delete: Status | None
    deleted_by: str | None
    """The name of the principal that moved it to the trash."""
    gate: int | None
    """The `GATE` that accepted the data; None if it was before gates had numbers."""

    @property
    def is_accepted(self) -> bool:
        """Whether today's format gate has accepted the data."""
        return self.gate is not None and self.gate >= GATE

    @property
    def has_data(self) -> bool:
        """Whether its data is complete, also while it is in the trash."""
        return (self.status_before_delete or self.status) in HAS_DATA

    @property
    def announced(self) -> Announced:
        """What was announced about the data; the commit verifies it."""
        return (self.expected_size, self.expected_hash, self.disk_format, self.container_format)

    @property
    def verified(self) -> bool | None:
        """Whether there are digests to compare its data with; None while it has none."""
        return self.os_hash_value is not None if self.has_data else None


@dataclass(frozen=True, slots=True)
class External:
    """Data that stays at its URL; the catalog only refers to it."""

    url: str
    size: int
    disk_format: str
    virtual_size: int
    expected_hash: str | None
    """The digest as the user gave it; `verify` checks it."""


@dataclass(frozen=True, slots=True)
class ChunkDigests:
    """The digest of every chunk of an image's data, in order."""

    algo: str
    chunk_size: int
    """Bytes; the last chunk may be shorter."""
    digests: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Saved:
    """What a finished upload knows about its data."""

    size: int
    disk_format: str
    virtual_size: int
    os_hash_algo: str
    os_hash_value: str
    checksum: str | None
    chunks: ChunkDigests
    mtime: int | None = None
    """Nanoseconds since 1970; None for the time of saving."""
    gate: int | None = GATE
    """As `Image.gate`."""
