"""The volumes of a project: their marks, and the requests to Cinder about them.

Safe from several threads.  Metadata of our volumes:

    glance_image_id, image_size   as in Glance; the size of the data in bytes
    imagefs_store                 the name of its store
    imagefs_object                the id in its location
    imagefs_commit                a number, which a complete volume has; of several volumes of
                                  one object, the one with the greatest number is the object

`imagefs_commit` makes a volume an object.  One request sets it, so that it is set or not, and a
crash never leaves half an object.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from catalog.errors import CatalogError, Conflict, NotFound, StoreFull, StoreUnavailable
from catalog.stores.cinder.client import CinderClient

GIB = 1 << 30

KEY = "glance_image_id"
SIZE = "image_size"
STORE = "imagefs_store"
OBJECT = "imagefs_object"
COMMIT = "imagefs_commit"

_PAGE = 500
"""Volumes in one answer; a server may return fewer."""
_FIRST_POLL, _LONGEST_POLL = 0.05, 2.0
"""Seconds between two looks at a volume that changes its state; they double each time."""


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume, as Cinder describes it."""

    id: str
    status: str
    gigabytes: int
    """Its size, in GiB."""
    metadata: Mapping[str, str]
    created_at: float
    """Seconds since the epoch."""
    attachments: tuple[Mapping[str, Any], ...]

    @classmethod
    def of(cls, told: Mapping[str, Any], subject: str) -> Self:
        """Read Cinder's answer.  Raises StoreUnavailable."""
        try:
            return cls(
                id=str(told["id"]),
                status=str(told["status"]),
                gigabytes=int(told["size"]),
                metadata=dict(told["metadata"]),
                created_at=_seconds(told["created_at"]),
                attachments=tuple(told["attachments"]),
            )
        except (KeyError, TypeError, ValueError):
            raise StoreUnavailable(subject, "Cinder's answer cannot be read") from None

    @property
    def commit(self) -> int:
        """The greatest number is that of an object's newest volume; 0 if it is not complete."""
        number = self.metadata.get(COMMIT, "")
        return int(number) if number.isdecimal() and SIZE in self.metadata else 0

    @property
    def size(self) -> int:
        """Bytes of data; the volume's size if it has no such mark."""
        number = self.metadata.get(SIZE, "")
        return int(number) if number.isdecimal() else self.gigabytes * GIB


def _seconds(time_of_day: str) -> float:
    return datetime.fromisoformat(time_of_day).replace(tzinfo=UTC).timestamp()


