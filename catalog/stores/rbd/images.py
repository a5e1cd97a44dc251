"""The images of a pool: names, opening, removal, and replacing one by another.

Safe from several threads.

    KEY                             an object, with the protected snapshot `snap`
    imagefs.KEY.new.TOKEN           an image that is being written
    imagefs.KEY.old.TOKEN           an image that was replaced and is still being read
    imagefs.KEY.quarantined.TOKEN   an image that fsck has moved away

An image is opened with a watch, which Ceph keeps while the client lives.  An image with a watch
cannot be removed.  Without it a reader would get zeros where data was removed.
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
"""The snapshot's name in Glance, Nova and Cinder."""

ORDER = 23
OBJECT_SIZE = 1 << ORDER
"""Bytes of each RADOS object; Glance's `rbd_store_chunk_size` of 8 MiB."""

MARK = "imagefs.store"
"""The key of the image's metadata under which our store's name is kept."""

_OWN = re.compile(r"imagefs\.(?P<key>.+)\.(?P<kind>new|old|quarantined)\.[0-9a-f]{16}")


class RbdKind(StrEnum):
    """The kinds of images that have a name of our own."""

    NEW = "new"
    OLD = "old"
    QUARANTINED = "quarantined"


def own_name(key: str, kind: RbdKind) -> str:
    """A name that was never used before."""
    return f"imagefs.{key}.{kind}.{token_hex(8)}"


def own_kind(name: str) -> tuple[str, RbdKind] | None:
    """The key and the kind in a name of our own; None for any other name."""
    found = _OWN.fullmatch(name)
    return None if found is None else (found["key"], RbdKind(found["kind"]))


def all_names(connection: Connection) -> list[str]:
    """The names of all images of the pool.  Raises StoreUnavailable."""
    with ceph_errors(connection.name):
        return [str(name) for name in rbd().RBD().list(connection.ioctx)]


def names_of(connection: Connection, key: str, *kinds: RbdKind) -> list[str]:
    """All names of our own that belong to a key.  Raises StoreUnavailable."""
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

    Raises NotFound if there is no such image or snapshot; StoreUnavailable.
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
    """An image that is open inside the block.

    Raises as `open_image`, also for errors of Ceph inside the block.
    """
    image = open_image(connection, name, snapshot, watch=watch)
    try:
        with ceph_errors(name):
            yield image
    finally:
        with ceph_errors(name):
            image.close()


def etag_of(image: Any, snapshot: str | None) -> str:
    """The ids of an image and its snapshot: no other image or snapshot has the same."""
    return f"{image.id()}@{image.snap_get_id(snapshot)}" if snapshot else str(image.id())


def seal(connection: Connection, name: str) -> None:
    """Mark a written image as ours and make its protected snapshot.

    The snapshot never changes, and can be cloned.
    """
    with opened(connection, name) as image:
        image.metadata_set(MARK, connection.name)
        image.create_snap(SNAPSHOT)
        image.protect_snap(SNAPSHOT)


def publish(connection: Connection, name: str, key: str) -> None:
    """Give a sealed image its key; an older image of that key is replaced.

    RBD cannot rename an image onto another one, so the older one is renamed first.  In between,
    no image has the key as its name: readers then look for the older one under `Kind.OLD`
    (`store._names`).  Raises StoreUnavailable.
    """
    with connection.renaming:
        aside = None
        while not _rename(connection, name, key):
            aside = own_name(key, RbdKind.OLD)
            with suppress(NotFound):
                rename(connection, key, aside)
    if aside is not None:
        for old in names_of(connection, key, RbdKind.OLD):
            # It may still be read.  Then the next `delete` of the key, or fsck, removes it.
            with suppress(CatalogError):
                remove(connection, old)


def rename(connection: Connection, name: str, new: str) -> None:
    """Rename an image.  Raises NotFound, StoreUnavailable; Conflict if the name is taken."""
    with ceph_errors(name, missing=NotFound):
        rbd().RBD().rename(connection.ioctx, name, new)


def _rename(connection: Connection, name: str, new: str) -> bool:
    """Rename an image unless the name is taken; return whether it was renamed."""
    with ceph_errors(name):
        try:
            rbd().RBD().rename(connection.ioctx, name, new)
        except rbd().ImageExists:
            return False
    return True


def remove(connection: Connection, name: str, snapshot: str | None = None) -> None:
    """Remove an image with its snapshots `snapshot` and `snap`.  A missing image is no error.

    Raises Conflict if it has clones or other snapshots or is open, and StoreRefused.  In both
    cases the image is still whole.
    """
    ours, taken = {SNAPSHOT, snapshot}, []
    try:
        # After NotFound some parts of the image may still be there; RBD's own removal finds them.
        with suppress(NotFound), opened(connection, name) as image:
            snapshots = list(image.list_snaps())
            _refuse_if_used(name, image, snapshots, ours)
            for each in snapshots:
                _remove_snapshot(name, image, each)
                taken += [] if _is_trash(each) else [str(each["name"])]
        _remove(connection, name)
    except (Conflict, StoreRefused):
        # Ceph has not begun to remove the data.  But objects are read by their snapshot, so the
        # snapshots that are gone by now are made again.
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
            # RBD reports this also for images that exist: in a full new pool, where it cannot note
            # what it removes, and for an image with two names, whose renaming was killed.
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
    """Raise Conflict if anybody but us has `image` open.  Ours must be open with a watch."""
    watchers = list(image.watchers_list())
    # One watcher is our own.
    if len(watchers) > 1:
        where = sorted({str(watcher["addr"]).partition(":")[0] for watcher in watchers})
        raise Conflict(name, f"in use: {len(watchers) - 1} have it open, on {', '.join(where)}")


def _is_trash(snapshot: dict[str, Any]) -> bool:
    """Whether the removal of a snapshot was begun: RBD first moves it to the trash."""
    return bool(snapshot["namespace"] == rbd().RBD_SNAP_NAMESPACE_TYPE_TRASH)


def _clones(image: Any, snapshot: int) -> list[str]:
    image.set_snap_by_id(snapshot)
    try:
        return [f"{clone['pool']}/{clone['image']}" for clone in image.list_children2()]
    except rbd().PermissionError:
        return []  # The clones are in pools that we may not see; `unprotect_snap` will fail then.
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
