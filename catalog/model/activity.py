"""Values for what happens in a catalog: uploads, uses, locks and changes.

Threading: frozen, safe to share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from catalog.model.names import alike
from catalog.process import Process


@dataclass(frozen=True, slots=True)
class Use:
    """A program that has an image open."""

    process: Process
    """The process that serves the data to the program: a mount, `imagefs dav`."""
    user: str
    """For people: `qemu-img (pid 4711)`; empty when it is not known."""
    since: datetime
    heartbeat_at: datetime
    """When `process` last confirmed the use."""

    def __str__(self) -> str:
        return f"{self.user or f'pid {self.process.pid}'} on {self.process.host}"


class ServiceKind(StrEnum):
    """What a process does with the catalog."""

    MOUNT = "mount"
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class Service:
    """A process that serves the catalog."""

    process: Process
    kind: ServiceKind
    place: str
    """The mount point, or the address at which it serves."""
    version: str
    """Of imagefs."""
    registered_at: datetime
    heard_since: datetime
    """Its heartbeats have come without a gap since then."""
    heartbeat_at: datetime


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
    """What the client says about itself: an element `DAV:owner`, or empty."""
    principal: str
    timeout: int
    """Seconds, as granted."""
    expires_at: datetime
    created_at: datetime

    def covers(self, path: str) -> bool:
        """Whether this lock applies to `path`."""
        path = alike(path)
        above = self.path.rstrip("/") + "/"
        return path == self.path or (self.deep and path.startswith(above))


class ChangeKind(StrEnum):
    """What one row of the change feed is about."""

    ENTRY = "entry"
    """A name in a folder was added, was removed, or refers to something else now."""
    IMAGE = "image"
    """An image's metadata or status changed."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a transaction has appended to the change feed."""

    kind: ChangeKind
    folder: int | None
    name: str | None
    image: int | None


class EventKind(StrEnum):
    """What one row of an image's history is about; its detail says the rest."""

    CREATED = "created"
    """Detail: name."""
    STATUS = "status"
    """Detail: status; message, size and digest if they are known."""
    CHANGED = "changed"
    """Detail: fields, `property.NAME`, member or tags, each with its new value; None if removed."""
    RENAMED = "renamed"
    """Detail: old and new, each the number of a folder and a name."""
    COPIED = "copied"
    """Detail: store."""
    DROPPED = "dropped"
    """The data of a copy was removed from its store.  Detail: store."""
    DAMAGED = "damaged"
    """A copy was found to be damaged.  Detail: store."""
    REPAIRED = "repaired"


@dataclass(frozen=True, slots=True)
class Event:
    """One row of an image's history."""

    number: int
    at: datetime
    image: int
    host: str
    frontend: str
    """`mount`, `dav`, `command`; empty for work of imagefs itself."""
    principal: str
    """Empty if nobody asked for it."""
    kind: EventKind
    detail: Mapping[str, Any]


Version = tuple[int, int]
"""The catalog's version: two are equal only if nothing in the tree changed in between."""


@dataclass(frozen=True, slots=True)
class Change:
    """One row of the change feed."""

    number: int
    kind: ChangeKind
    folder: int | None
    name: str | None
    image: int | None
    """The image that has changed, or whose name it is."""
    origin: str
    """The process that made the change, as `str(Process)`."""
    at: datetime
