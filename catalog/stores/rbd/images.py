"""The images of a pool: names, opening, removal, and putting one into another's place.

Safe from several threads.

    KEY                             an object, with the protected snapshot `snap`
    imagefs.KEY.new.TOKEN           one being written
    imagefs.KEY.old.TOKEN           one that was replaced, and is still read
    imagefs.KEY.quarantined.TOKEN   one that fsck moved away

An image is opened with a watch, which Ceph keeps while its client lives: it cannot be
removed then.  Without it, a reader would see zeros where data was removed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from secrets import token_hex
from typing import Any

from catalog.errors import CatalogError, Conflict, NotFound, StoreRefused, StoreUnavailable
from catalog.stores.rbd.bindings import ceph_errors, rbd
from catalog.stores.rbd.connection import Connection

SNAPSHOT = "snap"
"""What Glance, Nova and Cinder call it."""

ORDER = 23
OBJECT_SIZE = 1 << ORDER
"""Bytes of each RADOS object; Glance's `rbd_store_chunk_size` of 8 MiB."""

MARK = "imagefs.store"
"""The key of the image's metadata that tells whose it is."""

_OWN = re.compile(r"imagefs\.(?P<key>.+)\.(?P<kind>new|old|quarantined)\.[0-9a-f]{16}")


class Kind(StrEnum):
    """What an image under a name of our own is."""

    NEW = "new"
    OLD = "old"
    QUARANTINED = "quarantined"


def own_name(key: str, kind: Kind) -> str:
    """A name never used before."""
    return f"imagefs.{key}.{kind}.{token_hex(8)}"


def own_kind(name: str) -> tuple[str, Kind] | None:
    """The key and the kind of a name of our own; None of any other."""
    found = _OWN.fullmatch(name)
    return None if found is None else (found["key"], Kind(found["kind"]))


def all_names(connection: Connection) -> list[str]:
    """The names of all images of the pool.  Raises StoreUnavailable."""
    with ceph_errors(connection.name):
        return [str(name) for name in rbd().RBD().list(connection.ioctx)]


def names_of(connection: Connection, key: str, *kinds: Kind) -> list[str]:
    """The names of our own that belong to a key.  Raises StoreUnavailable."""
    wanted = {(key, kind) for kind in kinds}
    return [name for name in all_names(connection) if own_kind(name) in wanted]


def create(connection: Connection, name: str, size: int) -> None:
    """Make an image as Glance does.  Raises StoreFull, StoreUnavailable."""
    with ceph_errors(connection.name):
        rbd().RBD().create(
            connection.ioctx,
            name,
            size,
            ORDER,
            old_format=False,
            features=rbd().RBD_FEATURE_LAYERING,
        )


def open_image(
    connection: Connection, name: str, snapshot: str | None = None, *, watch: bool = True
) -> Any:
    """Open an image; with `watch` it cannot be removed until it is closed.

    Raises NotFound if there is no such image, or not that snapshot of it;
    StoreUnavailable.
    """
    try:
        with ceph_errors(name, missing=NotFound):
            return rbd().Image(connection.ioctx, name, snapshot=snapshot, read_only=not watch)
    except StoreUnavailable:
        connection.suspect = True
        raise


@contextmanager
def opened(
    connection: Connection, name: str, snapshot: str | None = None, *, watch: bool = True
) -> Iterator[Any]:
    """An image, open inside the block.  Raises as `open_image`, also for what is done there."""
    image = open_image(connection, name, snapshot, watch=watch)
    try:
        with ceph_errors(name):
            yield image
    finally:
        with ceph_errors(name):
            image.close()


def etag_of(image: Any, snapshot: str | None) -> str:
    """What tells an image and its state: no two images have the same id, nor two snapshots."""
    return f"{image.id()}@{image.snap_get_id(snapshot)}" if snapshot else str(image.id())


def seal(connection: Connection, name: str) -> None:
    """Make what was written a state that can be cloned, and never changes."""
    with opened(connection, name) as image:
        image.metadata_set(MARK, connection.name)
        image.create_snap(SNAPSHOT)
        image.protect_snap(SNAPSHOT)


def publish(connection: Connection, name: str, key: str) -> None:
    """Give a sealed image its key, in the place of the one that has it.

    RBD renames no image onto another: the older one steps aside first.  Raises StoreUnavailable.
    """
    with connection.renaming:
        aside = None
        while not _rename(connection, name, key):
            aside = own_name(key, Kind.OLD)
            with suppress(NotFound):
                rename(connection, key, aside)
    if aside is not None:
        for old in names_of(connection, key, Kind.OLD):
            # Somebody reads it yet: the next `delete`, or fsck, removes it.
            with suppress(CatalogError):
                remove(connection, old)


