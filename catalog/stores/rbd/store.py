"""A store in Ceph, as block devices of RBD, laid out as Glance's own rbd driver does.

Safe from several threads and processes; a connection is made in the process that first needs
one.  Nova and Cinder make volumes of these images in an instant: each is called by its id, has
objects of 8 MiB and the layering feature, and a protected snapshot `snap` to clone from.
`images` has the names.

Changes of one image's name are several requests to Ceph.  An object that is replaced is
found all the time, under one of two names; see `rbd_images.publish`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC
from pathlib import Path
from typing import Any

from catalog.errors import (
    CatalogError,
    InvalidName,
    InvalidValue,
    NotFound,
    NotSupported,
    StoreRefused,
)
from catalog.stores.base import Capability, NothingToMake, Stat, Usage
from catalog.stores.rbd.bindings import ceph_errors, rbd
from catalog.stores.rbd.connection import Cluster, Connection, RbdStoreSettings
from catalog.stores.rbd.images import (
    MARK,
    ORDER,
    SNAPSHOT,
    Kind,
    all_names,
    etag_of,
    names_of,
    open_image,
    opened,
    own_kind,
    own_name,
    publish,
    remove,
    rename,
    seal,
)
from catalog.stores.rbd.location import RbdLocation
from catalog.stores.rbd.reader import RbdReader
from catalog.stores.rbd.writer import RbdWriter

_KEY_MAX = 60
"""Characters: with what a name of our own adds, RBD's 95."""