def gigabytes_for(size: int) -> int:
    """GiB of a volume for `size` bytes.  Cinder has no smaller unit, and no empty volumes."""
    return max(1, -(-size // GIB))


class Volumes:
    """The volumes of one project."""

    def __init__(self, client: CinderClient, owner: str, patience: float) -> None:
        """`owner` marks our volumes; `patience` is the seconds that a change of state may take."""
        self._client = client
        self._owner = owner
        self._patience = patience

    def ours(self, number: str | None = None) -> Iterator[Volume]:
        """All volumes of ours, or those of one object.  Raises StoreUnavailable."""
        wanted = {STORE: self._owner} | ({OBJECT: number} if number else {})
        query = {"metadata": str(wanted), "limit": str(_PAGE)}
        while True:
            try:
                answer = self._client.do("GET", "/volumes/detail", query=query)
            except NotFound as error:
                # The volume that ended the last page is deleted by now, and Cinder needs it to
                # find the next page.
                raise StoreUnavailable(self._client.store, error.reason) from error
            found = [Volume.of(each, self._client.store) for each in answer.get("volumes", ())]
            # Some versions of Cinder do not filter by metadata, and list everything.
            yield from (each for each in found if wanted.items() <= each.metadata.items())
            if not found or "volumes_links" not in answer:
                return
            query["marker"] = found[-1].id

    def is_ours(self, volume: Volume) -> bool:
        """Whether this store has made the volume."""
        return volume.metadata.get(STORE) == self._owner

    def get(self, number: str) -> Volume:
        """A volume by its own id.  Raises NotFound, StoreUnavailable."""
        answer = self._client.do("GET", f"/volumes/{number}", subject=number)
        return Volume.of(answer.get("volume", {}), number)

    def create(self, key: str, number: str, **more: Any) -> Volume:
        """Make a volume for the object of a key, and wait until it can be used.

        `more` has further fields for Cinder: `size` in GiB, `source_volid`.  Raises
        StoreFull, ImageTooLarge, StoreUnavailable.
        """
        metadata = {KEY: key, STORE: self._owner, OBJECT: number}
        asked = {"name": f"image-{key}", "metadata": metadata, **more}
        try:
            answer = self._client.do("POST", "/volumes", {"volume": asked}, subject=key)
        except (Conflict, NotFound) as error:
            # Something else is missing, such as the volume's type.  NotFound would mean that the
            # object does not exist, which is no news here.
            raise StoreUnavailable(key, f"Cinder makes no volume: {error.reason}") from error
        made = Volume.of(answer.get("volume", {}), key)
        try:
            return self._settled(made.id, "available")
        except BaseException:
            # If it cannot be removed now, `delete` or fsck removes it later.
            with suppress(CatalogError):
                self._client.do("DELETE", f"/volumes/{made.id}")
            raise

    def extend(self, volume: Volume, gigabytes: int) -> None:
        """Make an attached volume larger.  Raises StoreFull, ImageTooLarge, StoreUnavailable."""
        self._act(volume, "os-extend", new_size=gigabytes)
        found = self._settled(volume.id, "in-use")
        if found.gigabytes < gigabytes:
            raise StoreFull(volume.id, f"Cinder could not extend it: {self._reason(found)}")

    def complete(self, volume: Volume, commit: int, size: int) -> None:
        """Make a detached volume an object of `size` bytes.  Raises StoreUnavailable."""
        self._act(volume, "os-update_readonly_flag", readonly=True)
        self.mark(volume, {SIZE: str(size), COMMIT: str(commit)})

    def mark(self, volume: Volume, metadata: Mapping[str, str]) -> None:
        """Change some of its metadata in one request.  Raises NotFound, StoreUnavailable."""
        path = f"/volumes/{volume.id}/metadata"
        self._client.do("POST", path, {"metadata": dict(metadata)}, subject=volume.id)

    def remove(self, volume: Volume) -> None:
        """Remove a volume, and wait until it is gone.  A missing one is no error.

        Raises Conflict if it is attached, or open, StoreUnavailable.
        """
        if volume.attachments:
            raise Conflict(volume.id, "in use: it is attached")
        try:
            self._client.do("DELETE", f"/volumes/{volume.id}", subject=volume.id)
            self._settled(volume.id, "available")
        except NotFound:
            return
        raise Conflict(volume.id, "in use: Cinder could not remove it")

    def _act(self, volume: Volume, action: str, **parameters: Any) -> dict[str, Any]:
        path = f"/volumes/{volume.id}/action"
        return self._client.do("POST", path, {action: parameters}, subject=volume.id)

    def _settled(self, number: str, status: str) -> Volume:
        """Wait until the volume has that status.  Raises NotFound, StoreUnavailable."""
        deadline, wait = time.monotonic() + self._patience, _FIRST_POLL
        while True:
            volume = self.get(number)
            if volume.status == status:
                return volume
            if volume.status.startswith("error"):
                reason = f"the volume's state is {volume.status}: {self._reason(volume)}"
                raise StoreUnavailable(number, reason)
            if time.monotonic() > deadline:
                reason = f"the volume is {volume.status} for {self._patience:g} s"
                raise StoreUnavailable(number, reason)
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST_POLL)

    def _reason(self, volume: Volume) -> str:
        """Cinder's message to the user about a volume, if there is one."""
        query = {"resource_uuid": volume.id, "limit": "1"}
        try:
            answer = self._client.do("GET", "/messages", query=query)
            return str(answer["messages"][0]["user_message"])
        except (CatalogError, LookupError, TypeError):
            return "Cinder's log may tell why"
