"""Folders and what stands in them: entries, locations, places.  Frozen; safe to share."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from catalog.model.image import Image, Visibility
from catalog.model.status import Status


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