class RbdStore(NothingToMake):
    """One pool of a cluster."""

    capabilities = Capability.WRITE | Capability.COPY | Capability.LISTING | Capability.GROWING

    def __init__(self, name: str, settings: RbdStoreSettings) -> None:
        self.name = name
        self._settings = settings
        self._cluster = Cluster(name, settings)

    def check(self) -> None:
        """Raise StoreUnavailable unless the monitors and an OSD of the pool answer."""
        self._cluster.connection().check()

    def open(self, url: str) -> RbdReader:
        """Open an object to read.  Raises NotFound, StoreUnavailable.

        While it is open it can be renamed, but not deleted, by anybody.
        """
        connection, image = self._opened(url)
        return RbdReader(connection, url, image)

    def stat(self, url: str) -> Stat:
        """Size, and an etag of image and snapshot.  Raises NotFound, StoreUnavailable."""
        _, image = self._opened(url, watch=False)
        with ceph_errors(url), closing(image):
            return Stat(int(image.size()), etag_of(image, RbdLocation.parse(url).snapshot))

    def writer(self, key: str, size: int | None = None) -> RbdWriter:
        """Start storing an object.  Raises InvalidName, StoreUnavailable, StoreFull."""
        url, connection = self.url_of(key), self._cluster.connection()
        return RbdWriter(connection, key, url, size, raw_only=self._settings.raw_only)

    def delete(self, url: str) -> None:
        """Remove the object, and what writers of its key that died have left.

        A missing one is no error.  Raises StoreUnavailable; Conflict if it has clones or
        is open, and for half a minute after a writer died.
        """
        connection, location = self._located(url)
        # The object last: an older one that stays must not stand in for it.
        for name in names_of(connection, location.image, Kind.NEW, Kind.OLD):
            remove(connection, name)
        remove(connection, location.image, location.snapshot)

    def copy(self, url: str, key: str) -> str:
        """Duplicate an object within the pool.  librbd does it, passing over what is empty.

        Raises NotFound, StoreFull, StoreUnavailable.
        """
        copied, name = self.url_of(key), own_name(key, Kind.NEW)
        connection, source = self._opened(url)
        try:
            with ceph_errors(url), closing(source):
                source.copy(connection.ioctx, name, rbd().RBD_FEATURE_LAYERING, ORDER)
            seal(connection, name)
            publish(connection, name, key)
        except BaseException:
            with suppress(CatalogError):
                remove(connection, name)
            raise
        return copied

    def usage(self) -> Usage:
        """What the pool takes, replication and quota allowed for."""
        return self._cluster.connection().usage()

    def url_of(self, key: str) -> str:
        """`rbd://FSID/POOL/KEY/snap`.  Raises InvalidName, StoreUnavailable."""
        connection = self._cluster.connection()
        location = RbdLocation(_checked(key), SNAPSHOT, connection.pool, connection.fsid)
        return str(location)

    def keys(self) -> Iterator[str]:
        """The names of all images but our unfinished ones; a Glance's are among them."""
        connection = self._cluster.connection()
        names = all_names(connection)
        yield from (name for name in names if own_kind(name) is None)
        hidden = {own[0] for own in map(own_kind, names) if own and own[1] is not Kind.QUARANTINED}
        for key in hidden.difference(names):
            # Its writer or replacer died just as it was about to get its name.
            if self._is_there(key):
                yield key

    def staging_folder(self) -> Path | None:
        """None: there is no local folder."""
        return None

    def quarantine(self, key: str) -> str:
        """Rename an image of ours out of the way; return its new url.

        Raises NotFound, StoreUnavailable; NotSupported for an image that something else
        has stored in this pool.
        """
        connection, location = self._located(self.url_of(key))
        with opened(connection, key, watch=False) as image:
            if MARK not in dict(image.metadata_list()):
                raise NotSupported(key, "was not stored by imagefs, which leaves it alone")
        name = own_name(key, Kind.QUARANTINED)
        rename(connection, key, name)
        return str(RbdLocation(name, location.snapshot, location.pool, location.fsid))

    def leftovers(self, older_than: float) -> Iterator[str]:
        """Images that writers have left which died `older_than` seconds ago or earlier."""
        connection = self._cluster.connection()
        for name in all_names(connection):
            own = own_kind(name)
            if own is None or own[1] is Kind.QUARANTINED:
                continue
            try:
                if self._is_abandoned(connection, name, own[0], older_than):
                    yield name
            except NotFound:
                continue

    def drop_leftover(self, name: str) -> None:
        """Remove an image of `leftovers`.  Raises Conflict if it is in use after all."""
        if own_kind(name) is None:
            raise InvalidName(name, "is no leftover of a writer")
        remove(self._cluster.connection(), name)

    def close(self) -> None:
        """End the connection, as soon as no reader or writer needs it any more."""
        self._cluster.close()

    def _located(self, url: str) -> tuple[Connection, RbdLocation]:
        """Where a url leads.

        Any other than of this pool is StoreRefused, not NotFound: most likely the
        settings were changed, and nobody may conclude that the data is lost.
        """
        try:
            location = RbdLocation.parse(url)
        except InvalidValue as error:
            raise StoreRefused(self.name, str(error)) from error
        connection = self._cluster.connection()
        here = (connection.fsid, connection.pool)
        if (location.fsid or here[0], location.pool or here[1]) != here:
            reason = f"{url} is not in the pool {connection.pool} of {connection.fsid}"
            raise StoreRefused(self.name, reason)
        return connection, location

    def _opened(self, url: str, *, watch: bool = True) -> tuple[Connection, Any]:
        """An open image.  Raises NotFound, StoreUnavailable."""
        connection, location = self._located(url)
        for name in _names(connection, location):
            with suppress(NotFound):
                return connection, open_image(connection, name, location.snapshot, watch=watch)
        raise NotFound(url)

    def _is_there(self, key: str) -> bool:
        try:
            self.stat(self.url_of(key))
        except NotFound:
            return False
        return True

    def _is_abandoned(self, connection: Connection, name: str, key: str, older_than: float) -> bool:
        """Whether an image of our own is no object, old enough, and open nowhere."""
        with opened(connection, name, watch=False) as image:
            made = image.create_timestamp().replace(tzinfo=UTC).timestamp()
            image_id, watchers = image.id(), list(image.watchers_list())
        if watchers or time.time() - made < older_than:
            return False
        try:
            # Killed in the middle of renaming, one image has two names.
            same = self.stat(self.url_of(key)).etag.partition("@")[0] == image_id
        except NotFound:
            return True
        return not same


def _names(connection: Connection, location: RbdLocation) -> Iterator[str]:
    """Where to look for an object, in this order.

    While it is replaced there is a moment, or more if the replacer dies, at which it has
    only the name it was moved away to.
    """
    yield location.image
    if location.snapshot == SNAPSHOT:
        yield from names_of(connection, location.image, Kind.OLD)
        yield location.image


def _checked(key: str) -> str:
    """The key, if it is a name an image can have.  Raises InvalidName."""
    if not key or len(key) > _KEY_MAX or not key.isascii() or not key.isprintable():
        raise InvalidName(key, "is not a key of an image")
    if "/" in key or "@" in key or key.startswith("imagefs."):
        raise InvalidName(key, "is not a key of an image")
    return key
