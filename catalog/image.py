"""The catalog's values: images, their places, folders, locks.  Frozen; safe to share."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple

from catalog.names import alike
from catalog.status import HAS_DATA, Status

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


class LocationState(StrEnum):
    """What a location's data is."""

    PENDING = "pending"
    """The entry exists; its data is not there yet."""
    ACTIVE = "active"
    DELETING = "deleting"
    """No longer an entry; the data is being removed and the row goes after it."""


class FolderKind(StrEnum):
    """What a folder is in the tree."""

    ROOT = "root"
    STORE = "store"
    TRASH = "trash"
    PLAIN = "plain"
    BY_ID = "by-id"
    """`/.by-id`; in no table."""


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
class Location:
    """An image's copy in one store; while it has a folder it is that folder's entry.

    An image outside of `deleted` has at least one entry.  Copies made by `replicas` are none.
    """

    number: int
    image: int
    store: str
    url: str | None
    state: LocationState
    folder: int | None
    name: str | None
    trashed_from: int | None
    """In the trash: the folder the entry was removed from."""

    @property
    def is_told(self) -> bool:
        """Whether the image's `stores` tell of it: an entry, or a complete copy without a name."""
        return self.folder is not None or self.state is LocationState.ACTIVE


@dataclass(frozen=True, slots=True)
class Entry:
    """A name in a folder that stands for an image."""

    location: Location
    image: Image

    @property
    def name(self) -> str:
        assert self.location.name is not None
        return self.location.name

    @property
    def folder(self) -> int:
        assert self.location.folder is not None
        return self.location.folder

    @property
    def store(self) -> str:
        return self.location.store

    @property
    def cookie(self) -> int:
        return self.location.number


class Listed(NamedTuple):
    """An entry with as much of its image as a listing shows.

    A tuple, unlike its neighbours: folders of 10,000 images are listed, and making the
    whole Entry of each took longer than all else.  Fields as in Image, but for the first.
    """

    cookie: int
    """The location's number: where a listing goes on behind this entry."""
    name: str
    number: int
    id: str
    status: Status
    visibility: Visibility
    owner: str
    disk_format: str | None
    size: int
    os_hash_algo: str | None
    os_hash_value: str | None
    checksum: str | None
    mtime: int
    created_at: datetime
    updated_at: datetime
    status_before_delete: Status | None


@dataclass(frozen=True, slots=True)
class Place:
    """Where an entry is to be: a name in a folder."""

    folder: int
    name: str


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
class Folder:
    """A folder: the root, a store, its trash, or one that somebody made."""

    number: int
    parent: int
    """The folder above; the root is its own parent."""
    store: str
    """Empty for the root."""
    name: str
    kind: FolderKind
    temporary: bool
    """Made with a temporary name: nothing inside it is ever published."""
    owner: str
    created_at: datetime
    updated_at: datetime


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


@dataclass(frozen=True, slots=True)
class Process:
    """One process, told apart from every other that ever ran."""

    host: str
    boot: str
    """The host's boot id and the pid namespace, as `process.boot_id` gives them."""
    pid: int
    started: int
    """Clock ticks from boot to the process' start."""

    def __str__(self) -> str:
        return f"{self.host}/{self.boot}/{self.pid}/{self.started}"


@dataclass(frozen=True, slots=True)
class Use:
    """A program that has an image open."""

    process: Process
    """Which serves it the data: a mount, `imagefs dav`."""
    user: str
    """For people: `qemu-img (pid 4711)`; empty when it is not known."""
    since: datetime
    heartbeat_at: datetime
    """When `process` last said so."""

    def __str__(self) -> str:
        return f"{self.user or f'pid {self.process.pid}'} on {self.process.host}"


@dataclass(frozen=True, slots=True)
class UploadRecord:
    """An upload in progress, as other processes and the next start see it."""

    image: int
    process: Process
    staged: str
    """The staging file's path on `process.host`."""
    started_at: datetime
    heartbeat_at: datetime


class LockScope(StrEnum):
    """Whether others may hold a lock beside this one (RFC 4918 §6.2)."""

    EXCLUSIVE = "exclusive"
    SHARED = "shared"


@dataclass(frozen=True, slots=True)
class Lock:
    """A promise to one client that others do not write (RFC 4918 §6)."""

    token: str
    path: str
    """Absolute in the tree, without a `/` at its end; the root is `/`."""
    scope: LockScope
    deep: bool
    """Also over everything below the path (`Depth: infinity`)."""
    owner_xml: str
    """What the client says of itself: an element `DAV:owner`, or empty."""
    principal: str
    timeout: int
    """Seconds, as granted."""
    expires_at: datetime
    created_at: datetime

    def covers(self, path: str) -> bool:
        """Whether what is at `path` is under this lock."""
        path = alike(path)
        above = self.path.rstrip("/") + "/"
        return path == self.path or (self.deep and path.startswith(above))


class ChangeKind(StrEnum):
    """What one row of the change feed tells."""

    ENTRY = "entry"
    """A name in a folder appeared, went, or stands for something else."""
    IMAGE = "image"
    """An image's metadata or status changed."""


Version = tuple[int, int]
"""Of the catalog: equal only if nothing in the tree has changed in between."""


@dataclass(frozen=True, slots=True)
class Change:
    """One row of the change feed."""

    number: int
    kind: ChangeKind
    folder: int | None
    name: str | None
    image: int | None
    origin: str
    """The process that made it, as `str(Process)`."""
    at: datetime


def now() -> datetime:
    """The present, aware and in UTC."""
    return datetime.now(UTC)
