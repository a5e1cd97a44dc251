"""Where the data of volumes lies: in images of RBD, which librbd reads and writes.

Safe from several threads.

A volume is attached while it is written, so that nobody else can attach or delete it.  For
reading Cinder is only asked where the volume is.  With attachments only one host could read at a
time, and an attachment stays when its host dies.  Instead, the watch of Ceph on the image keeps
an open volume from being deleted.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from catalog.errors import CatalogError, NotFound, NotSupported, StoreUnavailable
from catalog.stores.cinder.client import CinderClient
from catalog.stores.cinder.settings import CinderStoreSettings
from catalog.stores.cinder.volumes import Volume
from catalog.stores.rbd.connection import Cluster, Connection
from catalog.stores.rbd.images import open_image, opened, refuse_if_open
from catalog.stores.rbd.reader import RbdReader


@dataclass(frozen=True, slots=True)
class CinderPlace:
    """An image of RBD."""

    pool: str
    image: str
    user: str
    """The user that Cinder names for it, without `client.`."""

    @classmethod
    def of(cls, info: Mapping[str, Any], subject: str) -> Self:
        """Read Cinder's `connection_info`.

        Raises NotSupported for a volume that is no image of RBD, or is encrypted;
        StoreUnavailable if the answer cannot be read.
        """
        data = info.get("data", info)
        kind = info.get("driver_volume_type")
        if kind != "rbd":
            raise NotSupported(subject, f"is a volume of {kind}: only those of RBD can be used")
        if data.get("encrypted"):
            raise NotSupported(subject, "is an encrypted volume, which only Nova can read")
        pool, _, image = str(data.get("name", "")).partition("/")
        if not pool or not image or "/" in image:
            raise StoreUnavailable(subject, "Cinder does not tell where the volume is")
        return cls(pool, image, str(data.get("auth_username") or "admin"))


@dataclass(frozen=True, slots=True)
class Attachment:
    """A volume that nobody but us can attach or delete."""

    id: str
    place: CinderPlace


class VolumeReader(RbdReader):
    """An open volume, cut to the data in it.  Safe from several threads."""

    def __init__(self, connection: Connection, url: str, image: Any, size: int) -> None:
        """Take over `image`, whose first `size` bytes are the data.  Raises StoreUnavailable."""
        super().__init__(connection, url, image)
        if size > self.size:
            self.close()
            raise StoreUnavailable(url, f"the volume is shorter than its data, {size} bytes")
        self.size = size


class Places:
    """Finds and opens the images in Ceph of one project's volumes."""

    def __init__(self, client: CinderClient, settings: CinderStoreSettings) -> None:
        self._client = client
        self._settings = settings
        self._lock = threading.Lock()
        self._clusters: dict[tuple[str, str], Cluster] = {}

    def connection(self, place: CinderPlace) -> Connection:
        """The connection to the pool of a place.  Raises StoreUnavailable, InvalidSettings."""
        with self._lock:
            key = (place.pool, place.user)
            if key not in self._clusters:
                settings = self._settings.of_pool(*key)
                self._clusters[key] = Cluster(self._client.store, settings)
            cluster = self._clusters[key]
        return cluster.connection()

    def open(self, url: str, volume: Volume) -> VolumeReader:
        """Open a volume to read.  Raises NotFound if it is gone, StoreUnavailable, NotSupported."""
        place = self._find(volume)
        connection = self.connection(place)
        return VolumeReader(connection, url, open_image(connection, place.image), volume.size)

    def refuse_if_open(self, volume: Volume) -> None:
        """Raise Conflict while somebody reads or writes the volume, StoreUnavailable."""
        if not volume.commit and volume.status.startswith(("creating", "error")):
            return  # It has no image in Ceph yet, or never will have one.
        try:
            place = self._find(volume)
            with opened(self.connection(place), place.image) as image:
                refuse_if_open(volume.id, image)
        except (NotFound, NotSupported):
            return  # There is no image to be open.

    def attach(self, volume: Volume) -> Attachment:
        """Attach a volume to write it.

        Raises NotSupported for a volume that is no image of RBD, which is then detached;
        Conflict, StoreUnavailable.
        """
        asked = {"volume_uuid": volume.id, "mode": "rw", "connector": _connector()}
        answer = self._client.do(
            "POST", "/attachments", {"attachment": asked}, subject=volume.id
        ).get("attachment", {})
        number = str(answer.get("id"))
        try:
            attachment = Attachment(
                number, CinderPlace.of(answer.get("connection_info", {}), volume.id)
            )
            self._client.do("POST", f"/attachments/{number}/action", {"os-complete": {}})
        except CatalogError:
            self.detach(number)
            raise
        return attachment

    def detach(self, attachment: str) -> None:
        """End an attachment, by its id.  A missing one is no error.  Raises StoreUnavailable."""
        try:
            self._client.do("DELETE", f"/attachments/{attachment}")
        except NotFound:
            return

    def abandon(self, volume: Volume) -> None:
        """End the attachments of a writer whose process has died.  Raises StoreUnavailable."""
        query = {"volume_id": volume.id}
        answer = self._client.do("GET", "/attachments", subject=volume.id, query=query)
        for attachment in answer.get("attachments", ()):
            # An attachment of Nova has its server's id.
            if not attachment.get("instance"):
                self.detach(str(attachment["id"]))

    def close(self) -> None:
        """Forget the connections; each ends when its last reader or writer is closed."""
        with self._lock:
            for cluster in self._clusters.values():
                cluster.close()

    def _find(self, volume: Volume) -> CinderPlace:
        """The place of a volume.  Raises NotFound, NotSupported, StoreUnavailable."""
        path = f"/volumes/{volume.id}/action"
        asked = {"connector": _connector()}
        answer = self._client.do(
            "POST", path, {"os-initialize_connection": asked}, subject=volume.id
        )
        try:
            return CinderPlace.of(answer.get("connection_info", {}), volume.id)
        except NotSupported:
            # Other backends have prepared a connection for this host, which has to be taken back.
            self._client.do("POST", path, {"os-terminate_connection": asked}, subject=volume.id)
            raise


def _connector() -> dict[str, str]:
    """This host, as Cinder's requests name it."""
    return {"host": socket.gethostname()}