def rename(connection: Connection, name: str, new: str) -> None:
    """Rename an image.  Raises NotFound, StoreUnavailable; Conflict if the name is taken."""
    with ceph_errors(name, missing=NotFound):
        rbd().RBD().rename(connection.ioctx, name, new)


def _rename(connection: Connection, name: str, new: str) -> bool:
    """Rename an image unless the name is taken; tells whether it did."""
    with ceph_errors(name):
        try:
            rbd().RBD().rename(connection.ioctx, name, new)
        except rbd().ImageExists:
            return False
    return True


def remove(connection: Connection, name: str, snapshot: str | None = None) -> None:
    """Remove an image with its snapshot `snapshot` and `snap`.  A missing one is no error.

    Raises Conflict, and leaves it whole, if it has clones or other snapshots or is open; and
    so StoreRefused.
    """
    ours, taken = {SNAPSHOT, snapshot}, []
    try:
        # Not found: all the same something of it may be left, which RBD's own removal finds.
        with suppress(NotFound), opened(connection, name) as image:
            snapshots = list(image.list_snaps())
            _refuse_if_used(name, image, snapshots, ours)
            for each in snapshots:
                _remove_snapshot(name, image, each)
                taken += [] if _is_trash(each) else [str(each["name"])]
        _remove(connection, name)
    except (Conflict, StoreRefused):
        # Ceph has not begun with the data, which can only be read by its snapshot.
        with suppress(CatalogError):
            _put_back(connection, name, taken)
        raise


def _put_back(connection: Connection, name: str, snapshots: list[str]) -> None:
    with opened(connection, name) as image:
        for snapshot in snapshots:
            image.create_snap(snapshot)
            image.protect_snap(snapshot)


def _remove(connection: Connection, name: str) -> None:
    """Remove an image without snapshots.  Raises Conflict, StoreUnavailable."""
    with ceph_errors(name):
        try:
            rbd().RBD().remove(connection.ioctx, name)
        except rbd().ImageNotFound:
            # Said also of one that is there, as a new pool that is full cannot note what it
            # removes; and of one with two names, killed in the middle of renaming.
            with suppress(NotFound), opened(connection, name, watch=False):
                raise StoreUnavailable(
                    name, "Ceph could not remove it: is the pool full?"
                ) from None
        except rbd().ImageBusy as error:
            raise Conflict(name, "in use: it was opened a moment ago") from error
        except rbd().ImageHasSnapshots as error:
            raise Conflict(name, "in use: a clone of it is in the trash") from error


def _refuse_if_used(
    name: str, image: Any, snapshots: list[dict[str, Any]], ours: set[str | None]
) -> None:
    if others := [each for each in snapshots if each["name"] not in ours and not _is_trash(each)]:
        names = ", ".join(str(each["name"]) for each in others)
        raise Conflict(name, f"in use: has the snapshots {names}")
    for each in snapshots:
        if clones := _clones(image, each["id"]):
            raise Conflict(name, _counted(clones))
    refuse_if_open(name, image)


def refuse_if_open(name: str, image: Any) -> None:
    """Raise Conflict if somebody but us has `image` open, which must be so with a watch."""
    # The one too many is our own.
    watchers = list(image.watchers_list())
    if len(watchers) > 1:
        where = sorted({str(watcher["addr"]).partition(":")[0] for watcher in watchers})
        raise Conflict(name, f"in use: {len(watchers) - 1} have it open, on {', '.join(where)}")


def _is_trash(snapshot: dict[str, Any]) -> bool:
    """Whether it is one whose removal was begun: RBD gives it another name first."""
    return bool(snapshot["namespace"] == rbd().RBD_SNAP_NAMESPACE_TYPE_TRASH)


def _clones(image: Any, snapshot: int) -> list[str]:
    image.set_snap_by_id(snapshot)
    try:
        return [f"{clone['pool']}/{clone['image']}" for clone in image.list_children2()]
    except rbd().PermissionError:
        return []  # They lie in pools that are not ours to see: unprotecting will tell.
    finally:
        image.set_snap(None)


def _counted(clones: list[str]) -> str:
    some = ", ".join(sorted(clones)[:3]) + (", …" if len(clones) > 3 else "")
    return f"in use: has {len(clones)} clone{'s' if len(clones) > 1 else ''}: {some}"


def _remove_snapshot(name: str, image: Any, snapshot: dict[str, Any]) -> None:
    try:
        if _is_trash(snapshot):
            image.remove_snap_by_id(snapshot["id"])
            return
        if image.is_protected_snap(snapshot["name"]):
            image.unprotect_snap(snapshot["name"])
        image.remove_snap(snapshot["name"])
    except rbd().ImageBusy as error:
        raise Conflict(name, "in use: has clones") from error
