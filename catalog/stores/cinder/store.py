"""A store in OpenStack Cinder: each image is a volume that lies in Ceph.

Safe from several threads and processes.  Cinder makes, clones and removes the volumes.  Their
data never goes through Cinder: librbd reads it from Ceph and writes it there.  Volumes of other
backends would have to be attached to this host as devices, and are refused.  The module `volumes`
has the marks in a volume's metadata, and `objects` what they mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from secrets import token_hex

from catalog.errors import (
    CatalogError,
    InvalidName,
    InvalidValue,
    NotFound,
    StoreRefused,
    StoreUnavailable,
)
from catalog.stores.base import Capability, NothingToMake, Stat, Usage, WithoutPolicy
from catalog.stores.cinder.client import CinderClient
from catalog.stores.cinder.location import CinderLocation, id_of
from catalog.stores.cinder.objects import Objects
from catalog.stores.cinder.places import Places, VolumeReader
from catalog.stores.cinder.settings import CinderStoreSettings
from catalog.stores.cinder.volumes import GIB, OBJECT, Volume, Volumes, gigabytes_for
from catalog.stores.cinder.writer import CinderWriter

_KEY_MAX = 200
"""Characters.  Names and values of Cinder's metadata have at most 255."""

_OPENINGS = 3
"""Attempts to open an object that is being replaced at the same time."""


class CinderStore(WithoutPolicy, NothingToMake):
    """The volumes of one project that are marked as volumes of this store."""

    capabilities = Capability.WRITE | Capability.COPY | Capability.LISTING

    def __init__(self, name: str, settings: CinderStoreSettings) -> None:
        self.name = name
        self._reference = settings.reference or name
        self._type = {"volume_type": settings.volume_type} if settings.volume_type else {}
        self._client = CinderClient(name, settings)
        self._volumes = Volumes(self._client, self._reference, settings.state_timeout)
        self._places = Places(self._client, settings)
        self._objects = Objects(self._volumes, self._places)

    def check(self) -> None:
        """Raise StoreUnavailable unless Keystone and Cinder's API answer."""
        self._client.do("GET", "/limits")

    def open(self, url: str) -> VolumeReader:
        """Open an object to read.  Raises NotFound, StoreUnavailable, NotSupported.

        While it is open anybody may replace it, but nobody can delete it.
        """
        for _ in range(_OPENINGS):
            volume = self._found(url)
            with suppress(NotFound):
                return self._places.open(url, volume)
        raise StoreUnavailable(url, "Cinder has the volume, and Ceph has no image of it")

    def stat(self, url: str) -> Stat:
        """Size, and the volume's id: its data never changes.  Raises NotFound, StoreUnavailable."""
        volume = self._found(url)
        return Stat(volume.size, volume.id)

    def writer(self, key: str, size: int | None = None) -> CinderWriter:
        """Start storing an object.

        Raises InvalidName, StoreFull, ImageTooLarge, StoreUnavailable; NotSupported if
        volumes of that type are not in Ceph.
        """
        url = self.url_of(key)
        gigabytes = gigabytes_for(size or 0)
        volume = self._volumes.create(key, id_of(key), size=gigabytes, **self._type)
        return CinderWriter(key, url, volume, self._volumes, self._places, self._objects)

    def delete(self, url: str) -> None:
        """Remove the object and unfinished uploads of its key.

        A missing object is no error.  Raises StoreUnavailable; Conflict if it is attached or
        open, and for half a minute after a writer's process died: its watch lasts so long.
        """
        self._objects.remove_all(self._located(url).volume)

    def copy(self, url: str, key: str) -> str:
        """Let Cinder clone a volume.  Raises NotFound, StoreFull, StoreUnavailable."""
        copied, source = self.url_of(key), self._found(url)
        clone = {"size": source.gigabytes, "source_volid": source.id}
        made = self._volumes.create(key, id_of(key), **clone)
        try:
            self._objects.publish(made, source.size)
        except BaseException:
            with suppress(CatalogError):
                self._objects.remove(made)
            raise
        return copied

    def usage(self) -> Usage:
        """The room by the project's quota, which counts the whole GiB of every volume."""
        limits = self._client.do("GET", "/limits").get("limits", {}).get("absolute", {})
        total = int(limits.get("maxTotalVolumeGigabytes", -1))
        if total < 0:
            return Usage(None, None)
        used = int(limits.get("totalGigabytesUsed", 0))
        return Usage(total * GIB, max(0, total - used) * GIB)

    def url_of(self, key: str) -> str:
        """`cinder://REFERENCE/KEY`.  Raises InvalidName."""
        if not key or len(key) > _KEY_MAX or not key.isprintable():
            raise InvalidName(key, "is not a key of an image")
        return str(CinderLocation(id_of(key), self._reference))

    def keys(self) -> Iterator[str]:
        """The keys of all our objects; those of Glance are not among them."""
        return self._objects.keys()

    def staging_folder(self) -> Path | None:
        """None: there is no local folder."""
        return None

    def quarantine(self, key: str) -> str:
        """Change the mark of the object's volume; return the volume's url and name.

        Raises NotFound, StoreUnavailable.
        """
        volume = self._found(self.url_of(key))
        self._volumes.mark(volume, {OBJECT: f"quarantined-{token_hex(8)}"})
        return f"{CinderLocation(volume.id, self._reference)} (image-{key})"

    def leftovers(self, older_than: float) -> Iterator[str]:
        """The ids of volumes that were never finished, or were replaced."""
        return (volume.id for volume in self._objects.leftovers(older_than))

    def drop_leftover(self, name: str) -> None:
        """Remove a volume of `leftovers`.  Raises Conflict if it is in use, StoreUnavailable."""
        self._objects.drop_leftover(name)

    def close(self) -> None:
        """End the connections; those to Ceph end when no reader or writer needs them any more."""
        self._client.close()
        self._places.close()

    def _found(self, url: str) -> Volume:
        """The volume a url leads to.  Raises NotFound, StoreUnavailable."""
        try:
            return self._objects.find(self._located(url).volume)
        except NotFound:
            raise NotFound(url) from None

    def _located(self, url: str) -> CinderLocation:
        """Read a url.

        A url of another store is StoreUnavailable, not NotFound: most likely the settings
        were changed, and the data must not be taken for lost.
        """
        try:
            location = CinderLocation.parse(url)
        except InvalidValue as error:
            raise StoreRefused(self.name, str(error)) from error
        if location.backend not in (None, self._reference):
            raise StoreRefused(self.name, f"{url} is not of {self._reference}")
        return location
