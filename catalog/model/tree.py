"""Folders, and what is in them: entries, locations, places.  Threading: frozen, safe to share."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from catalog.model.image import Image, Visibility
from catalog.model.status import Status


class LocationState(StrEnum):
    """Whether a location's data is there."""

    PENDING = "pending"
    """The row exists; its data is not complete yet."""
    ACTIVE = "active"
    DELETING = "deleting"
    """The data is being removed; the row is removed after it."""


class FolderKind(StrEnum):
    """The kinds of folders in the tree."""

    ROOT = "root"
    STORE = "store"
    TRASH = "trash"
    PLAIN = "plain"
    BY_ID = "by-id"
    """`/.by-id`; it has no row."""


@dataclass(frozen=True, slots=True)
class Location:
    """An image's copy in one store; if it has a folder, it is an entry of that folder.

    An image that is not `deleted` has at least one entry.  Copies that the replicator makes for
    `replicas` are not entries.
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
        """Whether the field `stores` shows it: an entry, or a complete copy without a name."""
        return self.folder is not None or self.state is LocationState.ACTIVE


@dataclass(frozen=True, slots=True)
class Entry:
    """A name in a folder, with the image it refers to."""

    location: Location
    image: Image
    links: int | None = field(default=None, compare=False)
    """How many entries the image has, if the entry was looked up by its name; else None."""

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

    This is a tuple because folders of 10,000 images are listed, and making a whole Entry for
    each took longer than everything else.  The fields after `name` are those of Image.
    """

    cookie: int
    """The location's number: a listing can continue after this entry."""
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
    """The place of an entry: a name in a folder."""

    folder: int
    name: str


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder: the root, a store's, its trash, or one that a user made."""

    number: int
    parent: int
    """The folder above; the root is its own parent."""
    store: str
    """Empty for the root."""
    name: str
    kind: FolderKind
    temporary: bool
    """Whether it was made with a temporary name: nothing inside is ever published."""
    owner: str
    created_at: datetime
    updated_at: datetime
