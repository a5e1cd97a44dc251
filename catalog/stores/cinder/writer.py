"""Stores an image in a volume: writes it as an image of RBD, then marks it as complete.

A writer is used by one thread at a time.

If the process dies, an attached volume without the mark stays, which nobody takes for an object.
Its watch in Ceph ends after half a minute; then it can be removed.
"""

from __future__ import annotations

from contextlib import suppress

from catalog.errors import CatalogError
from catalog.stores.cinder.objects import Objects
from catalog.stores.cinder.places import Places
from catalog.stores.cinder.volumes import GIB, Volume, Volumes, gigabytes_for
from catalog.stores.rbd.writer import RbdWriter


class CinderWriter(RbdWriter):
    """A volume of our own that `commit` makes the object."""

    def __init__(
        self, key: str, url: str, volume: Volume, volumes: Volumes, places: Places, objects: Objects
    ) -> None:
        """Take over a new volume, and attach it.  Raises StoreUnavailable, NotSupported."""
        self._volume = volume
        self._volumes = volumes
        self._places = places
        self._objects = objects
        try:
            self._attachment = places.attach(volume)
            connection = places.connection(self._attachment.place)
            super().__init__(connection, key, url, volume.gigabytes * GIB, raw_only=False)
        except BaseException:
            with suppress(CatalogError):
                objects.remove(volume)
            raise

    def _make(self) -> str:
        return self._attachment.place.image

    def _resize(self, length: int) -> None:
        """Grow to whole GiB.  The volume never shrinks: the data's size is in its metadata."""
        gigabytes = gigabytes_for(length)
        if gigabytes * GIB > self._length:
            self._volumes.extend(self._volume, gigabytes)
            self._length = gigabytes * GIB

    def _publish(self) -> None:
        self._places.detach(self._attachment.id)
        self._objects.publish(self._volume, self._end)

    def _remove(self) -> None:
        self._objects.remove(self._volume)
