"""A store in Ceph: block devices of RBD, with the layout of Glance's own rbd driver.

Safe from several threads and processes; each process makes its own connection when it first needs
one.  Nova and Cinder can clone these images at once: the name of each is its id, it has objects
of 8 MiB and the layering feature, and a protected snapshot `snap`.  The module `images` has the
names.

To replace an object takes several requests to Ceph.  Meanwhile the object can always be found,
under one of two names; see `images.publish`.
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
from catalog.stores.base import Capability, NothingToMake, Stat, Usage, WithoutPolicy
from catalog.stores.rbd.bindings import ceph_errors, rbd
from catalog.stores.rbd.connection import Cluster, Connection, RbdStoreSettings
from catalog.stores.rbd.images import (
    MARK,
    ORDER,
    SNAPSHOT,
    RbdKind,
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
"""Characters.  With the parts that a name of our own adds, RBD's limit of 95."""


class RbdStore(WithoutPolicy, NothingToMake):
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

        While it is open anybody may rename it, but nobody can delete it.
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
        """Remove the object and unfinished uploads of its key.

        A missing object is no error.  Raises StoreUnavailable; Conflict if it has clones or
        is open, and for half a minute after a writer's process died: its watch lasts so long.
        """
        connection, location = self._located(url)
        # The object comes last.  If an older image stayed behind, `_names` would find that instead.
        for name in names_of(connection, location.image, RbdKind.NEW, RbdKind.OLD):
            remove(connection, name)
        remove(connection, location.image, location.snapshot)

    def copy(self, url: str, key: str) -> str:
        """Let librbd duplicate an object within the pool; it does not copy empty parts.

        Raises NotFound, StoreFull, StoreUnavailable.
        """
        copied, name = self.url_of(key), own_name(key, RbdKind.NEW)
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
        """The room of the pool; copies of Ceph and its quota are deducted."""
        return self._cluster.connection().usage()

    def url_of(self, key: str) -> str:
        """`rbd://FSID/POOL/KEY/snap`.  Raises InvalidName, StoreUnavailable."""
        connection = self._cluster.connection()
        location = RbdLocation(_checked(key), SNAPSHOT, connection.pool, connection.fsid)
        return str(location)

    def keys(self) -> Iterator[str]:
        """The names of all images, those of Glance included, except our unfinished ones."""
        connection = self._cluster.connection()
        names = all_names(connection)
        yield from (name for name in names if own_kind(name) is None)
        hidden = {
            own[0] for own in map(own_kind, names) if own and own[1] is not RbdKind.QUARANTINED
        }
        for key in hidden.difference(names):
            # A process died while it gave an image this name: it still has the name of our own.
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
        name = own_name(key, RbdKind.QUARANTINED)
        rename(connection, key, name)
        return str(RbdLocation(name, location.snapshot, location.pool, location.fsid))

    def leftovers(self, older_than: float) -> Iterator[str]:
        """Images of unfinished uploads that are at least `older_than` seconds old."""
        connection = self._cluster.connection()
        for name in all_names(connection):
            own = own_kind(name)
            if own is None or own[1] is RbdKind.QUARANTINED:
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
        """End the connection as soon as no reader or writer needs it any more."""
        self._cluster.close()

    def _located(self, url: str) -> tuple[Connection, RbdLocation]:
        """The connection and the location of a url.

        A url of another pool is StoreRefused, not NotFound: most likely the settings were
        changed, and the data must not be taken for lost.
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
        """Whether an image with a name of our own is old enough, is no object and is not open."""
        with opened(connection, name, watch=False) as image:
            made = image.create_timestamp().replace(tzinfo=UTC).timestamp()
            image_id, watchers = image.id(), list(image.watchers_list())
        if watchers or time.time() - made < older_than:
            return False
        try:
            # If a renaming was killed, one image has two names: then this one is the object.
            same = self.stat(self.url_of(key)).etag.partition("@")[0] == image_id
        except NotFound:
            return True
        return not same


def _names(connection: Connection, location: RbdLocation) -> Iterator[str]:
    """The names under which to look for an object, in this order.

    While it is being replaced there is a moment at which it has only its name of `Kind.OLD`.
    If the process dies just then, that state lasts.  The key itself comes a second time, as the
    replacement may have been finished between the first two looks.
    """
    yield location.image
    if location.snapshot == SNAPSHOT:
        yield from names_of(connection, location.image, RbdKind.OLD)
        yield location.image


def _checked(key: str) -> str:
    """The key, if it is a name an image can have.  Raises InvalidName."""
    if not key or len(key) > _KEY_MAX or not key.isascii() or not key.isprintable():
        raise InvalidName(key, "is not a key of an image")
    if "/" in key or "@" in key or key.startswith("imagefs."):
        raise InvalidName(key, "is not a key of an image")
    return key
